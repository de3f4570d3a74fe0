package quorum

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
	"barnabas/internal/metadata"
	"barnabas/internal/planted"
)

// logName is the directory of the metadata log within the data directory.
const logName = "__cluster_metadata-0"

// storage is raft.Storage over the metadata log, plus the writing that the appender does. raft's
// owner reads while the appender writes; raft asks only for what it knows to be there.
type storage struct {
	fs      disk.FS
	home    *commitlog.Dir // writes the small files, and is condemned when a flush of theirs fails
	dir     string         // of the log, where quorum-state and the snapshots lie too
	log     *commitlog.Log
	checker *batch.Checker
	build   builders      // the appender's
	stating chan struct{} // one slot: quorum-state is being written

	mu struct { // held for copying pointers only
		sync.Mutex
		hard *pb.HardState // as on disk
		// changes are the log's entries past hard.Commit that change the members, in order.
		changes []uint64
		snap    *pb.Snapshot // the newest one's metadata: its records stay in the file
		// floor is the last entry before the log: that of the snapshot before the newest, so that who is a
		// little behind when one is written does not need all of it.
		floor entryID
		// least is the entry that a snapshot for others must include: the last that changed the members. A
		// node that is not in a snapshot's configuration refuses it.
		least uint64
	}
}

// openStorage finds what a node had when it stopped: log, snapshot, term and vote. Where there was
// nothing the log begins with this node as its only voter, or blank. The snapshot is to be restored
// into the Machine.
func openStorage(o *Options, self uint64) (s *storage, snapshot *snapshotFile, err error) {
	tp := commitlog.TopicPartition{Topic: "__cluster_metadata"}
	s = &storage{
		fs: o.FS, home: o.Dir, dir: o.Dir.Path() + "/" + logName,
		checker: batch.NewChecker(), build: newBuilders(), stating: make(chan struct{}, 1),
	}
	if s.log, err = o.Dir.Log(tp, metadata.MetadataTopicID, o.Log); err != nil {
		return nil, nil, fmt.Errorf("open metadata log: %w", err)
	}
	if err := disk.MkdirAllSync(s.fs, s.dir); err != nil {
		return nil, nil, fmt.Errorf("make %s: %w", s.dir, err)
	}
	hard, hasState, err := loadState(s.fs, s.dir)
	if err != nil {
		return nil, nil, err
	}
	if planted.VoteTwice {
		hard.Vote = nil
	}
	file, err := loadSnapshot(s.fs, s.dir, s.checker)
	switch {
	case err != nil:
		return nil, nil, err
	case file == nil:
		if file, err = s.form(o, hasState, self); err != nil {
			return nil, nil, err
		}
		if !o.Blank {
			hard = &pb.HardState{Term: new(max(1, hard.GetTerm())), Vote: new(hard.GetVote()), Commit: new(hard.GetCommit())}
		}
	case !hasState:
		return nil, nil, fmt.Errorf("%s is missing beside a snapshot: %w", stateFile, ErrDamaged)
	}
	alone := isAlone(file.meta.GetConfState(), self) && hard.GetCommit() <= file.meta.GetIndex()
	if err := s.checkDamage(alone); err != nil {
		return nil, nil, err
	}
	if err := s.reconcile(file.meta, hard, self); err != nil {
		return nil, nil, err
	}
	if err := s.verify(file.meta.GetIndex() + 1); err != nil {
		return nil, nil, err
	}
	s.mu.snap = &pb.Snapshot{Metadata: file.meta}
	s.mu.floor = entryID{file.meta.GetIndex(), file.meta.GetTerm()}
	return s, file, nil
}

// checkDamage refuses to take part with a log of which something is lost that was on disk: as one of
// several voters this node would vote, and might lead, as if that had never been (trap 9). The others
// have it. Alone, there is nobody to take it from.
func (s *storage) checkDamage(alone bool) error {
	at, damaged := s.log.Damaged()
	if !damaged || alone {
		return nil
	}
	return fmt.Errorf("the metadata log is damaged at offset %d: %w: %s", at, ErrDamaged, fromOthers)
}

const fromOthers = "the other voters have what it lost; empty the data directories of this node and start it again"

// verify reads every entry that no snapshot has once before this node takes part, for whatever does not
// match its checksum: a log that was closed well is otherwise only looked at where somebody reads it, and
// a voter must not win an election with entries that it then cannot give to others (trap 9). It notes
// those that change the members.
func (s *storage) verify(first uint64) error {
	if first == 1 { // blank
		return nil
	}
	end := s.log.Progress().End
	for next := offsetOf(first); next < end; {
		entries, err := s.readFrom(next, end, maxMessage)
		if err != nil {
			return fmt.Errorf("check the metadata log: %w: %w; if there are others, %s", ErrDamaged, err, fromOthers)
		}
		for _, e := range entries {
			if got := offsetOf(e.GetIndex()); got != next {
				return fmt.Errorf("check the metadata log: offset %d follows where %d should: %w", got, next, ErrDamaged)
			}
			s.noteChange(e)
			next++
		}
	}
	return nil
}

