package prefetch

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/errcode"
	"barnabas/internal/batch"
)

var tp = TopicPartition{"t", 0}

// newStore reads t-0, led by node 7 in epoch 3.
func newStore(reset Reset, at Start) *Store[item] {
	s := New(Config{
		MaxBytes: 1 << 20, MaxPartitionBytes: 1 << 20, MaxPollRecords: 10, Reset: reset, ReplicaLease: time.Minute,
		Backoff: func(int) time.Duration { return time.Second }, Log: slog.New(slog.DiscardHandler),
	}, spotOfItem)
	s.Add(tp, [16]byte{}, at)
	lead(s, Leader{id, 7, 3})
	return s
}

func lead(s *Store[item], l Leader) {
	s.Route(func(TopicPartition) (Leader, bool) { return l, l.Node >= 0 }, func(node int32) bool { return node < 100 })
	s.Signals()
}

// fetch claims of a node and lets it answer with as many records, of that leader epoch.
func fetch(t *testing.T, s *Store[item], node int32, records int, epoch int32) (Fetched[item], bool) {
	t.Helper()
	work := s.Claim(start, node)
	if len(work.Fetch) != 1 {
		t.Fatalf("of node %d %+v is claimed", node, work)
	}
	return answerFetch(t, s, &work.Fetch[0], records, epoch)
}

func answerFetch(t *testing.T, s *Store[item], c *Claim[item], records int, epoch int32) (Fetched[item], bool) {
	t.Helper()
	part := kmsg.NewFetchResponseTopicPartition()
	if records > 0 {
		b := batch.NewBuilder(batch.BuilderOptions{})
		for range records {
			b.Append(0, nil, []byte("v"), nil)
		}
		built, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		built.Assign(c.Offset, epoch)
		part.RecordBatches = built
	}
	return s.Fetched(start, c.node, c, &part)
}

func decodeItems(s *Store[item], f Fetched[item], count int) {
	var records []item
	for n := range int64(count) {
		records = append(records, item{f.From + n, f.Batches[0].LeaderEpoch()})
	}
	s.Decoded(&f, records, nil)
}

func takeAll(t *testing.T, s *Store[item]) (read []item) {
	t.Helper()
	for {
		_, records, err := s.Take()
		if err != nil {
			t.Fatal(err)
		}
		if records == nil {
			return read
		}
		read = append(read, records...)
	}
}

// Records of an old leader that wait to be decoded come before those of the new one: its fetcher may
// be waiting for a connection while the new leader's would already get an answer.
func TestRecordsOfTheOldLeaderComeFirst(t *testing.T) {
	s := newStore(Reset{To: Latest}, Start{Kind: Offset, Number: 0})
	got, _ := fetch(t, s, 7, 1, -1)
	lead(s, Leader{id, 8, 4})
	if work := s.Claim(start, 8); !work.Empty() {
		t.Errorf("the new leader is asked for what follows records that are not decoded yet: %+v", work)
	}
	s.Signals()
	decodeItems(s, got, 1)
	if !s.Signals().Fetchers {
		t.Error("nobody tells the new leader's fetcher")
	}
	if work := s.Claim(start, 8); len(work.Fetch) != 1 || work.Fetch[0].Offset != 1 {
		t.Errorf("claimed %+v", work)
	}
}

