package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// What Send does at the limit is as configured: wait, fail after max.block.ms (see
// TestBufferMemoryBoundsSend), or return at once.
func TestBufferFullPolicies(t *testing.T) {
	for _, c := range []struct {
		policy BufferFullPolicy
		want   time.Duration
		err    error
	}{{WaitWhenFull, 10 * time.Second, nil}, {FailAfterMaxBlock, 3 * time.Second, ErrBufferFull}, {FailWhenFull, 0, ErrBufferFull}} {
		bubble(t, 1, func(t *testing.T, f *fakeCluster) {
			f.topic("t", 1)
			c1, p := newTestProducer(t, f, BufferMemory(1000), MaxBlock(3*time.Second), WhenBufferFull(c.policy), Linger(0))
			defer c1.Close()
			record := ProducerRecord{Topic: "t", Value: make([]byte, 800)}
			if _, err := p.SendSync(t.Context(), record); err != nil { // waits for metadata, whatever the policy
				t.Fatal(err)
			}
			f.script(func(_ int32, req kmsg.Request) interference {
				if req.Key() == 0 {
					return interference{delay: 10 * time.Second}
				}
				return interference{}
			})
			if err := p.Send(t.Context(), record, nil); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if err := p.Send(t.Context(), record, nil); !errors.Is(err, c.err) {
				t.Errorf("policy %d: %v, expected %v", c.policy, err, c.err)
			}
			if took := time.Since(start); took < c.want || took > c.want+10*time.Millisecond {
				t.Errorf("policy %d: waited %v, expected %v", c.policy, took, c.want)
			}
			if c.policy == WaitWhenFull { // ctx still ends the wait
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := p.Send(ctx, record, nil); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("policy %d: %v, expected ctx's", c.policy, err)
				}
			}
			closeProducer(t, p)
		})
	}
}

// batchesOf counts the batches of each partition.
func (f *fakeCluster) batchesOf(topic string) (batches []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.mu.topics[topic].partitions {
		batches = append(batches, len(p.batches))
	}
	return batches
}

// Records without a key that come slowly fill few batches where the producer sticks to partitions,
// and one each where they are dealt out; all are written either way.
func TestSpreadReachesTheBatches(t *testing.T) {
	for _, c := range []struct {
		spread Spread
		most   int // batches
	}{{SpreadInTurn, 120}, {SpreadSticky, 25}, {SpreadUniformly, 25}} {
		bubble(t, 3, func(t *testing.T, f *fakeCluster) {
			f.topic("t", 12)
			client, p := newTestProducer(t, f, SpreadBy(c.spread), Linger(50*time.Millisecond), BatchSize(1000))
			defer client.Close()
			for range 120 {
				if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: make([]byte, 50)}, nil); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Millisecond)
			}
			closeProducer(t, p)
			synctest.Wait()
			batches, records, used := 0, 0, 0
			for n, b := range f.batchesOf("t") {
				batches += b
				records += len(f.values(TopicPartition{"t", int32(n)}))
				if b > 0 {
					used++
				}
			}
			if records != 120 || batches > c.most || used < 2 || c.spread == SpreadInTurn && used != 12 {
				t.Errorf("spread %d: %d records in %d batches on %d partitions", c.spread, records, batches, used)
			}
		})
	}
}

// Partitions of a broker that takes nothing are passed over, once that has lasted.
func TestUnavailablePartitionsArePassedOver(t *testing.T) {
	for _, spread := range []Spread{SpreadSticky, SpreadUniformly} {
		bubble(t, 3, func(t *testing.T, f *fakeCluster) {
			f.topic("t", 3)
			c, p := newTestProducer(t, f, SpreadBy(spread), Linger(0), BatchSize(200), MaxInFlight(1),
				PartitionAvailabilityTimeout(time.Second), AdaptivePartitioning(false))
			defer c.Close()
			f.script(func(node int32, req kmsg.Request) interference {
				return interference{silent: node == 2 && req.Key() == 0}
			})
			slow := 0
			for i := range 400 {
				if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: make([]byte, 100)}, nil); err != nil {
					t.Fatal(err)
				}
				time.Sleep(25 * time.Millisecond)
				if i == 200 {
					slow = p.backlogOf("t", 1)
				}
			}
			if late := p.backlogOf("t", 1); slow == 0 || late > slow+1 {
				t.Errorf("spread %d: %d batches wait for the broker that takes nothing, %d half-way", spread, late, slow)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 0)
			defer cancel()
			_ = p.Close(ctx)
		})
	}
}

func (p *Producer) backlogOf(topic string, partition int32) int {
	return (*p.topic(topic).queues.Load())[partition].Backlog()
}
