package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/coordinator/group"
)

// longLoad is how long loading a partition takes at least to be worth a line in the log.
const longLoad = time.Second

// load reads the partition from its beginning: what the shard knows afterwards is what whoever led
// it before knew. Few partitions are read at one time (group.coordinator.threads), each in stretches of
// offsets.load.buffer.size.
func (p *partition) load(ctx context.Context) error {
	if p.isLoaded {
		return nil
	}
	select {
	case p.c.loads <- struct{}{}:
		defer func() { <-p.c.loads }()
	case <-ctx.Done():
		return errStopped
	}
	progress := p.replica.Progress()
	if err := p.read(ctx, progress.Start, progress.End); err != nil {
		return err
	}
	p.loaded(progress.End)
	return nil
}

// Loading that failed is tried again after a pause, which doubles from the one to the other.
const (
	firstLoadPause = time.Second
	mostLoadPause  = time.Minute
)

// loadAtLast loads until that succeeds: what keeps a log from being read may pass, and nobody else leads it. False: the
// partition is lost.
func (p *partition) loadAtLast(ctx context.Context) bool {
	for pause := firstLoadPause; ; pause = min(2*pause, mostLoadPause) {
		err := p.load(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		p.c.log.Error("groups are unavailable: their partition cannot be read; it is tried again", "partition", p.String(), "in", pause, "err", err)
		p.shard = group.New(p.c.shards, rand.NewPCG(p.dice.Uint64(), p.dice.Uint64())) // nothing of half a log is known
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// loaded lets requests in, once the shard knows what lies below an offset.
func (p *partition) loaded(end int64) {
	p.end, p.isLoaded = end, true
	p.shard.Loaded(p.c.o.Now())
	p.inbox.become(serving)
}

// read replays the records from one offset of the log up to another.
func (p *partition) read(ctx context.Context, from, end int64) error {
	began := p.c.o.Now()
	var records, unknown int64
	var buf []byte
	size := p.c.o.Config.Int("offsets.load.buffer.size")
	for first := from; first < end; {
		if ctx.Err() != nil {
			return errStopped
		}
		r, err := p.replica.Log().Read(first, size, end, true)
		if err == nil {
			if cap(buf) < int(r.Len()) {
				buf = make([]byte, 0, r.Len())
			}
			buf, err = r.AppendTo(buf[:0])
			err = errors.Join(err, r.Close())
		}
		if err != nil {
			return fmt.Errorf("from offset %d: %w", first, err)
		}
		if r.Next <= first {
			break // nothing is left below the end
		}
		n, skipped, err := p.replay(buf, began)
		if err != nil {
			return err
		}
		p.shard.Appended() // it is in the log: nothing of it will be undone
		records, unknown, first = records+n, unknown+skipped, r.Next
	}
	took := p.c.o.Now().Sub(began)
	p.c.stats.loads.Observe(took.Seconds())
	p.c.stats.loaded.Add(records)
	level := slog.LevelDebug
	if took > longLoad {
		level = slog.LevelInfo
	}
	p.c.log.Log(ctx, level, "groups loaded", "partition", p.String(), "records", records, "took", took.Round(time.Millisecond))
	if unknown > 0 {
		p.c.log.Warn("records of groups that are not understood are left out", "partition", p.String(), "records", unknown)
	}
	return nil
}

// replay hands the records in a stretch of the log to the shard. What cannot be understood, or belongs
// to a kind of group that is not kept here, changes nothing.
func (p *partition) replay(data []byte, now time.Time) (records, unknown int64, err error) {
	for len(data) > 0 {
		b, rest, err := batch.Next(data)
		if err != nil {
			return records, unknown, err // the range has been checked
		}
		data = rest
		if b.IsControl() {
			continue
		}
		for r, err := range p.c.checker.Records(b) {
			if err != nil {
				return records, unknown, fmt.Errorf("batch at offset %d: %w", b.BaseOffset(), err)
			}
			records++
			if err := p.shard.Replay(group.Record{Key: r.Key, Value: r.Value}, now); err != nil {
				unknown++
				p.c.log.Debug("a record of groups is left out", "partition", p.String(), "offset", b.OffsetOf(&r), "err", err)
			}
		}
	}
	return records, unknown, nil
}
