package controller

import (
	"slices"
	"testing"

	"barnabas/internal/metadata"
)

// TestUncleanElection: a partition whose directory its only broker has no more waits, unless its topic says
// that losing the records is better; then it begins anew in a directory that takes replicas.
func TestUncleanElection(t *testing.T) {
	directories := registration(1).Directories
	v := testView(t, 1, &metadata.Broker{ID: 1, Directories: directories})
	for _, topic := range []string{"waits", "begins-anew"} {
		v.create(t, createRequest(6, topic))
	}
	set := &metadata.ConfigRecord{Kind: 2, Name: "begins-anew", Key: "unclean.leader.election.enable", Value: new("true")}
	v.replay(t, []metadata.Record{set})

	replaced := registration(1)
	replaced.Incarnation = metadata.UUID{0: 7}
	replaced.Directories = slices.Clone(directories)
	replaced.Directories[len(directories)-1] = metadata.UUID{0: 1, 1: 0xff, 15: 3}
	replaced.Cordoned = replaced.Directories[:1]
	records, answer := registerBroker(v, replaced)
	if answer.err != nil {
		t.Fatal(answer.err)
	}
	v.replay(t, records)
	before := map[string][]*metadata.Partition{}
	for topic := range v.image.Topics() {
		before[topic.Name] = topic.Partitions
	}
	if records, begun, _ := v.leadAnyhow(100); len(records)+len(begun) > 0 {
		t.Fatalf("%v, while a directory may come back", begun)
	}
	v.complete = func(b *metadata.Broker) bool { return b.ID == 1 }
	records, begun, more := v.leadAnyhow(100)
	if len(begun) == 0 || len(begun) == 6 || len(records) != len(begun) || more {
		t.Fatalf("begun anew %v with %d records", begun, len(records))
	}
	if some, _, more := v.leadAnyhow(1); len(some) != 1 || !more {
		t.Fatalf("%d records within a limit of one", len(some))
	}
	v.replay(t, records)
	for topic := range v.image.Topics() {
		for n, p := range topic.Partitions {
			was := before[topic.Name][n]
			lost := !slices.Contains(replaced.Directories, was.Directories[0])
			switch {
			case !lost && (p.PartitionEpoch != was.PartitionEpoch || p.Leader != 1):
				t.Errorf("%s-%d has lost nothing: %+v, before %+v", topic.Name, n, p, was)
			case lost && topic.Name == "waits" && (p.Leader != metadata.NoLeader || p.Directories[0] != was.Directories[0]):
				t.Errorf("%s-%d does not wait: %+v", topic.Name, n, p)
			case lost && topic.Name == "begins-anew" && (p.Leader != 1 || p.LeaderEpoch <= was.LeaderEpoch || !slices.Equal(p.ISR, []int32{1}) ||
				!slices.Contains(replaced.Directories[1:], p.Directories[0])):
				t.Errorf("%s-%d: %+v", topic.Name, n, p)
			}
		}
	}
	if records, again, _ := v.leadAnyhow(100); len(records)+len(again) > 0 {
		t.Errorf("begun anew again: %v", again)
	}
}
