package coordinator

import "testing"

// TestPartitionForIsKafkas: the figures are those of Apache Kafka 4.3.1's own classes.
func TestPartitionForIsKafkas(t *testing.T) {
	for group, want := range map[string]int32{
		"": 0, "a": 47, "group": 47, "payments": 13, "polygenelubricants": 0, "žluťoučký": 5, "😀-grp": 27,
		"consumer-group-42": 17, "zzzzzzzzzzzz": 42,
	} {
		if got := PartitionFor(group, 50); got != want {
			t.Errorf("%q: %d, want %d", group, got, want)
		}
	}
}
