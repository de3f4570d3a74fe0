package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/clustertest"
	"barnabas/internal/disk"
	"barnabas/internal/netx"
)

// networkEffects are those of the keys of listeners, connections and requests.
var networkEffects = map[string]effect{
	"listeners":            {see: listensOn, cases: []string{"PLAINTEXT://127.0.0.1:9092", "9092", "PLAINTEXT://127.0.0.1:9192", "9192"}},
	"advertised.listeners": {see: advertised, cases: []string{"PLAINTEXT://one:1234", "one:1234", "PLAINTEXT://two:1", "two:1"}},
	"listener.security.protocol.map": {see: listenerNamed, cases: []string{
		"INSIDE:PLAINTEXT", "served", "INSIDE:SSL", "refused: listener.security.protocol.map", "PLAINTEXT:PLAINTEXT", "refused: listener.security.protocol.map",
	}},
	"controller.listener.names":                 {see: controllersListener, cases: []string{"OTHER", "not served", "NOBODY", "served"}},
	"admin.listener":                            {see: adminListener, cases: []string{"127.0.0.1:9644", "200", "127.0.0.1:9645", "nobody"}},
	"socket.request.max.bytes":                  {see: largeProduce, cases: []string{"100000", "closed", "1000000", "answered"}},
	"queued.max.request.bytes":                  {see: largeQuestion, cases: []string{"104857600", "closed", "1048576000", "answered"}},
	"socket.send.buffer.bytes":                  {see: socketBuffer("write"), cases: []string{"4711", "4711", "-1", "unset"}},
	"socket.receive.buffer.bytes":               {see: socketBuffer("read"), cases: []string{"4711", "4711", "-1", "unset"}},
	"connections.max.idle.ms":                   {see: quietConnection, cases: []string{"1u", "closed", "100u", "open", "0", "open"}},
	"connection.stall.ms":                       {see: halfARequest, cases: []string{"1u", "closed", "100u", "open"}},
	"connection.max.unanswered.requests":        {see: readAhead, cases: []string{"2", "*", "4", "*", "64", "*"}},
	"max.connections":                           {see: dialThree, cases: []string{"2", "served waits waits", "3", "served served waits", "100", "served served served"}, running: true},
	"max.connections.per.ip":                    {see: dialThree, cases: []string{"2", "served closed closed", "100", "served served served"}, running: true},
	"max.connections.per.ip.overrides":          {see: dialThree, cases: []string{"client:3", "served served closed", "other:1", "served served served"}, running: true},
	"max.connection.creation.rate":              {see: dialQuickly, cases: []string{"5", "*", "20", "*", "1000", "*"}, running: true},
	"server.shutdown.timeout.ms":                {see: patience, cases: []string{"2000", "2s", "20000", "20s"}},
	"fetch.max.bytes":                           {see: fetchedAtOnce, cases: []string{"1024", "1", "10000", "9"}},
	"max.incremental.fetch.session.cache.slots": {see: fetchSession, cases: []string{"0", "none", "1", "a session"}},
	"max.request.partition.size.limit":          {see: describedAtOnce, cases: []string{"3", "3", "100", "5"}},
}

// dial connects a host with one of the broker's ports; nil where nobody listens.
func (p *probe) dial(host, port string) net.Conn {
	ctx, cancel := p.within(5 * time.Second)
	defer cancel()
	conn, err := p.Net.Host(host).Dial(ctx, net.JoinHostPort(p.n.Name, port))
	if err != nil {
		return nil
	}
	return conn
}

// outcome is what becomes of a connection's first request within seconds.
func (p *probe) outcome(conn net.Conn) string {
	if conn == nil {
		return "not served"
	}
	ctx, cancel := p.within(5 * time.Second)
	defer cancel()
	c, err := clustertest.NewClient(ctx, "client", conn)
	if err == nil {
		p.T.Cleanup(func() { _ = c.Close() })
		return "served"
	}
	return yes(errors.Is(err, context.DeadlineExceeded), "waits", "closed")
}

func listensOn(p *probe) string {
	p.n = p.Node("broker", p.key+"="+p.value)
	p.n.MustStart()
	for _, port := range []string{"9092", "9192"} {
		if p.outcome(p.dial("client", port)) == "served" {
			return port
		}
	}
	return "nothing"
}

func advertised(p *probe) string {
	p.start()
	res, err := clustertest.Call[*kmsg.MetadataResponse](p.Context(), p.c, kmsg.NewPtrMetadataRequest())
	if err != nil || len(res.Brokers) != 1 {
		p.Fatalf("metadata: %v", err)
	}
	return fmt.Sprintf("%s:%d", res.Brokers[0].Host, res.Brokers[0].Port)
}

