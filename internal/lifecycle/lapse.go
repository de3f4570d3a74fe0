package lifecycle

import (
	"context"
	"time"
)

// leastSilence is how long all other nodes have to be silent at least: they are asked about every second.
const leastSilence = 1500 * time.Millisecond

// watchSession tells when this broker's session must be over, and when others count on it again.
//
// It must be over when no other node, whichever it is, has answered anything for as long as a session lasts: the controller, where
// it is another, cannot have counted a heartbeat that it answered since, and a controller on this node decides nothing without
// others. That all are silent keeps leaders leading while there is no controller: after one has died, or where a majority of
// the voters has. The doubt ends when a heartbeat that was sent since is answered and what was decided meanwhile is known here.
func (b *Broker) watchSession() {
	var began time.Time // when the first session did
	var since time.Time // when it was found to be over; zero: it is not
	for b.ctx.Err() == nil {
		b.mu.Lock()
		answered, changed := b.mu.answered, b.mu.changed
		b.mu.Unlock()
		if began.IsZero() {
			began = answered
		}
		now := time.Now()
		ends := later(b.o.Heard(), began).Add(max(b.o.Session, leastSilence))
		switch lasts := now.Before(ends); {
		case began.IsZero():
		case since.IsZero() && !lasts:
			since = now
			b.log.Warn("no other node answers; others may lead by now what this broker led", "broker", b.id)
			b.o.Lapsed(true)
		case lasts && !since.IsZero() && answered.After(since) && b.caughtUp():
			b.log.Info("the controller answers this broker again", "broker", b.id, "after", now.Sub(since))
			since = time.Time{}
			b.o.Lapsed(false)
		}
		b.awaitNews(changed, ends, since.IsZero() && !began.IsZero())
	}
}

// awaitNews waits until something has changed, or if timed until then.
func (b *Broker) awaitNews(changed <-chan struct{}, then time.Time, timed bool) {
	var due <-chan time.Time
	if timed {
		timer := time.NewTimer(time.Until(then))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-changed:
	case <-due:
	case <-b.ctx.Done():
	}
}

// caughtUp tells whether the metadata here has everything that the controller had committed when it was asked.
func (b *Broker) caughtUp() bool {
	ctx, cancel := context.WithTimeout(b.ctx, b.o.Session/2)
	defer cancel()
	return b.o.Controller.Sync(ctx) == nil && ctx.Err() == nil
}