// What was read and is no longer in the log is found, whether Poll has returned it or not.
func TestTrap03TruncationIsFound(t *testing.T) {
	for _, taken := range []bool{false, true} {
		for _, reset := range []Reset{{To: Latest}, {}} {
			s := newStore(reset, Start{Kind: Offset, Number: 0})
			got, _ := fetch(t, s, 7, 10, 3)
			decodeItems(s, got, 10)
			if taken {
				takeAll(t, s)
			}
			lead(s, Leader{id, 8, 4})
			work := s.Claim(start, 8)
			if len(work.Confirm) != 1 || work.Confirm[0].ReadEpoch != 3 || work.Confirm[0].LeaderEpoch != 4 {
				t.Fatalf("claimed %+v", work)
			}
			s.Confirmed(start, &work.Confirm[0], Spot{6, 2}, nil)
			if reset.Reports() {
				for _, _, err := s.Take(); !errors.Is(err, ErrLogTruncated); _, _, err = s.Take() {
					if err != nil {
						t.Fatal(err)
					}
				}
				if work := s.Claim(start, 8); !work.Empty() {
					t.Errorf("it is read on: %+v", work)
				}
				continue
			}
			want := int64(0) // of what was not taken nothing is left
			if taken {
				want = 6
			}
			if spot, _ := s.Spot(tp); spot.Offset != want || spot.LeaderEpoch > 2 {
				t.Errorf("taken: %v: Poll goes on at %v", taken, spot)
			}
			if work := s.Claim(start, 8); len(work.Fetch) != 1 || work.Fetch[0].Offset != want || s.Pending() != 0 {
				t.Errorf("taken: %v: claimed %+v, %d bytes wait", taken, work, s.Pending())
			}
		}
	}
}

// A leader that knows nothing of the epoch any more has lost nothing.
func TestTrap03UndefinedEndIsNoLoss(t *testing.T) {
	s := newStore(Reset{}, Start{Kind: Offset, Number: 0})
	got, _ := fetch(t, s, 7, 10, 3)
	decodeItems(s, got, 10)
	lead(s, Leader{id, 8, 4})
	work := s.Claim(start, 8)
	s.Confirmed(start, &work.Confirm[0], Spot{-1, -1}, nil)
	if work := s.Claim(start, 8); len(work.Fetch) != 1 || work.Fetch[0].Offset != 10 {
		t.Errorf("claimed %+v", work)
	}
}

// A committed offset comes with the epoch of the record before it, and is confirmed before anything
// is read: the log may have been cut while nobody read.
func TestTrap03CommittedOffsetsAreConfirmed(t *testing.T) {
	s := newStore(Reset{To: Earliest}, Start{Kind: Committed})
	waiting := s.AwaitCommitted()
	if work := s.Claim(start, 7); !work.Empty() || len(waiting) != 1 {
		t.Fatalf("claimed %+v, %d wait", work, len(waiting))
	}
	s.Begin(start, &waiting[0], Spot{100, 2}, true, nil)
	work := s.Claim(start, 7)
	if len(work.Confirm) != 1 || work.Confirm[0].ReadEpoch != 2 {
		t.Fatalf("claimed %+v", work)
	}
	s.Confirmed(start, &work.Confirm[0], Spot{90, 2}, nil)
	if work := s.Claim(start, 7); len(work.Fetch) != 1 || work.Fetch[0].Offset != 90 {
		t.Errorf("claimed %+v", work)
	}
}

// A topic made anew is another: its records are not those that the position is about. A group says
// itself which topic it means, so what is of another is waited out.
func TestTrap26RecreatedTopicIsAnother(t *testing.T) {
	other := Leader{[16]byte{2}, 7, 0}
	s := newStore(Reset{To: Earliest}, Start{Kind: Offset, Number: 5})
	lead(s, other)
	if _, records, err := s.Take(); !errors.Is(err, ErrTopicRecreated) {
		t.Errorf("%v, %v", records, err)
	}
	s.Seek(tp, Start{Kind: Earliest})
	lead(s, other)
	if work := s.Claim(start, 7); len(work.Resolve) != 1 || work.Resolve[0].TopicID != other.TopicID {
		t.Errorf("after Seek %+v is claimed", work)
	}

	s.Remove(tp)
	s.Add(tp, id, Start{Kind: Offset, Number: 5})
	lead(s, other)
	if work := s.Claim(start, 7); !work.Empty() {
		t.Errorf("of a topic that the group does not mean %+v is claimed", work)
	}
	if _, _, err := s.Take(); err != nil {
		t.Error(err)
	}
	lead(s, Leader{id, 7, 0})
	if work := s.Claim(start, 7); len(work.Fetch) != 1 {
		t.Errorf("claimed %+v", work)
	}
}