func listenerNamed(p *probe) string {
	p.n = p.Node("broker", p.key+"="+p.value, "listeners=INSIDE://127.0.0.1:9092", "advertised.listeners=INSIDE://broker:9092")
	if err := p.n.Start(p.Context()); err != nil {
		return yes(strings.Contains(err.Error(), p.key), "refused: "+p.key, err.Error())
	}
	return p.outcome(p.dial("client", "9092"))
}

func controllersListener(p *probe) string {
	p.n = p.Node("broker", p.key+"="+p.value, "advertised.listeners=PLAINTEXT://broker:9092",
		"listeners=PLAINTEXT://127.0.0.1:9092,OTHER://127.0.0.1:9093", "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,OTHER:PLAINTEXT")
	p.n.MustStart()
	return p.outcome(p.dial("client", "9093"))
}

func adminListener(p *probe) string {
	p.start()
	conn := p.dial("client", "9644")
	if conn == nil {
		return "nobody"
	}
	if _, err := io.WriteString(conn, "GET /ready HTTP/1.0\r\n\r\n"); err != nil {
		p.Fatalf("ask: %v", err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || conn.Close() != nil {
		p.Fatalf("answer: %v", err)
	}
	status, _, _ := strings.Cut(strings.TrimPrefix(string(answer), "HTTP/1.0 "), " ")
	return status
}

func largeProduce(p *probe) string {
	p.start("queued.max.request.bytes=1000000")
	p.topic("t", 1)
	return yes(verdict(p.produce("t", 0, strings.Repeat("x", 200_000))) == "taken", "answered", "closed")
}

// largeQuestion asks something that takes much memory to decode: a sixty-fourth of the budget is allowed.
func largeQuestion(p *probe) string {
	p.start()
	q := kmsg.NewPtrDeleteTopicsRequest()
	t := kmsg.NewDeleteTopicsRequestTopic()
	name := strings.Repeat("x", 30_000)
	t.Topic = &name
	for range 100 {
		q.Topics = append(q.Topics, t)
	}
	_, err := clustertest.Call[*kmsg.DeleteTopicsResponse](p.Context(), p.c, q)
	return yes(err == nil, "answered", "closed")
}

// sizedNetwork notes how large the buffers of accepted connections are made.
type sizedNetwork struct {
	netx.Network
	mu    sync.Mutex
	sizes map[string]int
}

type sizedListener struct {
	net.Listener
	n *sizedNetwork
}

type sizedConn struct {
	net.Conn
	n *sizedNetwork
}

func (n *sizedNetwork) Listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := n.Network.Listen(ctx, addr)
	return sizedListener{l, n}, err
}

func (l sizedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return sizedConn{c, l.n}, nil
}

func (c sizedConn) SetReadBuffer(bytes int) error  { return c.n.note("read", bytes) }
func (c sizedConn) SetWriteBuffer(bytes int) error { return c.n.note("write", bytes) }

func (n *sizedNetwork) note(which string, bytes int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sizes[which] = bytes
	return nil
}

func socketBuffer(which string) func(p *probe) string {
	return func(p *probe) string {
		p.n = p.Node("broker", p.key+"="+p.value)
		set, err := p.n.Config()
		if err != nil {
			p.Fatalf("%v", err)
		}
		network := &sizedNetwork{Network: p.Net.Host("broker"), sizes: map[string]int{}}
		if err := p.n.StartOn(p.Context(), network, set); err != nil {
			p.Fatalf("start: %v", err)
		}
		p.MustDial("client", p.n)
		network.mu.Lock()
		defer network.mu.Unlock()
		if bytes, ok := network.sizes[which]; ok {
			return fmt.Sprint(bytes)
		}
		return "unset"
	}
}

// isOpen tells whether the broker has closed a connection that says nothing for a while.
func isOpen(p *probe, conn net.Conn, d time.Duration) string {
	if err := conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		p.Fatalf("%v", err)
	}
	_, err := conn.Read(make([]byte, 1))
	defer conn.Close()
	return yes(errors.Is(err, os.ErrDeadlineExceeded), "open", "closed")
}

func quietConnection(p *probe) string {
	p.start()
	return isOpen(p, p.dial("client", "9092"), 20*p.unit)
}

