package quorum

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"barnabas/internal/metadata"
	"barnabas/internal/peer"
)

// What voters say to each other.
const (
	kindRaft     peer.Kind = 1 // one way: a message of raft's (protobuf)
	kindDescribe peer.Kind = 2 // what do you hold, and whom do you expect? (formation.go)
	kindFound    peer.Kind = 3 // be one of these founders (formation.go)
	kindJoin     peer.Kind = 4 // take me in (changes.go)
	kindSnapshot peer.Kind = 5 // a piece of a snapshot (transfer.go)
	kindStatus   peer.Kind = 6 // the quorum as you see it (status.go)
	kindFetch    peer.Kind = 7 // what is committed after this entry (observers.go)
	kindPiece    peer.Kind = 8 // a piece of your snapshot (observers.go)
	kindChange   peer.Kind = 9 // change the voters (reconfigure.go)
)

// Transport carries messages between the nodes of the quorum; *peer.Peers is one.
type Transport interface {
	Post(to int32, kind peer.Kind, body []byte) bool
	Call(ctx context.Context, to int32, kind peer.Kind, body []byte) ([]byte, error)
	Handle(kind peer.Kind, h peer.Handler)
	HandleEarly(kind peer.Kind, h peer.Handler)
	Observe(f func(node int32, up bool)) (cancel func())
	Trouble(node int32) error
	SetAddress(node int32, addr string)
}

// listen takes messages from the other nodes from now on.
func (q *Quorum) listen() {
	if q.o.Transport == nil {
		return
	}
	t := q.o.Transport
	t.Handle(kindRaft, peer.Receive(q.receive))
	t.HandleEarly(kindDescribe, peer.Answer(q.answerDescribe))
	t.HandleEarly(kindJoin, peer.Answer(q.answerJoin))
	t.Handle(kindSnapshot, q.receiveSnapshot)
	t.Handle(kindFetch, peer.Answer(q.answerFetch))
	t.Handle(kindPiece, peer.Answer(q.answerPiece))
	t.Handle(kindChange, peer.Answer(q.answerChange))
	t.Handle(kindStatus, peer.Answer(func(ctx context.Context, _ peer.Node, _ []byte) ([]byte, error) {
		return json.Marshal(q.status(ctx))
	}))
	q.unobserve = t.Observe(func(node int32, up bool) { q.do(func() { q.connected(node, up) }) })
}

// deafen ends that.
func (q *Quorum) deafen() {
	if q.o.Transport == nil {
		return
	}
	for _, kind := range []peer.Kind{kindRaft, kindDescribe, kindJoin, kindSnapshot, kindStatus, kindFetch, kindPiece, kindChange} {
		q.o.Transport.Handle(kind, nil)
	}
	q.unobserve()
}

// receive takes a message of raft's from another node.
func (q *Quorum) receive(from peer.Node, body []byte) error {
	m := &pb.Message{}
	if err := proto.Unmarshal(body, m); err != nil {
		return fmt.Errorf("message from node %d: %w", from.ID, err)
	}
	member := Member{from.ID, metadata.UUID(from.Directory)}
	if m.GetTo() != q.self || m.GetFrom() != member.raftID() || m.GetType() == pb.MsgSnap {
		// It is meant for what stood here before this disk was wiped, or speaks for somebody else.
		return nil
	}
	q.do(func() {
		q.routes[m.GetFrom()] = from.ID
		q.heard(m)
		q.spokenTo(m)
		_ = q.raft.Step(m) // raft drops what is out of date, and says so
	})
	return nil
}

// transmit sends a message of raft's to another node. Owner only.
func (q *Quorum) transmit(m *pb.Message) {
	to, known := q.routes[m.GetTo()]
	if !known || q.o.Transport == nil {
		return
	}
	if m.GetType() == pb.MsgSnap {
		q.sendSnapshot(to, m)
		return
	}
	if q.following && m.GetType() == pb.MsgAppResp { // nobody waits for it: the leader has not sent the entries
		if m.GetReject() {
			q.fed = nil
		}
		return
	}
	body, err := proto.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("BUG: encode a message of raft's: %v", err))
	}
	if !q.o.Transport.Post(to, kindRaft, body) && m.GetType() == pb.MsgApp {
		q.raft.ReportUnreachable(m.GetTo())
	}
}

// deliver hands over messages that had to wait for the disk. Owner only.
func (q *Quorum) deliver(messages []*pb.Message) {
	for _, m := range messages {
		if m.GetTo() == q.self {
			_ = q.raft.Step(m) // raft drops what is out of date, and says so
		} else {
			q.transmit(m)
		}
	}
}

// standFor bounds the pause, drawn at random, between the end of the connection to the leader and
// standing for election: followers that lose it at one moment must not all stand at once. In ticks.
//
// Where two stood at once all the same each has its own vote and nobody a majority. Each then stands again after standAgain ticks
// and such a pause, sooner than by raft's own timeout, but not before an election on slow disks would be over; at
// most standTimes in all, so that the timeout decides where nobody can win.
const (
	standFor   = 3
	standAgain = 4
	standTimes = 3
)

// connected is told when the connection to another node is made or has ended. A leader whose
// connection breaks is not waited for: this node forgets it, so that it grants others its vote, and
// stands itself. Those whose connection holds refuse, so a hiccup of one line changes nothing.
func (q *Quorum) connected(node int32, up bool) {
	if up {
		delete(q.down, node)
		return
	}
	q.down[node] = true
	for id, at := range q.routes {
		if at != node {
			continue
		}
		q.raft.ReportUnreachable(id)
		if s := q.raft.BasicStatus(); s.Lead != id || s.RaftState != raft.StateFollower {
			continue
		}
		if err := q.raft.ForgetLeader(); err != nil {
			continue
		}
		term := q.raft.BasicStatus().GetTerm()
		q.stand(0, standTimes, func(s raft.BasicStatus) bool { return s.GetTerm() == term })
	}
}

// stand has this node stand for election after some ticks and a pause, if nobody leads by then and it is still meant to; and
// once more if that comes to nothing. Owner only.
func (q *Quorum) stand(ticks, times int, meant func(raft.BasicStatus) bool) {
	pause := time.Duration(ticks)*q.o.Tick + time.Duration(q.random.Int64N(int64(standFor*q.o.Tick)))
	q.standing.Stop()
	q.standing = time.AfterFunc(pause, func() {
		q.do(func() {
			if s := q.raft.BasicStatus(); s.Lead != raft.None || !meant(s) {
				return
			}
			_ = q.raft.Campaign() // refused where this node has no vote
			if times > 1 {
				q.stand(standAgain, times-1, isCandidate)
			}
		})
	})
}

// isCandidate: it has not been elected, nor voted for another.
func isCandidate(s raft.BasicStatus) bool {
	return s.RaftState == raft.StateCandidate || s.RaftState == raft.StatePreCandidate
}
