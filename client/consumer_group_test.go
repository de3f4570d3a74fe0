package client

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
)

// A rebalance of the consumer protocol takes from a member what moves, and nothing else; who leaves
// gives everything up first.
func TestConsumerProtocolMovesWhatMoves(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 4)
		f.consumerGroup()
		a := f.join(t)
		settle(t, a, 4)
		b := f.join(t)
		settle(t, a, 2, b, 2)
		if got := a.happened(); got != "assigned [t-0 t-1 t-2 t-3]; revoked [t-2 t-3]" && got != "assigned [t-0 t-1 t-2 t-3]; revoked [t-1 t-3]" {
			t.Errorf("the first: %s", got)
		}
		b.end()
		settle(t, a, 4)
		a.end()
	})
}

// In a quiet group a heartbeat is a few bytes that say nothing new.
func TestConsumerProtocolHeartbeatsAreShort(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 4)
		f.consumerGroup()
		a := f.join(t)
		settle(t, a, 4)
		time.Sleep(5 * time.Second)
		before := len(f.requests(68))
		time.Sleep(20 * time.Second)
		beats := f.requests(68)[before:]
		for _, s := range beats {
			if r := s.req.(*kmsg.ConsumerGroupHeartbeatRequest); r.Topics != nil || r.SubscribedTopicNames != nil || r.RebalanceTimeoutMillis != -1 {
				t.Errorf("it says %+v", r)
			}
		}
		if len(beats) < 19 || len(beats) > 21 {
			t.Errorf("%d heartbeats in 20 seconds", len(beats))
		}
		a.end()
	})
}

// A commit under an epoch that has passed is made again under the new one (trap 23), as long as the
// partitions stay this member's; under strict fencing, as before KIP-1251, that happens in every
// rebalance.
func TestTrap23CommitsSurviveNewEpochs(t *testing.T) {
	tp := TopicPartition{"t", 0}
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 2)
		g := f.consumerGroup()
		g.strict = true
		f.write(tp, batch.BuilderOptions{}, values(0, 9)...)
		a := f.join(t, NoAutoCommit())
		settle(t, a, 2)
		var moved atomic.Bool
		f.script(func(_ int32, req kmsg.Request) interference {
			if req.Key() != 68 || moved.Load() {
				return interference{}
			}
			// The group's epoch moves, and the answer that tells so is behind the commit's.
			f.mu.Lock()
			g.model.TopicsChanged()
			f.mu.Unlock()
			moved.Store(true)
			return interference{delay: 500 * time.Millisecond}
		})
		for !moved.Load() {
			time.Sleep(10 * time.Millisecond)
		}
		if err := a.g.CommitOffsets(t.Context(), map[TopicPartition]OffsetAndMetadata{tp: {Offset: 5}}); err != nil {
			t.Error(err)
		}
		if len(f.requests(8)) < 2 {
			t.Error("the first commit was not refused: the test shows nothing")
		}
		if got := a.happened(); got != "assigned [t-0 t-1]" {
			t.Error(got)
		}
		a.end()
	})
}

// What is committed of a topic is not committed for another of its name, and nobody waits with giving
// a partition up for a topic that is gone.
func TestTrap26CommitsAreForTheTopicThatWasRead(t *testing.T) {
	tp := TopicPartition{"t", 0}
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		old := f.topic("t", 1).id
		g := f.consumerGroup()
		f.write(tp, batch.BuilderOptions{}, values(0, 9)...)
		a := f.join(t, AutoCommit(time.Hour))
		settle(t, a, 1)
		time.Sleep(time.Second)
		again := f.topic("t", 1).id
		f.write(tp, batch.BuilderOptions{}, values(9, 12)...)
		time.Sleep(10 * time.Second)
		f.mu.Lock()
		if len(g.offsets) > 0 {
			t.Errorf("committed: %v; the topic that was read is %v, the new one %v", g.offsets, old, again)
		}
		f.mu.Unlock()
		if got := a.happened(); got != "assigned [t-0]; revoked [t-0]; assigned [t-0]" {
			t.Error(got)
		}
		a.mu.Lock()
		if read := a.read[tp]; !slices.Equal(read, []int64{0, 1, 2}) {
			t.Errorf("of the new topic %v was read", read)
		}
		a.mu.Unlock()
		a.end()
		if o, ok := g.offsets[groupPartition(again, 0)]; !ok || o.Offset != 3 {
			t.Errorf("in the end %v is committed", g.offsets)
		}
	})
}