func halfARequest(p *probe) string {
	p.start("connections.max.idle.ms=0")
	conn := p.dial("client", "9092")
	if _, err := conn.Write([]byte{0, 0, 0, 100, 0}); err != nil {
		p.Fatalf("%v", err)
	}
	return isOpen(p, conn, 20*p.unit)
}

// readAhead is how many requests the broker has taken while the first of them waits for a flush.
func readAhead(p *probe) string {
	p.start()
	p.topic("t", 1)
	p.mustProduce("t", 0, "a")
	before := p.size("/data/t-0/00000000000000000000.log")
	p.n.Fault(func(op disk.Op) error {
		if op.Kind == disk.OpSync && strings.HasPrefix(op.Path, "/data/t-0") || op.Kind == disk.OpSyncFS {
			time.Sleep(10 * time.Second)
		}
		return nil
	})
	one := clustertest.Batch(time.Now().UnixMilli(), batch.None, "a")
	for range 20 {
		b := clustertest.Batch(time.Now().UnixMilli(), batch.None, "a")
		if _, err := clustertest.Start(p.Context(), p.c, clustertest.ProduceRequest(-1, "t", 0, b)); err != nil {
			p.Fatalf("produce: %v", err)
		}
	}
	time.Sleep(time.Second)
	return fmt.Sprint((p.size("/data/t-0/00000000000000000000.log") - before) / one.Size())
}

// dialThree opens three connections beside the probe's own.
func dialThree(p *probe) string {
	p.start()
	time.Sleep(time.Second)
	var outcomes []string
	for range 3 {
		outcomes = append(outcomes, p.outcome(p.dial("client", "9092")))
	}
	return strings.Join(outcomes, " ")
}

// dialQuickly is how many seconds forty connections take.
func dialQuickly(p *probe) string {
	p.start()
	time.Sleep(5 * time.Second)
	began := time.Now()
	for range 40 {
		p.outcome(p.dial("client", "9092"))
	}
	return fmt.Sprint(time.Since(began).Round(time.Second))
}

func patience(p *probe) string {
	p.start()
	p.topic("t", 1)
	poll := kmsg.NewFetchRequestTopicPartition()
	poll.PartitionMaxBytes = 1000
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.Partitions = "t", append(t.Partitions, poll)
	q := kmsg.NewPtrFetchRequest()
	q.MaxWaitMillis, q.MinBytes, q.MaxBytes, q.SessionEpoch = 600_000, 1, 1000, -1
	q.Topics = append(q.Topics, t)
	if _, err := clustertest.Start(p.Context(), p.c, q); err != nil {
		p.Fatalf("poll: %v", err)
	}
	time.Sleep(time.Second)
	began := time.Now()
	if err := p.n.Stop(); err != nil {
		p.Fatalf("stop: %v", err)
	}
	return fmt.Sprint(time.Since(began).Round(time.Second))
}

func fetchedAtOnce(p *probe) string {
	p.start()
	p.topic("t", 1)
	p.mustProduce("t", 0, texts(20, 1000)...)
	got, err := p.c.Fetch(p.Context(), "t", 0, 0, clustertest.FetchOptions{})
	if err != nil {
		p.Fatalf("fetch: %v", err)
	}
	records, _, err := clustertest.Records(got.RecordBatches, 0)
	if err != nil {
		p.Fatalf("fetch: %v", err)
	}
	return fmt.Sprint(len(records))
}

func fetchSession(p *probe) string {
	p.start()
	p.topic("t", 1)
	part := kmsg.NewFetchRequestTopicPartition()
	part.PartitionMaxBytes = 1000
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.Partitions = "t", append(t.Partitions, part)
	q := kmsg.NewPtrFetchRequest()
	q.MaxBytes, q.SessionEpoch, q.Topics = 1000, 0, append(q.Topics, t)
	res, err := clustertest.Call[*kmsg.FetchResponse](p.Context(), p.c, q)
	if err != nil {
		p.Fatalf("fetch: %v", err)
	}
	return yes(res.SessionID == 0, "none", "a session")
}

func describedAtOnce(p *probe) string {
	p.start()
	p.topic("t", 5)
	t := kmsg.NewDescribeTopicPartitionsRequestTopic()
	t.Topic = "t"
	q := kmsg.NewPtrDescribeTopicPartitionsRequest()
	q.Topics, q.ResponsePartitionLimit = append(q.Topics, t), 2000
	res, err := clustertest.Call[*kmsg.DescribeTopicPartitionsResponse](p.Context(), p.c, q)
	if err != nil {
		p.Fatalf("describe: %v", err)
	}
	return fmt.Sprint(len(res.Topics[0].Partitions))
}
