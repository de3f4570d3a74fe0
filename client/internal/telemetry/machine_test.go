package telemetry

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/errcode"
	"barnabas/internal/batch"
)

var (
	someID  = [16]byte{1, 2, 3}
	otherID = [16]byte{9}
)

// answered makes an answer to the question: subscription 7, all metrics every 10 seconds.
func answered(edit func(a *kmsg.GetTelemetrySubscriptionsResponse)) *kmsg.GetTelemetrySubscriptionsResponse {
	a := kmsg.NewPtrGetTelemetrySubscriptionsResponse()
	a.ClientInstanceID, a.SubscriptionID = someID, 7
	a.AcceptedCompressionTypes = []int8{4, 3, 1, 2}
	a.PushIntervalMillis, a.TelemetryMaxBytes, a.DeltaTemporality = 10_000, 5000, true
	a.RequestedMetrics = []string{"*"}
	if edit != nil {
		edit(a)
	}
	return a
}

func pushAnswer(code errcode.Error, throttle int32) *kmsg.PushTelemetryResponse {
	a := kmsg.NewPtrPushTelemetryResponse()
	a.ErrorCode, a.ThrottleMillis = int16(code), throttle
	return a
}

// evenly is a random number in the middle: no jitter.
func evenly() float64 { return 0.5 }

// next checks what a machine wants done at a time.
func next(t *testing.T, m *Machine, now time.Time, want Do) Action {
	t.Helper()
	a := m.Next(now)
	if a.Do != want {
		t.Fatalf("after %v it wants %d, expected %d", now.Sub(epoch), a.Do, want)
	}
	return a
}

// inTime checks that nothing is wanted before a time, and something then.
func inTime(t *testing.T, m *Machine, at time.Time, want Do) Action {
	t.Helper()
	if a := m.Next(at.Add(-1)); a.Do != Wait || !a.Until.Equal(at) {
		t.Fatalf("just before %v it wants %+v", at.Sub(epoch), a)
	}
	return next(t, m, at, want)
}

// subscribedMachine has a subscription, and its first push is due after 10 seconds.
func subscribedMachine(t *testing.T, edit func(a *kmsg.GetTelemetrySubscriptionsResponse)) *Machine {
	t.Helper()
	m := NewMachine(evenly)
	if ask := next(t, m, epoch, Ask); ask.Subscription.Instance != [16]byte{} {
		t.Errorf("it asks first as %x", ask.Subscription.Instance)
	}
	m.Subscribed(epoch, answered(edit))
	return m
}

func TestMachineAsksThenPushes(t *testing.T) {
	m := subscribedMachine(t, nil)
	if id, known := m.Instance(); !known || id != someID || !m.Wanted() {
		t.Errorf("instance %x, %v", id, known)
	}
	now := epoch
	for range 3 {
		now = now.Add(10 * time.Second)
		p := inTime(t, m, now, Push)
		s := p.Subscription
		if p.Terminating || s.Instance != someID || s.ID != 7 || s.MaxBytes != 5000 || !s.Delta || s.Interval != 10*time.Second ||
			!slices.Equal(s.Codecs, []batch.Codec{batch.Zstd, batch.Lz4, batch.Gzip, batch.Snappy}) || !slices.Equal(s.Metrics, Wanted{"*"}) {
			t.Errorf("it pushes %+v", p)
		}
		now = now.Add(time.Second) // until the answer
		if !m.Pushed(now, pushAnswer(0, 0), 100, batch.Zstd) {
			t.Error("it has not been taken")
		}
	}
}

// The first push of a subscription is spread between half the interval and one and a half.
func TestMachineSpreadsFirstPushes(t *testing.T) {
	for _, c := range []struct {
		random float64
		wait   time.Duration
	}{{0, 5 * time.Second}, {0.25, 7500 * time.Millisecond}, {1, 15 * time.Second}} {
		m := NewMachine(func() float64 { return c.random })
		next(t, m, epoch, Ask)
		m.Subscribed(epoch, answered(nil))
		inTime(t, m, after(c.wait), Push)
	}
}

