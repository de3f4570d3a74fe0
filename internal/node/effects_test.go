package node_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/clustertest"
	"barnabas/internal/config"
	"barnabas/internal/disk"
)

// An effect is what somebody sees of a setting on a whole node: for each value what see returns, and
// with the wanted "*" merely something else than for every other value.
type effect struct {
	see   func(p *probe) string
	cases []string // value, wanted, value, wanted ...
	// running says that the value is set by AlterConfigs while the node runs too.
	running bool
}

// probe is one node with one setting. In values u stands for one minute, or one hour where the key
// counts hours.
type probe struct {
	*clustertest.World
	scope      config.Scope
	key, value string
	dynamic    bool // set while the node runs
	unit       time.Duration
	n          *clustertest.Node
	nodes      []*clustertest.Node // of a cluster
	c          *clustertest.Client
}

// start starts the node, with the setting if it is a broker's.
func (p *probe) start(settings ...string) {
	p.T.Helper()
	// Effects that take an hour are looked at over one connection.
	p.n = p.Node("broker", append([]string{"connections.max.idle.ms=0"}, settings...)...)
	if p.scope == config.Broker && p.key != "" && !p.dynamic {
		p.n.Set(p.key + "=" + p.value)
	}
	p.n.MustStart()
	p.c = p.MustDial("client", p.n)
	if p.scope == config.Broker && p.dynamic {
		if err := p.c.Alter(p.Context(), kmsg.ConfigResourceTypeBroker, "1", p.key, &p.value); err != nil {
			p.Fatalf("alter %s: %v", p.key, err)
		}
	}
}

// topic makes a topic, with the setting if it is a topic's.
func (p *probe) topic(name string, partitions int, configs ...string) (message string) {
	p.T.Helper()
	if p.scope == config.Topics && p.key != "" {
		configs = append(configs, p.key, p.value)
	}
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, int32(partitions), -1
	for pair := range slices.Chunk(configs, 2) {
		kv := kmsg.NewCreateTopicsRequestTopicConfig()
		kv.Name, kv.Value = pair[0], &pair[1]
		t.Configs = append(t.Configs, kv)
	}
	q := kmsg.NewPtrCreateTopicsRequest()
	q.TimeoutMillis, q.Topics = 30_000, append(q.Topics, t)
	res, err := clustertest.Call[*kmsg.CreateTopicsResponse](p.Context(), p.c, q)
	if err != nil {
		p.Fatalf("create %s: %v", name, err)
	}
	if res.Topics[0].ErrorCode != 0 {
		return kafkaName(res.Topics[0].ErrorCode)
	}
	if res.Topics[0].ErrorMessage != nil {
		return *res.Topics[0].ErrorMessage
	}
	return "created"
}

// verdict is a Kafka error's name, or that there was none.
func verdict(err error) string {
	var refused *kerr.Error
	switch {
	case err == nil:
		return "taken"
	case errors.As(err, &refused):
		return refused.Message
	}
	return "broken"
}

func kafkaName(code int16) string { return verdict(kerr.ErrorForCode(code)) }

func (p *probe) produce(topic string, partition int32, values ...string) error {
	_, err := p.c.Produce(p.Context(), -1, topic, partition, clustertest.Batch(time.Now().UnixMilli(), batch.None, values...))
	return err
}

// mustProduce writes records, a batch each.
func (p *probe) mustProduce(topic string, partition int32, values ...string) {
	p.T.Helper()
	for _, v := range values {
		if err := p.produce(topic, partition, v); err != nil {
			p.Fatalf("produce to %s-%d: %v", topic, partition, err)
		}
	}
}

// files are the names in a directory that end so.
func (p *probe) files(dir, suffix string) (names []string) {
	entries, err := p.n.Disk().List(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name, suffix) {
			names = append(names, e.Name)
		}
	}
	return names
}

func (p *probe) size(name string) int64 {
	e, err := p.n.Disk().Stat(name)
	if err != nil {
		return -1
	}
	return e.Size
}

// count is how many of the operations match.
func count(ops []disk.Op, kind disk.Kind, path string) (n int) {
	for _, op := range ops {
		if op.Kind == kind && strings.Contains(op.Path, path) {
			n++
		}
	}
	return n
}

// within is a context that ends after d.
func (p *probe) within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(p.Context(), d)
}

func yes(is bool, ifTrue, ifFalse string) string {
	if is {
		return ifTrue
	}
	return ifFalse
}

// inUnit fills in u.
func inUnit(key, value string) (string, time.Duration) {
	times, isTime := strings.CutSuffix(value, "u")
	if !isTime {
		return value, unitOf(key)
	}
	n, err := strconv.Atoi(times)
	if err != nil {
		panic("BUG: " + value)
	}
	if strings.HasSuffix(key, ".ms") {
		n *= 60_000
	}
	return strconv.Itoa(n), unitOf(key)
}

