package quorum

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"barnabas/internal/metadata"
	"barnabas/internal/peer"
)

func directory(b byte) metadata.UUID { return metadata.UUID{1, b} }

func saying(node int32, dir byte, d description) description {
	d.node = peer.Node{ID: node, Directory: directory(dir)}
	if d.Voters == nil {
		d.Voters = []int32{1, 2, 3}
	}
	if d.Leader == 0 {
		d.Leader = -1
	}
	return d
}

// What a node with an empty disk makes of what it hears, case by case.
func TestEmptyNodeDecides(t *testing.T) {
	timeout := errors.New("no answer")
	voters := []Member{{1, directory(1)}, {2, directory(2)}, {3, directory(3)}}
	holds := description{Cluster: "X", Holds: true, Members: voters, Leader: -1}
	led := holds
	led.Leader = 3
	for name, c := range map[string]struct {
		self    Member
		known   string
		answers []description
		silent  map[int32]error
		found   bool
		cluster string // to take over; with admission: asking for it
		ask     bool
		waits   string
		fails   string
	}{
		"all empty, the lowest founds": {self: voters[0], answers: []description{saying(2, 2, description{}), saying(3, 3, description{})}, found: true},
		"all empty, another waits":     {self: voters[1], answers: []description{saying(1, 1, description{}), saying(3, 3, description{})}, waits: "node 1 begins"},
		"one is silent": {
			self: voters[0], answers: []description{saying(2, 2, description{})}, silent: map[int32]error{3: timeout}, waits: "no answer from node 3",
		},
		"another configuration": {
			self: voters[0], answers: []description{saying(2, 2, description{Voters: []int32{1, 2}}), saying(3, 3, description{})}, waits: "node 2 is configured",
		},
		"held, and this is one of its voters": {
			self: voters[0], answers: []description{saying(2, 2, holds)}, silent: map[int32]error{3: timeout}, cluster: "X",
		},
		"held and led, and this disk is new": {
			self: Member{1, directory(9)}, answers: []description{saying(2, 2, led), saying(3, 3, led)}, cluster: "X", ask: true,
		},
		"held by one of two wiped": {
			self: Member{1, directory(9)}, answers: []description{saying(2, 8, description{}), saying(3, 3, holds)},
			waits: "node 2 has another, empty disk",
		},
		"a survivor that is silent beside a wiped one": {
			self: Member{1, directory(9)}, answers: []description{saying(2, 8, description{})}, silent: map[int32]error{3: timeout}, waits: "no answer from node 3",
		},
		"somebody is just taking it over": {
			self: voters[0], answers: []description{saying(2, 2, description{Cluster: "X"}), saying(3, 3, description{})}, waits: "belong to cluster X",
		},
		"its other directories know a cluster": {
			self: voters[0], known: "X", answers: []description{saying(2, 2, description{}), saying(3, 3, description{})}, waits: "belong to cluster X",
		},
		"two clusters": {
			self: voters[0], answers: []description{saying(2, 2, holds), saying(3, 3, description{Cluster: "Y", Holds: true})}, fails: "belongs to cluster Y",
		},
	} {
		answers := map[int32]description{}
		for _, a := range c.answers {
			answers[a.node.ID] = a
		}
		p := decide(c.self, []int32{1, 2, 3}, c.known, answers, c.silent)
		switch {
		case c.fails != "":
			if p.err == nil || !strings.Contains(p.err.Error(), c.fails) {
				t.Errorf("%s: error %v, want %q", name, p.err, c.fails)
			}
		case p.err != nil || p.found != c.found || p.cluster != c.cluster || p.admission != c.ask || !strings.Contains(p.waits, c.waits) || (c.waits == "") != (p.waits == ""):
			t.Errorf("%s: %+v", name, *p)
		case p.found && len(p.members) != 3:
			t.Errorf("%s: founded with %v", name, p.members)
		}
	}
}

