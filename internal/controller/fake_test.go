package controller

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/config"
	"barnabas/internal/metadata"
	"barnabas/internal/quorum"
)

// fakeLog stands for the quorum: what is proposed waits until the test commits it or takes the
// leadership away. With auto set it commits at once, on a goroutine of its own as the quorum does.
type fakeLog struct {
	machine *Controller
	mu      struct {
		sync.Mutex
		epoch   int32 // 0: this node does not lead
		offset  int64
		next    uint64
		pending []metadata.Committed
		entries []metadata.Committed // committed
		refusal error
		auto    bool
		stall   time.Duration // what the next proposal takes
	}
	commits chan struct{} // serialises calls of the machine, as the quorum's one goroutine does
}

func newFakeLog() *fakeLog {
	l := &fakeLog{commits: make(chan struct{}, 1)}
	l.mu.offset = -1
	return l
}

func (l *fakeLog) Propose(epoch int32, records []metadata.Record) (uint64, error) {
	l.mu.Lock()
	stall := l.mu.stall
	l.mu.stall = 0
	l.mu.Unlock()
	if stall > 0 {
		<-time.After(stall) // in a bubble: fake time
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.mu.epoch != epoch:
		return 0, quorum.ErrNotLeader
	case l.mu.refusal != nil:
		return 0, l.mu.refusal
	}
	encoded, err := metadata.Encode(records)
	if err != nil {
		return 0, err
	}
	if records, err = metadata.Decode(encoded); err != nil {
		return 0, err
	}
	l.mu.next++
	l.mu.pending = append(l.mu.pending, metadata.Committed{Epoch: epoch, Proposal: l.mu.next, Records: records})
	if l.mu.auto {
		go l.commit(1)
	}
	return l.mu.next, nil
}

func (l *fakeLog) Confirm(_ context.Context, epoch int32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.epoch != epoch {
		return quorum.ErrNotLeader
	}
	return nil
}

// commit lets the first n waiting entries pass.
func (l *fakeLog) commit(n int) {
	l.commits <- struct{}{}
	defer func() { <-l.commits }()
	for range n {
		l.mu.Lock()
		if len(l.mu.pending) == 0 {
			l.mu.Unlock()
			return
		}
		entry := l.mu.pending[0]
		l.mu.pending = l.mu.pending[1:]
		l.mu.offset++
		entry.Offset = l.mu.offset
		l.mu.entries = append(l.mu.entries, entry)
		l.mu.Unlock()
		if err := l.machine.Apply(entry); err != nil {
			panic(err)
		}
	}
}

// lead makes this node the leader of a new epoch; what waited is lost but for the first kept.
func (l *fakeLog) lead(kept int) {
	l.lose(kept)
	l.mu.Lock()
	l.mu.epoch = l.lastEpoch() + 1
	leadership := metadata.Leadership{Epoch: l.mu.epoch, Leader: 1, Mine: true}
	l.mu.Unlock()
	l.machine.Leadership(leadership)
}

func (l *fakeLog) lastEpoch() int32 {
	last := l.mu.epoch
	for _, e := range l.mu.entries {
		last = max(last, e.Epoch)
	}
	return last
}

// lose takes the leadership away; of what waited the first kept entries are committed later by the
// new leader.
func (l *fakeLog) lose(kept int) {
	l.mu.Lock()
	epoch := l.lastEpoch() + 1
	l.mu.epoch = 0
	l.mu.pending = l.mu.pending[:min(kept, len(l.mu.pending))]
	n := len(l.mu.pending)
	l.mu.Unlock()
	l.machine.Leadership(metadata.Leadership{Epoch: epoch, Leader: 2})
	l.commit(n)
	l.commits <- struct{}{}
	l.mu.Lock()
	l.mu.offset++
	entry := metadata.Committed{Offset: l.mu.offset, Epoch: epoch} // the new leader's own first entry
	l.mu.entries = append(l.mu.entries, entry)
	l.mu.Unlock()
	if err := l.machine.Apply(entry); err != nil {
		panic(err)
	}
	<-l.commits
}

func (l *fakeLog) refuse(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.refusal = err
}

func (l *fakeLog) pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.mu.pending)
}

func (l *fakeLog) committedEntries() []metadata.Committed {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.mu.entries)
}

