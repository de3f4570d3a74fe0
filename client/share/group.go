package share

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
	"barnabas/client/internal/cluster"
	"barnabas/client/internal/sharemember"
	"barnabas/client/internal/sharesession"
)

// event lets the membership's machine take something in, and starts what it wants done.
func (k *Consumer) event(tell func(m *sharemember.Member, now time.Time)) {
	k.mu.Lock()
	if k.mu.ended {
		k.mu.Unlock()
		return
	}
	m := k.mu.machine
	tell(m, time.Now())
	reassigned := false
	for _, a := range m.Actions() {
		reassigned = k.performLocked(a) || reassigned
	}
	k.armLocked(m.Deadline())
	k.mu.Unlock()
	if reassigned {
		k.learn()
	}
}

// armLocked lets the time tick when the machine wants it.
func (k *Consumer) armLocked(at time.Time, wanted bool) {
	if !wanted {
		if k.mu.timer != nil {
			k.mu.timer.Stop()
		}
		return
	}
	wait := max(time.Until(at), 0)
	if k.mu.timer == nil {
		k.mu.timer = time.AfterFunc(wait, func() {
			k.event(func(m *sharemember.Member, now time.Time) { m.Tick(now) })
		})
		return
	}
	k.mu.timer.Reset(wait)
}

// performLocked starts what the machine wants done; true where the assignment is another.
func (k *Consumer) performLocked(a sharemember.Action) (reassigned bool) {
	switch a := a.(type) {
	case sharemember.FindCoordinator:
		k.wg.Go(func() {
			node, err := k.in.FindCoordinator(k.ctx, cluster.GroupCoordinator, k.group)
			k.event(func(m *sharemember.Member, now time.Time) { m.Found(now, a.Flight, node, unsupported(err)) })
		})
	case sharemember.Heartbeat:
		k.wg.Go(func() { k.heartbeat(a) })
	case sharemember.Fail:
		k.mu.failed = a.Err
		k.tell()
	case sharemember.Gone:
		close(k.gone)
	case sharemember.Reassigned:
		return true
	}
	return false
}

func (k *Consumer) heartbeat(a sharemember.Heartbeat) {
	resp, err := k.beat(a)
	if a.Leaves {
		if err != nil {
			k.set.Logger.Info("share group could not be told that a member leaves", "group", k.group, "error", err)
		}
		k.event(func(m *sharemember.Member, _ time.Time) { m.Left(a.Flight) })
		return
	}
	k.event(func(m *sharemember.Member, now time.Time) { m.Answered(now, a.Flight, resp, err) })
}

// The versions of the requests before these were for tries of the protocol, and meant something else.
const firstShareVersion = 1

func (k *Consumer) beat(a sharemember.Heartbeat) (*kmsg.ShareGroupHeartbeatResponse, error) {
	ctx, cancel := context.WithTimeout(k.ctx, k.set.RequestTimeout)
	defer cancel()
	l, err := k.beats.Node(a.To)
	if err != nil {
		k.in.Metadata.Update()
		return nil, err
	}
	conn, err := l.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := speaks(conn, a.Request); err != nil {
		return nil, err
	}
	resp, err := conn.Ask(ctx, a.Request, -1)
	if err != nil {
		return nil, err
	}
	return resp.(*kmsg.ShareGroupHeartbeatResponse), nil
}

// speaks tells whether a broker has a request as share groups need it.
func speaks(conn *cluster.Connection, req kmsg.Request) error {
	version, err := conn.Version(req, -1)
	if err == nil && version < firstShareVersion {
		err = fmt.Errorf("%w: %s at version %d", client.ErrUnsupported, kmsg.NameForKey(req.Key()), firstShareVersion)
	}
	return unsupported(err)
}

// unsupported gives a broker that has no share groups the code that one answers which has them switched off.
func unsupported(err error) error {
	if errors.Is(err, client.ErrUnsupported) {
		return fmt.Errorf("%w: %w", client.ErrUnsupportedVersion, err)
	}
	return err
}

// wanted keeps in the metadata what the member subscribes to, and what it was assigned under a name
// that is not known.
func (k *Consumer) wanted(time.Time) cluster.Wanted {
	names := k.Subscription()
	known := namesOf(k.in.Metadata.Snapshot())
	w := cluster.Wanted{Names: names}
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.mu.machine.Assignment() {
		if name := known[id]; name == "" {
			w.IDs = append(w.IDs, id)
		} else {
			w.Names = append(w.Names, name)
		}
	}
	return w
}

func namesOf(s *cluster.Snapshot) map[[16]byte]string {
	names := make(map[[16]byte]string, len(s.Topics))
	for name, t := range s.Topics {
		names[t.ID] = name
	}
	return names
}

// learn brings together what was assigned and what the metadata knows of it.
func (k *Consumer) learn() {
	now := k.in.Metadata.Snapshot()
	names := namesOf(now)
	unknown := false
	k.change(func(s *sharesession.Store[Record], at time.Time) {
		partitions := map[sharesession.Partition]string{}
		for id, numbers := range k.mu.machine.Assignment() {
			name := names[id]
			if name == "" {
				for p, known := range s.Partitions() { // metadata may be without it for a while
					if p.TopicID == id {
						name = known
					}
				}
			}
			unknown = unknown || name == ""
			for _, n := range numbers {
				if name != "" {
					partitions[sharesession.Partition{TopicID: id, Number: n}] = name
				}
			}
		}
		s.Assign(at, partitions)
		s.Route(func(topic string, p sharesession.Partition) (int32, bool) {
			t, part := now.Partition(topic, p.Number)
			if part == nil || part.Leader < 0 || t.ID != p.TopicID {
				return -1, false
			}
			_, reachable := now.Brokers[part.Leader]
			return part.Leader, reachable
		})
	})
	if unknown {
		k.in.Metadata.Update()
	}
}

func compareTP(a, b client.TopicPartition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}
