package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"barnabas/internal/metadata"
)

// What a caller can decide on, beside the errors of package metadata.
var (
	// ErrReplaced: another process has registered as this broker, on the same disk as it seems. This one must stop.
	ErrReplaced = errors.New("another process has registered as this broker")
	// ErrNoController: nobody who decides has been reached for as long as a session lasts.
	ErrNoController = errors.New("no controller has answered")
	// ErrClosed: the node is stopping.
	ErrClosed = errors.New("the broker's lifecycle is closed")
)

// Controller is whoever decides, wherever it is: it finds the controller when that moves, waits for one where there is
// none, and cares for what was under way. *controller.Router is one.
type Controller interface {
	RegisterBroker(context.Context, metadata.Registration) (epoch int64, err error)
	Heartbeat(context.Context, metadata.Heartbeat) (metadata.HeartbeatAnswer, error)
	// Sync returns when the metadata here has everything that was committed before the call.
	Sync(context.Context) error
}

// Options is what a Broker is made of. All fields are required unless they say otherwise.
type Options struct {
	Controller Controller
	// Registration is what the process says of itself now. It is asked for again before each heartbeat, which tells of
	// its directories; whose id and incarnation it is does not change.
	Registration func() metadata.Registration
	// Alone: this node is its cluster. There is nobody to hand over to and nobody to be missed by, so it takes part
	// from its registration on and sends heartbeats only when its directories change.
	Alone bool
	// Interval is broker.heartbeat.interval.ms, Session broker.session.timeout.ms; what is less than leastInterval is that.
	Interval, Session time.Duration
	// RegistrationPatience is how long Register tries (initial.broker.registration.timeout.ms).
	RegistrationPatience time.Duration
	// Heard is when another node last answered anything, zero for never, and now where this node decides alone. Lapsed is told when
	// this broker has to believe that it is fenced and that others have gone on without it, and when it knows better; see
	// lapse.go. It is called on one goroutine. Both may be nil: nobody is told.
	Heard  func() time.Time
	Lapsed func(bool)
	// Jitter spreads what recurs; it returns a duration of at least 0 and less than its argument. One goroutine calls it.
	Jitter func(time.Duration) time.Duration
	Logger *slog.Logger
	// Fatal is told, once, of an error after which this process must stop. It must not block.
	Fatal func(error)
}

// Broker is this process as the controller knows it. Its methods are safe for concurrent use.
type Broker struct {
	o           Options
	log         *slog.Logger
	id          int32
	incarnation metadata.UUID

	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
	wake    chan struct{} // holds one token

	mu struct { // short
		sync.Mutex
		image    *metadata.Image // that every publisher before this one has been told of
		epoch    int64           // of the registration; 0: none that holds
		serving  bool            // clients are served
		stopping bool            // the process shall end
		released bool            // and may, as far as the controller is concerned
		hurried  bool            // a heartbeat is due
		answered time.Time       // when the last word that was answered was sent; zero: none was
		failing  time.Time       // since when nobody has answered; zero: somebody has
		trouble  error           // why the last attempt failed
		failed   error           // the end
		changed  chan struct{}   // closed and replaced when a field above changes but for hurried
	}
}

// New returns a Broker that is not registered yet. It takes metadata at once.
func New(o Options) *Broker {
	r := o.Registration()
	o.Interval, o.Session = max(o.Interval, leastInterval), max(o.Session, leastInterval)
	b := &Broker{o: o, log: o.Logger, id: r.ID, incarnation: r.Incarnation, wake: make(chan struct{}, 1)}
	b.mu.changed = make(chan struct{})
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b
}

// Publish implements metadata.Publisher.
func (b *Broker) Publish(_ context.Context, _ *metadata.Delta, img *metadata.Image) {
	b.mu.Lock()
	before := b.ownIn(b.mu.image)
	b.mu.image = img
	news := b.ownIn(img) != before
	if news {
		b.mu.hurried = true // whatever it is, there is an answer to it
		b.change()
	}
	b.mu.Unlock()
	if news {
		b.signal()
	}
}

// ownIn is how an image has this process; nil: it does not.
func (b *Broker) ownIn(img *metadata.Image) *metadata.Broker {
	if img == nil {
		return nil
	}
	if own, ok := img.Broker(b.id); ok && own.Incarnation == b.incarnation {
		return own
	}
	return nil
}

