// Package transaction decides what a transactional producer may do next: when records may be sent,
// which partitions the coordinator must be told of first, what an error means for the transaction,
// and with what a transaction ends (KIP-98, KIP-360, KIP-890). It is for package client, which
// holds the lock and talks to brokers. It does no I/O and knows no clock.
//
// The two protocols differ in who tells the coordinator. In the first the producer names each
// partition and group before it writes there, and the epoch stays from one transaction to the
// next. In the second brokers do it, and every end of a transaction raises the epoch, so that what
// comes late can no longer get into the next transaction.
package transaction

import (
	"errors"
	"fmt"
	"slices"

	"barnabas/client/internal/errcode"
	"barnabas/internal/batch"
)

// Why a call is refused; package client gives them to users under these names.
var (
	// ErrState: the call does not fit what the producer is doing.
	ErrState = errors.New("the call does not fit the state of the transaction")

	// ErrAborted: the transaction has failed and can only be aborted, or has been aborted.
	ErrAborted = errors.New("the transaction is aborted")
)

// Partition names a partition.
type Partition struct {
	Topic  string
	Number int32
}

// Protocol is how the coordinator learns what belongs to a transaction.
type Protocol int8

// The protocols, by the level of the feature transaction.version that they need.
const (
	Told   Protocol = 1 // by the producer, levels 0 and 1
	Inform Protocol = 2 // by the brokers, level 2 (KIP-890)
)

type phase int8

const (
	fresh   phase = iota // has no producer id
	ready                // between transactions
	open                 // takes records
	closing              // ends, what was sent before is still going out
	ending               // ends, nothing may be sent any more
)

var phases = [...]string{"not initialised", "between transactions", "in a transaction", "ending a transaction", "ending a transaction"}

// Machine is the state of one transactional producer. Its user guards it with a lock.
type Machine struct {
	phase    phase
	serial   int64 // of the transaction, counting from 1
	protocol Protocol
	id       int64
	epoch    int16

	commit  bool  // in closing and ending
	failure error // the transaction can only be aborted
	fatal   error // nothing can be done any more
	started bool  // the coordinator may know of the transaction
	known   bool  // it has said so; before that nothing is written, in the first protocol
	over    bool  // it has ended the transaction; what is left is the epoch
	raise   bool  // the epoch must go up before the next transaction
	unknown bool  // the coordinator does not know the producer id: there is nothing to end

	added map[Partition]bool // known to the coordinator
	wants []Partition        // to be told
}

// New makes the machine of a producer that has no id yet.
func New() *Machine {
	return &Machine{id: batch.NoProducerID, epoch: batch.NoProducerEpoch, added: map[Partition]bool{}}
}

// Identity gives the producer id and epoch as they are now.
func (m *Machine) Identity() (id int64, epoch int16) { return m.id, m.epoch }

// Protocol is that of the transaction.
func (m *Machine) Protocol() Protocol { return m.protocol }

// Err is why the producer cannot go on, nil while it can.
func (m *Machine) Err() error { return m.fatal }

func (m *Machine) check(what string, in ...phase) error {
	switch {
	case m.fatal != nil:
		return fmt.Errorf("the producer cannot go on: %w", m.fatal)
	case !slices.Contains(in, m.phase):
		return fmt.Errorf("%s while %s: %w", what, phases[m.phase], ErrState)
	}
	return nil
}

// MayInitialise tells whether a producer id may be asked for.
func (m *Machine) MayInitialise() error { return m.check("initialise", fresh) }

// Initialised takes in the producer id that the coordinator gave.
func (m *Machine) Initialised(id int64, epoch int16) {
	m.id, m.epoch = id, epoch
	m.reset()
}

func (m *Machine) reset() {
	m.phase, m.failure, m.started, m.known, m.over, m.raise, m.unknown, m.commit = ready, nil, false, false, false, false, false, false
	clear(m.added)
	m.wants = nil
}

