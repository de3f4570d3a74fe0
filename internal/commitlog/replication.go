package commitlog

import (
	"errors"
	"fmt"

	"barnabas/internal/batch"
)

// A log has one writer at a time: in each leader epoch either this broker's clients and coordinators, or the
// leader elsewhere whose records are copied here. Lead and Follow say which, under the append slot, so that
// whatever was under way for the epoch before has ended when they return, and finds itself refused if it comes
// later: a deposed leader's append must not land behind what was copied, nor a late copy, or a late
// truncation, in a log that leads.

// reign says who writes. Guarded by slot.
type reign struct {
	epoch     int32
	following bool
}

// Lead begins a leader epoch of this broker's own at the log's end, and returns that. The epoch is noted in memory, and
// stored with its first record: an epoch without records is nobody's history, and every start begins one in every log.
//
// Errors: ErrEpochOver when the log has been told of a later one; those of the disk.
func (l *Log) Lead(epoch int32) (start int64, err error) {
	if err := l.take(); err != nil {
		return 0, err
	}
	defer l.give()
	if epoch < l.reign.epoch {
		return 0, l.epochOver("lead", epoch)
	}
	start = l.Progress().End
	l.reign = reign{epoch: epoch}
	if l.epochs.Assign(epoch, start) {
		l.epochsUnstored = true
	}
	return start, nil
}

// Follow begins a leader epoch of somebody else's: from now on only Replicate writes. Epochs that this log has no
// record of are forgotten, for the leader may have older ones at their place.
//
// Errors: as Lead.
func (l *Log) Follow(epoch int32) error {
	if err := l.take(); err != nil {
		return err
	}
	defer l.give()
	if epoch < l.reign.epoch {
		return l.epochOver("follow", epoch)
	}
	l.reign = reign{epoch: epoch, following: true}
	if l.epochs.CutEnd(l.Progress().End) {
		l.epochsUnstored = true
	}
	return nil
}

// AtWork tells whether somebody is changing the log now: who asks for a change would have to wait, perhaps for a disk.
func (l *Log) AtWork() bool { return len(l.slot) > 0 }

func (l *Log) epochOver(doing string, epoch int32) error {
	return fmt.Errorf("%s %s in epoch %d, it is at %d: %w", doing, l.id, epoch, l.reign.epoch, ErrEpochOver)
}

// mayLead is asked before an append in an epoch. The slot is held.
func (l *Log) mayLead(epoch int32) error {
	latest := max(l.epochs.Latest(), l.reign.epoch)
	if epoch < latest || l.reign.following && epoch == l.reign.epoch {
		return fmt.Errorf("append to %s in epoch %d, the log is at %d: %w", l.id, epoch, latest, ErrEpochOver)
	}
	return nil
}

// mayFollow is asked before anything that is done for the leader of an epoch. The slot is held.
func (l *Log) mayFollow(doing string, epoch int32) error {
	if !l.reign.following || l.reign.epoch != epoch {
		return l.epochOver(doing, epoch)
	}
	return nil
}

// LastEpoch is the leader epoch of the last record, -1 of a log without records. With End it says to a leader which
// history this log is of (KIP-101).
func (l *Log) LastEpoch() int32 {
	p := l.Progress()
	if p.End == p.Start {
		return -1
	}
	return l.epochs.At(p.End - 1)
}

// Replicate appends what was fetched from the leader of an epoch: whole batches as they lie in its log, unchanged. It
// returns the log's end and, where it stopped before the end of data, why; what lies before is written.
//
// Errors: batch.ErrCorrupt for a batch that is not what its leader wrote; ErrOutOfRange for one that does not begin at
// the end; ErrEpochOver when the epoch is over; and those of Append that concern the disk.
func (l *Log) Replicate(data []byte, epoch int32) (end int64, err error) {
	before := l.Progress().End
	if err := l.takeGround(); err != nil {
		return before, err
	}
	cfg := l.config.Load()
	if err = l.mayFollow("replicate to", epoch); err == nil {
		err = l.replicate(data, epoch, cfg)
	}
	end = l.Progress().End
	l.give()
	if end > before {
		err = errors.Join(err, l.afterAppend(l.dir.now().UnixMilli(), Client))
	}
	return end, err
}

// replicate needs the slot.
func (l *Log) replicate(data []byte, epoch int32, cfg *Config) error {
	for len(data) > 0 {
		b, rest, err := batch.Next(data)
		if err != nil {
			return fmt.Errorf("replicate to %s at %d: %w: %w", l.id, l.Progress().End, batch.ErrCorrupt, err)
		}
		if err := b.CheckCRC(); err != nil {
			return fmt.Errorf("replicate to %s at %d: %w", l.id, l.Progress().End, err)
		}
		// The checksum does not cover the epoch, and one that is wrong would rewrite the log's history.
		if e := b.LeaderEpoch(); e > epoch || e < l.epochs.Latest() && e != batch.NoLeaderEpoch {
			return fmt.Errorf("replicate to %s: batch at %d is of epoch %d, the log is at %d, its leader at %d: %w",
				l.id, b.BaseOffset(), e, l.epochs.Latest(), epoch, batch.ErrCorrupt)
		}
		if err := l.appendFollowing(b, cfg); err != nil {
			return err
		}
		data = rest
	}
	return nil
}

// TruncateFollowing is Truncate on behalf of the leader of an epoch; ErrEpochOver when that is over.
func (l *Log) TruncateFollowing(to int64, epoch int32) error {
	return l.truncate(to, func() error { return l.mayFollow("truncate", epoch) })
}

// RestartFollowing is Restart on behalf of the leader of an epoch; ErrEpochOver when that is over.
func (l *Log) RestartFollowing(at int64, epoch int32) error {
	return l.restartIf(at, func() error { return l.mayFollow("restart", epoch) })
}
