package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/config"
	"barnabas/internal/controller"
	"barnabas/internal/coordinator"
	"barnabas/internal/disk"
	"barnabas/internal/metadata"
	"barnabas/internal/quorum"
	"barnabas/internal/replica"
	"barnabas/internal/wire"
)

// stack is a broker from the handler down, in memory. Only the quorum is not the real one: what is
// proposed is committed at once, or when the test lets it.
type stack struct {
	t          testing.TB
	disk       *disk.Mem
	files      *countedFS
	dir        *commitlog.Dir
	replicas   *replica.Manager
	controller *controller.Controller
	groups     *coordinator.Coordinator
	log        *instantLog
	handler    *Handler
	logged     *logLines
	ctx        context.Context
	epoch      atomic.Int32 // of the controller
}

// logLines keeps what was logged at level Error.
type logLines struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }
func (l *logLines) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *logLines) WithGroup(string) slog.Handler                    { return l }
func (l *logLines) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return nil
}

func (l *logLines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

// instantLog commits what is proposed, on a goroutine of its own as the quorum does.
type instantLog struct {
	machine *controller.Controller
	mu      sync.Mutex
	queue   []metadata.Committed
	next    uint64
	wake    chan struct{}
	done    chan struct{}
	refusal error
}

func (l *instantLog) Propose(epoch int32, records []metadata.Record) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refusal != nil {
		return 0, l.refusal
	}
	encoded, err := metadata.Encode(records)
	if err != nil {
		return 0, err
	}
	if records, err = metadata.Decode(encoded); err != nil {
		return 0, err
	}
	l.next++
	l.queue = append(l.queue, metadata.Committed{Offset: int64(l.next), Epoch: epoch, Proposal: l.next, Records: records})
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return l.next, nil
}

func (l *instantLog) Confirm(context.Context, int32) error { return nil }

func (l *instantLog) run(ctx context.Context) {
	defer close(l.done)
	for {
		select {
		case <-l.wake:
		case <-ctx.Done():
			return
		}
		for {
			l.mu.Lock()
			if len(l.queue) == 0 {
				l.mu.Unlock()
				break
			}
			entry := l.queue[0]
			l.queue = l.queue[1:]
			l.mu.Unlock()
			if err := l.machine.Apply(entry); err != nil {
				panic(err)
			}
		}
	}
}

func (l *instantLog) refuse(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refusal = err
}

// Status is the quorum's, as a single voter sees it.
func (l *instantLog) LeaderStatus(context.Context) quorum.Status {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	return quorum.Status{
		Leader: 1, Epoch: 1, HighWatermark: int64(l.next) + 1,
		Voters: []quorum.Replica{{NodeID: 1, Directory: metadata.UUID{1, 2, 3}, LogEnd: int64(l.next) + 1, LastFetch: now, LastCaughtUp: now}},
	}
}

// countedFS counts the files that are open.
type countedFS struct {
	disk.FS
	open atomic.Int64
}

type countedFile struct {
	disk.File
	fs *countedFS
}

func (f *countedFS) Open(name string, m disk.Mode) (disk.File, error) {
	file, err := f.FS.Open(name, m)
	if err != nil {
		return nil, err
	}
	f.open.Add(1)
	return countedFile{file, f}, nil
}

func (f countedFile) Close() error {
	f.fs.open.Add(-1)
	return f.File.Close()
}

const testListener = "PLAINTEXT"

func newStack(t testing.TB, lines ...string) *stack {
	t.Helper()
	return newStackAmong(t, nil, nil, lines...)
}

