// Package barnabastest starts a broker inside a Go test, in milliseconds and in memory: the same
// code as the real one, on a disk and a network that exist in the test alone.
//
//	func TestOrders(t *testing.T) {
//		broker := barnabastest.Start(t)
//		broker.CreateTopic("orders", 3)
//		p, err := broker.Client().NewProducer()
//		…
//	}
//
// It is for the tests of programs that use Barnabas or Apache Kafka. It works within a bubble of
// testing/synctest, where time is fake: an hour of retention or of silence passes in about a second.
// Start the broker inside the bubble. Under the race detector run such tests with go test -race -cpu 1:
// with more processors the detector now and then ends a process that has a bubble (golang/go#78156).
// Tests with a broker each run in parallel without knowing of each other. What a broker does, and
// how it is set up, is decided by the broker's own packages.
package barnabastest

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/config"
	"barnabas/internal/disk"
	"barnabas/internal/netx"
	"barnabas/internal/node"
)

// The broker's place on its network in memory.
const (
	brokerHost = "broker"
	clientHost = "client"
	memAddress = brokerHost + ":9092"
)

// patience bounds a start, a stop and each call of this package, so that a test that hangs says where.
const patience = time.Minute

// Option sets something of a Broker.
type Option func(*Broker)

// Setting gives one of the broker's settings, under Kafka's name, another value than its default.
// It lasts over Restart.
func Setting(key, value string) Option {
	return func(b *Broker) { b.settings[key] = value }
}

// OverTCP lets the broker listen on a free port of 127.0.0.1, for programs that cannot be given a
// Dialer. It does not work within a bubble, which cannot wait for a real network.
func OverTCP() Option {
	return func(b *Broker) { b.tcp = true }
}

// Broker is a broker that lives as long as the test, or until Stop. Its methods fail the test where
// something goes wrong, so they are for the test's goroutine, but for Addr and Dial.
type Broker struct {
	t        testing.TB
	settings map[string]string
	tcp      bool
	net      *netx.Mem
	disk     *disk.Mem
	logged   logged
	running  *node.Node
	own      *client.Client // of this package's calls
	addr     string
}

// Start starts a broker with an empty disk and returns once it serves clients. The test's end stops
// it; the log of a test that failed shows what the broker had to say.
func Start(t testing.TB, options ...Option) *Broker {
	t.Helper()
	b := &Broker{t: t, disk: disk.NewMem(), net: netx.NewMem(1), addr: memAddress, settings: map[string]string{
		"node.id": "1", "log.dirs": "/data", "listeners": "PLAINTEXT://127.0.0.1:9092",
		"advertised.listeners":             "PLAINTEXT://" + memAddress,
		"offsets.topic.num.partitions":     "1", // nobody shares the coordinator, and each costs a little
		"group.initial.rebalance.delay.ms": "0", // waits for members that a test does not have
	}}
	b.net.SetLatency("", "", 0, 0)
	for _, o := range options {
		o(b)
	}
	if b.tcp {
		b.addr = freeAddress(t)
		b.settings["listeners"], b.settings["advertised.listeners"] = "PLAINTEXT://"+b.addr, "PLAINTEXT://"+b.addr
	}
	t.Cleanup(b.end)
	b.start()
	return b
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("barnabastest: find a free port: %v", err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatalf("barnabastest: give the port back: %v", err)
	}
	return address
}

