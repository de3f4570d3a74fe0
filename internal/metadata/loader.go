package metadata

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
)

// Committed is one entry of the metadata log that a majority of the quorum holds.
type Committed struct {
	Offset   int64
	Epoch    int32  // of the leader that wrote it
	Proposal uint64 // the id that its proposer got for it; 0 for entries of others
	Records  []Record
}

// Snapshot is the whole state after an entry of the log, in the place of that entry and all before.
type Snapshot struct {
	Offset  int64 // of the last entry that it includes
	Epoch   int32
	Records []Record
}

// Leadership says who leads the quorum now.
type Leadership struct {
	Epoch  int32
	Leader int32 // node id, -1: none known
	Mine   bool  // this node leads, and all entries of earlier epochs have been applied
}

// Snapshot returns the image as one.
func (i *Image) Snapshot() Snapshot {
	return Snapshot{Offset: i.offset, Epoch: i.epoch, Records: slices.Collect(i.Records())}
}

// A Publisher is told of each new image. Publish is called on the goroutine that applies committed
// entries, in order and never twice at once: what it does delays all who wait for a commit, so it
// starts nothing that waits for another commit. ctx ends when the node stops.
type Publisher interface {
	Publish(ctx context.Context, d *Delta, img *Image)
}

// Loader turns committed entries into images and hands them to publishers. Apply and Restore
// belong to one goroutine; Image is safe for all.
type Loader struct {
	image      atomic.Pointer[Image]
	publishers []Publisher
}

// NewLoader begins with the empty image. Publishers are called in their order here.
func NewLoader(publishers ...Publisher) *Loader {
	l := &Loader{publishers: slices.Clone(publishers)}
	l.image.Store(Empty())
	return l
}

// Image is the newest one. Publishers may not have been told of it yet, or have just been.
func (l *Loader) Image() *Image { return l.image.Load() }

// Apply replays one committed entry and publishes the result. After an error, which wraps
// ErrMalformed, this node's state is no longer the cluster's: it has to stop.
func (l *Loader) Apply(ctx context.Context, c Committed) error {
	old := l.image.Load()
	if c.Offset <= old.Offset() {
		return fmt.Errorf("apply metadata: %w: offset %d after %d", ErrMalformed, c.Offset, old.Offset())
	}
	next, d, err := old.With(c.Offset, c.Epoch, c.Records)
	if err != nil {
		return fmt.Errorf("apply metadata: %w", err)
	}
	l.publish(ctx, d, next)
	return nil
}

// Restore puts a snapshot in the place of the current image and publishes what differs. Its
// errors are as grave as those of Apply.
func (l *Loader) Restore(ctx context.Context, s Snapshot) error {
	old := l.image.Load()
	if s.Offset < old.Offset() {
		return fmt.Errorf("restore metadata: %w: snapshot ends at offset %d, before %d", ErrMalformed, s.Offset, old.Offset())
	}
	next, d, err := Empty().With(s.Offset, s.Epoch, s.Records)
	if err != nil {
		return fmt.Errorf("restore metadata: %w", err)
	}
	if old.Offset() >= 0 {
		d = Diff(old, next)
	} else {
		d.Old = old
	}
	l.publish(ctx, d, next)
	return nil
}

func (l *Loader) publish(ctx context.Context, d *Delta, next *Image) {
	l.image.Store(next)
	for _, p := range l.publishers {
		p.Publish(ctx, d, next)
	}
}
