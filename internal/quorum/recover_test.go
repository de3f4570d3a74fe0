package quorum

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"barnabas/internal/commitlog"
	"barnabas/internal/metadata"
)

// write puts entries that change the members at the end of the log of a node that is down.
func (v *voter) write(changes ...*pb.ConfChangeV2) {
	v.w.t.Helper()
	ctx := v.w.t.Context()
	dir, err := commitlog.OpenDir(ctx, commitlog.DirOptions{FS: v.disk, Path: "/meta", NodeID: v.id, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		v.w.fatalf("%v", err)
	}
	o := Options{FS: v.disk, Dir: dir, Log: commitlog.DefaultConfig(), NodeID: v.id, Now: time.Now}
	o.Log.Delete = false
	st, _, err := openStorage(&o, Member{v.id, dir.ID()}.raftID())
	if err != nil {
		v.w.fatalf("%v", err)
	}
	last, _ := st.LastIndex()
	term, err := st.Term(last)
	for _, change := range changes {
		data, encodeErr := proto.Marshal(change)
		last++
		err = errors.Join(err, encodeErr, st.save(ctx, []*pb.Entry{
			{Index: new(last), Term: new(term), Type: pb.EntryConfChangeV2.Enum(), Data: data},
		}, nil, time.Now().UnixMilli()))
	}
	if err = errors.Join(err, dir.Close()); err != nil {
		v.w.fatalf("write: %v", err)
	}
}

// TestRecoveryKnowsTheVotersOfTheLog: who voted last is told by the log where its newest snapshot does not know it yet.
func TestRecoveryKnowsTheVotersOfTheLog(t *testing.T) {
	said := func(c membersChange) []byte {
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for seed := range uint64(3) {
		inWorld(t, seed, 3, func(w *world) {
			w.startAll()
			w.mustPropose(5)
			w.settle()
			survivor := w.nodes[w.ids[seed]]
			for _, id := range w.ids {
				w.nodes[id].kill()
			}
			want := survivor.recover(false).Members
			check := func(what string) {
				w.t.Helper()
				slices.SortFunc(want, compareMembers)
				if got := survivor.recover(false).Members; fmt.Sprint(got) != fmt.Sprint(want) {
					w.fatalf("%s: the voters are %v, want %v", what, got, want)
				}
			}
			fourth := Member{4, metadata.UUID{4, 4}}
			survivor.write(&pb.ConfChangeV2{
				Changes: []*pb.ConfChangeSingle{change(pb.ConfChangeAddNode, fourth.raftID())}, Context: said(membersChange{Members: []Member{fourth}}),
			})
			want = append(want, fourth)
			check("one more")
			wiped := want[slices.IndexFunc(want, func(m Member) bool { return m.NodeID != survivor.id })]
			again := Member{wiped.NodeID, metadata.UUID{5, 5}}
			survivor.write(&pb.ConfChangeV2{
				Changes: []*pb.ConfChangeSingle{change(pb.ConfChangeAddNode, again.raftID()), change(pb.ConfChangeRemoveNode, wiped.raftID())},
				Context: said(membersChange{Members: []Member{again}}),
			})
			want = append(want, again)
			check("another disk")
			survivor.write(&pb.ConfChangeV2{})
			want = slices.DeleteFunc(want, func(m Member) bool { return m == wiped })
			check("it has taken the place of the one before")
			if done := survivor.recover(true); len(done.Members) != 4 {
				w.fatalf("given up: %v", done.Members)
			}
		})
	}
}