// change tells those who wait that something has changed. The lock is held.
func (b *Broker) change() {
	close(b.mu.changed)
	b.mu.changed = make(chan struct{})
}

func (b *Broker) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// await waits until ready says so; its second answer ends the wait with an error.
func (b *Broker) await(ctx context.Context, ready func() (bool, error)) error {
	for {
		b.mu.Lock()
		done, err := ready()
		changed, failed := b.mu.changed, b.mu.failed
		b.mu.Unlock()
		switch {
		case err != nil:
			return err
		case failed != nil:
			return failed
		case done:
			return nil
		case b.ctx.Err() != nil:
			return ErrClosed
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		case <-b.ctx.Done():
		}
	}
}

// Register makes the process known to the controller, and returns once the metadata here has its registration. From
// then on, until Close, the controller hears of it; in a cluster it is fenced until Serve. Called once.
// Errors: metadata.ErrInvalidRegistration, metadata.ErrDuplicateBroker when the other one is alive to the end of
// RegistrationPatience, ErrNoController, ErrClosed, ctx's.
func (b *Broker) Register(ctx context.Context) error {
	b.running.Go(b.run)
	if b.o.Lapsed != nil && !b.o.Alone {
		b.running.Go(b.watchSession)
	}
	patient, cancel := context.WithTimeoutCause(ctx, b.o.RegistrationPatience, errPatience)
	defer cancel()
	err := b.await(patient, func() (bool, error) {
		own := b.ownIn(b.mu.image)
		return own != nil && own.Epoch == b.mu.epoch, nil
	})
	if errors.Is(err, errPatience) {
		b.mu.Lock()
		trouble := b.mu.trouble
		b.mu.Unlock()
		if trouble == nil {
			trouble = ErrNoController
		}
		err = fmt.Errorf("no success within %v: %w", b.o.RegistrationPatience, trouble)
	}
	if err != nil {
		return fmt.Errorf("register broker %d: %w", b.id, err)
	}
	return nil
}

var errPatience = errors.New("the time for registering is over")

// Serve says that clients are served, and returns once the broker takes part in the cluster.
func (b *Broker) Serve(ctx context.Context) error {
	b.mu.Lock()
	b.mu.serving, b.mu.hurried = true, true
	b.mu.Unlock()
	b.signal()
	err := b.await(ctx, func() (bool, error) {
		own := b.ownIn(b.mu.image)
		return own != nil && own.Epoch == b.mu.epoch && !own.Fenced, nil
	})
	if err != nil {
		return fmt.Errorf("wait to take part in the cluster as broker %d: %w", b.id, err)
	}
	return nil
}

// ShutDown says that the process is about to end, and returns once it leads nothing that another could lead. It goes on
// leading until others do. The caller stops in any case: an error, when ctx ends or nobody who decides can be reached,
// only says that others will notice its end by themselves.
func (b *Broker) ShutDown(ctx context.Context) error {
	b.mu.Lock()
	registered := b.mu.epoch != 0
	b.mu.stopping, b.mu.hurried = true, true
	b.mu.Unlock()
	if b.o.Alone || !registered {
		return nil
	}
	b.signal()
	began := time.Now()
	err := b.await(ctx, func() (bool, error) {
		if since := b.mu.failing; !since.IsZero() && time.Since(later(since, began)) >= b.o.Session {
			return false, fmt.Errorf("%w for %v: %w", ErrNoController, b.o.Session, b.mu.trouble)
		}
		return b.mu.released, nil
	})
	if err != nil {
		return fmt.Errorf("hand over what broker %d leads: %w", b.id, err)
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Hurry sends a heartbeat as soon as may be: log directories have changed, another controller leads, or a connection that
// was broken is there again. It does not wait.
func (b *Broker) Hurry() {
	b.mu.Lock()
	b.mu.hurried = true
	b.mu.Unlock()
	b.signal()
}

// Epoch is the broker epoch of the registration that holds; 0 while there is none.
func (b *Broker) Epoch() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.epoch
}

// Close ends the heartbeats.
func (b *Broker) Close() {
	b.stop()
	b.running.Wait()
}