// seeded is a source of bytes that a seed repeats.
func seeded(seed uint64) io.Reader {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	return rand.NewChaCha8(key)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func loadConfig(t testing.TB, lines ...string) *config.Set {
	t.Helper()
	lines = append([]string{"node.id=1"}, lines...)
	set, _, err := config.Load(config.Sources{File: strings.Join(lines, "\n"), FileName: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// testOptions are those of node 1 of a cluster called "c".
func testOptions(t testing.TB, seed uint64, lines ...string) Options {
	return Options{
		NodeID: 1, ClusterID: "c", Config: loadConfig(t, lines...), Logger: quiet(), Rand: seeded(seed),
		reanchored: func(speculative, committed *metadata.Image) {
			if d := metadata.Diff(speculative, committed); !d.Empty() {
				t.Errorf("seed %d: speculative and committed image differ: %+v", seed, d)
			}
		},
	}
}

// start runs a controller on a fake log. It leads and has no cluster yet.
func start(t testing.TB, o Options) (*Controller, *fakeLog) {
	t.Helper()
	l := newFakeLog()
	c := New(context.Background(), o)
	l.machine = c
	c.Start(l)
	t.Cleanup(c.Close)
	l.lead(0)
	return c, l
}

func (l *fakeLog) setAuto() {
	l.mu.Lock()
	l.mu.auto = true
	l.mu.Unlock()
	l.commit(1000)
}

var testDirectories = []metadata.UUID{{15: 101}, {15: 102}}

func registration(id int32) Registration {
	r := Registration{
		ID: id, Incarnation: metadata.UUID{0: byte(id), 15: 1},
		Listeners: []metadata.Listener{{Name: "PLAINTEXT", Host: "localhost", Port: 9092}},
		Features:  SupportedRanges(),
	}
	for _, d := range testDirectories {
		d[0] = byte(id)
		r.Directories = append(r.Directories, d)
	}
	return r
}

// ownBroker answers the golden scripts.
type ownBroker struct {
	t testing.TB
	c *Controller
}

func newOwnBroker(t testing.TB, lines ...string) *ownBroker {
	// Kafka's default, and not ours, so that the scripts agree.
	c, l := start(t, testOptions(t, 1, lines...))
	l.setAuto()
	if _, err := c.RegisterBroker(context.Background(), registration(1)); err != nil {
		t.Fatal(err)
	}
	return &ownBroker{t, c}
}

func (b *ownBroker) ask(req kmsg.Request) (kmsg.Response, error) {
	ctx := context.Background()
	switch r := req.(type) {
	case *kmsg.CreateTopicsRequest:
		return b.c.CreateTopics(ctx, r)
	case *kmsg.DeleteTopicsRequest:
		resolveIDs(r, func(name string) [16]byte {
			topic, ok := b.c.Image().Topic(name)
			if !ok {
				return metadata.UUID{0: 99, 15: 99} // deleted meanwhile
			}
			return topic.ID
		})
		resp, err := b.c.DeleteTopics(ctx, r)
		if err == nil && r.Version < firstVersionWithIDs {
			for i := range resp.Topics {
				resp.Topics[i].TopicID = [16]byte{} // older versions have no room for it
			}
		}
		return resp, err
	case *kmsg.CreatePartitionsRequest:
		return b.c.CreatePartitions(ctx, r)
	case *kmsg.IncrementalAlterConfigsRequest:
		return b.c.IncrementalAlterConfigs(ctx, r)
	case *kmsg.AlterConfigsRequest:
		return b.c.AlterConfigs(ctx, r)
	case *kmsg.UpdateFeaturesRequest:
		return b.c.UpdateFeatures(ctx, r)
	}
	return nil, fmt.Errorf("no such request: %T", req)
}

func (b *ownBroker) state() (lines []string, _ error) {
	image := b.c.Image()
	render := func(configs map[string]string, scope config.Scope) (s string) {
		keys := make([]string, 0, len(configs))
		for k := range configs {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			if _, known := config.Lookup(scope, k); known {
				s += " " + k + "=" + configs[k]
			} else {
				s += " " + k + "=null" // Kafka shows no value of a key that it does not know
			}
		}
		return s
	}
	for t := range image.Topics() {
		lines = append(lines, fmt.Sprintf("topic %s p=%d r=%d%s", t.Name, len(t.Partitions), t.ReplicationFactor(), render(image.Config(metadata.TopicResource, t.Name), config.Topics)))
	}
	for _, name := range []string{"", "1"} {
		if configs := image.Config(metadata.BrokerResource, name); configs != nil {
			lines = append(lines, fmt.Sprintf("broker %q%s", name, render(configs, config.Broker)))
		}
	}
	return lines, nil
}