// noteChange remembers an entry of the log that changes the members.
func (s *storage) noteChange(e *pb.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.GetType() != pb.EntryNormal && e.GetIndex() > s.mu.hard.GetCommit() {
		s.mu.changes = append(s.mu.changes, e.GetIndex())
	}
}

// forgetChanges drops those that were cut off the log with the index.
func (s *storage) forgetChanges(from uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := len(s.mu.changes); n > 0 && s.mu.changes[n-1] >= from; n-- {
		s.mu.changes = s.mu.changes[:n-1]
	}
}

// form begins a new log: state first, then the snapshot that names the voters, so that a crash
// between the two forms again and one after both never does. A blank log holds nothing, not even that:
// a leader sends it a snapshot.
func (s *storage) form(o *Options, hasState bool, self uint64) (*snapshotFile, error) {
	if end := s.log.Progress().End; end > 0 {
		return nil, fmt.Errorf("log holds records up to offset %d and no snapshot: %w", end, ErrDamaged)
	}
	if o.Blank {
		// A file with term and vote stands beside every snapshot, so before the first comes.
		if !hasState {
			if err := saveState(s.home, &pb.HardState{}); err != nil {
				return nil, err
			}
		}
		return &snapshotFile{meta: &pb.SnapshotMetadata{Index: new(uint64(0)), Term: new(uint64(0)), ConfState: &pb.ConfState{}}}, nil
	}
	if !hasState {
		if err := saveState(s.home, &pb.HardState{Term: new(uint64(1))}); err != nil {
			return nil, err
		}
	}
	file := &snapshotFile{meta: &pb.SnapshotMetadata{
		Index: new(uint64(1)), Term: new(uint64(1)), ConfState: &pb.ConfState{Voters: []uint64{self}},
	}}
	return file, s.saveSnapshot(file, o.Now().UnixMilli())
}

// reconcile brings log, snapshot and state to agree, where a crash may have left them apart.
func (s *storage) reconcile(meta *pb.SnapshotMetadata, hard *pb.HardState, self uint64) error {
	if meta.GetIndex() == 0 { // blank
		s.mu.hard = hard
		return nil
	}
	after := offsetOf(meta.GetIndex()) + 1
	progress := s.log.Progress()
	switch {
	case progress.Start > after:
		return fmt.Errorf("log begins at offset %d, snapshot ends at %d: %w", progress.Start, after, ErrDamaged)
	case progress.End < after: // the snapshot came from a leader, and the crash before the log was cut
		if err := s.log.Restart(after); err != nil {
			return fmt.Errorf("begin metadata log after its snapshot: %w", err)
		}
	case progress.Start < after && !isAlone(meta.GetConfState(), self):
		term, err := s.entryTerm(after - 1)
		if err != nil {
			return err
		}
		if term == meta.GetTerm() {
			break
		}
		// So too: what the log holds past the snapshot follows another history, which lost.
		if err := s.log.Restart(after); err != nil {
			return fmt.Errorf("begin metadata log after its snapshot: %w", err)
		}
	}
	last, err := s.termOf(s.log.Progress().End-1, meta)
	if err != nil {
		return err
	}
	if last > hard.GetTerm() { // entries reach the disk before the term that they came with
		hard.Term, hard.Vote = new(last), new(uint64(0))
	}
	if end := indexOf(s.log.Progress().End - 1); hard.GetCommit() > max(end, meta.GetIndex()) {
		return fmt.Errorf("the metadata log ends at entry %d, and %d was committed: %w: %s", end, hard.GetCommit(), ErrDamaged, fromOthers)
	}
	hard.Commit = new(max(hard.GetCommit(), meta.GetIndex()))
	s.mu.hard = hard
	return nil
}

func (s *storage) termOf(offset int64, meta *pb.SnapshotMetadata) (uint64, error) {
	if offset == offsetOf(meta.GetIndex()) {
		return meta.GetTerm(), nil
	}
	return s.entryTerm(offset)
}

// entryTerm is the term of an entry that the log holds: from the log's list of epochs, or where a crash
// has left that short from the entry itself.
func (s *storage) entryTerm(offset int64) (uint64, error) {
	if epoch := s.log.EpochAt(offset); epoch >= 0 {
		return uint64(epoch), nil
	}
	entries, err := s.readFrom(offset, offset+1, 1)
	if err != nil {
		return 0, fmt.Errorf("no epoch is known of metadata offset %d: %w: %w", offset, ErrDamaged, err)
	}
	return entries[0].GetTerm(), nil
}

