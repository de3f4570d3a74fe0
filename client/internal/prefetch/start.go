package prefetch

import (
	"strconv"
	"time"
)

// Start is where reading begins.
type Start struct {
	Kind    StartKind
	Number  int64 // an offset, or Unix ms
	Epoch   int32 // of an offset: the leader epoch of the record before it,
	InEpoch bool  // where that is known
}

// StartKind says what a Start's number is.
type StartKind int8

// Known is no start: there is a position already. Committed is where the group has committed.
const (
	Known StartKind = iota
	Earliest
	Latest
	Offset
	Time
	Committed
)

// String gives the start as the command line writes a position.
func (s Start) String() string {
	switch s.Kind {
	case Earliest:
		return "earliest"
	case Latest:
		return "latest"
	case Offset:
		return "offset " + strconv.FormatInt(s.Number, 10)
	case Time:
		return time.UnixMilli(s.Number).UTC().Format("2006-01-02T15:04:05.000Z")
	case Committed:
		return "committed"
	default:
		return "none"
	}
}

// Reset is auto.offset.reset: where to go on when a position lies outside what the partition has.
type Reset struct {
	To   StartKind     // Earliest or Latest
	Back time.Duration // above 0: the first record that is at most so old
}

// Reports tells whether the program is to decide.
func (r Reset) Reports() bool { return r.To == Known && r.Back == 0 }

func (r Reset) start(now time.Time) Start {
	if r.Back > 0 {
		return Start{Kind: Time, Number: now.Add(-r.Back).UnixMilli()}
	}
	return Start{Kind: r.To}
}