// What a broker answers to the question decides when it is asked again, or pushed to.
func TestMachineTakesAnswersToTheQuestion(t *testing.T) {
	type answer = kmsg.GetTelemetrySubscriptionsResponse
	code := func(e errcode.Error) func(*answer) { return func(a *answer) { a.ErrorCode = int16(e) } }
	for name, c := range map[string]struct {
		edit func(*answer)
		then Do
		wait time.Duration
	}{
		"nothing is wanted":        {func(a *answer) { a.RequestedMetrics = nil }, Ask, 10 * time.Second},
		"nothing, and throttled":   {func(a *answer) { a.RequestedMetrics, a.ThrottleMillis = nil, 30_000 }, Ask, 30 * time.Second},
		"throttled":                {func(a *answer) { a.ThrottleMillis = 30_000 }, Push, 30 * time.Second},
		"no interval":              {func(a *answer) { a.PushIntervalMillis = 0 }, Push, 5 * time.Minute},
		"a negative interval":      {func(a *answer) { a.PushIntervalMillis = -1 }, Push, 5 * time.Minute},
		"a tiny interval":          {func(a *answer) { a.PushIntervalMillis = 1 }, Push, 100 * time.Millisecond},
		"no id":                    {func(a *answer) { a.ClientInstanceID = [16]byte{} }, Ask, 5 * time.Minute},
		"too early":                {code(errcode.ThrottlingQuotaExceeded), Ask, 5 * time.Minute},
		"may pass":                 {code(errcode.CoordinatorLoadInProgress), Ask, 5 * time.Minute},
		"too large":                {code(errcode.TelemetryTooLarge), Ask, 5 * time.Minute},
		"unknown subscription":     {code(errcode.UnknownSubscriptionID), Ask, 0},
		"invalid request":          {code(errcode.InvalidRequest), End, 0},
		"unsupported":              {code(errcode.UnsupportedVersion), End, 0},
		"a code that nobody knows": {code(4711), End, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := subscribedMachine(t, c.edit)
			if c.wait == 0 {
				next(t, m, epoch, c.then)
			} else {
				inTime(t, m, after(c.wait), c.then)
			}
			if (m.Failure() != nil) != (c.then == End) {
				t.Errorf("failure %v", m.Failure())
			}
		})
	}
}

// What a broker answers to a push decides what is done next, as the KIP's table of errors has it.
func TestMachineTakesAnswersToPushes(t *testing.T) {
	for name, c := range map[string]struct {
		code     errcode.Error
		throttle int32
		then     Do
		wait     time.Duration
		most     int // bytes
	}{
		"taken":                  {0, 0, Push, 10 * time.Second, 5000},
		"taken, throttled":       {0, 60_000, Push, time.Minute, 5000},
		"too early":              {errcode.ThrottlingQuotaExceeded, 0, Push, 10 * time.Second, 5000},
		"too early, throttled":   {errcode.ThrottlingQuotaExceeded, 60_000, Push, time.Minute, 5000},
		"too large":              {errcode.TelemetryTooLarge, 0, Push, 10 * time.Second, 2000},
		"may pass":               {errcode.RequestTimedOut, 0, Push, 10 * time.Second, 5000},
		"unknown subscription":   {errcode.UnknownSubscriptionID, 0, Ask, 0, 0},
		"unknown, throttled":     {errcode.UnknownSubscriptionID, 3000, Ask, 3 * time.Second, 0},
		"codec is not supported": {errcode.UnsupportedCompressionType, 0, Ask, 0, 0},
		"invalid request":        {errcode.InvalidRequest, 0, End, 0, 0},
		"invalid record":         {errcode.InvalidRecord, 0, End, 0, 0},
		"unsupported":            {errcode.UnsupportedVersion, 0, End, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := subscribedMachine(t, nil)
			at := after(10 * time.Second)
			next(t, m, at, Push)
			if taken := m.Pushed(at, pushAnswer(c.code, c.throttle), 4000, batch.Zstd); taken != (c.code == 0) {
				t.Errorf("taken: %v", taken)
			}
			var a Action
			if c.wait == 0 {
				a = next(t, m, at, c.then)
			} else {
				a = inTime(t, m, at.Add(c.wait), c.then)
			}
			if c.then != End && a.Subscription.Instance != someID || a.Subscription.MaxBytes != c.most {
				t.Errorf("then it wants %+v", a)
			}
			if c.then == End && (!errors.Is(m.Failure(), c.code) || m.Wanted()) {
				t.Errorf("failure %v", m.Failure())
			}
		})
	}
}

