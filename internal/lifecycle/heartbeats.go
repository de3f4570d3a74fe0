package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"barnabas/internal/metadata"
)

const (
	// leastInterval keeps an interval that is configured to be nothing from making a loop of the clock.
	leastInterval = 10 * time.Millisecond
	// firstRest and longestRest are what the broker waits after an attempt has failed, doubled from one to the next.
	firstRest   = 50 * time.Millisecond
	longestRest = time.Second
	// duplicateRest is what it waits while the session of another process lives, which is over soon if that is dead.
	duplicateRest = 100 * time.Millisecond
	// firstAsk is when is asked again for what is hoped for soon: to take part, or to go. It doubles up to the interval.
	firstAsk = 10 * time.Millisecond
)

// speaker is the state of the goroutine that speaks to the controller.
type speaker struct {
	b          *Broker
	registered []metadata.UUID       // directories that the registration named
	said       metadata.Registration // what the last word was about
	rest       time.Duration         // after the next failure
	ask        time.Duration         // before the next word that hopes for something; 0: firstAsk
	next       time.Time             // when the next word is due; zero: when there is something to say
}

// run speaks to the controller until the Broker is closed, one word at a time.
func (b *Broker) run() {
	s := speaker{b: b, rest: firstRest, next: time.Now()}
	for b.ctx.Err() == nil && s.wait() {
		s.speak()
	}
}

// wait returns when a word is due, false at the end.
func (s *speaker) wait() bool {
	b := s.b
	if !s.next.IsZero() {
		timer := time.AfterFunc(max(time.Until(s.next), 0), b.signal)
		defer timer.Stop()
	}
	for {
		select {
		case <-b.wake:
		case <-b.ctx.Done():
		}
		if b.ctx.Err() != nil {
			return false
		}
		b.mu.Lock()
		due := b.mu.hurried || !s.next.IsZero() && !time.Now().Before(s.next)
		b.mu.hurried = b.mu.hurried && !due
		b.mu.Unlock()
		if due {
			return true
		}
	}
}

// speak registers, or sends a heartbeat, and takes the answer.
func (s *speaker) speak() {
	b := s.b
	b.mu.Lock()
	epoch := b.mu.epoch
	b.mu.Unlock()
	// As long as nobody answers nobody hears: waiting longer would not help, and the next word may go elsewhere.
	ctx, cancel := context.WithTimeout(b.ctx, max(b.o.Session/2, b.o.Interval))
	defer cancel()
	began := time.Now()
	var err error
	if epoch == 0 {
		err = s.register(ctx)
	} else {
		err = s.heartbeat(ctx, epoch)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.mu.trouble, b.mu.failing, s.rest = nil, time.Time{}, firstRest
		b.mu.answered = began
		s.next = s.nextWord(time.Now())
		b.change()
		return
	}
	s.failed(err)
}

// failed takes note of an attempt that came to nothing. The lock is held.
func (s *speaker) failed(err error) {
	b := s.b
	if b.ctx.Err() != nil {
		return
	}
	now := time.Now()
	if b.mu.trouble == nil || b.mu.trouble.Error() != err.Error() {
		b.log.Info("the controller has not taken this broker's word; trying again", "broker", b.id, "err", err)
	}
	b.mu.trouble = err
	if b.mu.failing.IsZero() {
		b.mu.failing = now
	}
	switch {
	case errors.Is(err, metadata.ErrUnknownBroker), errors.Is(err, metadata.ErrStaleBrokerEpoch):
		if other := b.holder(); other != nil && other.Incarnation != b.incarnation && other.Epoch > b.mu.epoch {
			b.fail(fmt.Errorf("broker %d: %w", b.id, ErrReplaced))
		}
		b.mu.epoch = 0
	case errors.Is(err, metadata.ErrInvalidRegistration):
		b.fail(err)
	case errors.Is(err, metadata.ErrDuplicateBroker):
		s.rest = duplicateRest
	}
	s.next = now.Add(s.rest + b.o.Jitter(s.rest))
	s.rest = min(2*s.rest, longestRest)
	b.change()
}

// holder is who is registered under this broker's id, as far as is known here. The lock is held.
func (b *Broker) holder() *metadata.Broker {
	if b.mu.image == nil {
		return nil
	}
	other, _ := b.mu.image.Broker(b.id)
	return other
}

// fail ends the Broker's life. The lock is held.
func (b *Broker) fail(err error) {
	if b.mu.failed == nil {
		b.mu.failed = err
		b.o.Fatal(err)
	}
	b.stop()
}

func (s *speaker) register(ctx context.Context) error {
	b := s.b
	r := b.o.Registration()
	r.Fenced = !b.o.Alone
	s.said = r
	epoch, err := b.o.Controller.RegisterBroker(ctx, r)
	if err != nil {
		return err
	}
	b.log.Info("broker is registered", "broker", b.id, "epoch", epoch)
	s.registered = r.Directories
	b.mu.Lock()
	b.mu.epoch = epoch
	b.mu.Unlock()
	return nil
}

func (s *speaker) heartbeat(ctx context.Context, epoch int64) error {
	b := s.b
	r := b.o.Registration()
	s.said = r
	h := metadata.Heartbeat{
		Broker: b.id, Epoch: epoch, MetadataOffset: -1, Directories: s.known(r.Directories), Cordoned: s.known(r.Cordoned), Complete: r.Complete,
	}
	b.mu.Lock()
	if b.mu.image != nil {
		h.MetadataOffset = b.mu.image.Offset()
	}
	own := b.ownIn(b.mu.image)
	h.WantFence = !b.o.Alone && (!b.mu.serving || own == nil || own.Epoch != epoch)
	h.WantShutDown = b.mu.stopping && !b.o.Alone
	b.mu.Unlock()
	answer, err := b.o.Controller.Heartbeat(ctx, h)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.released = answer.MayShutDown
	return nil
}

// known leaves out directories that the registration did not name: one that works again does so from the next start on.
func (s *speaker) known(dirs []metadata.UUID) (known []metadata.UUID) {
	for _, d := range dirs {
		if slices.Contains(s.registered, d) {
			known = append(known, d)
		}
	}
	return known
}

// nextWord is when to speak again after an answer; zero: when there is something to say. The lock is held.
func (s *speaker) nextWord(now time.Time) time.Time {
	b := s.b
	own := b.ownIn(b.mu.image)
	if b.o.Alone {
		if own != nil && own.Epoch == b.mu.epoch && s.isKnown(own) {
			return time.Time{}
		}
		return now.Add(longestRest + b.o.Jitter(longestRest))
	}
	interval := b.o.Interval
	if own == nil || own.Fenced && b.mu.serving && !b.mu.stopping || b.mu.stopping && !b.mu.released {
		s.ask = min(max(2*s.ask, firstAsk), interval)
		interval = s.ask
	} else {
		s.ask = 0
	}
	return now.Add(interval - b.o.Jitter(interval/10+1))
}

// isKnown reports whether the metadata has the directories as they were said to be.
func (s *speaker) isKnown(own *metadata.Broker) bool {
	online := s.known(s.said.Directories)
	return len(online) == 0 || slices.Equal(online, own.Directories) && slices.Equal(s.known(s.said.Cordoned), own.Cordoned)
}
