//go:build chaos

package chaos

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/test/compat/rig"
)

const (
	hostileFrames    = 10_000
	hostileSenders   = 25
	goroutinesAllow  = 20                    // what a runtime starts for itself
	heapAllowBytes   = 32 << 20              // caches that fill once
	hostileReplyWait = 50 * time.Millisecond // for a broker that waits for more bytes
)

// TestHostileFrames throws malformed, truncated and hostile frames at a broker that an honest client
// uses meanwhile. The broker lives on, keeps no goroutine or memory of it, and the client notices nothing.
func TestHostileFrames(t *testing.T) {
	if rig.System() != "barnabas" {
		t.Log("looks into our process through its admin address")
		return
	}
	rng := seeded(t)
	adminAddr := rig.FreeAddress(t)
	b := rig.StartWith(t, rig.Options{Args: []string{"--admin", adminAddr}})
	createTopic(t, b.Addr, "honest", 3, nil)
	createTopic(t, b.Addr, "victim", 3, nil)

	// A stray FindCoordinator makes the topic of committed offsets, with a goroutine for each of its partitions.
	rig.Eventually(t, patience, "groups have a coordinator", func() bool {
		return admin(t, b.Addr).FindGroupCoordinators(within(t, patience), "honest").Error() == nil
	})

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var words int
	wg.Go(func() { words = honest(ctx, t, b.Addr) })
	throw(t, b.Addr, rng.Uint64(), hostileFrames/10) // what is made once is made
	goroutines, heap := inside(t, adminAddr)
	answered := throw(t, b.Addr, rng.Uint64(), hostileFrames)
	rig.Eventually(t, patience, "goroutines and memory are back where they were", func() bool {
		nowGoroutines, nowHeap := inside(t, adminAddr)
		return nowGoroutines <= goroutines+goroutinesAllow && nowHeap <= heap+heapAllowBytes
	})
	select {
	case <-b.Gone():
		t.Fatalf("the broker is gone:\n%s", b.Log())
	default:
	}
	stop()
	wg.Wait()
	nowGoroutines, nowHeap := inside(t, adminAddr)
	if answered < hostileFrames/20 || answered > hostileFrames*19/20 {
		t.Errorf("%d of %d frames were answered: they are not as mixed as they should be", answered, hostileFrames)
	}
	if words < 10 {
		t.Errorf("the honest client had only %d words through", words)
	}
	t.Logf("%d of %d frames answered, %d honest words; goroutines %d, then %d; heap %d KiB, then %d KiB",
		answered, hostileFrames, words, goroutines, nowGoroutines, heap>>10, nowHeap>>10)
}

// honest produces and reads its own words back until its context ends, and returns how many. Any
// error is a disturbance.
func honest(ctx context.Context, t *testing.T, addr string) (words int) {
	cl := client(t, addr, kgo.ConsumeTopics("honest"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RecordRetries(0))
	for ; ctx.Err() == nil; words++ {
		value := fmt.Sprint("word ", words)
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "honest", Value: []byte(value)}).FirstErr(); err != nil {
			if ctx.Err() == nil {
				t.Errorf("produce %q: %v", value, err)
			}
			return words
		}
		for found := false; !found; {
			fetches := cl.PollFetches(ctx)
			if ctx.Err() != nil {
				return words
			}
			if err := fetches.Err(); err != nil {
				t.Errorf("read %q back: %v", value, err)
				return words
			}
			fetches.EachRecord(func(r *kgo.Record) { found = found || string(r.Value) == value })
		}
	}
	return words
}

// throw sends n frames, each on a connection of its own, and returns how many were answered.
func throw(t *testing.T, addr string, seed uint64, n int) int {
	t.Helper()
	var answered atomic.Int64
	var wg sync.WaitGroup
	for s := range hostileSenders {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(s)))
			for range n / hostileSenders {
				reply, err := throwOne(addr, hostile(rng), rng.IntN(2) == 0)
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
					return
				}
				if reply > 0 {
					answered.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return int(answered.Load())
}

// throwOne sends bytes, says that there will be no more or keeps the broker waiting for them, and
// listens until the broker hangs up or has had its time to answer. Only a broker that takes no
// connection is an error.
func throwOne(addr string, frame []byte, done bool) (replyBytes int64, err error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return 0, fmt.Errorf("the broker takes no connection: %w", err)
	}
	defer c.Close()
	wait := hostileReplyWait
	if done { // whoever hears that there will be no more answers and hangs up, however long that takes it
		wait = patience
	}
	_ = c.SetDeadline(time.Now().Add(wait)) // does not fail on an open socket
	if _, err := c.Write(frame); err != nil {
		return 0, nil //nolint:nilerr // hung up on already: its right
	}
	if done {
		_ = c.(*net.TCPConn).CloseWrite()
	}
	replyBytes, _ = io.Copy(io.Discard, c) // reset or still waiting: its right too
	return replyBytes, nil
}