func (b *Broker) start() {
	b.t.Helper()
	var from config.Sources
	for _, key := range slices.Sorted(maps.Keys(b.settings)) {
		from.Flags = append(from.Flags, config.Setting{Key: key, Value: b.settings[key]})
	}
	set, _, err := config.Load(from)
	if err != nil {
		b.t.Fatalf("barnabastest: %v", err)
	}
	network := netx.TCP
	if !b.tcp {
		network = b.net.Host(brokerHost)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b.running, err = node.Start(ctx, node.Options{
		Config: set, FS: b.disk, Network: network, Logger: slog.New(slog.NewTextHandler(&b.logged, nil)),
		Now: time.Now, Random: rand.Reader, Version: "test",
	})
	if err != nil {
		b.t.Fatalf("barnabastest: start the broker: %v\n%s", err, b.Log())
	}
}

// end is the end of the test.
func (b *Broker) end() {
	b.forgetClient()
	b.stop()
	if b.t.Failed() {
		b.t.Logf("the broker's log:\n%s", b.Log())
	}
}

func (b *Broker) stop() {
	if b.running == nil {
		return
	}
	running := b.running
	b.running = nil
	b.forgetClient()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := running.Close(ctx); err != nil {
		b.t.Errorf("barnabastest: stop the broker: %v", err)
	}
}

// Stop ends the broker in good order, as an operator does. Its data stay for Restart.
func (b *Broker) Stop() {
	b.t.Helper()
	b.stop()
}

// Kill ends the broker at once, as kill -9 does: connections break, what it had not written is lost.
// What it had acknowledged stays for Restart. Over TCP connections end in good order.
func (b *Broker) Kill() {
	b.t.Helper()
	if b.running == nil {
		return
	}
	b.net.Kill(brokerHost)
	b.disk = b.disk.Kill()
	b.bury()
}

// CutPower is Kill with the loss of whatever had not been flushed to the disk. The seed decides what
// is lost and what torn.
func (b *Broker) CutPower(seed uint64) {
	b.t.Helper()
	if b.running == nil {
		return
	}
	b.net.Kill(brokerHost)
	b.disk = b.disk.Crash(seed)
	b.bury()
}

// bury waits for the goroutines of a broker whose disk and network are dead.
func (b *Broker) bury() {
	running := b.running
	b.running = nil
	b.forgetClient()
	dead, cancel := context.WithCancel(context.Background())
	cancel()
	_ = running.Close(dead) // it cannot end well
}

// Restart starts the broker again on its data, after Stop, Kill or CutPower.
func (b *Broker) Restart() {
	b.t.Helper()
	b.stop()
	b.start()
}

// Addr is the broker's address for bootstrap.servers. Over TCP anybody can reach it; otherwise
// through Dial alone.
func (b *Broker) Addr() string { return b.addr }

// Dial reaches the broker. It fits client.Dialer, and the dialers of other clients for Go, for
// instance kgo.Dialer with "tcp" left out.
func (b *Broker) Dial(ctx context.Context, address string) (net.Conn, error) {
	if b.tcp {
		return netx.TCP.Dial(ctx, address)
	}
	return b.net.Host(clientHost).Dial(ctx, address)
}

// Client makes a client of the broker; the test's end closes it. Producers and consumers made of
// it are to be closed by the test before its end.
func (b *Broker) Client(options ...client.Option) *client.Client {
	b.t.Helper()
	c, err := client.New(append([]client.Option{client.Brokers(b.addr), client.Dialer(b.Dial)}, options...)...)
	if err != nil {
		b.t.Fatalf("barnabastest: %v", err)
	}
	b.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (b *Broker) client() *client.Client {
	b.t.Helper()
	if b.own == nil {
		c, err := client.New(client.Brokers(b.addr), client.Dialer(b.Dial))
		if err != nil {
			b.t.Fatalf("barnabastest: %v", err)
		}
		b.own = c
	}
	return b.own
}

// forgetClient ends the connections of this package's calls: the next call makes others.
func (b *Broker) forgetClient() {
	if b.own != nil {
		_ = b.own.Close()
		b.own = nil
	}
}

// CreateTopic makes a topic; settings are KEY, VALUE in turn.
func (b *Broker) CreateTopic(name string, partitions int32, settings ...string) {
	b.t.Helper()
	if len(settings)%2 != 0 {
		b.t.Fatalf("barnabastest: create topic %q: the setting %q has no value", name, settings[len(settings)-1])
	}
	topic := admin.NewTopic{Name: name, Partitions: partitions, Configs: map[string]string{}}
	for pair := range slices.Chunk(settings, 2) {
		topic.Configs[pair[0]] = pair[1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	made, err := admin.New(b.client()).CreateTopics(ctx, []admin.NewTopic{topic})
	if err == nil {
		err = made[0].Err
	}
	if err != nil {
		b.t.Fatalf("barnabastest: create topic %q: %v", name, err)
	}
}

// Produce writes values to a topic, which has to exist or may be created, one after the other.
func (b *Broker) Produce(topic string, values ...string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p, err := b.client().NewProducer(client.Linger(0))
	if err != nil {
		b.t.Fatalf("barnabastest: %v", err)
	}
	for _, v := range values {
		if err == nil {
			_, err = p.SendSync(ctx, client.ProducerRecord{Topic: topic, Value: []byte(v)})
		}
	}
	if ended := p.Close(ctx); err == nil {
		err = ended
	}
	if err != nil {
		b.t.Fatalf("barnabastest: produce to %q: %v", topic, err)
	}
}

// Records reads n records of a topic from its start, waiting until there are so many. Records of one
// partition are in order.
func (b *Broker) Records(topic string, n int) []client.Record {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	k, err := b.client().NewConsumer(client.IsolationLevel(client.ReadCommitted))
	if err != nil {
		b.t.Fatalf("barnabastest: %v", err)
	}
	defer func() { _ = k.Close() }()
	err = k.AssignTopic(ctx, topic, client.Earliest)
	var all []client.Record
	for err == nil && len(all) < n {
		var some []client.Record
		some, err = k.Poll(ctx)
		all = append(all, some...)
	}
	if err != nil {
		b.t.Fatalf("barnabastest: read %d records of %q: %d are there: %v", n, topic, len(all), err)
	}
	return all[:n]
}

// Log is what the broker has logged so far.
func (b *Broker) Log() string { return b.logged.text() }

// maxLogged bounds what is kept of a broker's log, in bytes; the rest is dropped.
const maxLogged = 1 << 20

type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() < maxLogged {
		l.buf.Write(p)
	}
	return len(p), nil
}

func (l *logged) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
