package group

import "testing"

func TestGroupFormsCommitsAndComesBack(t *testing.T) {
	b := newBench(t, nil)
	ids := b.stable("g", 3, "flights")
	if code := b.beat("g", ids[1], 1); code != 0 {
		t.Fatalf("heartbeat: %d", code)
	}
	if code := b.commit("g", ids[2], 1, "flights", 1, 42); code != 0 {
		t.Fatalf("commit: %d", code)
	}
	if got := b.offset("g", "flights", 1); got != 42 {
		t.Fatalf("fetched %d", got)
	}
	b.reload()
	if b.state("g") != Stable {
		t.Fatalf("after the reload the group is %v", b.state("g"))
	}
	if got := b.offset("g", "flights", 1); got != 42 {
		t.Fatalf("fetched %d after the reload", got)
	}
	for _, id := range ids {
		if code := b.beat("g", id, 1); code != 0 {
			t.Fatalf("heartbeat after the reload: %d", code)
		}
	}
}