// Metrics are wanted also while the subscription is asked for anew, or what parts that are closed have counted would be
// forgotten; not before there is one, and not once a broker wants none.
func TestMachineWantsMetricsWhileItAsksAnew(t *testing.T) {
	m := NewMachine(evenly)
	next(t, m, epoch, Ask)
	if m.Wanted() {
		t.Error("nobody has said so")
	}
	m.Subscribed(epoch, answered(nil))
	now := after(10 * time.Second)
	next(t, m, now, Push)
	m.Pushed(now, pushAnswer(errcode.UnknownSubscriptionID, 0), 1, batch.Zstd)
	due := m.Wanted()
	next(t, m, now, Ask)
	if !due || !m.Wanted() {
		t.Error("they are not wanted while it asks anew")
	}
	m.Subscribed(now, answered(func(a *kmsg.GetTelemetrySubscriptionsResponse) { a.RequestedMetrics = nil }))
	if m.Wanted() {
		t.Error("the broker wants none")
	}
}

// A subscription that has changed is asked for at once; a broker that says so without end is asked once in an interval.
func TestMachineDoesNotAskWithoutEnd(t *testing.T) {
	m := subscribedMachine(t, nil)
	now := after(10 * time.Second)
	next(t, m, now, Push)
	m.Pushed(now, pushAnswer(errcode.UnknownSubscriptionID, 0), 1, batch.Zstd)
	next(t, m, now, Ask)
	m.Subscribed(now, answered(func(a *kmsg.GetTelemetrySubscriptionsResponse) { a.SubscriptionID, a.ClientInstanceID = 8, otherID }))
	now = now.Add(10 * time.Second)
	if p := inTime(t, m, now, Push); p.Subscription.ID != 8 || p.Subscription.Instance != someID {
		t.Errorf("it pushes %+v", p)
	}
	m.Pushed(now, pushAnswer(errcode.UnknownSubscriptionID, 0), 1, batch.Zstd)
	now = now.Add(10 * time.Second)
	inTime(t, m, now, Ask)
	m.Subscribed(now, answered(nil))
	now = now.Add(10 * time.Second)
	inTime(t, m, now, Push)
	m.Pushed(now, pushAnswer(0, 0), 1, batch.Zstd)
	now = now.Add(10 * time.Second)
	inTime(t, m, now, Push)
	m.Pushed(now, pushAnswer(errcode.UnknownSubscriptionID, 0), 1, batch.Zstd)
	next(t, m, now, Ask) // a push was taken in between
}

// A codec that the broker or this machine cannot use is not used again, whatever the next subscription says.
func TestMachineForgetsCodecs(t *testing.T) {
	m := subscribedMachine(t, nil)
	now := after(10 * time.Second)
	next(t, m, now, Push)
	m.CannotCompress(batch.Lz4)
	m.Pushed(now, pushAnswer(errcode.UnsupportedCompressionType, 0), 1, batch.Zstd)
	next(t, m, now, Ask)
	m.Subscribed(now, answered(func(a *kmsg.GetTelemetrySubscriptionsResponse) {
		a.AcceptedCompressionTypes = []int8{4, 77, -3, 3, 2, 2, 0}
	}))
	if p := inTime(t, m, now.Add(10*time.Second), Push); !slices.Equal(p.Subscription.Codecs, []batch.Codec{batch.Snappy, batch.None}) {
		t.Errorf("codecs %v", p.Subscription.Codecs)
	}
}

// Without an answer the question is asked again, ever more rarely, and a push is made at its next turn.
func TestMachineGoesOnWithoutAnswers(t *testing.T) {
	m := NewMachine(evenly)
	now := epoch
	for _, seconds := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300} {
		next(t, m, now, Ask)
		m.Unanswered(now)
		now = now.Add(time.Duration(seconds) * time.Second)
		if a := m.Next(now.Add(-1)); !a.Until.Equal(now) {
			t.Fatalf("it asks again %v early", now.Sub(a.Until))
		}
	}
	next(t, m, now, Ask)
	m.Subscribed(now, answered(nil))
	now = now.Add(10 * time.Second)
	inTime(t, m, now, Push)
	m.Unanswered(now)
	if p := inTime(t, m, now.Add(10*time.Second), Push); p.Subscription.ID != 7 {
		t.Errorf("it pushes %+v", p)
	}
}