// Begin opens a transaction.
func (m *Machine) Begin(p Protocol) error {
	if err := m.check("begin", ready); err != nil {
		return err
	}
	m.phase, m.protocol = open, p
	m.serial++
	return nil
}

// MayAdd tells whether a record or offsets may be added to the transaction.
func (m *Machine) MayAdd() error {
	if err := m.check("send", open); err != nil {
		return err
	}
	return m.failed()
}

// Serial tells the transaction from others of this producer.
func (m *Machine) Serial() int64 { return m.serial }

// Admits tells whether a record may be added that was given to Send in the transaction of that serial: a Send that
// waits may outlive it, and must not slip into the next one.
func (m *Machine) Admits(serial int64) bool { return serial == m.serial && m.MayAdd() == nil }

func (m *Machine) failed() error {
	if m.failure == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrAborted, m.failure)
}

// Admission is whether a batch may leave.
type Admission int8

// What may become of a batch that is about to leave.
const (
	Admitted Admission = iota
	TellFirst
	Rejected // there is no transaction that it could belong to any more
)

// Admit decides on a batch of a partition. With TellFirst the partition is among those of Untold.
func (m *Machine) Admit(p Partition) Admission {
	if m.fatal != nil || m.failure != nil || m.phase != open && !(m.phase == closing && m.commit) {
		return Rejected
	}
	if m.protocol == Inform {
		m.started = true
		return Admitted
	}
	if m.added[p] {
		return Admitted
	}
	if !slices.Contains(m.wants, p) {
		m.wants = append(m.wants, p)
	}
	return TellFirst
}

// Untold gives the partitions that the coordinator is to be told of, after which it may know of the
// transaction.
func (m *Machine) Untold() []Partition {
	if m.fatal != nil || m.failure != nil || len(m.wants) == 0 {
		return nil
	}
	m.started = true
	return slices.Clone(m.wants)
}

// Told takes in that the coordinator knows of the partitions.
func (m *Machine) Told(partitions []Partition) {
	m.known = m.known || len(partitions) > 0
	for _, p := range partitions {
		m.added[p] = true
	}
	m.wants = slices.DeleteFunc(m.wants, func(p Partition) bool { return m.added[p] })
}

// OffsetsGo takes in that offsets are about to be added to the transaction.
func (m *Machine) OffsetsGo() { m.started = true }

// OffsetsTold takes in that the coordinator knows of the group whose offsets are added.
func (m *Machine) OffsetsTold() { m.known = true }

// BatchFailed takes in that a batch of the transaction will not be delivered. It is true where that
// is news: the rest of the transaction need not be sent.
func (m *Machine) BatchFailed(err error) bool {
	if errors.Is(err, ErrAborted) {
		return false // given up because the transaction is; Broken tells of its numbers
	}
	if m.phase != open && m.phase != closing && m.phase != ending || m.fatal != nil {
		return false
	}
	if errors.Is(err, errcode.ProducerFenced) || refusesForGood(err) {
		m.fatal = err
		return true
	}
	if errors.Is(err, errcode.InvalidProducerIDMapping) {
		m.unknown, m.raise = true, true
	}
	if m.failure != nil {
		return false
	}
	m.failure = err
	return true
}

