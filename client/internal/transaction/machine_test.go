package transaction

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"barnabas/client/internal/errcode"
	"barnabas/internal/batch"
)

func begun(t *testing.T, p Protocol) *Machine {
	t.Helper()
	m := New()
	m.Initialised(7, 3)
	if err := m.Begin(p); err != nil {
		t.Fatal(err)
	}
	return m
}

// What each error means for the transaction: whether it can be committed, aborted, and how its end
// must go.
func TestErrorsDecideTheEnd(t *testing.T) {
	for _, c := range []struct {
		err    errcode.Error
		batch  bool // of a batch, not of the coordinator
		fatal  bool
		tell   bool // the coordinator, of the abort
		raise  bool // the first protocol: the epoch
		reason string
	}{
		{errcode.MessageTooLarge, true, false, true, false, "a batch that cannot be delivered"},
		{errcode.InvalidProducerEpoch, true, false, true, false, "the coordinator has moved on: the abort tells"},
		{errcode.ProducerFenced, true, true, false, false, "another producer has the id"},
		{errcode.InvalidProducerIDMapping, true, false, false, true, "the coordinator has forgotten the id"},
		{errcode.TransactionalIDAuthorizationFailed, true, true, false, false, "no other transaction would fare better"},
		{errcode.IllegalGeneration, false, false, true, false, "the group has put the member out"},
		{errcode.InvalidProducerEpoch, false, true, false, false, "fenced"},
		{errcode.InvalidTxnState, false, true, false, false, "client and coordinator disagree"},
		{errcode.UnknownProducerID, false, false, false, true, "the coordinator has forgotten the id"},
	} {
		m := begun(t, Told)
		if m.Admit(Partition{"t", 0}) != TellFirst {
			t.Fatal("a partition that the coordinator does not know was admitted")
		}
		m.Told(m.Untold())
		if c.batch {
			m.BatchFailed(fmt.Errorf("t-0: %w", c.err))
		} else if err := m.RequestFailed(fmt.Errorf("asked: %w", c.err)); !errors.Is(err, c.err) {
			t.Errorf("%v became %v", c.err, err)
		}
		if err := m.MayAdd(); err == nil {
			t.Errorf("%v (%s): more may be added", c.err, c.reason)
		}
		if m.Admit(Partition{"t", 0}) != Rejected {
			t.Errorf("%v (%s): a batch may still leave", c.err, c.reason)
		}
		if err := m.Close(true); !errors.Is(err, c.err) || !c.fatal && !errors.Is(err, ErrAborted) {
			t.Errorf("%v (%s): commit: %v", c.err, c.reason, err)
		}
		if err := m.Close(false); (err != nil) != c.fatal || (m.Err() != nil) != c.fatal {
			t.Errorf("%v (%s): abort: %v, err %v", c.err, c.reason, err, m.Err())
		}
		if c.fatal {
			continue
		}
		if err := m.Settle(); err != nil {
			t.Fatal(err)
		}
		if f, err := m.Finish(); err != nil || f.Tell != c.tell || f.Raise != c.raise {
			t.Errorf("%v (%s): ends with %+v, %v", c.err, c.reason, f, err)
		}
	}
}

// Numbers that cannot go on end the epoch: in the first protocol by asking for the next one, in the
// second the end of the transaction does it.
func TestBrokenNumbersRaiseTheEpoch(t *testing.T) {
	for _, c := range []struct {
		protocol Protocol
		want     Finish
	}{{Told, Finish{Tell: true, Raise: true}}, {Inform, Finish{Tell: true}}} {
		m := begun(t, c.protocol)
		m.OffsetsGo()
		if err := errors.Join(m.Close(false), m.Settle()); err != nil {
			t.Fatal(err)
		}
		m.Broken()
		if f, err := m.Finish(); err != nil || f != c.want {
			t.Errorf("protocol %d ends with %+v, %v; expected %+v", c.protocol, f, err, c.want)
		}
	}
	m := begun(t, Inform)
	if err := errors.Join(m.Close(false), m.Settle()); err != nil {
		t.Fatal(err)
	}
	m.Broken()
	if f, err := m.Finish(); err != nil || f != (Finish{Raise: true}) {
		t.Errorf("a transaction that the coordinator knows nothing of ends with %+v, %v", f, err)
	}
}