// The coordinator matches patterns, and its members learn by id what the topics are called, long
// before they would ask for metadata by themselves.
func TestTrap24PatternsThatTheCoordinatorMatches(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("orders-eu", 1)
		f.topic("other", 1)
		f.consumerGroup()
		a := f.member(t)
		if err := a.g.SubscribeMatching(regexp.MustCompile("orders-.*")); err != nil {
			t.Fatal(err)
		}
		a.start()
		settle(t, a, 1)
		f.topic("orders-us", 2)
		start := time.Now()
		settle(t, a, 3)
		if d := time.Since(start); d > 4*time.Second {
			t.Errorf("it took %v to find a new topic", d)
		}
		for _, s := range f.requests(3) {
			if s.req.(*kmsg.MetadataRequest).Topics == nil {
				t.Error("all topics of the cluster were asked for")
			}
		}
		a.end()
	})
}

// A member that the group has dropped is told so, before it joins again; what it was committing then
// is refused.
func TestConsumerProtocolMemberIsDropped(t *testing.T) {
	tp := TopicPartition{"t", 0}
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 2)
		g := f.consumerGroup()
		a := f.join(t, NoAutoCommit())
		settle(t, a, 2)
		id := a.g.Membership().MemberID
		f.mu.Lock()
		g.model.Remove(id)
		f.mu.Unlock()
		err := a.g.CommitOffsets(t.Context(), map[TopicPartition]OffsetAndMetadata{tp: {Offset: 5}})
		if !errors.Is(err, ErrUnknownMemberID) {
			t.Errorf("commit: %v", err)
		}
		time.Sleep(5 * time.Second)
		if got := a.happened(); got != "assigned [t-0 t-1]; lost [t-0 t-1]; assigned [t-0 t-1]" {
			t.Error(got)
		}
		if m := a.g.Membership(); m.MemberID != id || m.Generation < 1 {
			t.Errorf("it is %+v", m)
		}
		a.end()
	})
}

// What cannot be meant is an error at once, and a coordinator that cannot match patterns is told apart.
func TestConsumerProtocolOptions(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		c := f.client()
		defer c.Close()
		next := GroupProtocol(ConsumerProtocol)
		for _, wrong := range [][]GroupOption{
			{next, SessionTimeout(time.Minute)},
			{HeartbeatInterval(time.Second), next},
			{next, Assignors(RangeAssignor)},
			{RemoteAssignor("uniform")},
			{GroupProtocol("newest")},
		} {
			if _, err := c.NewGroupConsumer("g", wrong...); err == nil {
				t.Errorf("%d wrong options were taken", len(wrong))
			}
		}
		f.consumerGroup()
		f.mu.maxVersion[68] = 0
		m := f.member(t, RemoteAssignor(RangeRemoteAssignor), Rack("r"))
		if err := m.g.SubscribeMatching(regexp.MustCompile("t")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := m.g.Poll(ctx); !errors.Is(err, ErrUnsupportedVersion) {
			t.Errorf("a pattern for a coordinator that knows none: %v", err)
		}
		leave(t, m)
		m = f.join(t, RemoteAssignor(RangeRemoteAssignor), Rack("r"))
		settle(t, m, 1)
		synctest.Wait()
		first := f.requests(68)[0].req.(*kmsg.ConsumerGroupHeartbeatRequest)
		if first.ServerAssignor == nil || *first.ServerAssignor != "range" || first.RackID == nil || *first.RackID != "r" {
			t.Errorf("it joins with %+v", first)
		}
		m.end()
	})
}

// Whatever happens to members, requests and the coordinator, every record is read, and each member
// begins exactly where the group has committed.
func TestConsumerProtocolGroupsGoOnWhereTheyCommitted(t *testing.T) {
	for seed := range uint64(24) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, f *fakeCluster) {
				g := f.consumerGroup()
				g.strict = seed%2 == 0
				goOnWhereCommitted(t, f, seed, g.move)
			})
		})
	}
}