// save does what raft asks of the disk: entries (in place of any from there on), then term and
// vote. Everything is durable when it returns.
func (s *storage) save(ctx context.Context, entries []*pb.Entry, hard *pb.HardState, nowMs int64) error {
	if err := s.writeEntries(entries, nowMs); err != nil {
		return err
	}
	if len(entries) > 0 {
		if err := s.log.Flush(ctx); err != nil {
			return fmt.Errorf("flush metadata log: %w", err)
		}
	}
	return s.saveHard(hard)
}

// saveHard makes term and vote durable where they have changed, and with them what is committed where
// that includes a change of the members: what this node answers next, it answers as one that knows of it.
// nil: nothing was asked.
func (s *storage) saveHard(hard *pb.HardState) error {
	if hard == nil {
		return nil
	}
	s.stating <- struct{}{}
	defer func() { <-s.stating }()
	s.mu.Lock()
	before := s.mu.hard
	changed := len(s.mu.changes) > 0 && s.mu.changes[0] <= hard.GetCommit()
	s.mu.Unlock()
	if hard.GetTerm() == before.GetTerm() && hard.GetVote() == before.GetVote() && !changed {
		return nil
	}
	return s.writeState(&pb.HardState{Term: hard.Term, Vote: hard.Vote, Commit: new(max(hard.GetCommit(), before.GetCommit()))})
}

// saveCommitted makes durable that the entry is committed: before a change of the members takes effect.
func (s *storage) saveCommitted(index uint64) error {
	s.stating <- struct{}{}
	defer func() { <-s.stating }()
	s.mu.Lock()
	hard := s.mu.hard
	s.mu.Unlock()
	if hard.GetCommit() >= index {
		return nil
	}
	return s.writeState(&pb.HardState{Term: hard.Term, Vote: hard.Vote, Commit: new(index)})
}

// writeState needs the slot.
func (s *storage) writeState(hard *pb.HardState) error {
	if err := saveState(s.home, hard); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.hard = hard
	for len(s.mu.changes) > 0 && s.mu.changes[0] <= hard.GetCommit() {
		s.mu.changes = s.mu.changes[1:]
	}
	return nil
}

// writeEntries may be called again with the same entries after ErrNoSpace.
func (s *storage) writeEntries(entries []*pb.Entry, nowMs int64) error {
	if len(entries) == 0 {
		return nil
	}
	end := s.log.Progress().End
	for _, e := range entries {
		if at := offsetOf(e.GetIndex()); at < end {
			if s.holds(e) {
				continue // written by the call that then ran out of space
			}
			if err := s.log.Truncate(at); err != nil { // a new leader overwrites our tail
				return fmt.Errorf("cut metadata log at offset %d: %w", at, err)
			}
			s.forgetChanges(e.GetIndex())
			end = at
		}
		b, err := encodeEntry(s.build, e, nowMs)
		if err != nil {
			return err
		}
		if err := s.log.AppendAt(b); err != nil {
			return fmt.Errorf("append metadata entry %d: %w", e.GetIndex(), err)
		}
		s.noteChange(e)
	}
	return nil
}

func (s *storage) holds(e *pb.Entry) bool {
	term, err := s.entryTerm(offsetOf(e.GetIndex()))
	return err == nil && term == e.GetTerm()
}

// install puts a leader's snapshot in the place of the log, in the order that a crash cannot hurt.
func (s *storage) install(file *snapshotFile, hard *pb.HardState) error {
	if err := s.saveSnapshotData(file.meta, file.data); err != nil {
		return err
	}
	if hard != nil { // what it says of entries behind the snapshot is true once they are written
		hard = &pb.HardState{Term: hard.Term, Vote: hard.Vote, Commit: new(min(hard.GetCommit(), file.meta.GetIndex()))}
	}
	if err := s.saveHard(hard); err != nil {
		return err
	}
	s.forgetChanges(0)
	s.mu.Lock()
	s.mu.snap = &pb.Snapshot{Metadata: file.meta}
	s.mu.floor = entryID{file.meta.GetIndex(), file.meta.GetTerm()}
	s.mu.least = file.meta.GetIndex()
	s.mu.Unlock()
	if err := s.log.Restart(offsetOf(file.meta.GetIndex()) + 1); err != nil {
		return fmt.Errorf("begin metadata log after the snapshot %s: %w", snapshotName(file.meta), err)
	}
	return nil
}

// needSnapshot says that others can only be given a snapshot that includes the entry.
func (s *storage) needSnapshot(index uint64) {
	s.mu.Lock()
	s.mu.least = max(s.mu.least, index)
	s.mu.Unlock()
}

