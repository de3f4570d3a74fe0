package commitlog

import (
	"errors"
	"io"
	"slices"
	"strings"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

// finishSwaps brings an exchange of segments that a crash interrupted to its end, or undoes it. A .log file with .swap behind its
// name was complete and durable, so it takes the place of every segment that begins among its offsets. Whatever else
// compaction left goes. A crash in here finds the same again. It returns what is in the directory then.
func (r *loader) finishSwaps(entries []disk.Entry) ([]disk.Entry, error) {
	l := r.log
	var swaps []int64
	changed := false
	for _, e := range entries {
		name, isSwap := strings.CutSuffix(e.Name, segment.SwapSuffix)
		if base, ok := segment.ParseName(name, segment.DataSuffix); isSwap && ok {
			swaps = append(swaps, base)
		}
		changed = changed || isSwap
		if strings.HasSuffix(e.Name, segment.CleanedSuffix) {
			changed = true
			if err := l.dir.fs.Remove(l.path + "/" + e.Name); err != nil {
				return nil, err
			}
		}
	}
	if !changed {
		return entries, nil
	}
	for _, base := range swaps {
		if err := r.finishSwap(base, entries); err != nil {
			return nil, err
		}
	}
	for _, e := range entries { // indexes alone: their .log file never came so far
		if name, isSwap := strings.CutSuffix(e.Name, segment.SwapSuffix); isSwap && !slices.ContainsFunc(swaps, func(base int64) bool {
			return strings.HasPrefix(name, segment.Name(base, ""))
		}) {
			if err := l.dir.fs.Remove(l.path + "/" + e.Name); err != nil {
				return nil, err
			}
		}
	}
	if err := l.syncDirectory(); err != nil {
		return nil, err
	}
	return l.dir.fs.List(l.path)
}

// finishSwap puts one segment in the place of those that it was made from.
func (r *loader) finishSwap(base int64, entries []disk.Entry) error {
	l := r.log
	end, err := r.swapEnd(base)
	if err != nil {
		return err
	}
	l.dir.logger.Info("finishing what compaction had begun", "log", l.id.String(), "from", base, "to", end)
	for _, e := range entries {
		old, ok := segment.ParseName(e.Name, segment.DataSuffix)
		if !ok || old < base || (old >= end && old != base) {
			continue
		}
		for _, suffix := range segment.Suffixes() { // the .log file last: by it the others are found again
			if err := l.dir.fs.Remove(l.path + "/" + segment.Name(old, suffix)); err != nil {
				return err
			}
		}
	}
	if err := l.syncDirectory(); err != nil {
		return err
	}
	for _, suffix := range segment.Suffixes() {
		path := l.path + "/" + segment.Name(base, suffix)
		if err := l.dir.fs.Rename(path+segment.SwapSuffix, path); err != nil && !isNotExist(err) {
			return err
		}
	}
	return nil
}

// swapEnd is the offset after the last batch of a segment that waits for its place.
func (r *loader) swapEnd(base int64) (end int64, err error) {
	f, err := r.log.dir.fs.Open(r.log.path+"/"+segment.Name(base, segment.DataSuffix)+segment.SwapSuffix, disk.Read)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	end = base
	for w := segment.Walk(f, 0, size, r.buf); ; {
		var h batch.Batch
		h, _, err = w.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, segment.ErrFrame) {
			return end, nil
		}
		if err != nil {
			return end, err
		}
		end = h.NextOffset()
	}
}
