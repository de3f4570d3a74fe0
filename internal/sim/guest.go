package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/clustertest"
)

const (
	dialPatience = 400 * time.Millisecond
	callPatience = 2500 * time.Millisecond
)

// guest is one client of the cluster: a host of its own, a connection to each node that it has needed, and what it
// believes of who leads what. One goroutine uses it.
type guest struct {
	r     *Run
	host  string
	dice  *rand.Rand
	conns map[int32]*clustertest.Client
	leads map[Place]leads
	// newest is the newest leader epoch that is known.
	newest map[Place]int32
}

type leads struct{ node, epoch int32 }

func (r *Run) guest(host string) *guest {
	return &guest{r: r, host: host, dice: r.Dice(host), conns: map[int32]*clustertest.Client{}, leads: map[Place]leads{}, newest: map[Place]int32{}}
}

// at is a connection to a node.
func (g *guest) at(ctx context.Context, node int32) (*clustertest.Client, error) {
	if c := g.conns[node]; c != nil {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	to := g.r.node(node)
	if to == nil {
		return nil, fmt.Errorf("no node %d", node)
	}
	c, err := g.r.Dial(ctx, g.host, to)
	if err == nil {
		g.conns[node] = c
	}
	return c, err
}

// broken drops a connection over which a call has ended in an error that is no answer.
func (g *guest) broken(node int32, err error) {
	var answer *kerr.Error
	if err == nil || errors.As(err, &answer) {
		return
	}
	if c := g.conns[node]; c != nil {
		_ = c.Close() // it has failed already
		delete(g.conns, node)
	}
}

func (g *guest) close() {
	for node := range g.conns {
		g.broken(node, context.Canceled)
	}
}

// anyone draws a node.
func (g *guest) anyone() int32 { return int32(1 + g.dice.IntN(len(g.r.there()))) }

// leader finds who leads a partition, by asking anyone.
func (g *guest) leader(ctx context.Context, p Place) (leads, error) {
	if l, ok := g.leads[p]; ok {
		return l, nil
	}
	from := g.anyone()
	c, err := g.at(ctx, from)
	if err != nil {
		return leads{}, err
	}
	t, err := c.Topic(ctx, p.Topic)
	if err != nil {
		g.broken(from, err)
		return leads{}, err
	}
	for _, one := range t.Partitions {
		// As every client (KIP-320): whoever tells of an epoch before one that is known has been asleep.
		if one.Partition == p.Partition && one.Leader > 0 && one.LeaderEpoch >= g.newest[p] {
			l := leads{one.Leader, one.LeaderEpoch}
			g.leads[p], g.newest[p] = l, one.LeaderEpoch
			return l, nil
		}
	}
	return leads{}, kerr.LeaderNotAvailable
}

// rest waits for d and up to twice of it more; false once the world wants its guests to go.
func (g *guest) rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d + time.Duration(g.dice.Int64N(int64(2*d)+1000)))
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// question is what a consumer asks of one partition.
type question struct {
	place Place
	epoch int32 // of the leader that is asked, -1: any
	from  int64
	rack  string
	wait  time.Duration
	most  int32 // bytes
}

func (g *guest) fetch(ctx context.Context, node int32, q question) (*kmsg.FetchResponseTopicPartition, error) {
	c, err := g.at(ctx, node)
	if err != nil {
		return nil, err
	}
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = q.place.Partition, q.from, q.most, q.epoch
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.Partitions = q.place.Topic, append(t.Partitions, p)
	f := kmsg.NewPtrFetchRequest()
	f.MaxWaitMillis, f.MinBytes, f.MaxBytes, f.SessionEpoch, f.Rack = int32(q.wait.Milliseconds()), 1, q.most, -1, q.rack
	f.Topics = append(f.Topics, t)
	res, err := clustertest.Call[*kmsg.FetchResponse](ctx, c, f)
	if err == nil {
		err = kerr.ErrorForCode(res.ErrorCode)
	}
	if err != nil {
		g.broken(node, err)
		return nil, err
	}
	got := &res.Topics[0].Partitions[0]
	return got, kerr.ErrorForCode(got.ErrorCode)
}

// end asks for the end of a partition that consumers see, and notes it.
func (g *guest) end(ctx context.Context, place Place, leader leads) (int64, error) {
	c, err := g.at(ctx, leader.node)
	if err != nil {
		return 0, err
	}
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp, p.CurrentLeaderEpoch = place.Partition, -1, leader.epoch
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic, t.Partitions = place.Topic, append(t.Partitions, p)
	q := kmsg.NewPtrListOffsetsRequest()
	q.ReplicaID, q.Topics = -1, append(q.Topics, t)
	asked := g.r.history.Now()
	res, err := clustertest.Call[*kmsg.ListOffsetsResponse](ctx, c, q)
	if err == nil {
		err = kerr.ErrorForCode(res.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		g.broken(leader.node, err)
		return 0, err
	}
	offset := res.Topics[0].Partitions[0].Offset
	g.r.history.EndOffset(asked, End{Place: place, Reader: g.host, Node: leader.node, LeaderEpoch: leader.epoch, Offset: offset})
	return offset, nil
}

// errUnreadable: what came is not what was written, as its checksum says. Every client looks.
var errUnreadable = errors.New("a batch that was fetched is damaged")

// decode reads what a fetch has brought from an offset on.
func decode(checker *batch.Checker, data []byte, from int64) (records []Record, next int64, err error) {
	for next = from; len(data) > 0; {
		b, rest, err := batch.Next(data)
		if errors.Is(err, batch.ErrIncomplete) {
			break
		}
		if err == nil {
			err = b.CheckCRC()
		}
		if err != nil {
			return records, next, fmt.Errorf("after offset %d: %w: %w", next, errUnreadable, err)
		}
		for rec, err := range checker.Records(b) {
			if err != nil {
				return records, next, fmt.Errorf("records of the batch at %d: %w: %w", b.BaseOffset(), errUnreadable, err)
			}
			if at := b.OffsetOf(&rec); at >= from {
				records = append(records, Record{Offset: at, Epoch: b.LeaderEpoch(), Value: string(rec.Value)})
			}
		}
		data, next = rest, max(next, b.NextOffset())
	}
	return records, next, nil
}
