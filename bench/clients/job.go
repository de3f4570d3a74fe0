package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What a process may be asked to measure.
const (
	producing = "produce"
	consuming = "consume"
	pacing    = "pace"
	crowding  = "crowd"
)

// clients are what is compared, ours first.
var clients = []string{"ours", "franz-go"}

// job is one measurement of one client.
type job struct {
	Client, Kind, Brokers, Topic string
	Partitions, Records, Size    int
	Tick                         time.Duration // between records, where they are sent when due
	Profiles                     string        // where profiles go, without an ending; "" for none
}

// The settings that both clients have, as far as they are not the same by default.
const (
	batchBytes    = 1_000_000
	requestBytes  = 16 << 20
	bufferBytes   = 64 << 20
	bufferRecords = 1 << 20 // franz-go counts these too
	linger        = 5 * time.Millisecond
	fetchBytes    = 50 << 20
	fetchPart     = 1 << 20
	fetchWait     = 500 * time.Millisecond
)

// The share of the records that is sent or read first, and not counted: connections are made, code
// is loaded, and the heap finds its size.
const warmShare = 10 // one in so many

// pacedWarm is how many paced records are not counted.
const pacedWarm = 2 * ackRate

// sender is a producer of one of the clients.
type sender interface {
	// send lets the function that the sender was made with be called once, with what became of the record.
	send(ctx context.Context, partition int32, value []byte) error
	// sendThen has a callback of the record's own in its place.
	sendThen(ctx context.Context, partition int32, value []byte, done func(error)) error
	flush(ctx context.Context) error
	close(ctx context.Context) error
}

// reader is a consumer of one of the clients.
type reader interface {
	// poll gives how many records came, and the bytes of their values.
	poll(ctx context.Context) (records, bytes int, err error)
	close()
}

// sample is what was measured, by metric.
type sample map[string]float64

// measureApart runs a job in a process of its own.
func measureApart(ctx context.Context, o options, j job, name string) (sample, error) {
	if o.profiles != "" && name != "" {
		j.Profiles = filepath.Join(o.profiles, name)
	}
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	own, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, own, "-work", string(text))
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, complaints.String())
	}
	var s sample
	return s, json.NewDecoder(bytes.NewReader(out)).Decode(&s) // a test says PASS behind it
}

// measureSelf does a job and prints the sample.
func measureSelf(ctx context.Context, o options) error {
	var j job
	if err := json.Unmarshal([]byte(o.work), &j); err != nil {
		return err
	}
	do := map[string]func(context.Context, job) (sample, error){producing: produce, consuming: consume, pacing: pace, crowding: crowd}[j.Kind]
	if do == nil {
		return fmt.Errorf("no work is called %q", j.Kind)
	}
	s, err := do(ctx, j)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// usage is what this process has used so far.
type usage struct {
	at      time.Time
	cpu     time.Duration
	mallocs uint64
	bytes   uint64
}

func used() usage {
	var of unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &of) // it fails for a wrong argument only
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return usage{time.Now(), time.Duration(of.Utime.Nano() + of.Stime.Nano()), mem.Mallocs, mem.TotalAlloc}
}

// since gives what n records took.
func (u usage) since(n int) sample {
	now := used()
	each := float64(n)
	return sample{
		"rate": each / now.at.Sub(u.at).Seconds(), "cpu": float64(now.cpu-u.cpu) / 1e3 / each,
		"allocs": float64(now.mallocs-u.mallocs) / each, "allocated": float64(now.bytes-u.bytes) / each,
	}
}

// profiled writes profiles of what follows until its end is called.
func profiled(j job) (end func() error, err error) {
	if j.Profiles == "" {
		return func() error { return nil }, nil
	}
	runtime.MemProfileRate = 4 << 10
	f, err := os.Create(j.Profiles + ".cpu")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			return err
		}
		memory, err := os.Create(j.Profiles + ".allocs")
		if err != nil {
			return err
		}
		defer memory.Close()
		return pprof.Lookup("allocs").WriteTo(memory, 0)
	}, nil
}

