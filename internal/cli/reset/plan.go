// Package reset decides which offsets a group is to go on from: what was asked for, and the facts of
// the partitions, make a plan. It is for the command line's `group reset`, and pure: it asks nobody and changes
// nothing. Rules and limits are those of Kafka's kafka-consumer-groups --reset-offsets, so that
// whoever knows one knows the other.
package reset

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"barnabas/client"
)

// Target is where offsets are to go.
type Target struct {
	kind kind
	n    int64                           // of toOffset and shiftBy
	at   time.Time                       // of toTime
	each map[client.TopicPartition]int64 // of toEach
}

type kind int

const (
	toEarliest kind = iota
	toLatest
	toCurrent
	toOffset
	shiftBy
	toTime
	toEach
)

// Earliest is the first record that there is, Latest where the next one will be, and Current what is
// committed, which makes a plan that changes nothing and can be kept.
var (
	Earliest = Target{kind: toEarliest}
	Latest   = Target{kind: toLatest}
	Current  = Target{kind: toCurrent}
)

// Offset is the same offset in every partition.
func Offset(n int64) Target { return Target{kind: toOffset, n: n} }

// ShiftBy is so many records after what is committed, before it where n is negative.
func ShiftBy(n int64) Target { return Target{kind: shiftBy, n: n} }

// Time is the first record that is not older, and the end where there is none.
func Time(at time.Time) Target { return Target{kind: toTime, at: at} }

// Each is an offset for each partition, as File reads them.
func Each(offsets map[client.TopicPartition]int64) Target { return Target{kind: toEach, each: offsets} }

// Moment is the time of a target that is one: the facts then need AtTime.
func (t Target) Moment() (time.Time, bool) { return t.at, t.kind == toTime }

// Facts are what is known of the partitions.
type Facts struct {
	Committed  map[client.TopicPartition]int64 // without those that have none
	Start, End map[client.TopicPartition]int64
	AtTime     map[client.TopicPartition]int64 // with a target that is a time; negative: no record is so late
}

// Change is what a plan says of a partition.
type Change struct {
	TopicPartition client.TopicPartition
	Old            int64 // -1: nothing is committed
	New            int64
	Asked          int64 // New, or what lay outside the log and was moved to its bound
}

// Clamped tells whether the log does not reach as far as was asked.
func (c Change) Clamped() bool { return c.Asked != c.New }

// ErrNothingCommitted refuses a shift of what is not there.
var ErrNothingCommitted = errors.New("nothing is committed that could be shifted")

// Plan gives the changes, sorted by partition. It is whole or an error: no partition is left out.
func Plan(t Target, partitions []client.TopicPartition, f Facts) ([]Change, error) {
	out := make([]Change, 0, len(partitions))
	for _, tp := range partitions {
		old, has := f.Committed[tp]
		if !has {
			old = -1
		}
		asked, err := t.offset(tp, old, f)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", tp, err)
		}
		c := Change{TopicPartition: tp, Old: old, New: asked, Asked: asked}
		if t.kind != toCurrent { // what is committed may be kept, wherever the log has gone since
			c.New = min(max(asked, f.Start[tp]), f.End[tp])
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.TopicPartition.Topic, b.TopicPartition.Topic),
			cmp.Compare(a.TopicPartition.Partition, b.TopicPartition.Partition))
	})
	return out, nil
}

// offset is what the target means in a partition, before the log's bounds are looked at.
func (t Target) offset(tp client.TopicPartition, old int64, f Facts) (int64, error) {
	switch t.kind {
	case toEarliest:
		return f.Start[tp], nil
	case toLatest:
		return f.End[tp], nil
	case toCurrent:
		if old < 0 {
			return f.End[tp], nil
		}
		return old, nil
	case toOffset:
		return t.n, nil
	case shiftBy:
		if old < 0 {
			return 0, ErrNothingCommitted
		}
		return shifted(old, t.n), nil
	case toTime:
		if at := f.AtTime[tp]; at >= 0 {
			return at, nil
		}
		return f.End[tp], nil
	case toEach:
		return t.each[tp], nil
	}
	panic(fmt.Sprintf("BUG: reset target of kind %d", t.kind))
}

// shifted adds without overflow; old is not negative.
func shifted(old, by int64) int64 {
	if sum := old + by; by <= 0 || sum > old {
		return sum
	}
	return 1<<63 - 1
}