func emptyNode() *formation {
	return &formation{
		o: &FormationOptions{NodeID: 2, Voters: []int32{1, 2, 3}}, self: Member{2, directory(2)}, lowest: 1, wake: make(chan struct{}, 1),
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A founder's word counts only under the newest promise: what an earlier life of the founder said may
// have been under way for long, and that life's disk is gone.
func TestOnlyThePromisedWordCounts(t *testing.T) {
	first, wiped := peer.Node{ID: 1, Directory: directory(1)}, peer.Node{ID: 1, Directory: directory(7)}
	word := func(from peer.Node, token uint64, cluster string) []byte {
		return mustJSON(t, foundation{token, cluster, []Member{{1, metadata.UUID(from.Directory)}, {2, directory(2)}, {3, directory(3)}}})
	}
	promise := func(f *formation, from peer.Node, token uint64) {
		if _, err := f.answer(t.Context(), from, mustJSON(t, question{[]int32{1, 2, 3}, token})); err != nil {
			t.Fatal(err)
		}
	}
	f := emptyNode()
	if _, err := f.hear(t.Context(), first, word(first, 0, "X")); err == nil {
		t.Fatal("a word without any promise was taken")
	}
	promise(f, first, 5)
	promise(f, wiped, 6)
	if _, err := f.hear(t.Context(), first, word(first, 5, "X")); err == nil {
		t.Fatal("the word of a founder whose disk was wiped since was taken")
	}
	f = emptyNode()
	promise(f, wiped, 6)
	if _, err := f.hear(t.Context(), wiped, word(wiped, 5, "Y")); err == nil {
		t.Fatal("a word under an older number was taken")
	}
	if _, err := f.hear(t.Context(), wiped, word(wiped, 6, "Y")); err != nil || f.mu.chosen == nil || f.mu.chosen.Cluster != "Y" {
		t.Fatalf("the promised word was refused: %v", err)
	}
	if _, err := f.hear(t.Context(), wiped, word(wiped, 6, "Z")); err == nil {
		t.Fatal("a second cluster was taken")
	}
	promise(f, first, 9) // gives none any more
	if f.mu.token == 9 {
		t.Fatal("a node that belongs to a cluster has promised itself to another founder")
	}
	other := emptyNode()
	promise(other, peer.Node{ID: 3, Directory: directory(3)}, 4)
	if other.mu.promises != 0 {
		t.Fatal("a promise was given to a node that is not the founder")
	}
}

// What was learnt before a promise is forgotten with it.
func TestPromiseTakesBackWhatWasDecidedBefore(t *testing.T) {
	f := emptyNode()
	promises, _ := f.begin()
	if _, err := f.answer(t.Context(), peer.Node{ID: 1}, mustJSON(t, question{[]int32{1, 2, 3}, 3})); err != nil {
		t.Fatal(err)
	}
	p := &plan{cluster: "X"}
	if f.settle(p, promises); p.cluster != "" || f.mu.settled != "" {
		t.Fatalf("took over cluster %q on the word from before the promise", f.mu.settled)
	}
	promises, _ = f.begin()
	p = &plan{cluster: "X"}
	if f.settle(p, promises); p.cluster != "X" || f.mu.settled != "X" {
		t.Fatalf("did not take over: %+v", p)
	}
}

func FuzzDescription(f *testing.F) {
	f.Add([]byte(`{"voters":[1,2],"cluster":"x","holds":true,"members":[{"nodeId":1,"directoryId":"AAAAAAAAAAAAAAAAAAAAAA"}],"leader":1,"directory":"AAAAAAAAAAAAAAAAAAAAAA"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDescription(b)
		if err != nil {
			return
		}
		d.node.ID = 2
		decide(Member{1, directory(1)}, []int32{1, 2}, "", map[int32]description{2: d}, nil)
		_, _ = decodeMembership(b)
		var a arriving
		_, _, _ = a.add(peer.Node{ID: 1}, b)
	})
}

// TestWaitNamesWhoIsMissing: an empty node that finds its cluster without a leader says whom that lacks; nobody, while all elect one.
func TestWaitNamesWhoIsMissing(t *testing.T) {
	voters := []int32{1, 2, 3}
	members := []Member{{1, metadata.UUID{1}}, {2, metadata.UUID{2}}, {3, metadata.UUID{3}}}
	says := func(m Member) description {
		return description{Voters: voters, Cluster: "c", Holds: true, Members: members, Leader: -1, node: peer.Node{ID: m.NodeID, Directory: m.Directory}}
	}
	answers := map[int32]description{1: says(members[0]), 2: says(members[1]), 3: says(members[2])}
	self := Member{4, metadata.UUID{4}}
	const held = "cluster c is held by node 1, node 2"
	if got, want := decide(self, voters, "", answers, nil).waits, held+", node 3, and has no leader yet"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	delete(answers, 3)
	silent := map[int32]error{3: errors.New("gone")}
	want := held + ", and has no leader without a majority of its voters: node 3 does not answer; no answer from node 3"
	if got := decide(self, voters, "", answers, silent).waits; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