// The leader names a replica nearby; it is read for a while, and left as soon as it has an error.
func TestNearestReplicaIsRead(t *testing.T) {
	follow := func() *Store[item] {
		s := newStore(Reset{}, Start{Kind: Offset, Number: 5})
		work := s.Claim(start, 7)
		part := kmsg.NewFetchResponseTopicPartition()
		part.PreferredReadReplica = 9
		s.Fetched(start, 7, &work.Fetch[0], &part)
		if got := s.Signals(); !got.Fetchers || !got.Sources {
			t.Fatalf("nobody hears of the replica: %+v", got)
		}
		if work := s.Claim(start, 7); !work.Empty() {
			t.Fatalf("of the leader %+v is claimed", work)
		}
		return s
	}
	leaderIsRead := func(t *testing.T, s *Store[item]) {
		t.Helper()
		if work := s.Claim(start.Add(2*time.Minute), 7); len(work.Fetch) != 1 || work.Fetch[0].Offset != 5 {
			t.Errorf("of the leader %+v is claimed", work)
		}
	}
	s := follow()
	if got, some := fetch(t, s, 9, 2, 3); !some || got.From != 5 {
		t.Errorf("the replica gave %+v", got)
	}
	for _, err := range []error{errcode.OffsetOutOfRange, errcode.NotLeaderOrFollower, errcode.UnknownServerError} {
		s := follow()
		work := s.Claim(start, 9)
		s.Refused(start, &work.Fetch[0], err, false)
		if !s.Signals().Fetchers {
			t.Errorf("%v: nobody tells the leader's fetcher", err)
		}
		leaderIsRead(t, s)
	}
	s = follow()
	work := s.Claim(start, 9)
	s.Release(start, work.Fetch...)
	leaderIsRead(t, s)

	s = follow()
	if work := s.Claim(start.Add(time.Minute), 9); !work.Empty() || !s.Signals().Fetchers {
		t.Errorf("after its time the replica is asked for %+v", work)
	}
	leaderIsRead(t, s)

	s = follow()
	s.Route(func(TopicPartition) (Leader, bool) { return Leader{id, 7, 3}, true }, func(node int32) bool { return node != 9 })
	leaderIsRead(t, s) // the replica is not in the metadata any more
}

// Positions out of range go where auto.offset.reset says, and are reported where it is none.
func TestOutOfRange(t *testing.T) {
	for reset, want := range map[Reset]Start{
		{To: Earliest}:    {Kind: Earliest},
		{To: Latest}:      {Kind: Latest},
		{Back: time.Hour}: {Kind: Time, Number: start.Add(-time.Hour).UnixMilli()},
		{}:                {},
	} {
		s := newStore(reset, Start{Kind: Offset, Number: 5})
		work := s.Claim(start, 7)
		s.Refused(start, &work.Fetch[0], errcode.OffsetOutOfRange, false)
		if reset.Reports() {
			if _, _, err := s.Take(); !errors.Is(err, errcode.OffsetOutOfRange) {
				t.Errorf("error %v", err)
			}
			continue
		}
		if work := s.Claim(start, 7); len(work.Resolve) != 1 || work.Resolve[0].Start != want {
			t.Errorf("%+v: claimed %+v", reset, work)
		}
	}
}

// A partition whose records wait, or all of them together, is not fetched from beyond its limits.
func TestLimitsOfWhatWaits(t *testing.T) {
	s := newStore(Reset{To: Earliest}, Start{Kind: Offset, Number: 0})
	s.cfg.MaxPartitionBytes = 10
	got, _ := fetch(t, s, 7, 3, 3)
	if work := s.Claim(start, 7); !work.Empty() || !work.Crowded {
		t.Errorf("claimed %+v", work)
	}
	decodeItems(s, got, 3)
	s.Signals()
	takeAll(t, s)
	if !s.Signals().Fetchers {
		t.Error("nobody hears that there is room")
	}
	if work := s.Claim(start, 7); len(work.Fetch) != 1 || work.Fetch[0].Offset != 3 {
		t.Errorf("claimed %+v", work)
	}
}

