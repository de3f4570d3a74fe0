package quorum

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
	"barnabas/internal/peer"
)

// silent is a Transport on which nobody answers; the test speaks for the others through its handlers.
type silent struct{ handlers map[peer.Kind]peer.Handler }

func (s *silent) Post(int32, peer.Kind, []byte) bool { return true }
func (s *silent) Call(ctx context.Context, _ int32, _ peer.Kind, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}
func (s *silent) Handle(kind peer.Kind, h peer.Handler)      { s.handlers[kind] = h }
func (s *silent) HandleEarly(kind peer.Kind, h peer.Handler) { s.handlers[kind] = h }
func (s *silent) Observe(func(int32, bool)) func()           { return func() {} }
func (s *silent) Trouble(int32) error                        { return nil }
func (s *silent) SetAddress(int32, string)                   {}

// blank is a node with an empty disk that takes a cluster over, whose leader is the test.
type blank struct {
	t       *testing.T
	net     *silent
	dir     *commitlog.Dir
	q       *Quorum
	machine *recorder
	fatal   chan error
}

func startBlank(t *testing.T) *blank {
	t.Helper()
	b := &blank{t: t, net: &silent{map[peer.Kind]peer.Handler{}}, machine: newRecorder(), fatal: make(chan error, 1)}
	logger := slog.New(slog.DiscardHandler)
	var err error
	mem := disk.NewMem()
	b.dir, err = commitlog.OpenDir(t.Context(), commitlog.DirOptions{FS: mem, Path: "/meta", NodeID: 1, ClusterID: "c", Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		FS: mem, Dir: b.dir, Log: commitlog.DefaultConfig(), NodeID: 1, Machine: b.machine, Now: time.Now, Seed: 1, Logger: logger,
		Transport: b.net, ClusterID: "c", Expected: []int32{1, 2, 3}, Blank: true, Fatal: func(err error) { b.fatal <- err },
	}
	o.Log.Delete = false
	if b.q, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *blank) close() {
	if err := errors.Join(b.q.Close(), b.dir.Close()); err != nil {
		b.t.Error(err)
	}
}

// busy keeps raft's owner from everything else until the returned function is called.
func (b *blank) busy() (release func()) {
	hold, holds := make(chan struct{}), make(chan struct{})
	b.q.do(func() { close(holds); <-hold })
	<-holds
	return func() { close(hold) }
}

// say hands a message of raft's to the node.
func (b *blank) say(from Member, m *pb.Message) {
	b.t.Helper()
	m.From, m.To = new(from.raftID()), new(b.q.self)
	body, err := proto.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, _, err := b.net.handlers[kindRaft](b.t.Context(), peer.Node{ID: from.NodeID, Directory: from.Directory}, body); err != nil {
		b.t.Fatal(err)
	}
}

// sendSnapshot hands it a snapshot without records that ends with the entry of index and term.
func (b *blank) sendSnapshot(from Member, index, term uint64) {
	b.t.Helper()
	self := b.q.me()
	f := &snapshotFile{
		meta: &pb.SnapshotMetadata{
			Index: new(index), Term: new(term), ConfState: &pb.ConfState{Voters: []uint64{from.raftID()}, Learners: []uint64{self.raftID()}},
		},
		members: membership{ClusterID: "c", Members: []Member{from, self}},
	}
	data, err := encodeSnapshot(f, 1)
	if err != nil {
		b.t.Fatal(err)
	}
	last, err := proto.Marshal(&pb.Message{
		Type: pb.MsgSnap.Enum(), From: new(from.raftID()), To: new(b.q.self), Term: new(term), Snapshot: &pb.Snapshot{Metadata: f.meta},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	node := peer.Node{ID: from.NodeID, Directory: from.Directory}
	for _, piece := range [][]byte{encodePiece(f.meta, len(data), 0, data), encodePiece(f.meta, len(data), len(data), last)} {
		if reply, _, err := b.net.handlers[kindSnapshot](b.t.Context(), node, piece); err != nil || reply != nil {
			b.t.Fatalf("a piece was refused: %v", err)
		}
	}
}

func (b *blank) entries(first, term uint64, n int) (all []*pb.Entry) {
	b.t.Helper()
	for i := range n {
		data, err := encodeProposal(1, []metadata.Record{topicRecord(int(first) + i)})
		if err != nil {
			b.t.Fatal(err)
		}
		all = append(all, &pb.Entry{Type: pb.EntryNormal.Enum(), Index: new(first + uint64(i)), Term: new(term), Data: data})
	}
	return all
}

func (b *blank) mustHaveApplied(offset int64) {
	b.t.Helper()
	synctest.Wait()
	select {
	case err := <-b.fatal:
		b.t.Fatalf("the node has stopped: %v", err)
	default:
	}
	if got := b.machine.lastOffset(); got != offset {
		b.t.Fatalf("applied up to offset %d, want %d", got, offset)
	}
	if end := b.q.st.log.Progress().End; end != offset+1 {
		b.t.Fatalf("the log ends at %d, want %d", end, offset+1)
	}
}

// Raft may ask for a snapshot and the entries behind it at once, where it was busy while they came.
func TestEntriesThatComeWithASnapshotAreWritten(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := startBlank(t)
		defer b.close()
		leader := Member{2, directory(2)}
		release := b.busy()
		b.sendSnapshot(leader, 10, 3)
		b.say(leader, &pb.Message{
			Type: pb.MsgApp.Enum(), Term: new(uint64(3)), LogTerm: new(uint64(3)), Index: new(uint64(10)), Commit: new(uint64(12)), Entries: b.entries(11, 3, 2),
		})
		release()
		b.mustHaveApplied(offsetOf(12))
	})
}

// A snapshot of a leader that is none any more, which comes before raft was asked what to do with the
// last one, does not take that one's place.
func TestSnapshotThatIsNoNewsIsDropped(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		b := startBlank(t)
		defer b.close()
		release := b.busy()
		b.sendSnapshot(Member{2, directory(2)}, 10, 3)
		b.sendSnapshot(Member{3, directory(3)}, 5, 2)
		release()
		b.mustHaveApplied(offsetOf(10))
	})
}

// A node that loses power while it takes the metadata over starts again, whenever that was.
func TestTakeoverSurvivesAPowerCutAtAnyMoment(t *testing.T) {
	inWorld(t, 3, 3, func(w *world) {
		w.startAll()
		w.mustPropose(10)
		w.settle()
		v := w.nodes[2]
		for cut := 1; ; cut++ {
			v.wipe()
			var changes atomic.Int64
			lost := make(chan struct{})
			last := int64(cut)
			v.fault = func(op disk.Op) error {
				switch op.Kind {
				case disk.OpSync, disk.OpSyncDir, disk.OpSyncFS, disk.OpRename, disk.OpWrite:
					switch n := changes.Add(1); {
					case n == last:
						close(lost)
						return disk.ErrPowerLost
					case n > last:
						return disk.ErrPowerLost
					}
				}
				return nil
			}
			v.start()
			over := false
			for end := time.Now().Add(5 * time.Second); !over && time.Now().Before(end); time.Sleep(time.Millisecond) {
				select {
				case <-lost:
					over = true
				default:
				}
				over = over || w.whole(2)
			}
			done := w.whole(2)
			v.fault = nil
			v.failed = true // by what the test has done to its disk
			v.crash(uint64(cut))
			v.failed = false
			v.start()
			w.eventually(fmt.Sprintf("node 2 is whole after a power cut at change %d", cut), time.Minute, func() bool { return w.whole(2) })
			if done {
				break
			}
		}
		w.settle()
	})
}