// newStackAmong is newStack for a broker that has others.
func newStackAmong(t testing.TB, cluster *replica.Cluster, others []metadata.Publisher, lines ...string) *stack {
	t.Helper()
	s := &stack{t: t, disk: disk.NewMem(), logged: &logLines{}}
	s.files = &countedFS{FS: s.disk}
	ctx, cancel := context.WithCancel(context.Background())
	s.ctx = ctx
	settings, _, err := config.Load(config.Sources{File: strings.Join(append([]string{"node.id=1"}, lines...), "\n"), FileName: "test"})
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(s.logged)
	incarnation := metadata.UUID{9, 9, 9}
	s.replicas = replica.NewManager(replica.Options{NodeID: 1, Incarnation: incarnation, Config: settings, Logger: logger, Cluster: cluster})
	s.dir, err = commitlog.OpenDir(ctx, commitlog.DirOptions{
		FS: s.files, Path: "/data", NodeID: 1, ClusterID: "test-cluster", Logger: logger, Observer: s.replicas,
		Rand: rand.NewChaCha8([32]byte{1}),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.replicas.Use([]*commitlog.Dir{s.dir})
	s.log = &instantLog{wake: make(chan struct{}, 1), done: make(chan struct{})}
	s.groups = coordinator.New(ctx, coordinator.Options{
		NodeID: 1, Replicas: s.replicas, Config: settings, Logger: logger, Now: time.Now, Random: rand.NewChaCha8([32]byte{3}),
	})
	s.controller = controller.New(ctx, controller.Options{
		NodeID: 1, ClusterID: "test-cluster", Config: settings, Logger: logger,
		Publishers: append([]metadata.Publisher{s.replicas, s.groups}, others...), Rand: rand.NewChaCha8([32]byte{2}),
	})
	s.log.machine = s.controller
	go s.log.run(ctx)
	s.controller.Start(s.log)
	s.epoch.Store(1)
	s.controller.Leadership(metadata.Leadership{Epoch: 1, Leader: 1, Mine: true})
	_, err = s.controller.RegisterBroker(ctx, controller.Registration{
		ID: 1, Incarnation: incarnation, Directories: []metadata.UUID{s.dir.ID()}, Features: controller.SupportedRanges(),
		Listeners: []metadata.Listener{{Name: testListener, Host: "broker.example", Port: 9092}},
	})
	if err != nil {
		t.Fatal(err)
	}
	<-s.replicas.Ready()
	s.handler = New(Options{
		NodeID: 1, Images: s.controller, Replicas: s.replicas, Controller: s.controller, Quorum: s.log, Coordinator: s.groups,
		Config: s.replicas.Settings, Logger: logger, Now: time.Now, Rand: rand.New(rand.NewPCG(1, 2)),
	})
	t.Cleanup(func() {
		s.groups.Close()
		s.controller.Close()
		cancel()
		<-s.log.done
		s.replicas.Close()
		if err := s.dir.Close(); err != nil && !errors.Is(err, commitlog.ErrOffline) {
			t.Error(err)
		}
		for _, line := range s.logged.take() {
			t.Error("unexpected in the log:", line)
		}
	})
	return s
}

func (s *stack) peer() *wire.Peer {
	return &wire.Peer{ID: 1, Remote: &net.TCPAddr{}, Local: &net.TCPAddr{}, Listener: testListener}
}

// begin is phase one of a request.
func (s *stack) begin(peer *wire.Peer, req kmsg.Request) (wire.Reply, bool, error) {
	return s.beginRaw(peer, req.Key(), req.GetVersion(), req.AppendTo(nil))
}

func (s *stack) beginRaw(peer *wire.Peer, key, version int16, body []byte) (wire.Reply, bool, error) {
	r := &wire.Request{Header: wire.Header{Key: key, Version: version}, Body: body, Bytes: len(body), ReceivedAt: time.Now()}
	reply, ready, err := s.handler.Handle(s.ctx, peer, r)
	for i := range body {
		body[i] = 0xee // its memory goes back to its pool: nobody may look at it again
	}
	return reply, ready, err
}

// finish is phase two; the response is decoded by kmsg.
func (s *stack) finish(ctx context.Context, req kmsg.Request, reply wire.Reply) (kmsg.Response, error) {
	body, err := written(ctx, reply)
	if err != nil {
		return nil, err
	}
	res := req.ResponseKind()
	res.SetVersion(req.GetVersion())
	if err := res.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("decode response of %s version %d: %w", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	if again := res.AppendTo(nil); len(again) != len(body) {
		return nil, fmt.Errorf("response of %s version %d has %d bytes, as kmsg encodes it %d", kmsg.NameForKey(req.Key()), req.GetVersion(), len(body), len(again))
	}
	return res, nil
}

// written runs a reply and returns the body that it writes.
func written(ctx context.Context, reply wire.Reply) ([]byte, error) {
	var out wire.Out
	if err := reply(ctx, &out); err != nil {
		out.Reset()
		return nil, err
	}
	return out.Take(nil)
}

// ask is a whole request.
func (s *stack) ask(req kmsg.Request) kmsg.Response {
	s.t.Helper()
	reply, _, err := s.begin(s.peer(), req)
	if err != nil {
		s.t.Fatal(err)
	}
	res, err := s.finish(s.ctx, req, reply)
	if err != nil {
		s.t.Fatal(err)
	}
	return res
}

// ask is stack.ask with the response's own type.
func ask[R kmsg.Response](s *stack, req kmsg.Request) R {
	s.t.Helper()
	return s.ask(req).(R)
}

func (s *stack) createTopic(name string, partitions int32, configs ...string) metadata.UUID {
	s.t.Helper()
	q := kmsg.NewPtrCreateTopicsRequest()
	q.Version, q.TimeoutMillis = 7, 60_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, 1
	for _, c := range configs {
		key, value, _ := strings.Cut(c, "=")
		t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: key, Value: &value})
	}
	q.Topics = append(q.Topics, t)
	res := ask[*kmsg.CreateTopicsResponse](s, q)
	if err := kerr.ErrorForCode(res.Topics[0].ErrorCode); err != nil {
		s.t.Fatalf("create %s: %v: %s", name, err, deref(res.Topics[0].ErrorMessage))
	}
	return res.Topics[0].TopicID
}

func (s *stack) deleteTopic(name string) {
	s.t.Helper()
	q := kmsg.NewPtrDeleteTopicsRequest()
	q.Version, q.TimeoutMillis, q.TopicNames = 5, 60_000, []string{name}
	res := ask[*kmsg.DeleteTopicsResponse](s, q)
	if err := kerr.ErrorForCode(res.Topics[0].ErrorCode); err != nil {
		s.t.Fatalf("delete %s: %v", name, err)
	}
}

func deref(s *string) string {
	if s == nil {
		return "(null)"
	}
	return *s
}

func (s *stack) partition(topic string, number int32) *replica.Partition {
	s.t.Helper()
	p, err := s.replicas.Partition(topic, number)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// records makes a batch of n records, whose timestamps are now, now+1 ...
func records(n, size int) batch.Batch {
	return fill(batch.NewBuilder(batch.BuilderOptions{}), n, size)
}

// numbered makes a batch of an idempotent producer.
func numbered(id int64, epoch int16, sequence int32, n int) batch.Batch {
	b := batch.NewBuilder(batch.BuilderOptions{})
	b.SetProducer(id, epoch, sequence, false)
	return fill(b, n, 10)
}

func fill(b *batch.Builder, n, size int) batch.Batch {
	now := time.Now().UnixMilli()
	for i := range n {
		b.Append(now+int64(i), []byte("key"), slices.Repeat([]byte{byte('a' + i%26)}, size), nil)
	}
	built, err := b.Build()
	if err != nil {
		panic(err)
	}
	return built
}

// append writes a batch to a partition, past the protocol.
func (s *stack) append(topic string, number int32, b batch.Batch) commitlog.Appended {
	s.t.Helper()
	p := s.partition(topic, number)
	a, err := p.Append(slices.Clone(b), true, time.Now().UnixMilli())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := p.AwaitCommitted(s.ctx, a.Next, a.LeaderEpoch); err != nil {
		s.t.Fatal(err)
	}
	return a
}