// snapshotIsDue tells whether the newest snapshot lacks such an entry.
func (s *storage) snapshotIsDue() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.snap.GetMetadata().GetIndex() < s.mu.least
}

// compact lets a snapshot take the place of the log up to where the one before it ended.
func (s *storage) compact(meta *pb.SnapshotMetadata) error {
	s.mu.Lock()
	before := s.mu.snap.GetMetadata()
	floor := entryID{before.GetIndex(), before.GetTerm()}
	s.mu.snap, s.mu.floor = &pb.Snapshot{Metadata: meta}, floor
	s.mu.Unlock()
	if err := s.log.AdvanceStart(offsetOf(floor.Index) + 1); err != nil {
		return fmt.Errorf("cut metadata log below its snapshot: %w", err)
	}
	return nil
}

// floor is the last entry before the log.
func (s *storage) floor() entryID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.floor
}

func (s *storage) snapshotMeta() *pb.SnapshotMetadata {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.snap.GetMetadata()
}

// InitialState implements raft.Storage.
func (s *storage) InitialState() (*pb.HardState, *pb.ConfState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.hard, s.mu.snap.GetMetadata().GetConfState(), nil
}

// Entries implements raft.Storage.
func (s *storage) Entries(lo, hi, maxSize uint64) ([]*pb.Entry, error) {
	var entries []*pb.Entry
	size := uint64(0)
	for next := offsetOf(lo); next < offsetOf(hi); {
		read, err := s.readFrom(next, offsetOf(hi), int(min(maxSize, maxMessage)))
		if err != nil {
			return nil, err
		}
		for _, e := range read {
			if size += uint64(len(e.GetData())); size > maxSize && len(entries) > 0 {
				return entries, nil
			}
			entries = append(entries, e)
			next++
		}
	}
	return entries, nil
}

// readFrom reads at least one entry, and more as far as they are at hand.
func (s *storage) readFrom(from, upTo int64, maxBytes int) ([]*pb.Entry, error) {
	r, err := s.log.Read(from, maxBytes, upTo, true)
	switch {
	case errors.Is(err, commitlog.ErrOutOfRange) && from < s.log.Progress().Start:
		return nil, raft.ErrCompacted
	case errors.Is(err, commitlog.ErrOutOfRange):
		return nil, raft.ErrUnavailable
	case err != nil:
		return nil, fmt.Errorf("read metadata log at offset %d: %w", from, err)
	}
	data, err := r.AppendTo(nil)
	err = errors.Join(err, r.Close())
	if err != nil {
		return nil, fmt.Errorf("read metadata log at offset %d: %w", from, err)
	}
	var entries []*pb.Entry
	for len(data) > 0 {
		b, rest, err := batch.Next(data)
		if err != nil {
			return nil, fmt.Errorf("read metadata log at offset %d: %w", from, err)
		}
		e, err := decodeEntry(s.checker, b)
		if err != nil {
			return nil, err
		}
		entries, data = append(entries, e), rest
	}
	if len(entries) == 0 {
		return nil, raft.ErrUnavailable
	}
	return entries, nil
}

// isCommitted reports whether an entry of the term is at the index, up to which everything is committed.
func (s *storage) isCommitted(index, term uint64) bool {
	of, err := s.Term(index)
	return err == nil && of == term
}

// Term implements raft.Storage.
func (s *storage) Term(index uint64) (uint64, error) {
	for {
		meta, floor, progress := s.snapshotMeta(), s.floor(), s.log.Progress()
		switch offset := offsetOf(index); {
		case index == meta.GetIndex():
			return meta.GetTerm(), nil
		case index == floor.Index:
			return floor.Term, nil
		case offset < progress.Start || index < floor.Index:
			return 0, raft.ErrCompacted
		case offset >= progress.End:
			return 0, raft.ErrUnavailable
		}
		term, err := s.entryTerm(offsetOf(index))
		if err != nil && s.snapshotMeta() != meta {
			continue // a leader's snapshot has just taken the log's place
		}
		return term, err
	}
}

// FirstIndex implements raft.Storage.
func (s *storage) FirstIndex() (uint64, error) { return s.floor().Index + 1, nil }

// LastIndex implements raft.Storage.
func (s *storage) LastIndex() (uint64, error) {
	if s.snapshotMeta().GetIndex() == 0 { // blank
		return 0, nil
	}
	return max(indexOf(s.log.Progress().End-1), s.snapshotMeta().GetIndex()), nil
}

// Snapshot implements raft.Storage: what a follower needs whose next entry is gone.
func (s *storage) Snapshot() (*pb.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.snap.GetMetadata().GetIndex() < max(s.mu.least, 1) {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return s.mu.snap, nil
}
