package quorum

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
	"barnabas/internal/metadata"
)

// recordedVoters are the voters that Kafka's control records in some bytes name, in their order.
func recordedVoters(t *testing.T, data []byte) (said [][]metadata.Voter) {
	t.Helper()
	c := batch.NewChecker()
	for len(data) > 0 {
		b, rest, err := batch.Next(data)
		if err != nil {
			t.Fatal(err)
		}
		data = rest
		if !b.IsControl() {
			continue
		}
		for r, err := range c.Records(b) {
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(r.Key, controlKey(batch.KRaftVoters)) {
				continue
			}
			voters, _, err := metadata.ParseVoters(r.Value)
			if err != nil {
				t.Fatal(err)
			}
			said = append(said, voters)
		}
	}
	return said
}

// TestWhoVotesStandsInKafkasRecords: every change of the voters, in the log and in the snapshots of every node, says who votes
// from then on, as Kafka's own log does.
func TestWhoVotesStandsInKafkasRecords(t *testing.T) {
	for seed := range uint64(4) {
		inWorld(t, seed, 3, func(w *world) {
			four := w.add(4)
			w.startAll()
			w.mustPropose(3)
			w.mustFollow()
			ask := w.nodes[int32(seed%3)+1]
			w.mustChange(ask, AddVoter, four, four.directory())
			w.mustChange(ask, RemoveVoter, w.nodes[2], w.nodes[2].directory())
			w.mustVote(1, 3, 4)
			w.mustFollow()
			check := func(v *voter, voters []metadata.Voter, ids ...int32) {
				w.t.Helper()
				var got []int32
				for _, one := range voters {
					got = append(got, one.NodeID)
					if one.Directory != w.nodes[one.NodeID].directory() {
						w.fatalf("node %d has %+v", v.id, one)
					}
					if known := len(one.Endpoints) == 1 && one.Endpoints[0].Host == host(one.NodeID); known != (one.NodeID == 4) {
						w.fatalf("node %d has %+v", v.id, one)
					}
				}
				if !slices.Equal(got, ids) {
					w.fatalf("node %d has recorded %v, want %v", v.id, got, ids)
				}
			}
			inLogs := 0
			for _, v := range w.nodes {
				q, _ := v.running.quorum()
				r, err := q.st.log.Read(q.st.log.Progress().Start, 1<<20, q.st.log.Progress().End, true)
				var data []byte
				if err == nil {
					data, err = r.AppendTo(nil)
					err = errors.Join(err, r.Close())
				}
				if err != nil {
					w.fatalf("node %d: %v", v.id, err)
				}
				if said := recordedVoters(w.t, data); len(said) > 0 { // what a snapshot has replaced is gone
					inLogs += len(said)
					check(v, said[len(said)-1], 1, 3, 4)
				}
			}
			if inLogs == 0 {
				w.fatalf("no log has a record of the voters")
			}
			w.mustPropose(100)
			w.mustFollow()
			for _, v := range w.nodes {
				dir := "/meta/" + logName
				newest, err := newestSnapshot(v.disk, dir)
				var data []byte
				if err == nil {
					data, err = disk.ReadFile(v.disk, dir+"/"+newest, maxSnapshotBytes)
				}
				if err != nil {
					w.fatalf("node %d: %v", v.id, err)
				}
				said := recordedVoters(w.t, data)
				if len(said) != 1 {
					w.fatalf("the snapshot %s of node %d has %d records of the voters", newest, v.id, len(said))
				}
				check(v, said[0], 1, 3, 4)
			}
		})
	}
}

// TestUnknownControlRecordsAreDamage: what a later version may mean by one is not known.
func TestUnknownControlRecordsAreDamage(t *testing.T) {
	with := newBuilders()
	voters := []metadata.Voter{{NodeID: 1}}
	for name, c := range map[string]struct {
		kind  batch.ControlType
		value []byte
		want  error
	}{
		"a change":        {batch.KRaftVoters, metadata.AppendVoters(nil, voters, []byte{2, 1, 1}), nil},
		"nothing of ours": {batch.KRaftVoters, metadata.AppendVoters(nil, voters, nil), ErrDamaged},
		"another record":  {batch.KRaftVersion, metadata.AppendKRaftVersion(nil), ErrDamaged},
		"cut short":       {batch.KRaftVoters, metadata.AppendVoters(nil, voters, []byte{2, 1, 1})[:9], ErrDamaged},
	} {
		with.control.Reset()
		with.control.Append(0, controlKey(c.kind), c.value, nil)
		b, err := with.control.Build()
		if err != nil {
			t.Fatal(err)
		}
		b.Assign(7, 3)
		e, err := decodeEntry(batch.NewChecker(), b)
		if !errors.Is(err, c.want) || err == nil && (e.GetType() != pb.EntryConfChangeV2 || !bytes.Equal(e.GetData(), []byte{1, 1})) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}
