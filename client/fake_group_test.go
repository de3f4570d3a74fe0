package client

import (
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/coordinator/group"
)

// fakeGroups is the group coordinator of a fakeCluster: the broker's own state machine, on one node
// at a time, without a log.
type fakeGroups struct {
	f       *fakeCluster
	node    int32 // guarded by f.mu, as all below
	shard   *group.Shard
	waiting map[group.Token]chan kmsg.Response
	next    group.Token
	timer   *time.Timer
}

// groups gives the cluster a coordinator on its first node.
func (f *fakeCluster) groups(c group.Config) *fakeGroups {
	g := &fakeGroups{f: f, node: 1, waiting: map[group.Token]chan kmsg.Response{}}
	g.shard = group.New(c, rand.NewPCG(1, 2))
	g.shard.Loaded(time.Now())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.groups = g
	for key, most := range map[int16]int16{8: 10, 9: 10, 10: 6, 11: 9, 12: 4, 13: 5, 14: 5} {
		f.mu.maxVersion[key] = most
	}
	return g
}

// quickGroups do not wait for members that may yet come.
func quickGroups() group.Config {
	c := group.Defaults()
	c.GroupInitialRebalanceDelay = 0
	return c
}

// Topic and Name make the cluster's topics known to the coordinator.
func (g *fakeGroups) Topic(name string) (id [16]byte, partitions int32, ok bool) {
	t := g.f.mu.topics[name]
	if t == nil {
		return id, 0, false
	}
	return t.id, int32(len(t.partitions)), true
}

func (g *fakeGroups) Name(id [16]byte) (string, bool) {
	t := g.f.find("", id)
	if t == nil || id == [16]byte{} {
		return "", false
	}
	return t.name, true
}

// move makes another node the coordinator; who waits is told.
func (g *fakeGroups) move(node int32) {
	g.f.mu.Lock()
	defer g.f.mu.Unlock()
	g.node = node
	for token, answer := range g.waiting {
		g.shard.Forget(time.Now(), token)
		close(answer)
		delete(g.waiting, token)
	}
}

// handle answers a request; nil where the cluster ends first.
func (g *fakeGroups) handle(node int32, req kmsg.Request, i interference) kmsg.Response {
	g.f.mu.Lock()
	if r, ok := req.(*kmsg.FindCoordinatorRequest); ok {
		defer g.f.mu.Unlock()
		return g.findLocked(r, i)
	}
	code := i.code
	if node != g.node && code == 0 {
		code = int16(ErrNotCoordinator)
	}
	if code != 0 {
		g.f.mu.Unlock()
		return refusal(req, code)
	}
	g.next++
	token, answer := g.next, make(chan kmsg.Response, 1)
	g.waiting[token] = answer
	now := time.Now()
	g.takeLocked(now, g.shard.Handle(now, token, group.Client{ID: "test", Host: "/127.0.0.1"}, g, req))
	g.f.mu.Unlock()
	select {
	case resp, ok := <-answer:
		if !ok {
			return refusal(req, int16(ErrNotCoordinator))
		}
		return resp
	case <-g.f.ctx.Done():
		return nil
	}
}

func (g *fakeGroups) findLocked(r *kmsg.FindCoordinatorRequest, i interference) kmsg.Response {
	resp := kmsg.NewPtrFindCoordinatorResponse()
	for _, key := range r.CoordinatorKeys {
		c := kmsg.NewFindCoordinatorResponseCoordinator()
		c.Key, c.NodeID, c.Port, c.ErrorCode = key, g.node, 9092, i.code
		c.Host = "n" + string('0'+g.node)
		resp.Coordinators = append(resp.Coordinators, c)
	}
	return resp
}

// takeLocked does what the coordinator's runtime does.
func (g *fakeGroups) takeLocked(now time.Time, e group.Effects) {
	for _, r := range e.Records {
		if err := g.shard.Replay(r, now); err != nil {
			g.f.t.Errorf("replay: %v", err)
		}
	}
	g.shard.Appended()
	for _, r := range e.Replies {
		if answer := g.waiting[r.Token]; answer != nil {
			answer <- r.Response
			delete(g.waiting, r.Token)
		}
	}
	if at, ok := g.shard.Deadline(); ok {
		if g.timer != nil {
			g.timer.Stop()
		}
		g.timer = time.AfterFunc(max(time.Until(at), 0), func() {
			g.f.mu.Lock()
			defer g.f.mu.Unlock()
			if g.f.ctx.Err() == nil {
				now := time.Now()
				g.takeLocked(now, g.shard.Tick(now, g))
			}
		})
	}
}

// refusal is the answer that carries a code wherever the request's answer has one.
func refusal(req kmsg.Request, code int16) kmsg.Response {
	resp := req.ResponseKind()
	switch r := req.(type) {
	case *kmsg.OffsetCommitRequest:
		out := resp.(*kmsg.OffsetCommitResponse)
		for _, t := range r.Topics {
			to := kmsg.OffsetCommitResponseTopic{Topic: t.Topic, TopicID: t.TopicID}
			for _, p := range t.Partitions {
				to.Partitions = append(to.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: code})
			}
			out.Topics = append(out.Topics, to)
		}
	case *kmsg.OffsetFetchRequest:
		out := resp.(*kmsg.OffsetFetchResponse)
		out.ErrorCode = code
		for _, one := range r.Groups {
			out.Groups = append(out.Groups, kmsg.OffsetFetchResponseGroup{Group: one.Group, ErrorCode: code})
		}
	default:
		reflect.ValueOf(resp).Elem().FieldByName("ErrorCode").SetInt(int64(code))
	}
	return resp
}