// payloads are more values than a producer may hold at once, for franz-go keeps them as they are until
// they are acknowledged: a program could not use their memory again. Each is half pattern, half not.
func payloads(j job) [][]byte {
	n := min(j.Records, 2*bufferBytes/j.Size)
	all := make([]byte, n*j.Size)
	values := make([][]byte, n)
	for i := range values {
		values[i] = all[i*j.Size : (i+1)*j.Size : (i+1)*j.Size]
		for at := range values[i] {
			if values[i][at] = 'a'; at < j.Size/2 {
				values[i][at] = byte(at*at*31 + at>>3 + i)
			}
		}
	}
	return values
}

// outcome counts callbacks, which come from several goroutines with some clients.
type outcome struct {
	mu    sync.Mutex
	err   error
	acks  []time.Duration
	after int // paced records that are not counted
}

func (o *outcome) done(err error) {
	if err == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
}

func (o *outcome) acked(took time.Duration, counts bool, err error) {
	o.done(err)
	if counts && err == nil {
		o.mu.Lock()
		o.acks = append(o.acks, took)
		o.mu.Unlock()
	}
}

func (o *outcome) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// produce sends records as fast as they are taken. All of them go round the partitions, so that no
// partitioner's habits count.
func produce(ctx context.Context, j job) (sample, error) {
	var became outcome
	p, err := newSender(j, became.done)
	if err != nil {
		return nil, err
	}
	values := payloads(j)
	sendAll := func(n int) error {
		for i := range n {
			if err := p.send(ctx, int32(i%j.Partitions), values[i%len(values)]); err != nil {
				return err
			}
		}
		return p.flush(ctx)
	}
	if err := sendAll(j.Records / warmShare); err != nil {
		return nil, err
	}
	end, err := profiled(j)
	if err != nil {
		return nil, err
	}
	runtime.GC()
	before := used()
	if err := sendAll(j.Records); err != nil {
		return nil, err
	}
	s := before.since(j.Records)
	if err := end(); err != nil {
		return nil, err
	}
	if err := p.close(ctx); err != nil {
		return nil, err
	}
	return s, became.failed()
}

// consume reads what produce has written, its warming up included.
func consume(ctx context.Context, j job) (sample, error) {
	warm := j.Records / warmShare
	if _, err := read(ctx, j, warm); err != nil {
		return nil, err
	}
	end, err := profiled(j)
	if err != nil {
		return nil, err
	}
	runtime.GC()
	before := used()
	// By a reader of its own: what one that is warm has fetched ahead was not paid for here.
	bytes, err := read(ctx, j, j.Records+warm)
	if err != nil {
		return nil, err
	}
	s := before.since(j.Records + warm)
	if want := (j.Records + warm) * j.Size; bytes != want {
		return nil, fmt.Errorf("read %d bytes, expected %d", bytes, want)
	}
	return s, end()
}

// read makes a reader and reads so many records, or some more.
func read(ctx context.Context, j job, records int) (bytes int, err error) {
	k, err := newReader(ctx, j)
	if err != nil {
		return 0, err
	}
	defer k.close()
	for seen := 0; seen < records; {
		some, size, err := k.poll(ctx)
		if err != nil {
			return 0, err
		}
		seen, bytes = seen+some, bytes+size
	}
	return bytes, nil
}

// pace sends records when they are due, and takes the time from then to the acknowledgement.
func pace(ctx context.Context, j job) (sample, error) {
	j.Records += pacedWarm
	became := outcome{acks: make([]time.Duration, 0, j.Records)}
	p, err := newSender(j, became.done)
	if err != nil {
		return nil, err
	}
	values := payloads(j)
	var before usage
	var failed error
	whenDue(j.Records, j.Tick, func(i int, due time.Time) {
		if i == pacedWarm {
			before = used()
		}
		err := p.sendThen(ctx, 0, values[i%len(values)], func(err error) { became.acked(time.Since(due), i >= pacedWarm, err) })
		if err != nil && failed == nil {
			failed = err
		}
	})
	if failed != nil {
		return nil, failed
	}
	if err := p.flush(ctx); err != nil {
		return nil, err
	}
	s := before.since(j.Records - pacedWarm)
	if err := p.close(ctx); err != nil {
		return nil, err
	}
	slices.Sort(became.acks)
	s["p50"], s["p99"] = quantile(became.acks, .5), quantile(became.acks, .99)
	return s, became.failed()
}

// quantile is in milliseconds.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return -1
	}
	return float64(sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]) / 1e6
}