func unitOf(key string) time.Duration {
	if strings.HasSuffix(key, ".hours") {
		return time.Hour
	}
	return time.Minute
}

// look runs an effect under a key and compares.
func look(t *testing.T, scope config.Scope, key string, e effect) {
	ways := []bool{false}
	if e.running {
		ways = append(ways, true)
	}
	for _, dynamic := range ways {
		seen := map[string]string{}
		for pair := range slices.Chunk(e.cases, 2) {
			value, unit := inUnit(key, pair[0])
			var got string
			clustertest.Run(t, 1, func(w *clustertest.World) {
				got = e.see(&probe{World: w, scope: scope, key: key, value: value, dynamic: dynamic, unit: unit})
			})
			if want := pair[1]; want != "*" && got != want {
				t.Errorf("%s=%s (running: %v): %s, want %s", key, value, dynamic, got, want)
			}
			if other, ok := seen[got]; ok && pair[1] == "*" {
				t.Errorf("%s=%s (running: %v): %s, as with %s", key, value, dynamic, got, other)
			}
			seen[got] = value
		}
		if len(seen) < 2 {
			t.Errorf("%s (running: %v): every value has the same effect: %v", key, dynamic, seen)
		}
	}
}

// brokerEffects are those of the broker's own keys: the defaults of topics are seen through the topic's key.
func brokerEffects() map[string]effect {
	all := map[string]effect{}
	for _, some := range []map[string]effect{logEffects, cleanerEffects, networkEffects, nodeEffects, groupEffects, clusterEffects, tlsEffects} {
		maps.Copy(all, some)
	}
	return all
}

// topicKeyOf finds the topic's key for which a broker's key gives the default.
func topicKeyOf(broker string) (topic string, ok bool) {
	for k := range config.Keys(config.Topics) {
		if slices.Contains(k.Synonyms, broker) {
			return k.Name, true
		}
	}
	return "", false
}

func topicEffect(key string) (effect, bool) {
	if e, ok := compactionEffects[key]; ok {
		return e, true
	}
	e, ok := topicEffects[key]
	return e, ok
}

func TestEveryEffectiveTopicKeyIsSeen(t *testing.T) {
	for k := range config.Keys(config.Topics) {
		e, has := topicEffect(k.Name)
		if (k.Status == config.Effective) != has {
			t.Errorf("topic key %s is %v, and its effect is tested: %v", k.Name, k.Status, has)
			continue
		}
		if has {
			t.Run(k.Name, func(t *testing.T) { look(t, config.Topics, k.Name, e) })
		}
	}
}

func TestEveryEffectiveBrokerKeyIsSeen(t *testing.T) {
	effects := brokerEffects()
	for k := range config.Keys(config.Broker) {
		e, has := effects[k.Name]
		if topic, ok := topicKeyOf(k.Name); ok && !has {
			e, has = topicEffect(topic)
		}
		delete(effects, k.Name)
		if (k.Status == config.Effective) != has {
			t.Errorf("broker key %s is %v, and its effect is tested: %v", k.Name, k.Status, has)
			continue
		}
		if has {
			e.running = e.running && k.Update != config.ReadOnly
			t.Run(k.Name, func(t *testing.T) { look(t, config.Broker, k.Name, e) })
		}
	}
	for name := range effects {
		t.Errorf("%s is tested and no key", name)
	}
}

// A default that is changed while the broker runs reaches the topics that rely on it.
func TestChangedDefaultsReachTopics(t *testing.T) {
	clustertest.Run(t, 1, func(w *clustertest.World) {
		p := &probe{World: w}
		p.start()
		p.topic("t", 1)
		large := strings.Repeat("x", 5000)
		for _, change := range []struct {
			resource, value, want string
		}{{"", "2000", "MESSAGE_TOO_LARGE"}, {"1", "20000", "taken"}, {"1", "1000", "MESSAGE_TOO_LARGE"}} {
			if err := p.c.Alter(p.Context(), kmsg.ConfigResourceTypeBroker, change.resource, "message.max.bytes", &change.value); err != nil {
				w.Fatalf("alter: %v", err)
			}
			if got := verdict(p.produce("t", 0, large)); got != change.want {
				t.Errorf("message.max.bytes=%s of broker %q: %s, want %s", change.value, change.resource, got, change.want)
			}
		}
		if err := p.n.Stop(); err != nil {
			w.Fatalf("stop: %v", err)
		}
		p.n.MustStart()
		p.c = w.MustDial("client", p.n)
		if got := verdict(p.produce("t", 0, large)); got != "MESSAGE_TOO_LARGE" {
			t.Errorf("after a restart: %s", got)
		}
	})
}

func texts(n, size int) (values []string) {
	for i := range n {
		values = append(values, fmt.Sprintf("%03d%s", i, strings.Repeat("x", size)))
	}
	return values
}