// refusesForGood tells errors that no other transaction of the producer would escape.
func refusesForGood(err error) bool {
	for _, code := range []errcode.Error{
		errcode.TransactionalIDAuthorizationFailed, errcode.ClusterAuthorizationFailed, errcode.UnsupportedVersion,
		errcode.UnsupportedForMessageFormat,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// RequestFailed takes in an error of the coordinator that trying again does not mend, and gives the
// error for the caller.
func (m *Machine) RequestFailed(err error) error {
	switch {
	case errors.Is(err, errcode.InvalidProducerEpoch):
		// Another producer of the same transactional id has a higher epoch, or the coordinator has
		// ended the transaction because it took too long.
		m.fatal = fmt.Errorf("%w: %w", errcode.ProducerFenced, err)
		return m.fatal
	case errors.Is(err, errcode.ProducerFenced), errors.Is(err, errcode.InvalidTxnState), refusesForGood(err):
		m.fatal = err
		return err
	case errors.Is(err, errcode.InvalidProducerIDMapping), errors.Is(err, errcode.UnknownProducerID):
		m.unknown, m.raise = true, true
	}
	switch {
	case m.phase == ending && m.over: // it stands as it ended, whatever becomes of the epoch
	case m.phase == ending && m.commit: // the coordinator will not commit it
		m.phase, m.failure = open, err
	case m.phase == open || m.phase == closing:
		if m.failure == nil {
			m.failure = err
		}
	}
	return err
}

// Failure is why nothing more can be added to the transaction; nil while it can, or where there is none.
func (m *Machine) Failure() error {
	if m.fatal != nil {
		return m.fatal
	}
	return m.failed()
}

// Close begins to end the transaction. Called again with the same intent it goes on with an end
// that was interrupted; a commit that has failed may only be followed by an abort.
func (m *Machine) Close(commit bool) error {
	what := "abort"
	if commit {
		what = "commit"
	}
	if err := m.check(what, open, closing, ending); err != nil {
		return err
	}
	switch {
	case commit && m.failure != nil:
		return m.failed()
	case m.phase == ending && m.commit != commit:
		return fmt.Errorf("%s while the outcome of another end is unknown: %w", what, ErrState)
	case m.phase != ending:
		m.phase, m.commit = closing, commit
	}
	return nil
}

// Settle lets nothing more leave: what Close waited for is done with.
func (m *Machine) Settle() error {
	if m.fatal != nil {
		return m.check("end")
	}
	m.phase = ending
	return nil
}

// Broken takes in that numbers cannot go on in the same epoch.
func (m *Machine) Broken() { m.raise = true }

// Finish says with what the transaction ends.
type Finish struct {
	Tell  bool // the coordinator is to be told
	Raise bool // afterwards a higher epoch is to be asked for
}

// Finish decides how to end, once nothing is on its way. An error means that what was to be
// committed has lost something: the transaction is to be aborted.
func (m *Machine) Finish() (Finish, error) {
	if err := m.check("end", ending); err != nil {
		return Finish{}, err
	}
	if m.commit && m.failure != nil {
		m.phase = open
		return Finish{}, m.failed()
	}
	f := Finish{Tell: m.started && !m.unknown && !m.over, Raise: m.raise}
	if f.Tell && m.protocol == Inform {
		f.Raise = false // its end raises the epoch
	}
	return f, nil
}

// EndTold takes in how the coordinator answered to the end, nil for well, and tells whether a higher epoch is to be asked for now.
//
// What was to tell the coordinator of the transaction may have been given up for an abort. Where it has not come there the
// coordinator has no transaction to end, and says so: it is over all the same. The epoch then keeps away what may still be on
// its way. (Asked for before, while the coordinator has a transaction, it would fence the producer itself.)
func (m *Machine) EndTold(err error) (raise bool, _ error) {
	unheard := m.phase == ending && !m.commit && !m.known && m.protocol == Told
	if err != nil && (!unheard || !errors.Is(err, errcode.InvalidTxnState)) {
		return false, err
	}
	m.over, m.raise = true, m.raise || unheard
	return m.raise && m.protocol == Told, nil
}

// Ended takes in that the coordinator has ended the transaction, and the epoch that it gave
// (batch.NoProducerID: the same goes on).
func (m *Machine) Ended(id int64, epoch int16) {
	if id != batch.NoProducerID {
		m.id, m.epoch = id, epoch
	}
	m.reset()
}

// InTransaction tells whether there is one to be aborted when the producer closes.
func (m *Machine) InTransaction() bool {
	return m.fatal == nil && (m.phase == open || m.phase == closing) || m.phase == ending && !m.commit && m.fatal == nil
}
