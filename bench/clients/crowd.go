package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/barnabastest"
)

// This file is the row of a group that many join one after another and then leave one after another. It happens
// in fake time, in one process with a broker in memory of its own: in real time a thousand members, of which each
// waits for the heartbeats of all others, would take hours, and two processors would measure only themselves.
// What counts is what the clients send and how long the group takes, which is what their timers make of it. Neither
// commits by itself: there is nothing to commit, and franz-go holds a lock then while it joins, which a bubble cannot
// wait for.

// The settings of both clients' members, as far as they are not the same by default.
const (
	sessionTimeout   = 45 * time.Second
	heartbeatEvery   = 3 * time.Second
	rebalanceTimeout = time.Minute
	idleFetchWait    = time.Minute // nothing is ever produced; a thousand fetches every half second would hide the rest
)

// crowdWithin bounds each joining and each leaving, in fake time.
const crowdWithin = 10 * time.Minute

const crowdTopic, crowdGroup = "shared", "crowd"

// crowd measures j.Records members of one client. It ends the process: only a test may have fake time.
func crowd(ctx context.Context, j job) (sample, error) {
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "crowd", F: func(t *testing.T) {
		end, err := profiled(j)
		if err != nil {
			t.Fatal(err)
		}
		var s sample
		synctest.Test(t, func(t *testing.T) { s = gather(t, j) })
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if !t.Failed() {
			_ = json.NewEncoder(os.Stdout).Encode(s)
		}
	}}}, nil, nil)
	return nil, nil // not reached
}

// gather lets members join, each once all before it are settled, and then leave in the same way.
func gather(t *testing.T, j job) sample {
	broker := barnabastest.Start(t, barnabastest.Setting("log.segment.bytes", "67108864"))
	broker.CreateTopic(crowdTopic, int32(j.Records))
	sent := tally{dial: broker.Dial}
	shared := &ledger{owners: map[int32]*share{}, changed: make(chan struct{})}
	var members []member
	defer func() {
		for _, m := range members {
			m.close()
		}
	}()
	settle := func(what string, n int) {
		if err := shared.settled(t.Context(), j.Records, n); err != nil {
			t.Fatalf("%s %d: %v", what, n, err)
		}
	}
	began := time.Now()
	for n := range j.Records {
		m, err := newMember(j.Client, broker.Addr(), sent.connect, &share{of: shared})
		if err != nil {
			t.Fatalf("member %d: %v", n, err)
		}
		members = append(members, m)
		settle("joined by", n+1)
	}
	joined, joinTook := sent.all(), time.Since(began)
	began = time.Now()
	for len(members) > 0 {
		members[0].close()
		members = members[1:]
		settle("left to", len(members))
	}
	total := sent.all()
	s := sample{
		"messages": float64(total.group()), "seconds": joinTook.Seconds() + time.Since(began).Seconds(),
		"join-messages": float64(joined.group()), "join-seconds": joinTook.Seconds(),
	}
	for key, n := range total {
		s["sent "+kmsg.NameForKey(key)] = float64(n)
	}
	return s
}

// share is what one member owns.
type share struct {
	of    *ledger
	count int
}

// ledger knows who owns which partition, by what the members' programs were told.
type ledger struct {
	mu      sync.Mutex
	owners  map[int32]*share
	changed chan struct{} // closed and replaced
	twice   int           // partitions that were given to one while another had them
}

func (s *share) gained(partitions []int32) { s.note(partitions, true) }
func (s *share) lost(partitions []int32)   { s.note(partitions, false) }

func (s *share) note(partitions []int32, gained bool) {
	l := s.of
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range partitions {
		switch {
		case gained && l.owners[p] != nil:
			l.twice++
		case gained:
			l.owners[p] = s
			s.count++
		case l.owners[p] == s:
			delete(l.owners, p)
			s.count--
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// settled waits until every partition has an owner, and each of n members as many as any other or one less.
func (l *ledger) settled(ctx context.Context, partitions, n int) error {
	ctx, cancel := context.WithTimeout(ctx, crowdWithin)
	defer cancel()
	for {
		l.mu.Lock()
		owned, twice, changed := len(l.owners), l.twice, l.changed
		most, owning := 0, map[*share]bool{}
		for _, s := range l.owners {
			most = max(most, s.count)
			owning[s] = true
		}
		l.mu.Unlock()
		switch {
		case twice > 0:
			return fmt.Errorf("%d partitions had two owners", twice)
		case n == 0 && owned == 0:
			return nil
		case n > 0 && owned == partitions && len(owning) == n && most <= (partitions+n-1)/n:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d partitions are owned by %d members, at most %d: %w", owned, partitions, len(owning), most, ctx.Err())
		}
	}
}