func TestMachinePushesALastTime(t *testing.T) {
	for name, c := range map[string]struct {
		before func(t *testing.T, m *Machine)
		last   bool
	}{
		"before it has asked": {func(*testing.T, *Machine) {}, false},
		"while it asks":       {func(t *testing.T, m *Machine) { next(t, m, epoch, Ask) }, false},
		"when nothing is asked": {func(t *testing.T, m *Machine) {
			next(t, m, epoch, Ask)
			m.Subscribed(epoch, answered(func(a *kmsg.GetTelemetrySubscriptionsResponse) { a.RequestedMetrics = nil }))
		}, false},
		"between pushes": {func(t *testing.T, m *Machine) { next(t, m, epoch, Ask); m.Subscribed(epoch, answered(nil)) }, true},
		"when it was refused": {func(t *testing.T, m *Machine) {
			next(t, m, epoch, Ask)
			m.Subscribed(epoch, answered(nil))
			next(t, m, after(time.Minute), Push)
			m.Pushed(epoch, pushAnswer(errcode.InvalidRecord, 0), 1, batch.None)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMachine(evenly)
			c.before(t, m)
			if last := m.Close(); last != c.last {
				t.Fatalf("a last push: %v", last)
			}
			if c.last {
				if p := next(t, m, epoch, Push); !p.Terminating {
					t.Error("it does not say that it is the last")
				}
				m.Pushed(epoch, pushAnswer(errcode.UnknownSubscriptionID, 0), 1, batch.None)
			}
			next(t, m, after(time.Hour), End)
			if m.Failure() != nil && name != "when it was refused" {
				t.Errorf("failure %v", m.Failure())
			}
		})
	}
	m := subscribedMachine(t, nil)
	next(t, m, after(10*time.Second), Push)
	if !m.Close() {
		t.Error("no last push while another one is on its way")
	}
	if p := next(t, m, after(10*time.Second), Wait); p.Until.Before(after(11 * time.Second)) {
		t.Error("two pushes at once")
	}
	m.Pushed(after(10*time.Second), pushAnswer(0, 0), 1, batch.None)
	if p := next(t, m, after(10*time.Second), Push); !p.Terminating {
		t.Error("it does not say that it is the last")
	}
	m.Unanswered(after(10 * time.Second))
	next(t, m, after(10*time.Second), End)
}

