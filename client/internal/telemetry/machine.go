package telemetry

import (
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/errcode"
	"barnabas/internal/batch"
)

// The times that the KIP names, and the bounds of what a broker may ask for.
const (
	defaultInterval = 5 * time.Minute        // where no broker has said one, or said one that is none
	leastInterval   = 100 * time.Millisecond // below it Apache Kafka takes no interval.ms
	firstRetry      = time.Second            // after no answer to the question for the subscription, doubled up to defaultInterval
	defaultMaxBytes = 1 << 20                // telemetry.max.bytes, where the broker says none
)

// Subscription is what a broker wants to be told.
type Subscription struct {
	Instance [16]byte // client_instance_id
	ID       int32
	Interval time.Duration
	Metrics  Wanted
	Codecs   []batch.Codec // that the broker takes, the best first, without those that turned out not to work
	MaxBytes int
	Delta    bool // sums since the push before, not since the beginning
}

// Do is what is to be done next.
type Do int8

// What may be to be done.
const (
	Wait Do = iota // until Action.Until, or something happens
	Ask            // for the subscription: GetTelemetrySubscriptions, then Machine.Subscribed
	Push           // PushTelemetry, then Machine.Pushed
	End            // nothing ever again
)

// Action is what a Machine wants done.
type Action struct {
	Do           Do
	Until        time.Time    // of Wait
	Subscription Subscription // of Push; of Ask only its Instance
	Terminating  bool         // the Push is the last
}

type state int8

const (
	unsubscribed state = iota // the question is due
	asking
	subscribed // a push is due
	pushing
	terminating // the last push is on its way
	ended
)

// Machine decides when a client asks for its subscription and when it pushes (KIP-714). It is for one goroutine at a time.
type Machine struct {
	random   func() float64 // in [0, 1)
	state    state
	due      time.Time // of what the state waits for
	sub      Subscription
	failures int           // of the question, in a row
	again    bool          // the question was asked out of turn, and no push has succeeded since
	unusable []batch.Codec // that could not be used, by us or by the broker
	closing  bool
	why      error // of ended
}

// NewMachine wants to ask at once. random gives numbers in [0, 1).
func NewMachine(random func() float64) *Machine { return &Machine{random: random} }

// Instance gives the client instance id; false before a broker has given one.
func (m *Machine) Instance() (id [16]byte, known bool) {
	return m.sub.Instance, m.sub.Instance != [16]byte{}
}

// Wanted tells whether metrics are wanted: by the latest subscription, also while it is asked for anew. What was counted
// until then is to be told under the next one.
func (m *Machine) Wanted() bool {
	return m.state != ended && len(m.sub.Metrics) > 0
}

// Failure is why nothing is pushed any more; nil while something may be.
func (m *Machine) Failure() error { return m.why }

// Next gives what is to be done now. A question or push that it has given counts as on its way.
func (m *Machine) Next(now time.Time) Action {
	switch {
	case m.state == ended || m.closing && m.state == unsubscribed:
		m.state = ended
		return Action{Do: End}
	case m.closing && m.state == subscribed:
		m.state = terminating
		return Action{Do: Push, Subscription: m.subscription(), Terminating: true}
	case m.state == asking || m.state == pushing || m.state == terminating:
		return Action{Do: Wait, Until: now.Add(defaultInterval)}
	case now.Before(m.due):
		return Action{Do: Wait, Until: m.due}
	case m.state == unsubscribed:
		m.state = asking
		return Action{Do: Ask, Subscription: Subscription{Instance: m.sub.Instance}}
	default:
		m.state = pushing
		return Action{Do: Push, Subscription: m.subscription()}
	}
}

// subscription gives a copy without the codecs that do not work.
func (m *Machine) subscription() Subscription {
	s := m.sub
	s.Codecs = slices.DeleteFunc(slices.Clone(s.Codecs), func(c batch.Codec) bool { return slices.Contains(m.unusable, c) })
	return s
}

// Close lets the next push be the last, and false say that there will be none: nothing is wanted, or known to be.
func (m *Machine) Close() (last bool) {
	m.closing = true
	if m.state == unsubscribed || m.state == asking {
		m.state = ended
	}
	return m.state != ended
}

// Unanswered says that what was on its way got no answer: the broker could not be reached, or fell silent.
func (m *Machine) Unanswered(now time.Time) {
	switch m.state {
	case asking:
		m.failures++
		wait := defaultInterval
		if n := m.failures - 1; n < 10 {
			wait = min(firstRetry<<n, defaultInterval)
		}
		m.wait(unsubscribed, now, m.jitter(wait))
	case pushing:
		// It may have arrived. What it told is told again at the next turn, with what came since.
		m.wait(subscribed, now, m.sub.Interval)
	case terminating:
		m.state = ended
	case unsubscribed, subscribed, ended:
	}
}