// What paused partitions have waiting takes no room from the others: nobody knows when it will be taken.
func TestPausedPartitionsTakeNoRoom(t *testing.T) {
	other := TopicPartition{"t", 1}
	claimed := func(s *Store[item]) (partitions []TopicPartition, crowded bool) {
		work := s.Claim(start, 7)
		for _, c := range work.Fetch {
			partitions = append(partitions, c.TopicPartition)
		}
		s.Return(work.Fetch...)
		return partitions, work.Crowded
	}
	for _, paused := range []string{"before the answer", "before it is decoded", "afterwards"} {
		s := newStore(Reset{To: Earliest}, Start{Kind: Offset, Number: 0})
		s.cfg.MaxBytes = 10
		work := s.Claim(start, 7)
		s.SetPaused(tp, paused == "before the answer")
		got, _ := answerFetch(t, s, &work.Fetch[0], 3, 3)
		s.SetPaused(tp, paused != "afterwards")
		decodeItems(s, got, 3)
		s.SetPaused(tp, true)
		s.SetPaused(tp, true) // counts once
		s.Add(other, [16]byte{}, Start{Kind: Offset, Number: 0})
		lead(s, Leader{id, 7, 3})
		if some, _ := claimed(s); len(some) != 1 || some[0] != other {
			t.Fatalf("paused %s: beside a partition that fills the room %v is claimed", paused, some)
		}
		s.SetPaused(tp, false)
		if some, crowded := claimed(s); len(some) > 0 || !crowded {
			t.Errorf("paused %s: after Resume %v is claimed", paused, some)
		}
		s.SetPaused(tp, true)
		s.Remove(tp)
		if got, some := fetch(t, s, 7, 3, 3); !some || got.TopicPartition != other {
			t.Fatalf("paused %s: of the other partition comes %+v", paused, got)
		}
		if some, crowded := claimed(s); len(some) > 0 || !crowded {
			t.Errorf("paused %s: a partition that is gone leaves room behind: %v is claimed", paused, some)
		}
	}
}

// An error is returned once, behind the records, and the position stays before what could not be read.
func TestErrorsComeBehindRecords(t *testing.T) {
	s := newStore(Reset{To: Earliest}, Start{Kind: Offset, Number: 0})
	got, _ := fetch(t, s, 7, 3, 3)
	s.Decoded(&got, []item{{0, 3}, {1, 3}}, errcode.CorruptMessage)
	if read := len(func() []item { _, r, _ := s.Take(); return r }()); read != 2 {
		t.Errorf("%d records come first", read)
	}
	if _, _, err := s.Take(); !errors.Is(err, errcode.CorruptMessage) {
		t.Errorf("then %v", err)
	}
	if spot, _ := s.Spot(tp); spot.Offset != 2 {
		t.Errorf("Poll stands at %v", spot)
	}
	if _, records, err := s.Take(); records != nil || err != nil || !func() bool { w := s.Claim(start, 7); return w.Empty() }() {
		t.Errorf("it goes on: %v, %v", records, err)
	}
}

// Whoever is to be asked next hears of it, also where the answer of the one before brought nothing.
func TestFetchersHearOfWhatIsReturned(t *testing.T) {
	s := newStore(Reset{To: Earliest}, Start{Kind: Offset, Number: 0})
	work := s.Claim(start, 7)
	lead(s, Leader{id, 8, 3})
	if work := s.Claim(start, 8); !work.Empty() {
		t.Fatalf("in a request of the old leader, %+v is claimed", work)
	}
	s.Return(work.Fetch...)
	if !s.Signals().Fetchers {
		t.Error("nobody tells the new leader's fetcher")
	}
}

