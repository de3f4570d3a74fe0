package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// wire is a connection that asks one thing at a time: a thousand clients of this kind fit beside the brokers that are
// measured, which a thousand whole clients do not.
type wire struct {
	conn   net.Conn
	in     *bufio.Reader
	format *kmsg.RequestFormatter
	last   int32 // correlation id
	out    []byte
	reply  []byte
}

func dialWire(ctx context.Context, addr string) (*wire, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &wire{conn: conn, in: bufio.NewReader(conn), format: kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench"))}, nil
}

func (w *wire) close() { _ = w.conn.Close() }

// ask sends a request whose version is set and reads its answer.
func ask[R kmsg.Response](ctx context.Context, w *wire, req kmsg.Request) (R, error) {
	var none R
	w.out = w.format.AppendRequest(w.out[:0], req, 0)
	if err := w.exchange(ctx, w.out); err != nil {
		return none, err
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	body := w.reply
	if resp.IsFlexible() {
		body = body[1:] // the header's tags: none
	}
	if err := resp.ReadFrom(body); err != nil {
		return none, fmt.Errorf("%s: %w", kmsg.NameForKey(req.Key()), err)
	}
	return resp.(R), nil
}

// exchange numbers a request's frame, sends it, and reads the answer into reply, without its correlation id.
func (w *wire) exchange(ctx context.Context, frame []byte) error {
	stop := context.AfterFunc(ctx, w.close)
	defer stop()
	w.last++
	binary.BigEndian.PutUint32(frame[8:], uint32(w.last))
	if _, err := w.conn.Write(frame); err != nil {
		return err
	}
	var head [8]byte
	if _, err := io.ReadFull(w.in, head[:]); err != nil {
		return err
	}
	if id := int32(binary.BigEndian.Uint32(head[4:])); id != w.last {
		return fmt.Errorf("answer %d to request %d", id, w.last)
	}
	n := int(binary.BigEndian.Uint32(head[:4])) - 4
	if cap(w.reply) < n {
		w.reply = make([]byte, n)
	}
	w.reply = w.reply[:n]
	_, err := io.ReadFull(w.in, w.reply)
	return err
}

// member is one of many in a group, as a client's consumer is: it joins, takes what the leader gives it, and learns from
// heartbeats that it has to join again.
type member struct {
	*wire
	group, topic string
	partitions   int32
	id           string
	generation   int32
}

// round joins and syncs once, and says how many partitions this member owns now. again: somebody else came meanwhile.
func (m *member) round(ctx context.Context) (owned int, again bool, err error) {
	join := kmsg.NewPtrJoinGroupRequest()
	join.Version, join.Group, join.MemberID, join.ProtocolType = 7, m.group, m.id, "consumer"
	join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = 45_000, 300_000
	metadata := kmsg.NewConsumerMemberMetadata()
	metadata.Topics = []string{m.topic}
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name, protocol.Metadata = "range", metadata.AppendTo(nil)
	join.Protocols = append(join.Protocols, protocol)
	joined, err := ask[*kmsg.JoinGroupResponse](ctx, m.wire, join)
	if err != nil {
		return 0, false, err
	}
	switch e := kerr.ErrorForCode(joined.ErrorCode); e {
	case nil:
	case kerr.MemberIDRequired:
		m.id = joined.MemberID
		return 0, true, nil
	case kerr.RebalanceInProgress, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator:
		return 0, true, nil
	default:
		return 0, false, fmt.Errorf("join: %w", e)
	}
	m.id, m.generation = joined.MemberID, joined.Generation
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Version, sync.Group, sync.MemberID, sync.Generation = 5, m.group, m.id, m.generation
	sync.ProtocolType, sync.Protocol = joined.ProtocolType, joined.Protocol
	if joined.LeaderID == m.id {
		sync.GroupAssignment = m.share(joined.Members)
	}
	synced, err := ask[*kmsg.SyncGroupResponse](ctx, m.wire, sync)
	if err != nil {
		return 0, false, err
	}
	switch e := kerr.ErrorForCode(synced.ErrorCode); e {
	case nil:
	case kerr.RebalanceInProgress:
		return 0, true, nil
	default:
		return 0, false, fmt.Errorf("sync: %w", e)
	}
	var assignment kmsg.ConsumerMemberAssignment
	if err := assignment.ReadFrom(synced.MemberAssignment); err != nil {
		return 0, false, fmt.Errorf("assignment: %w", err)
	}
	for _, t := range assignment.Topics {
		owned += len(t.Partitions)
	}
	return owned, false, nil
}

// share gives every member as many partitions as the next.
func (m *member) share(members []kmsg.JoinGroupResponseMember) (all []kmsg.SyncGroupRequestGroupAssignment) {
	for i, other := range members {
		topic := kmsg.NewConsumerMemberAssignmentTopic()
		topic.Topic = m.topic
		for p := int32(i); p < m.partitions; p += int32(len(members)) {
			topic.Partitions = append(topic.Partitions, p)
		}
		assignment := kmsg.NewConsumerMemberAssignment()
		assignment.Topics = append(assignment.Topics, topic)
		one := kmsg.NewSyncGroupRequestGroupAssignment()
		one.MemberID, one.MemberAssignment = other.MemberID, assignment.AppendTo(nil)
		all = append(all, one)
	}
	return all
}

// heartbeat says whether the member has to join again.
func (m *member) heartbeat(ctx context.Context) (again bool, err error) {
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Version, beat.Group, beat.MemberID, beat.Generation = 4, m.group, m.id, m.generation
	answer, err := ask[*kmsg.HeartbeatResponse](ctx, m.wire, beat)
	if err != nil {
		return false, err
	}
	switch e := kerr.ErrorForCode(answer.ErrorCode); e {
	case nil:
		return false, nil
	case kerr.RebalanceInProgress:
		return true, nil
	default:
		return false, fmt.Errorf("heartbeat: %w", e)
	}
}