// Whatever brokers answer and when, the machine keeps to the KIP.
func TestMachineKeepsTheRules(t *testing.T) {
	for seed := range uint64(3000) {
		if err := keepsTheRules(rand.New(rand.NewPCG(seed, 7))); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// codes are those that a broker may answer, most often none.
var codes = []errcode.Error{
	0, 0, 0, 0, 0, 0, errcode.UnknownSubscriptionID, errcode.UnsupportedCompressionType, errcode.ThrottlingQuotaExceeded,
	errcode.TelemetryTooLarge, errcode.RequestTimedOut, errcode.InvalidRecord,
}

func keepsTheRules(rng *rand.Rand) error {
	m, now := NewMachine(rng.Float64), epoch
	var id [16]byte
	var lastPush, lastAsk time.Time // when their answers came
	var interval time.Duration
	subscription, requests, closed, refused := int32(0), 0, false, []batch.Codec(nil)
	for range 200 {
		if !closed && rng.IntN(100) == 0 {
			closed = true
			m.Close()
		}
		a := m.Next(now)
		switch a.Do {
		case Wait:
			if closed || !a.Until.After(now) {
				return fmt.Errorf("it waits until %v, at %v, closed: %v", a.Until, now, closed)
			}
			now = a.Until
			continue
		case End:
			if b := m.Next(now.Add(time.Hour)); b.Do != End || !closed && m.Failure() == nil {
				return fmt.Errorf("it ended (%w), then wants %+v", m.Failure(), b)
			}
			return nil
		case Ask, Push:
			requests++
		}
		if id != [16]byte{} && a.Subscription.Instance != id {
			return fmt.Errorf("it is %x, and was %x", a.Subscription.Instance, id)
		}
		if a.Do == Ask && closed {
			return errors.New("it asks after Close")
		}
		if a.Do == Push {
			s := a.Subscription
			if s.ID != subscription || a.Terminating != closed || slices.ContainsFunc(s.Codecs, func(c batch.Codec) bool { return slices.Contains(refused, c) }) {
				return fmt.Errorf("it pushes %+v of subscription %d, closed: %v, refused %v", a, subscription, closed, refused)
			}
			if since := now.Sub(lastPush); !closed && (!lastPush.IsZero() && lastPush.After(lastAsk) && since < interval || lastAsk.After(lastPush) && now.Sub(lastAsk) < interval/2) {
				return fmt.Errorf("it pushes %v after the last push, %v after the question, every %v", since, now.Sub(lastAsk), interval)
			}
		}
		now = now.Add(time.Duration(rng.Int64N(3e9)) + 1)
		code := codes[rng.IntN(len(codes))]
		if code == errcode.InvalidRecord && rng.IntN(10) > 0 { // which ends it
			code = 0
		}
		switch {
		case rng.IntN(5) == 0:
			m.Unanswered(now)
			if a.Do == Push {
				lastPush = now
			}
		case a.Do == Ask:
			answer := answered(func(answer *kmsg.GetTelemetrySubscriptionsResponse) {
				answer.ErrorCode, answer.PushIntervalMillis = int16(code), rng.Int32N(60_000)+100
				answer.SubscriptionID = rng.Int32()
				answer.ClientInstanceID[0] = byte(1 + rng.IntN(200))
			})
			m.Subscribed(now, answer)
			if lastAsk = now; code == 0 {
				subscription, interval = answer.SubscriptionID, millis(answer.PushIntervalMillis)
				if id == [16]byte{} {
					id = answer.ClientInstanceID
				}
			}
		default:
			codec := batch.None
			if len(a.Subscription.Codecs) > 0 {
				codec = a.Subscription.Codecs[0]
			}
			if m.Pushed(now, pushAnswer(code, 0), 100, codec); code == errcode.UnsupportedCompressionType && codec != batch.None && !closed {
				refused = append(refused, codec)
			}
			lastPush = now
		}
	}
	if hours := now.Sub(epoch).Hours(); float64(requests) > 20+hours*3600*10 {
		return fmt.Errorf("%d requests in %v", requests, now.Sub(epoch))
	}
	return nil
}

// Whatever bytes come as an answer, the machine takes them, and what is pushed then fits.
func FuzzAnswers(f *testing.F) {
	f.Add(answered(nil).AppendTo(nil), pushAnswer(0, 0).AppendTo(nil))
	f.Add(answered(func(a *kmsg.GetTelemetrySubscriptionsResponse) {
		a.TelemetryMaxBytes, a.RequestedMetrics = 30, []string{"org."}
	}).AppendTo(nil),
		pushAnswer(errcode.TelemetryTooLarge, 7).AppendTo(nil))
	f.Add(answered(func(a *kmsg.GetTelemetrySubscriptionsResponse) { a.PushIntervalMillis, a.ThrottleMillis = -5, -5 }).AppendTo(nil),
		pushAnswer(errcode.UnsupportedCompressionType, 1<<30).AppendTo(nil))
	meters, _, _, _ := busy()
	snapshot := meters.Collect(after(9 * time.Second))
	f.Fuzz(func(t *testing.T, question, push []byte) {
		m, now := NewMachine(evenly), epoch
		for range 5 {
			a := m.Next(now)
			switch a.Do {
			case Wait:
				if !a.Until.After(now) {
					t.Fatalf("at %v it waits until %v", now, a.Until)
				}
				now = a.Until
			case Ask:
				answer := kmsg.NewPtrGetTelemetrySubscriptionsResponse()
				if answer.ReadFrom(question) != nil {
					m.Unanswered(now)
					continue
				}
				m.Subscribed(now, answer)
			case Push:
				p := snapshot.Payload(&a.Subscription, Compress)
				if len(p.Bytes) > a.Subscription.MaxBytes {
					t.Fatalf("%d bytes, %d are taken", len(p.Bytes), a.Subscription.MaxBytes)
				}
				answer := kmsg.NewPtrPushTelemetryResponse()
				if answer.ReadFrom(push) != nil {
					m.Unanswered(now)
					continue
				}
				m.Pushed(now, answer, len(p.Bytes), p.Codec)
			case End:
				return
			}
		}
	})
}
