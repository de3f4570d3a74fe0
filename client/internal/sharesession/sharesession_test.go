package sharesession

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"barnabas/client/internal/errcode"
)

// rec is a record of the tests.
type rec struct {
	offset int64
	held   *Held
}

// story drives a Store by hand.
type story struct {
	t   *testing.T
	s   *Store[rec]
	now time.Time
	led map[Partition]int32
}

const lock = 30 * time.Second

func tell(t *testing.T, cfg Config) *story {
	t.Helper()
	if cfg.MaxPollRecords == 0 {
		cfg.MaxPollRecords = 100
	}
	cfg.Backoff = func(failures int) time.Duration { return time.Duration(failures) * time.Second }
	return &story{
		t: t, now: time.Unix(1000, 0), led: map[Partition]int32{},
		s: New(cfg, func(r *rec, h *Held) { r.held = h }),
	}
}

func part(n int32) Partition { return Partition{TopicID: [16]byte{1}, Number: n} }

// lead assigns partitions to the member, led by a node each.
func (y *story) lead(leaders map[int32]int32) {
	y.t.Helper()
	assigned := map[Partition]string{}
	for n, node := range leaders {
		y.led[part(n)] = node
		assigned[part(n)] = "t"
	}
	y.s.Assign(y.now, assigned)
	y.route()
}

func (y *story) route() {
	y.s.Route(func(_ string, p Partition) (int32, bool) { node, ok := y.led[p]; return node, ok && node >= 0 })
}

