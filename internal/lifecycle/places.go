package lifecycle

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"barnabas/internal/metadata"
)

const (
	// maxPlaces bounds what the controller is told of at a time; the rest follows.
	maxPlaces = 2000
	// placesPatience is how long its answer may take.
	placesPatience = 5 * time.Second
)

// PlacesOptions is what a Places is made of. All fields are required.
type PlacesOptions struct {
	// Assign takes places to the controller, wherever it is, and returns once the metadata here has them.
	Assign func(ctx context.Context, epoch int64, places []metadata.ReplicaDirectory) error
	// Epoch is that of the broker's registration, 0 while none holds.
	Epoch func() int64
	// Misplaced lists the replicas of this broker that lie elsewhere than the metadata says.
	Misplaced func() []metadata.ReplicaDirectory
	// Jitter spreads what recurs: at least 0, less than its argument. One goroutine calls it.
	Jitter func(time.Duration) time.Duration
	Logger *slog.Logger
}

// Places has the controller know in which log directory each replica of this broker lies, where that is not what it
// has chosen itself (KIP-858): it must be able to tell who is lost with a directory. It repeats what was not taken. Its
// methods are safe for concurrent use.
type Places struct {
	o       PlacesOptions
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
	wake    chan struct{} // holds one token
}

// NewPlaces returns one that is at work until Close. It looks at once, and when it is told to.
func NewPlaces(o PlacesOptions) *Places {
	p := &Places{o: o, wake: make(chan struct{}, 1)}
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.running.Go(p.run)
	return p
}

// Look has it look soon. It does not wait.
func (p *Places) Look() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Close ends it and waits for a word under way.
func (p *Places) Close() {
	p.stop()
	p.running.Wait()
}

func (p *Places) run() {
	rest := firstRest
	var said []metadata.ReplicaDirectory
	again := time.AfterFunc(0, p.Look)
	defer func() { again.Stop() }()
	for {
		select {
		case <-p.wake:
		case <-p.ctx.Done():
		}
		if p.ctx.Err() != nil {
			return
		}
		again.Stop()
		places := p.o.Misplaced()
		if len(places) == 0 {
			said, rest = nil, firstRest
			continue
		}
		if !slices.Equal(places, said) {
			said, rest = places, firstRest
		}
		p.say(places[:min(len(places), maxPlaces)])
		// Whether it was taken is seen by looking again: the answer may be lost, or the metadata be late.
		again = time.AfterFunc(rest+p.o.Jitter(rest), p.Look)
		rest = min(2*rest, longestRest)
	}
}

func (p *Places) say(places []metadata.ReplicaDirectory) {
	epoch := p.o.Epoch()
	if epoch == 0 {
		return // until the registration holds
	}
	ctx, cancel := context.WithTimeout(p.ctx, placesPatience)
	defer cancel()
	if err := p.o.Assign(ctx, epoch, places); err != nil {
		p.o.Logger.Debug("the controller has not taken where replicas lie; trying again", "replicas", len(places), "err", err)
		return
	}
	p.o.Logger.Info("the controller knows in which directories replicas lie", "replicas", len(places))
}
