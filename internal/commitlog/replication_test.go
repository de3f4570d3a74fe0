package commitlog

import (
	"errors"
	"math/rand/v2"
	"testing"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
)

// sent is a batch as a leader in epoch has it at offset.
func sent(offset int64, epoch int32) batch.Batch {
	b := records(0, 1, 30)
	b.Assign(offset, epoch)
	return b
}

// TestOneWriterInEachEpoch: who leads appends and copies nothing; who follows copies from the leader of that very epoch
// and appends nothing; neither truncates, begins anew, or moves its start, for a leader whose epoch is over.
func TestOneWriterInEachEpoch(t *testing.T) {
	d := mustOpen(t, testOptions(disk.NewMem()))
	l := mustLog(t, d, DefaultConfig())
	over := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrEpochOver) {
			t.Errorf("%s: %v", what, err)
		}
	}
	appends := func(epoch int32) error {
		_, err := l.Append(records(0, 1, 30), AppendOptions{LeaderEpoch: epoch, NowMs: testNow})
		return err
	}
	copies := func(epoch int32) error {
		_, err := l.Replicate(sent(l.Progress().End, epoch), epoch)
		return err
	}
	if _, err := l.Lead(3); err != nil {
		t.Fatal(err)
	}
	if err := appends(3); err != nil {
		t.Fatal(err)
	}
	over("copied while leading", copies(3))
	over("truncated while leading", l.TruncateFollowing(0, 3))
	if err := l.Follow(4); err != nil {
		t.Fatal(err)
	}
	over("appended by a deposed leader", appends(3))
	over("appended by a follower", appends(4))
	over("copied from a leader of before", copies(3))
	over("copied from a leader to come", copies(5))
	if err := copies(4); err != nil {
		t.Fatal(err)
	}
	over("follows a leader of before", l.Follow(3))
	if _, err := l.Lead(3); !errors.Is(err, ErrEpochOver) {
		t.Error("leads in an epoch of before", err)
	}
	if start, err := l.Lead(5); start != 2 || err != nil {
		t.Fatal(start, err)
	}
	over("copied after it was elected", copies(4))
	over("truncated after it was elected", l.TruncateFollowing(1, 4))
	over("begun anew after it was elected", l.RestartFollowing(9, 4))
	over("moved its start after it was elected", l.AdvanceStartFollowing(1, 4))
	if err := appends(5); err != nil {
		t.Fatal(err)
	}
	if p := l.Progress(); p.End != 3 || l.LastEpoch() != 5 || l.EpochAt(1) != 4 || l.EpochAt(0) != 3 {
		t.Errorf("%+v, epochs %d %d %d", p, l.EpochAt(0), l.EpochAt(1), l.LastEpoch())
	}
	_ = d.Close()
}

// TestFollowForgetsEpochsWithoutRecords: a leader that wrote nothing is nobody's history: the next leader's log may have
// older epochs at that place, and where those began stays known.
func TestFollowForgetsEpochsWithoutRecords(t *testing.T) {
	d := mustOpen(t, testOptions(disk.NewMem()))
	l := mustLog(t, d, DefaultConfig())
	if err := l.Follow(4); err != nil {
		t.Fatal(err)
	}
	for offset := range int64(10) {
		if _, err := l.Replicate(sent(offset, 4), 4); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Lead(5); err != nil {
		t.Fatal(err)
	}
	if err := l.Follow(6); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Replicate(sent(10, 4), 6); err != nil {
		t.Fatal(err)
	}
	if found, end := l.EpochEnd(4); found != 4 || end != 11 || l.EpochAt(0) != 4 || l.LatestEpoch() != 4 {
		t.Errorf("epoch 4 ends at %d of %d, the first record is of %d, the latest is %d", end, found, l.EpochAt(0), l.LatestEpoch())
	}
	_ = d.Close()
}

// TestTrap09ReplicateRefusesWhatIsNotTheLeaders: a bit flipped anywhere in what was fetched, and any epoch that the
// leader cannot have, is refused, and what came before it is kept.
func TestTrap09ReplicateRefusesWhatIsNotTheLeaders(t *testing.T) {
	for seed := range uint64(300) {
		dice := rand.New(rand.NewPCG(seed, 9))
		d := mustOpen(t, testOptions(disk.NewMem()))
		l := mustLog(t, d, DefaultConfig())
		if err := l.Follow(2); err != nil {
			t.Fatal(err)
		}
		data := append(append([]byte{}, sent(0, 1)...), sent(1, 2)...)
		size := len(data) / 2
		bit := dice.IntN(size * 8)
		data[size+bit/8] ^= 1 << (bit % 8)
		end, err := l.Replicate(data, 2)
		if end != 1 || err == nil {
			t.Fatalf("seed %d: bit %d of the second batch flipped: log ends at %d, %v", seed, bit, end, err)
		}
		if _, err := l.Replicate(sent(l.Progress().End, 3), 2); !errors.Is(err, batch.ErrCorrupt) {
			t.Fatalf("seed %d: an epoch above the leader's: %v", seed, err)
		}
		_ = d.Close()
	}
}

// TestBatchesLargerThanASegmentAreCopied: segment.bytes that was lowered since a batch was written does not keep it from
// replicas that are made later.
func TestBatchesLargerThanASegmentAreCopied(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, smallConfig())
	if err := l.Follow(1); err != nil {
		t.Fatal(err)
	}
	next := int64(0)
	for _, size := range []int{30, 5000, 5000, 30} {
		b := records(int(next), 1, size)
		b.Assign(next, 1)
		end, err := l.Replicate(b, 1)
		if err != nil || end != next+1 {
			t.Fatalf("a batch of %d bytes: log ends at %d, %v", len(b), end, err)
		}
		next = end
	}
	flush(t, l)
	m = m.Crash(1)
	abandon(d)
	d = mustOpen(t, testOptions(m))
	l = mustLog(t, d, smallConfig())
	if got := readAll(t, l, 1<<20); len(got) != 4 || got[1].value != string(recordValue(1, 5000)) {
		t.Fatalf("%d records after a crash", len(got))
	}
	_ = d.Close()
}