// hostile makes a frame: an honest request changed, or none at all.
func hostile(rng *rand.Rand) []byte {
	switch rng.IntN(10) {
	case 0: // noise
		b := make([]byte, rng.IntN(2000))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	case 1: // a size that lies
		b := request(rng)
		binary.BigEndian.PutUint32(b, []uint32{0, 1, 7, 1 << 20, 1<<31 - 1, 1 << 31, 1<<32 - 1, rng.Uint32()}[rng.IntN(8)])
		return b
	case 2: // cut off
		b := request(rng)
		return b[:rng.IntN(len(b))]
	case 3: // another key and version than its body's
		b := request(rng)
		binary.BigEndian.PutUint16(b[4:], uint16(rng.IntN(100)))
		binary.BigEndian.PutUint16(b[6:], uint16(rng.IntN(20)))
		return b
	case 4: // many requests at once, one of them bad
		var b []byte
		for range 1 + rng.IntN(20) {
			b = append(b, request(rng)...)
		}
		b[rng.IntN(len(b))] ^= byte(1 + rng.IntN(255))
		return b
	case 5: // lengths and counts that promise what never comes
		b := request(rng)
		if at := 8 + rng.IntN(len(b)-8); len(b) > at+5 {
			copy(b[at:], [][]byte{{0x7f, 0xff, 0xff, 0xff}, {0xff, 0xff, 0xff, 0xff, 0x0f}, {0x80, 0, 0, 0}, {0xff, 0xff, 0xff, 0x7f}}[rng.IntN(4)])
		}
		return b
	}
	b := request(rng) // bits flipped
	for range 1 + rng.IntN(8) {
		b[4+rng.IntN(len(b)-4)] ^= 1 << rng.IntN(8)
	}
	return b
}

// request is an honest frame of any key and version, its arrays filled where that is simple.
func request(rng *rand.Rand) []byte {
	keys := []int16{0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23, 32, 33, 35, 37, 42, 44, 47, 55, 57, 60, 61, 74, 75}
	req := kmsg.RequestForKey(keys[rng.IntN(len(keys))])
	req.SetVersion(int16(rng.IntN(int(req.MaxVersion()) + 1)))
	switch r := req.(type) {
	case *kmsg.ProduceRequest:
		r.Acks, r.TimeoutMillis = int16(rng.IntN(3)-1), 100
		p := kmsg.NewProduceRequestTopicPartition()
		p.Records = make([]byte, rng.IntN(300))
		for i := range p.Records {
			p.Records[i] = byte(rng.Uint32())
		}
		if len(p.Records) > 61 { // near enough to a batch to be looked at
			binary.BigEndian.PutUint64(p.Records, 0)
			binary.BigEndian.PutUint32(p.Records[8:], uint32(len(p.Records)-12))
			p.Records[16] = 2
		}
		topic := kmsg.NewProduceRequestTopic()
		topic.Topic, topic.Partitions = "victim", []kmsg.ProduceRequestTopicPartition{p}
		r.Topics = append(r.Topics, topic)
	case *kmsg.FetchRequest:
		topic := kmsg.NewFetchRequestTopic()
		p := kmsg.NewFetchRequestTopicPartition()
		p.FetchOffset, p.PartitionMaxBytes = rng.Int64N(10), rng.Int32()
		topic.Topic, topic.Partitions = "victim", []kmsg.FetchRequestTopicPartition{p}
		r.MaxWaitMillis, r.MinBytes, r.MaxBytes, r.Topics = 50, 1, 1<<20, append(r.Topics, topic)
	case *kmsg.MetadataRequest:
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr("victim")
		r.Topics = append(r.Topics, topic)
	}
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("hostile")).AppendRequest(nil, req, rng.Int32())
}

var (
	goroutineTotal = regexp.MustCompile(`goroutine profile: total (\d+)`)
	heapInUse      = regexp.MustCompile(`# HeapAlloc = (\d+)`)
)

// inside asks the admin address for the number of goroutines, and for the heap after a collection.
func inside(t *testing.T, addr string) (goroutines, heapBytes int) {
	t.Helper()
	ask := func(path string, pattern *regexp.Regexp) int {
		req, err := http.NewRequestWithContext(within(t, patience), http.MethodGet, "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatalf("ask the broker for %s: %v", path, err)
		}
		defer reply.Body.Close()
		body, err := io.ReadAll(reply.Body)
		if err != nil {
			t.Fatal(err)
		}
		m := pattern.FindSubmatch(body)
		if m == nil {
			t.Fatalf("%s says %.300s", path, body)
		}
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return ask("/debug/pprof/goroutine?debug=1", goroutineTotal), ask("/debug/pprof/heap?debug=1&gc=1", heapInUse)
}
