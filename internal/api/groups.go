package api

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/coordinator/group"
	"barnabas/internal/wire"
)

// groupAPI is one of the APIs that are about one group: its requests go to the partition of
// __consumer_offsets that the group lives in, in the order in which they came, and are answered when
// the group is ready to. A JoinGroup waits for the other members; it holds no budgeted memory
// meanwhile, and requests behind it on its connection take effect without it.
type groupAPI[T any, Q message[T]] struct {
	// group names the group.
	group func(q Q) string
	// check returns the code that refuses a request by itself, 0 for none. Nil: no check.
	check func(q Q) int16
	// refusal returns what makes the response to q with an error. It keeps of q only what it needs.
	refusal func(q Q) func(code int16) kmsg.Response
}

func (a groupAPI[T, Q]) handle(_ context.Context, c *call) (wire.Reply, bool, error) {
	q, err := owned(c, Q(new(T)))
	if err != nil {
		return nil, false, err
	}
	refuse := a.refusal(q)
	version := q.GetVersion()
	if a.check != nil {
		if code := a.check(q); code != 0 {
			return refused(refuse, version, code), true, nil
		}
	}
	g := groupCall{c.h.submit(c, a.group(q), q), refuse, version}
	c.req.AnnouncesWait = true
	return g.reply, g.asked.Ready(), nil
}

// owned reads the request's body into q, from a copy that nobody else uses: whatever q holds may be
// looked at after phase one, and costs no allocation of its own.
func owned[Q kmsg.Request](c *call, q Q) (Q, error) {
	if err := checkShape(c.req.Key, c.req.Version, c.req.Body); err != nil {
		return q, err
	}
	q.SetVersion(c.req.Version)
	body := bytes.Clone(c.req.Body)
	view := any(q).(kmsg.UnsafeReadFrom) // every request of kmsg's is one
	if err := withoutPanic(func() error { return view.UnsafeReadFrom(body) }); err != nil {
		return q, fmt.Errorf("decode %s version %d: %w", kmsg.NameForKey(c.req.Key), c.req.Version, err)
	}
	return q, nil
}

// asked is a request under way at the coordinator.
type asked interface {
	Ready() bool
	Await(context.Context) (kmsg.Response, error)
}

// submit hands a request about one group to its coordinator.
func (h *Handler) submit(c *call, groupID string, q kmsg.Request) asked {
	return h.o.Coordinator.Submit(groupID, c.client(), q, c.req.Bytes)
}

// groupCall completes a request about one group.
type groupCall struct {
	asked   asked
	refuse  func(code int16) kmsg.Response
	version int16
}

func (g groupCall) reply(ctx context.Context, out *wire.Out) error {
	if !g.asked.Ready() {
		out.Waiting()
	}
	res, err := g.await(ctx)
	if err != nil {
		return err
	}
	out.Append(res.AppendTo)
	return nil
}

// await waits for the answer, which may be an error's. An error means that nobody waits any more.
func (g groupCall) await(ctx context.Context) (kmsg.Response, error) {
	res, err := g.asked.Await(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		res = g.refuse(codeOf(err))
		res.SetVersion(g.version)
	}
	return res, nil
}

// askEach asks about every group by itself, since each has a coordinator of its own: one makes the request about a group,
// refusal the response where there is only an error, and merge one response of all, in the order of the groups.
func (c *call) askEach(version int16, groups []string, one func(i int) kmsg.Request,
	refusal func(groupID string, code int16) kmsg.Response, merge func([]kmsg.Response) kmsg.Response,
) (wire.Reply, bool, error) {
	calls := make([]groupCall, len(groups))
	for i, groupID := range groups {
		q := one(i)
		q.SetVersion(version)
		refuse := func(code int16) kmsg.Response { return refusal(groupID, code) }
		calls[i] = groupCall{c.h.submit(c, groupID, q), refuse, version}
	}
	c.req.AnnouncesWait = true
	return merged(calls, func(responses []kmsg.Response) kmsg.Response {
		res := merge(responses)
		res.SetVersion(version)
		return res
	}), allReady(calls), nil
}

// merged completes a request about several groups, each of which was asked by itself. The responses
// come in the order of the calls.
func merged(calls []groupCall, merge func([]kmsg.Response) kmsg.Response) wire.Reply {
	return func(ctx context.Context, out *wire.Out) error {
		if !allReady(calls) {
			out.Waiting()
		}
		responses := make([]kmsg.Response, len(calls))
		for i, g := range calls {
			var err error
			if responses[i], err = g.await(ctx); err != nil {
				return err
			}
		}
		out.Append(merge(responses).AppendTo)
		return nil
	}
}

func allReady(calls []groupCall) bool {
	return !slices.ContainsFunc(calls, func(g groupCall) bool { return !g.asked.Ready() })
}

// refused is a reply with an error that is known already.
func refused(refuse func(code int16) kmsg.Response, version, code int16) wire.Reply {
	res := refuse(code)
	res.SetVersion(version)
	return replyWith(res)
}

// needsGroup refuses the empty group id, where Kafka does.
func needsGroup(groupID string) int16 {
	if groupID == "" {
		return kerr.InvalidGroupID.Code
	}
	return 0
}

// client is who sent the request, as DescribeGroups shows it.
func (c *call) client() group.Client {
	return group.Client{ID: c.req.ClientID, Host: hostOf(c.peer.Remote)}
}

// hostOf writes an address as Kafka shows members' hosts: Java's form of an address without a name.
func hostOf(a net.Addr) string {
	if a == nil {
		return "/"
	}
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return "/" + a.String()
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return "/" + host
	}
	if ip = ip.Unmap(); ip.Is4() {
		return "/" + ip.String()
	}
	// Java writes all eight groups, without leading zeros.
	groups := strings.Split(ip.WithZone("").StringExpanded(), ":")
	for i, g := range groups {
		if groups[i] = strings.TrimLeft(g, "0"); groups[i] == "" {
			groups[i] = "0"
		}
	}
	text := "/" + strings.Join(groups, ":")
	if zone := ip.Zone(); zone != "" {
		text += "%" + zone
	}
	return text
}