// jitter spreads a time evenly between its half and one and a half times it, as the KIP wants first pushes to be.
func (m *Machine) jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.5 + m.random()))
}

func (m *Machine) wait(in state, now time.Time, d time.Duration) {
	m.state, m.due = in, now.Add(d)
}

// Subscribed takes in the answer to the question.
func (m *Machine) Subscribed(now time.Time, answer *kmsg.GetTelemetrySubscriptionsResponse) {
	if m.state != asking {
		return
	}
	throttle := millis(answer.ThrottleMillis)
	m.failures = 0
	if err := errcode.Of(answer.ErrorCode, nil); err != nil {
		m.refused(now, err, throttle, 0, batch.None)
		return
	}
	id := answer.ClientInstanceID
	if known, ok := m.Instance(); ok {
		id = known // for as long as the client lives
	}
	if id == [16]byte{} {
		m.wait(unsubscribed, now, max(defaultInterval, throttle)) // nothing could be pushed under it
		return
	}
	m.sub = Subscription{
		Instance: id, ID: answer.SubscriptionID, Interval: defaultInterval, Metrics: slices.Clone(answer.RequestedMetrics),
		MaxBytes: defaultMaxBytes, Delta: answer.DeltaTemporality,
	}
	if answer.PushIntervalMillis > 0 {
		m.sub.Interval = max(millis(answer.PushIntervalMillis), leastInterval)
	}
	if answer.TelemetryMaxBytes > 0 {
		m.sub.MaxBytes = int(answer.TelemetryMaxBytes)
	}
	for _, c := range answer.AcceptedCompressionTypes {
		if codec := batch.Codec(c); codec.Known() && !slices.Contains(m.sub.Codecs, codec) {
			m.sub.Codecs = append(m.sub.Codecs, codec)
		}
	}
	if len(m.sub.Metrics) == 0 {
		m.again = false
		m.wait(unsubscribed, now, max(m.sub.Interval, throttle))
		return
	}
	m.wait(subscribed, now, max(m.jitter(m.sub.Interval), throttle))
}

// Pushed takes in the answer to a push of so many bytes with a codec; taken tells whether the broker has them.
func (m *Machine) Pushed(now time.Time, answer *kmsg.PushTelemetryResponse, bytes int, codec batch.Codec) (taken bool) {
	err := errcode.Of(answer.ErrorCode, nil)
	switch m.state {
	case pushing:
		if err != nil {
			m.refused(now, err, millis(answer.ThrottleMillis), bytes, codec)
			return false
		}
		m.again = false
		m.wait(subscribed, now, max(m.sub.Interval, millis(answer.ThrottleMillis)))
		return true
	case terminating:
		// With UNKNOWN_SUBSCRIPTION_ID one could ask anew; Apache Kafka then refuses any further push of who was terminating.
		m.state = ended
		return err == nil
	case unsubscribed, asking, subscribed, ended:
	}
	return false
}

// refused takes in an error code, as the KIP's table of them says.
func (m *Machine) refused(now time.Time, err error, throttle time.Duration, bytes int, codec batch.Codec) {
	interval := m.sub.Interval
	if interval == 0 {
		interval = defaultInterval
	}
	back := unsubscribed // what is tried again
	if m.state == pushing {
		back = subscribed
	}
	switch {
	case errors.Is(err, errcode.UnknownSubscriptionID), errors.Is(err, errcode.UnsupportedCompressionType):
		if errors.Is(err, errcode.UnsupportedCompressionType) && codec != batch.None {
			m.unusable = append(m.unusable, codec)
		}
		// The subscription has changed: it is asked for at once. A broker that says so time and again is asked once in an
		// interval.
		wait := interval
		if !m.again {
			wait = 0
		}
		m.again = true
		m.wait(unsubscribed, now, max(wait, throttle))
	case errors.Is(err, errcode.TelemetryTooLarge):
		if m.state == pushing {
			m.sub.MaxBytes = min(m.sub.MaxBytes, bytes/2) // the broker's limit is not what it said
		}
		m.wait(back, now, max(interval, throttle))
	case errors.Is(err, errcode.ThrottlingQuotaExceeded), errcode.Retriable(err):
		m.wait(back, now, max(interval, throttle))
	default: // INVALID_REQUEST, INVALID_RECORD, UNSUPPORTED_VERSION: nothing that trying again mends
		m.state, m.why = ended, err
	}
}

// CannotCompress says that a codec does not work here. It is not tried again.
func (m *Machine) CannotCompress(codec batch.Codec) {
	if !slices.Contains(m.unusable, codec) {
		m.unusable = append(m.unusable, codec)
	}
}

func millis(n int32) time.Duration { return time.Duration(max(n, 0)) * time.Millisecond }
