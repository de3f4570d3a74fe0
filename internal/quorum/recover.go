package quorum

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/raft/v3/confchange"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
	"barnabas/internal/metadata"
)

// recoveryLeap is how far the term goes ahead when a lost majority is given up: past any in which the
// voters that are lost may have led without this one.
const recoveryLeap = 1000

// RecoverOptions is what Recover needs. All fields are required unless they say otherwise.
type RecoverOptions struct {
	FS        disk.FS
	Dir       *commitlog.Dir // the metadata directory of a node that is not running
	Log       commitlog.Config
	NodeID    int32
	ClusterID string
	Logger    *slog.Logger
	Now       func() time.Time
	// GiveUp decides what follows for the metadata when voters' nodes are gone for good, and this one is down.
	GiveUp func(image *metadata.Image, voters []int32) []metadata.Record
	// Do: false only looks.
	Do bool
}

// Recovered is what a recovery has found, or done.
type Recovered struct {
	ClusterID string
	// Members are those of the configuration that is given up: of the last that the log holds, in which both those before and
	// those after a change that is under way are.
	Members []Member
	// End is where the log ends, Epoch the leader's that wrote its last entry. What lies past the
	// committed offset was perhaps never acknowledged, and is kept all the same.
	End   int64
	Epoch int32
	// Topics and Brokers are how many the metadata knows.
	Topics, Brokers int
}

// Recover is the way out where a majority of the voters is lost for good: it makes this node the only
// voter of its cluster, with the metadata that its own log holds. What the lost voters had committed
// without it is lost. None of them may come back with the disk that it had: two of them could go on by
// themselves as if nothing had been. Emptied, they join again.
// Errors: ErrLostLog, ErrDamaged, the disk's.
func Recover(ctx context.Context, o RecoverOptions) (Recovered, error) {
	opened := Options{FS: o.FS, Dir: o.Dir, Log: o.Log, NodeID: o.NodeID, Now: o.Now}
	me := Member{o.NodeID, o.Dir.ID()}
	if newest, err := newestSnapshot(o.FS, o.Dir.Path()+"/"+logName); err != nil || newest == "" {
		return Recovered{}, fmt.Errorf("recover the metadata quorum from %s: %w", o.Dir.Path(), ErrLostLog)
	}
	st, file, err := openStorage(&opened, me.raftID())
	if err != nil {
		return Recovered{}, fmt.Errorf("recover the metadata quorum: %w", err)
	}
	given := confAt{file.meta.GetIndex(), file.meta.GetConfState(), file.members}
	loader, last, err := replayAll(ctx, st, file, func(e *pb.Entry) error { return given.follow(e, me) })
	if err != nil {
		return Recovered{}, fmt.Errorf("recover the metadata quorum: %w", err)
	}
	image := loader.Image()
	r := Recovered{
		ClusterID: file.members.ClusterID, Members: given.members.Members, End: offsetOf(last) + 1, Epoch: image.Epoch(),
		Topics: image.TopicCount(), Brokers: len(image.Brokers()),
	}
	if r.ClusterID == "" {
		r.ClusterID = o.ClusterID
	}
	if !o.Do {
		return r, nil
	}
	if err := o.standAlone(ctx, st, loader, &r, last); err != nil {
		return Recovered{}, fmt.Errorf("recover the metadata quorum: %w", err)
	}
	o.Logger.Warn("this node is now the only voter of its cluster", "cluster", r.ClusterID, "offset", r.End-1, "voters_given_up", len(r.Members)-1)
	return r, nil
}