// What was to tell the coordinator of a transaction may be given up, and have reached it or not. Where it says to an abort that it has
// none, there is none; anywhere else the two disagree, after which nothing can be done any more.
func TestAbortOfWhatTheCoordinatorNeverHeardOf(t *testing.T) {
	partitions := func(m *Machine) { m.Admit(Partition{"t", 0}); m.Untold() }
	for _, c := range []struct {
		name     string
		protocol Protocol
		tell     func(*Machine)
		commit   bool
		refusal  errcode.Error
		over     bool
	}{
		{"partitions", Told, partitions, false, errcode.InvalidTxnState, true},
		{"offsets", Told, (*Machine).OffsetsGo, false, errcode.InvalidTxnState, true},
		{"another refusal", Told, partitions, false, errcode.InvalidProducerEpoch, false},
		{"a commit", Told, partitions, true, errcode.InvalidTxnState, false},
		{"it has said that it knows", Told, func(m *Machine) { partitions(m); m.Told(m.Untold()) }, false, errcode.InvalidTxnState, false},
		{"it has said so of offsets", Told, func(m *Machine) { m.OffsetsGo(); m.OffsetsTold() }, false, errcode.InvalidTxnState, false},
		{"brokers tell it", Inform, partitions, false, errcode.InvalidTxnState, false},
	} {
		m := begun(t, c.protocol)
		c.tell(m)
		if err := errors.Join(m.Close(c.commit), m.Settle()); err != nil {
			t.Fatal(err)
		}
		if f, err := m.Finish(); err != nil || f != (Finish{Tell: true}) {
			t.Errorf("%s: ends with %+v, %v", c.name, f, err)
		}
		raise, err := m.EndTold(fmt.Errorf("asked: %w", c.refusal))
		if (err == nil) != c.over || raise != c.over || err != nil && !errors.Is(err, c.refusal) {
			t.Errorf("%s: its end was refused: %v, raise %v", c.name, err, raise)
		}
		want := Finish{Tell: !c.over, Raise: c.over} // asked again, because who waited for the epoch has gone
		if f, err := m.Finish(); err != nil || f != want {
			t.Errorf("%s: goes on with %+v, %v", c.name, f, err)
		}
	}
}

// What the coordinator has committed is never aborted, whatever becomes of the epoch that is asked for behind it.
func TestCommittedStaysCommitted(t *testing.T) {
	m := begun(t, Told)
	m.Admit(Partition{"t", 0})
	m.Told(m.Untold())
	if err := errors.Join(m.Close(true), m.Settle()); err != nil {
		t.Fatal(err)
	}
	m.Broken()
	if raise, err := m.EndTold(nil); !raise || err != nil {
		t.Fatalf("raise %v, %v", raise, err)
	}
	if err := m.RequestFailed(errcode.InvalidProducerIDMapping); !errors.Is(err, errcode.InvalidProducerIDMapping) {
		t.Fatal(err)
	}
	if err := m.Close(false); !errors.Is(err, ErrState) {
		t.Errorf("an abort of what is committed: %v", err)
	}
	if err := errors.Join(m.Close(true), m.Settle()); err != nil {
		t.Errorf("commit again: %v", err)
	}
	if f, err := m.Finish(); err != nil || f != (Finish{Raise: true}) {
		t.Errorf("goes on with %+v, %v", f, err)
	}
}

// Whatever is called in whatever order: nothing leaves but within a transaction that can still be
// committed; no partition leaves before the coordinator knows of it (first protocol); a transaction
// of which something failed is never committed; and the coordinator hears of every end that it may
// know the beginning of.
func TestMachineKeepsItsPromises(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 9))
		m := New()
		var open, failed, sent, fatal bool
		told := map[Partition]bool{}
		protocol := Told
		for step := range 400 {
			where := fmt.Sprintf("seed %d, step %d", seed, step)
			switch rng.IntN(9) {
			case 0:
				if m.MayInitialise() == nil {
					m.Initialised(int64(step), 0)
				}
			case 1, 2:
				protocol = Protocol(1 + rng.IntN(2))
				if m.Begin(protocol) == nil {
					if open || fatal {
						t.Fatalf("%s: begun within a transaction, or after its end for good", where)
					}
					open, failed, sent = true, false, false
					clear(told)
				} else {
					protocol = m.Protocol()
				}
			case 3, 4:
				p := Partition{"t", int32(rng.IntN(3))}
				if m.Admit(p) == Admitted {
					if !open || failed || fatal || protocol == Told && !told[p] {
						t.Fatalf("%s: %v leaves; open %v failed %v fatal %v told %v", where, p, open, failed, fatal, told)
					}
					sent = true
				}
			case 5:
				names := m.Untold()
				if sent = sent || len(names) > 0; rng.IntN(2) == 0 { // no answer
					continue
				}
				for _, p := range names {
					told[p] = true
				}
				m.Told(names)
			case 6:
				if rng.IntN(3) == 0 {
					m.BatchFailed(errcode.MessageTooLarge)
					failed = failed || open
				}
			case 7:
				if rng.IntN(100) == 0 {
					_ = m.RequestFailed(errcode.InvalidProducerEpoch)
					fatal = true
				}
			case 8:
				commit := rng.IntN(2) == 0
				if m.Close(commit) != nil || m.Settle() != nil {
					continue
				}
				if rng.IntN(4) == 0 {
					m.BatchFailed(errcode.MessageTooLarge) // one that was on its way
					failed = true
				}
				f, err := m.Finish()
				if err != nil {
					continue
				}
				if commit && failed || f.Tell != sent {
					t.Fatalf("%s: commit %v of a transaction with failed %v, sent %v, ends with %+v", where, commit, failed, sent, f)
				}
				m.Ended(batch.NoProducerID, batch.NoProducerEpoch)
				open = false
			}
		}
	}
}
