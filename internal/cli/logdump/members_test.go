package logdump

import (
	"encoding/binary"
	"strings"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"barnabas/internal/batch"
	"barnabas/internal/metadata"
)

// TestSnapshotOfAQuorumOfSeveralIsWhole: one says who its members are, twice: as raft has them, and in Kafka's record.
func TestSnapshotOfAQuorumOfSeveralIsWhole(t *testing.T) {
	var data []byte
	add := func(control bool, key, value []byte) {
		b := batch.NewBuilder(batch.BuilderOptions{Control: control})
		b.Append(0, key, value, nil)
		built, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, built...)
	}
	head, err := proto.Marshal(&pb.SnapshotMetadata{Index: new(uint64(11)), Term: new(uint64(2)), ConfState: &pb.ConfState{Voters: []uint64{7}}})
	if err != nil {
		t.Fatal(err)
	}
	add(false, []byte{keyHeader}, head)
	add(false, []byte{keyMembers}, []byte(`{"clusterId":"c","members":[{"nodeId":41,"directoryId":"AQAAAAAAAAAAAAAAAAAAAA"}]}`))
	add(true, []byte{0, 0, 0, byte(batch.KRaftVersion)}, metadata.AppendKRaftVersion(nil))
	add(true, []byte{0, 0, 0, byte(batch.KRaftVoters)}, metadata.AppendVoters(nil, []metadata.Voter{{NodeID: 42}}, nil))
	add(false, []byte{keyFooter}, binary.BigEndian.AppendUint64(nil, 0))
	damaged, shown := dump(t, "00000000000000000010-0000000002.checkpoint", data, Options{})
	var text strings.Builder
	for _, i := range shown {
		text.WriteString(i.Text() + "\n")
	}
	if damaged != 0 || !strings.Contains(text.String(), "QuorumMembers clusterId=c members=") || !strings.Contains(text.String(), "KRaftVoters voters=[{42 ") {
		t.Fatalf("%d places are damaged:\n%s", damaged, &text)
	}
}