// What was fetched before a partition was stopped is returned before the reason.
func TestRecordsComeBeforeWhatStopsTheirPartition(t *testing.T) {
	s := newStore(Reset{To: Earliest}, Start{Kind: Offset, Number: 0})
	got, _ := fetch(t, s, 7, 2, 3)
	lead(s, Leader{[16]byte{2}, 7, 0})
	decodeItems(s, got, 2)
	if _, records, err := s.Take(); len(records) != 2 || err != nil {
		t.Errorf("first %v, %v", records, err)
	}
	if _, records, err := s.Take(); !errors.Is(err, ErrTopicRecreated) {
		t.Errorf("then %v, %v", records, err)
	}
}

// A group's topic stays the one that it means wherever the program seeks.
func TestSeekKeepsTheGroupsTopic(t *testing.T) {
	s := newStore(Reset{To: Earliest}, Start{Kind: Offset, Number: 0})
	s.Remove(tp)
	s.Add(tp, id, Start{Kind: Offset, Number: 5})
	s.Seek(tp, Start{Kind: Offset, Number: 0})
	lead(s, Leader{[16]byte{2}, 7, 0})
	if work := s.Claim(start, 7); !work.Empty() {
		t.Errorf("of another topic %+v is claimed", work)
	}
	if _, _, err := s.Take(); err != nil || s.TopicID(tp) != id {
		t.Errorf("topic %v, error %v", s.TopicID(tp), err)
	}
}

// A partition that a group reads goes on in the new topic where the group has committed of that one;
// what was fetched of the old one is dropped, and its position is not the new one's.
func TestTrap26GroupsReadTheNewTopicFromItsOwnOffset(t *testing.T) {
	other := [16]byte{2}
	s := newStore(Reset{To: Earliest}, Start{Kind: Committed})
	waiting := s.AwaitCommitted()
	s.Begin(start, &waiting[0], Spot{5, -1}, true, nil)
	got, _ := fetch(t, s, 7, 3, 3)
	decodeItems(s, got, 3)
	s.Route(func(TopicPartition) (Leader, bool) { return Leader{other, 7, 0}, true }, func(int32) bool { return true })
	if !s.Signals().Begin {
		t.Error("nobody asks what is committed")
	}
	if spot, known := s.Spot(tp); known || s.Pending() > 0 || len(takeAll(t, s)) > 0 {
		t.Errorf("it stands at %v, %d bytes wait", spot, s.Pending())
	}
	waiting = s.AwaitCommitted()
	if len(waiting) != 1 || waiting[0].TopicID != other {
		t.Fatalf("%+v waits", waiting)
	}
	s.Begin(start, &waiting[0], Spot{}, false, nil)
	if work := s.Claim(start, 7); len(work.Resolve) != 1 || work.Resolve[0].Start.Kind != Earliest {
		t.Errorf("claimed %+v", work)
	}
}

// Metadata that is older than what was read names a leader that is none any more: it would confirm
// anything. It is waited out, though not for ever.
func TestTrap03LeadersOfThePastAreNotAsked(t *testing.T) {
	s := newStore(Reset{To: Earliest}, Start{Kind: Offset, Number: 5, Epoch: 4, InEpoch: true})
	past := func() Signals {
		s.Route(func(TopicPartition) (Leader, bool) { return Leader{id, 7, 3}, true }, func(int32) bool { return true })
		return s.Signals()
	}
	for range maxBehind - 1 { // newStore was one
		if got := past(); !got.Metadata {
			t.Fatalf("%+v: newer metadata is not asked for", got)
		}
		if work := s.Claim(start, 7); !work.Empty() {
			t.Fatalf("claimed %+v", work)
		}
	}
	past()
	if work := s.Claim(start, 7); len(work.Confirm) != 1 {
		t.Errorf("in the end %+v is claimed", work)
	}
	lead(s, Leader{id, 8, 4})
	if work := s.Claim(start, 8); !work.Empty() {
		t.Errorf("in a request, %+v is claimed", work)
	}
}