// describe gives what a broker is to be sent as a line.
func describe(w Work) string {
	if w.Task == Nothing {
		return "nothing"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d", map[Task]string{Fetch: "fetch", Acknowledge: "acknowledge"}[w.Task], w.Epoch)
	for _, p := range w.Fetch {
		fmt.Fprintf(&b, " +%d", p.Number)
	}
	for _, p := range w.Forget {
		fmt.Fprintf(&b, " -%d", p.Number)
	}
	for _, a := range w.Acks {
		for _, r := range a.Runs {
			fmt.Fprintf(&b, " %d:%d-%d=%s", a.Partition.Number, r.First, r.Last, []string{"gap", "accept", "release", "reject", "renew"}[r.Kind])
		}
	}
	if w.Renews {
		b.WriteString(" renews")
	}
	return b.String()
}

// sends expects what a broker is sent next.
func (y *story) sends(node int32, want string) {
	y.t.Helper()
	pending, _ := y.s.Pending(y.now, node)
	got := describe(y.s.Claim(y.now, node))
	if got != want || pending != (got != "nothing") {
		y.t.Fatalf("broker %d is sent %q (pending %v), expected %q", node, got, pending, want)
	}
}

// caught makes the part of an answer that acquired these offsets.
func caught(n int32, offsets ...int64) Part[rec] {
	p := Part[rec]{Partition: part(n)}
	for _, o := range offsets {
		p.Catch.Records = append(p.Catch.Records, rec{offset: o})
		p.Catch.Offsets = append(p.Catch.Offsets, o)
	}
	return p
}

func (y *story) answers(node int32, parts ...Part[rec]) {
	y.t.Helper()
	y.s.Answered(y.now, node, &Answer[rec]{Lock: lock, Parts: parts})
}

func (y *story) polls(want ...int64) []rec {
	y.t.Helper()
	records, f := y.s.Take(y.now)
	var got []int64
	for _, r := range records {
		got = append(got, r.offset)
	}
	if f != nil || !slices.Equal(got, want) {
		y.t.Fatalf("Poll returns %v, %v; expected %v", got, f, want)
	}
	return records
}

// begins opens a session with broker 1, which leads partition 0, and polls what that catches.
func (y *story) begins(offsets ...int64) []rec {
	y.t.Helper()
	y.lead(map[int32]int32{0: 1})
	y.s.Want(true)
	y.sends(1, "fetch 0 +0")
	y.answers(1, caught(0, offsets...))
	return y.polls(offsets...)
}

func (y *story) marks(as Kind, records ...rec) {
	y.t.Helper()
	for _, r := range records {
		if err := y.s.Mark(y.now, r.held, as); err != nil {
			y.t.Fatalf("offset %d: %v", r.offset, err)
		}
	}
}

// results expects what became of acknowledgements since the last time.
func (y *story) results(want ...string) {
	y.t.Helper()
	var got []string
	for _, r := range y.s.Results() {
		got = append(got, fmt.Sprintf("%d:%v %v", r.Partition.Number, r.Offsets, r.Err))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		y.t.Errorf("answered is %q, expected %q", got, want)
	}
}

// A fetch names what the session does not know yet and what it is to forget; acknowledgements of
// partitions that are read travel with it.
func TestSessionKnowsWhatIsRead(t *testing.T) {
	y := tell(t, Config{})
	y.lead(map[int32]int32{0: 1, 1: 1, 2: 2})
	y.sends(1, "nothing") // nobody waits
	y.s.Want(true)
	y.sends(1, "fetch 0 +0 +1")
	y.sends(1, "nothing") // one request at a time
	y.sends(2, "fetch 0 +2")
	y.answers(1)
	y.sends(1, "fetch 1")
	y.answers(1, caught(0, 5, 6, 7))
	y.sends(1, "nothing") // what is there goes first
	got := y.polls(5, 6, 7)
	y.marks(Accept, got[:2]...)
	y.marks(Reject, got[2])
	y.sends(1, "fetch 2") // said, and not yet to be sent
	y.s.Flush(y.now)
	y.answers(1)
	y.lead(map[int32]int32{0: 1, 3: 1, 2: 2})
	y.sends(1, "fetch 3 +3 -1 0:5-6=accept 0:7-7=reject")
	y.answers(1, Part[rec]{Partition: part(0)})
	y.results("0:[5 6 7] <nil>")
	y.answers(2)
	y.sends(2, "fetch 1")
}

// Trap 27: a partition that is listed in a fetch only to carry an acknowledgement joins the session, and
// its records are acquired for nobody. So what is said of a partition that is not read any more
// travels alone, and the session forgets the partition.
func TestTrap27AcknowledgementDoesNotAddToTheSession(t *testing.T) {
	y := tell(t, Config{})
	y.lead(map[int32]int32{0: 1, 1: 1})
	y.s.Want(true)
	y.sends(1, "fetch 0 +0 +1")
	y.answers(1, caught(0, 1), caught(1, 1))
	got := y.polls(1, 1)
	y.lead(map[int32]int32{1: 1})
	y.marks(Accept, got...)
	y.s.Flush(y.now)
	y.sends(1, "acknowledge 1 0:1-1=accept 1:1-1=accept")
	y.answers(1, Part[rec]{Partition: part(0)}, Part[rec]{Partition: part(1)})
	y.results("0:[1] <nil>", "1:[1] <nil>")
	y.sends(1, "fetch 2 -0")
	y.answers(1)
	y.sends(1, "fetch 3")
}

// What Commit waits for does not wait for records.
func TestWatchedAcknowledgementsGoFirst(t *testing.T) {
	y := tell(t, Config{})
	got := y.begins(1, 2)
	y.marks(Release, got[0])
	y.s.Flush(y.now)
	w := y.s.Watch()
	y.marks(Accept, got[1]) // later than the watch
	y.s.Flush(y.now)
	y.sends(1, "acknowledge 1 0:1-1=release 0:2-2=accept")
	if w.Done() {
		t.Error("it is done with before it is answered")
	}
	y.answers(1, Part[rec]{Partition: part(0), AckErr: errcode.InvalidRequest})
	if r := w.Results(); !w.Done() || len(r) != 1 || !slices.Equal(r[0].Offsets, []int64{1}) || !errors.Is(r[0].Err, errcode.InvalidRequest) {
		t.Errorf("done %v with %+v", w.Done(), w.Results())
	}
	y.s.Unwatch(w)
}

// A renewal begins the lock anew, and leaves the record to the program, which may speak while it is on its way.
func TestRenewal(t *testing.T) {
	y := tell(t, Config{})
	got := y.begins(1, 2, 3)
	if n := y.s.Unacknowledged(y.now); n != 3 {
		t.Errorf("%d are unacknowledged", n)
	}
	y.now = y.now.Add(20 * time.Second)
	y.marks(Renew, got[0], got[2])
	y.marks(Accept, got[1])
	if n := y.s.Unacknowledged(y.now); n != 0 {
		t.Errorf("%d are unacknowledged", n)
	}
	y.s.Flush(y.now)
	y.sends(1, "acknowledge 1 0:1-1=renew 0:2-2=accept 0:3-3=renew renews")
	w := y.s.Watch()
	y.marks(Reject, got[0])
	y.s.Flush(y.now)
	if err := y.s.Mark(y.now, got[1].held, Release); !errors.Is(err, ErrAcknowledged) {
		t.Errorf("on its way: %v", err)
	}
	y.answers(1, Part[rec]{Partition: part(0)})
	if !w.Done() {
		t.Error("the renewal is answered, and not done with")
	}
	y.s.Unwatch(w)
	y.results("0:[1 2 3] <nil>")
	y.sends(1, "fetch 2 0:1-1=reject")
	y.answers(1, Part[rec]{Partition: part(0)})
	y.results("0:[1] <nil>")
	y.now = y.now.Add(20 * time.Second) // past the first lock, not past the second
	y.marks(Accept, got[2])
	y.now = y.now.Add(20 * time.Second)
	if err := y.s.Mark(y.now, got[2].held, Accept); !errors.Is(err, ErrLost) {
		t.Errorf("past both: %v", err)
	}
	y.s.Flush(y.now)
	y.results("0:[3] " + ErrLost.Error() + ": " + errLock.Error())
}

// A renewal that is refused takes with it what was said meanwhile.
func TestRefusedRenewal(t *testing.T) {
	y := tell(t, Config{})
	got := y.begins(1, 2)
	y.marks(Renew, got[0])
	y.s.Flush(y.now)
	y.sends(1, "acknowledge 1 0:1-1=renew renews")
	y.marks(Accept, got...)
	y.s.Flush(y.now)
	w := y.s.Watch()
	y.answers(1, Part[rec]{Partition: part(0), AckErr: errcode.InvalidRecordState})
	y.results("0:[1 1] " + ErrLost.Error() + ": INVALID_RECORD_STATE (121)")
	y.sends(1, "acknowledge 2 0:2-2=accept")
	y.answers(1, Part[rec]{Partition: part(0)})
	if !w.Done() {
		t.Error("everything is answered, and not done with")
	}
}

// Whatever was acquired through a session is lost with it, and the next one begins anew.
func TestLostSessions(t *testing.T) {
	for name, lose := range map[string]func(*story){
		"not found": func(y *story) {
			y.s.Answered(y.now, 1, &Answer[rec]{Err: errcode.ShareSessionNotFound})
		},
		"epoch": func(y *story) {
			y.s.Answered(y.now, 1, &Answer[rec]{Err: errcode.InvalidShareSessionEpoch})
		},
		"connection": func(y *story) {
			y.s.Failed(y.now, 1, errcode.Network)
			y.now = y.now.Add(time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			y := tell(t, Config{MaxPollRecords: 2})
			y.lead(map[int32]int32{0: 1, 1: 2})
			y.s.Want(true)
			y.sends(1, "fetch 0 +0")
			y.answers(1, caught(0, 1, 2, 3))
			y.sends(2, "nothing")
			got := y.polls(1, 2)
			y.marks(Accept, got[0])
			y.s.Flush(y.now)
			y.sends(1, "acknowledge 1 0:1-1=accept")
			lose(y)
			results := y.s.Results()
			if len(results) != 1 || !errors.Is(results[0].Err, ErrLost) {
				t.Errorf("answered is %+v", results)
			}
			if err := y.s.Mark(y.now, got[1].held, Accept); !errors.Is(err, ErrLost) {
				t.Errorf("in the program's hands: %v", err)
			}
			if n := y.s.Unacknowledged(y.now); n != 0 {
				t.Errorf("%d are unacknowledged", n)
			}
			y.polls() // the third is lost too
			y.sends(1, "fetch 0 +0")
			y.sends(2, "fetch 0 +1")
		})
	}
}

// A session that a broker refuses again and again is not opened in a tight loop.
func TestRefusedSessionsWait(t *testing.T) {
	y := tell(t, Config{})
	y.lead(map[int32]int32{0: 1})
	y.s.Want(true)
	for range 3 {
		y.sends(1, "fetch 0 +0")
		y.s.Answered(y.now, 1, &Answer[rec]{Err: errcode.Error(133)}) // SHARE_SESSION_LIMIT_REACHED
		y.sends(1, "nothing")
		pending, again := y.s.Pending(y.now, 1)
		if pending || !again.After(y.now) {
			t.Fatalf("again at %v", again)
		}
		y.now = again
	}
}

// Another leader knows nothing of what the one before has acquired.
func TestLeaderChange(t *testing.T) {
	y := tell(t, Config{MaxPollRecords: 2})
	y.lead(map[int32]int32{0: 1, 1: 1})
	y.s.Want(true)
	y.sends(1, "fetch 0 +0 +1")
	y.answers(1, caught(0, 1, 2, 3), caught(1, 7))
	got := y.polls(1, 2)
	y.marks(Accept, got[0])
	y.s.Flush(y.now)
	y.led[part(0)] = 2
	y.route()
	y.results("0:[1] " + ErrLost.Error() + ": " + errMoved.Error())
	if err := y.s.Mark(y.now, got[1].held, Accept); !errors.Is(err, ErrLost) {
		t.Errorf("in the program's hands: %v", err)
	}
	other := y.polls(7)
	y.marks(Accept, other...)
	y.s.Flush(y.now)
	y.sends(2, "fetch 0 +0")
	y.sends(1, "fetch 1 -0 1:7-7=accept")
	y.answers(1, Part[rec]{Partition: part(1)})
	y.results("1:[7] <nil>")
	// Nor does what a broker acquired count that led while it was asked and does not any more.
	y.led[part(0)] = 1
	y.route()
	y.answers(2, caught(0, 1, 2, 3))
	y.polls()
}

// A partition in trouble leaves the session for a while, so that the others are not answered at once for its sake.
func TestPartitionInTroubleWaits(t *testing.T) {
	y := tell(t, Config{})
	y.lead(map[int32]int32{0: 1, 1: 1})
	y.s.Want(true)
	y.sends(1, "fetch 0 +0 +1")
	y.s.Signals()
	y.answers(1, Part[rec]{Partition: part(0), Err: errcode.NotLeaderOrFollower})
	if !y.s.Signals().Metadata {
		t.Error("nobody looks for the leader")
	}
	y.sends(1, "fetch 1 -0")
	y.now = y.now.Add(time.Second)
	y.answers(1)
	y.sends(1, "fetch 2 +0")
	y.answers(1, Part[rec]{Partition: part(0), Err: errcode.Error(29)}) // TOPIC_AUTHORIZATION_FAILED
	_, f := y.s.Take(y.now)
	if f == nil || f.Topic != "t" || f.Partition != 0 {
		t.Errorf("Poll returns %+v", f)
	}
}

// What Poll has not returned of a partition that is taken away is released; what comes of it later, too.
func TestUnassignedIsReleased(t *testing.T) {
	y := tell(t, Config{MaxPollRecords: 1})
	y.lead(map[int32]int32{0: 1, 1: 1})
	y.s.Want(true)
	y.sends(1, "fetch 0 +0 +1")
	y.answers(1, caught(0, 1, 2, 3))
	got := y.polls(1)
	y.lead(map[int32]int32{1: 1})
	y.sends(1, "acknowledge 1 0:2-3=release")
	y.answers(1, Part[rec]{Partition: part(0)})
	y.results() // the program has not seen them
	y.lead(map[int32]int32{0: 1, 1: 1})
	y.sends(1, "fetch 2")
	y.lead(map[int32]int32{1: 1})
	y.answers(1, caught(0, 2))
	y.sends(1, "acknowledge 3 0:2-2=release")
	y.answers(1, Part[rec]{Partition: part(0)})
	y.marks(Accept, got...)
	y.s.Flush(y.now)
	y.sends(1, "acknowledge 4 0:1-1=accept")
}

// Gaps are acknowledged although nobody speaks of them.
func TestGapsAreAcknowledged(t *testing.T) {
	y := tell(t, Config{})
	y.lead(map[int32]int32{0: 1})
	y.s.Want(true)
	y.sends(1, "fetch 0 +0")
	p := caught(0, 4, 6)
	p.Catch.Runs = []Run{{0, 3, Gap}, {5, 5, Release}, {7, 9, Gap}}
	y.answers(1, p)
	got := y.polls(4, 6)
	y.s.Want(false)
	y.sends(1, "acknowledge 1 0:0-3=gap 0:5-5=release 0:7-9=gap")
	y.answers(1, Part[rec]{Partition: part(0)})
	y.results()
	y.s.Want(true)
	y.sends(1, "fetch 2")
	y.answers(1)
	y.s.AcceptHanded(y.now)
	y.s.Flush(y.now)
	y.sends(1, "fetch 3 0:4-4=accept 0:6-6=accept")
	_ = got
}

// Past their locks records are neither returned nor spoken for.
func TestLocksRunOut(t *testing.T) {
	y := tell(t, Config{MaxPollRecords: 2})
	y.lead(map[int32]int32{0: 1})
	y.s.Want(true)
	y.sends(1, "fetch 0 +0")
	y.answers(1, caught(0, 1, 2, 3, 4))
	got := y.polls(1, 2)
	y.marks(Accept, got[0])
	y.s.Flush(y.now)
	y.now = y.now.Add(lock)
	if err := y.s.Mark(y.now, got[1].held, Accept); !errors.Is(err, ErrLost) {
		t.Errorf("past its lock: %v", err)
	}
	y.polls()
	y.sends(1, "fetch 1")
	y.results("0:[1] " + ErrLost.Error() + ": " + errLock.Error())
}

// With a limit of records one broker at a time is asked, in turns, and only while nothing waits.
func TestRecordLimitAsksOneBrokerAtATime(t *testing.T) {
	y := tell(t, Config{RecordLimit: true, MaxPollRecords: 2})
	y.lead(map[int32]int32{0: 1, 1: 2, 2: 3})
	y.s.Want(true)
	y.sends(2, "nothing")
	y.sends(1, "fetch 0 +0")
	y.sends(2, "nothing")
	y.answers(1)
	y.sends(1, "nothing")
	y.sends(2, "fetch 0 +1")
	y.answers(2, caught(1, 1, 2))
	y.sends(3, "nothing")
	y.polls(1, 2)
	y.s.Failed(y.now, 3, errcode.Network) // cannot be reached: the turn is the next one's
	y.sends(1, "fetch 1")
}

// An acknowledgement that may be taken later is sent again, for as long as its lock lasts.
func TestAcknowledgementIsSentAgain(t *testing.T) {
	y := tell(t, Config{})
	y.lead(map[int32]int32{0: 1})
	y.s.Want(true)
	y.sends(1, "fetch 0 +0")
	y.answers(1, caught(0, 1))
	y.marks(Accept, y.polls(1)...)
	y.s.Flush(y.now)
	w := y.s.Watch()
	for round := range int32(5) {
		y.sends(1, fmt.Sprintf("acknowledge %d 0:1-1=accept", round+1))
		y.answers(1, Part[rec]{Partition: part(0), AckErr: errcode.CoordinatorNotAvailable})
		y.sends(1, "nothing")
		_, again := y.s.Pending(y.now, 1)
		if wait, want := again.Sub(y.now), time.Duration(round+1)*time.Second; wait != want {
			t.Errorf("after %d failures in a row it waits %v, expected %v", round+1, wait, want)
		}
		y.now = again
	}
	y.now = y.now.Add(lock)
	y.s.Claim(y.now, 1)
	if !w.Done() || !errors.Is(w.Results()[0].Err, ErrLost) {
		t.Errorf("done %v: %+v", w.Done(), w.Results())
	}
}

var errGone = errors.New("gone")

// What is said once Close has begun would be sent by nobody, and is not taken.
func TestMarkAfterClose(t *testing.T) {
	y := tell(t, Config{})
	got := y.begins(1, 2)
	y.marks(Accept, got[0])
	y.s.Close(y.now, errGone)
	for range 2 {
		if err := y.s.Mark(y.now, got[1].held, Accept); !errors.Is(err, ErrLost) || !errors.Is(err, errGone) {
			t.Errorf("after Close: %v", err)
		}
		if !y.s.Closed() {
			y.sends(1, "acknowledge -1 0:1-1=accept")
			y.answers(1, Part[rec]{Partition: part(0)})
		}
	}
	y.results("0:[1] <nil>")
}

// A broker that is too old for renewals is sent everything else.
func TestRenewalThatCannotBeSent(t *testing.T) {
	y := tell(t, Config{})
	y.lead(map[int32]int32{0: 1, 1: 1, 2: 1})
	y.s.Want(true)
	y.sends(1, "fetch 0 +0 +1 +2")
	p := caught(0, 1, 2, 3)
	p.Catch.Runs = []Run{{4, 5, Gap}}
	y.answers(1, p, caught(1, 7), caught(2, 8))
	got := y.polls(1, 2, 3, 7, 8)
	y.marks(Renew, got[0])
	y.marks(Accept, got[1], got[3], got[4])
	y.marks(Reject, got[2])
	y.s.Flush(y.now)
	w := y.s.Watch()
	y.sends(1, "acknowledge 1 0:1-1=renew 0:2-2=accept 0:3-3=reject 0:4-5=gap 1:7-7=accept 2:8-8=accept renews")
	y.led[part(2)] = 2 // what it held is lost meanwhile
	y.route()
	y.s.Refuse(1, errcode.UnsupportedVersion)
	y.results("0:[1] "+errcode.UnsupportedVersion.Error(), "2:[8] "+ErrLost.Error()+": "+errMoved.Error())
	y.sends(1, "acknowledge 1 0:2-2=accept 0:3-3=reject 0:4-5=gap 1:7-7=accept")
	y.answers(1, Part[rec]{Partition: part(0)}, Part[rec]{Partition: part(1)})
	y.results("0:[2 3] <nil>", "1:[7] <nil>")
	if !w.Done() {
		t.Error("everything is answered, and not done with")
	}
}

// Close sends what was said, releases the rest with the session, and does not wait for brokers that are away.
func TestClose(t *testing.T) {
	y := tell(t, Config{MaxPollRecords: 2})
	y.lead(map[int32]int32{0: 1, 1: 2, 2: 3, 3: 4})
	y.s.Want(true)
	y.sends(1, "fetch 0 +0")
	y.sends(2, "fetch 0 +1")
	y.sends(3, "fetch 0 +2")
	y.answers(3)
	y.answers(1, caught(0, 1, 2, 3))
	y.marks(Accept, y.polls(1, 2)[0])
	y.s.Close(y.now, errGone)
	y.sends(1, "acknowledge -1 0:1-1=accept")
	y.sends(3, "acknowledge -1")
	y.sends(4, "nothing") // there is no session
	y.answers(1, Part[rec]{Partition: part(0)})
	y.results("0:[1] <nil>")
	y.s.Failed(y.now, 3, errcode.Network)
	if y.s.Closed() {
		t.Error("it does not wait for the second broker")
	}
	y.answers(2, caught(1, 9))
	y.polls()
	y.sends(2, "acknowledge -1 1:9-9=release")
	y.answers(2)
	if !y.s.Closed() {
		t.Error("all sessions have ended, and it is not closed")
	}
}

// A session that is for nothing is closed.
func TestIdleSessionIsClosed(t *testing.T) {
	y := tell(t, Config{})
	y.lead(map[int32]int32{0: 1})
	y.s.Want(true)
	y.sends(1, "fetch 0 +0")
	y.answers(1)
	y.lead(nil)
	y.sends(1, "acknowledge -1")
	y.answers(1)
	y.sends(1, "nothing")
	y.lead(map[int32]int32{0: 1})
	y.sends(1, "fetch 0 +0")
}

// An answer that leaves out a partition says nothing about what was said of it.
func TestUnansweredAcknowledgement(t *testing.T) {
	y := tell(t, Config{})
	y.lead(map[int32]int32{0: 1})
	y.s.Want(true)
	y.sends(1, "fetch 0 +0")
	y.answers(1, caught(0, 1))
	y.marks(Accept, y.polls(1)...)
	y.s.Flush(y.now)
	y.sends(1, "fetch 1 0:1-1=accept")
	y.answers(1)
	y.results("0:[1] " + errUnanswered.Error())
}

func TestMerge(t *testing.T) {
	got := merge([]Run{{9, 9, Accept}, {1, 3, Gap}, {4, 4, Accept}, {5, 5, Accept}, {7, 8, Accept}})
	if want := []Run{{1, 3, Gap}, {4, 5, Accept}, {7, 9, Accept}}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
