package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const manyPartitions = 1000

// startRows measure processes from their first instant, and their memory; no other broker runs.
func startRows(o options) []row {
	seconds := []metric{{"seconds", "time", "s"}}
	ready := func(name, title string, limit float64, aim string, run func(ctx context.Context, l *lab) (sample, error)) row {
		return row{
			name: name, title: title, variants: []string{durable}, alone: true, metrics: seconds,
			bars: []bar{{durable, "seconds", "", false, limit, aim}},
			run:  func(ctx context.Context, l *lab, _ variant, _ string) (sample, error) { return run(ctx, l) },
		}
	}
	return []row{
		{
			name: "first-100k", title: "from starting the process to the 100,000th acknowledgement", variants: []string{kafka, durable}, alone: true,
			metrics: seconds, bars: []bar{{durable, "seconds", kafka, false, 0.5, "0.2x"}}, run: firstHundredThousand,
		},
		ready("ready-empty", "start to ready: empty", 0.3, "0.05 s", readyEmpty),
		ready("ready-clean", "start to ready: 1,000 partitions, clean stop", 2, "0.3 s", func(ctx context.Context, l *lab) (sample, error) {
			return readyFull(ctx, l, syscall.SIGTERM)
		}),
		ready("ready-killed", "start to ready: 1,000 partitions, kill -9 under load", 2, "0.3 s", func(ctx context.Context, l *lab) (sample, error) {
			return readyFull(ctx, l, syscall.SIGKILL)
		}),
		{
			name: "memory", title: "resident memory", variants: []string{durable}, alone: true,
			metrics: []metric{{"idle", "idle", "MiB"}, {"partitions", "1,000 idle partitions", "MiB"}},
			bars:    []bar{{durable, "idle", "", false, 48, "24 MiB"}, {durable, "partitions", "", false, 128, "48 MiB"}},
			run:     memory,
		},
	}
}

// own makes a broker on a fresh directory that is removed afterwards, with these settings (key=value).
func (l *lab) own(name string, set ...string) (b *broker, remove func(), err error) {
	dir := l.fresh(name)
	if name == kafka {
		b, err = newKafka(l.o, dir, set...)
	} else {
		b = newOurs(l.o, dir, set...)
	}
	return b, func() {
		if b != nil {
			_ = b.end(syscall.SIGKILL)
		}
		_ = os.RemoveAll(dir)
	}, err
}

func firstHundredThousand(ctx context.Context, l *lab, v variant, topic string) (sample, error) {
	b, remove, err := l.own(v.name)
	defer remove()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := b.launch(); err != nil {
		return nil, err
	}
	if err := b.dialable(ctx); err != nil {
		return nil, err
	}
	if err := b.makeTopic(ctx, topic, 1, nil); err != nil {
		return nil, err
	}
	if _, err := produce(ctx, variant{v.name, b, nil}, topic, "none", 100_000, 124); err != nil {
		return nil, err
	}
	return sample{"seconds": time.Since(start).Seconds()}, nil
}

func timeToReady(ctx context.Context, b *broker) (sample, error) {
	start := time.Now()
	if err := b.launch(); err != nil {
		return nil, err
	}
	if err := b.awaitLine(ctx); err != nil {
		return nil, err
	}
	return sample{"seconds": time.Since(start).Seconds()}, nil
}

func readyEmpty(ctx context.Context, l *lab) (sample, error) {
	b, remove, err := l.own("ours")
	defer remove()
	if err != nil {
		return nil, err
	}
	return timeToReady(ctx, b)
}

// readyFull fills a thousand partitions, ends the broker with a signal while records still arrive
// where that signal is SIGKILL, and takes the time of the next start.
func readyFull(ctx context.Context, l *lab, signal syscall.Signal) (sample, error) {
	b, remove, err := l.own("ours")
	defer remove()
	if err != nil {
		return nil, err
	}
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	if err := b.makeTopic(ctx, "full", manyPartitions, nil); err != nil {
		return nil, err
	}
	cl, err := b.client(append(producerOpts("full", "none"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	value := make([]byte, 1024)
	fill := func(ctx context.Context, n int) {
		for range n {
			cl.Produce(ctx, &kgo.Record{Value: value}, nil)
		}
	}
	fill(ctx, 100*manyPartitions)
	if err := cl.Flush(ctx); err != nil {
		return nil, fmt.Errorf("fill: %w", err)
	}
	if signal == syscall.SIGKILL {
		loading, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for loading.Err() == nil {
				fill(loading, 1000)
			}
		}()
		time.Sleep(time.Second) // of load
		err = b.end(signal)
		stop()
		<-done
	} else {
		err = b.end(signal)
	}
	if err != nil {
		return nil, err
	}
	return timeToReady(ctx, b)
}

// memory looks at an idle broker, then at one with a thousand partitions that have been written to.
func memory(ctx context.Context, l *lab, _ variant, _ string) (sample, error) {
	b, remove, err := l.own("ours")
	defer remove()
	if err != nil {
		return nil, err
	}
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	settle := func() error {
		select {
		case <-time.After(15 * time.Second):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := settle(); err != nil {
		return nil, err
	}
	s := sample{"idle": b.residentMiB()}
	if err := b.makeTopic(ctx, "idle", manyPartitions, nil); err != nil {
		return nil, err
	}
	cl, err := b.client(append(producerOpts("idle", "none"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))...)
	if err != nil {
		return nil, err
	}
	for range 10 * manyPartitions {
		cl.Produce(ctx, &kgo.Record{Value: make([]byte, 124)}, nil)
	}
	err = cl.Flush(ctx)
	cl.Close()
	if err := errors.Join(err, settle()); err != nil {
		return nil, err
	}
	s["partitions"] = b.residentMiB()
	return s, nil
}