// standAlone adds entries in a term of their own to the log, with what is given up, and a snapshot after them. No node can
// have entries in that place that would be taken for these. A crash before the snapshot leaves the old voters, one
// after it is mended when the log is opened: it begins after the snapshot then.
func (o *RecoverOptions) standAlone(ctx context.Context, st *storage, loader *metadata.Loader, r *Recovered, last uint64) error {
	me := Member{o.NodeID, o.Dir.ID()}
	written, err := st.Term(last)
	if err != nil {
		return err
	}
	hard, _, err := st.InitialState()
	if err != nil {
		return err
	}
	term := max(written, hard.GetTerm()) + recoveryLeap
	voters := []int32{me.NodeID}
	for _, m := range r.Members {
		voters = append(voters, m.NodeID)
	}
	var entries []*pb.Entry
	records := o.GiveUp(loader.Image(), voters)
	for len(entries) == 0 || len(records) > 0 { // one at least
		some := records[:min(len(records), recordsPerBatch)]
		records = records[len(some):]
		data, err := encodeProposal(0, some)
		if err != nil {
			return err
		}
		last++
		entries = append(entries, &pb.Entry{Index: new(last), Term: new(term), Type: pb.EntryNormal.Enum(), Data: data})
		if err := loader.Apply(ctx, metadata.Committed{Offset: offsetOf(last), Epoch: int32(term), Records: some}); err != nil {
			return err
		}
	}
	if err := saveState(o.Dir, &pb.HardState{Term: new(term), Commit: hard.Commit}); err != nil {
		return err
	}
	alone := &snapshotFile{
		meta: &pb.SnapshotMetadata{
			Index: new(last), Term: new(term), ConfState: &pb.ConfState{Voters: []uint64{me.raftID()}},
		},
		members: membership{ClusterID: r.ClusterID, Members: []Member{me}},
		records: loader.Image().Snapshot().Records,
	}
	if err := st.saveSnapshot(alone, o.Now().UnixMilli()); err != nil {
		return err
	}
	if err := st.save(ctx, entries, nil, o.Now().UnixMilli()); err != nil {
		return err
	}
	return st.compact(alone.meta)
}

// follow takes an entry that changes the members, as raft does once it is committed.
func (c *confAt) follow(e *pb.Entry, me Member) error {
	change := &pb.ConfChangeV2{}
	if err := proto.Unmarshal(e.GetData(), change); err != nil {
		return fmt.Errorf("metadata entry %d: %w: %w", e.GetIndex(), ErrDamaged, err)
	}
	said, err := decodeMembersChange(change.GetContext())
	if err != nil {
		return fmt.Errorf("metadata entry %d: %w", e.GetIndex(), err)
	}
	changer := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: e.GetIndex()}
	config, progress, err := confchange.Restore(changer, c.state)
	if err == nil {
		changer.Tracker.Config, changer.Tracker.Progress = config, progress
		autoLeave, joint := change.EnterJoint()
		switch {
		case change.LeaveJoint():
			config, _, err = changer.LeaveJoint()
		case joint:
			config, _, err = changer.EnterJoint(autoLeave, change.GetChanges()...)
		default:
			config, _, err = changer.Simple(change.GetChanges()...)
		}
	}
	if err != nil {
		return fmt.Errorf("metadata entry %d changes the members: %w: %w", e.GetIndex(), ErrDamaged, err)
	}
	changer.Tracker.Config = config
	said.Members = append(said.Members, me)
	c.index, c.state = e.GetIndex(), changer.Tracker.ConfState()
	c.members = c.members.after(said, c.state)
	return nil
}

// replayAll builds the image of everything that the log holds, and returns the last entry's index. changed is told of the entries
// that change the members, in order.
func replayAll(ctx context.Context, st *storage, file *snapshotFile, changed func(*pb.Entry) error) (*metadata.Loader, uint64, error) {
	loader := metadata.NewLoader()
	if s := file.snapshot(); s.Offset >= 0 {
		if err := loader.Restore(ctx, s); err != nil {
			return nil, 0, err
		}
	}
	last, err := st.LastIndex()
	if err != nil {
		return nil, 0, err
	}
	for next := file.meta.GetIndex() + 1; next <= last; {
		entries, err := st.Entries(next, last+1, maxMessage)
		if err != nil {
			return nil, 0, err
		}
		for _, e := range entries {
			c := metadata.Committed{Offset: offsetOf(e.GetIndex()), Epoch: int32(e.GetTerm())}
			if e.GetType() == pb.EntryNormal {
				_, c.Records, err = decodeProposal(e)
			} else {
				err = changed(e)
			}
			if err != nil {
				return nil, 0, err
			}
			if err := loader.Apply(ctx, c); err != nil {
				return nil, 0, err
			}
			next = e.GetIndex() + 1
		}
	}
	return loader, last, nil
}
