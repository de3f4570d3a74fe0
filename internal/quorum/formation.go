package quorum

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/disk"
	"barnabas/internal/metadata"
	"barnabas/internal/peer"
	"barnabas/internal/uuid"
)

// How a cluster begins, and how a node with an empty disk finds the one that there is.
//
// A node without a metadata log asks all voters that its configuration names what they hold. Only when
// every one has answered, and every one is empty, may a new cluster begin, and only the voter with the
// lowest number begins one: it draws the cluster's id, writes the first snapshot with all voters and
// their directories, and only then tells the others, which write the same. Otherwise somebody's wiped
// disks could outvote the one that still has everything.
//
// That there are never two clusters rests on this. A cluster lives only where a majority of the
// directories that its first snapshot names has taken that snapshot. For a second cluster its founder
// needs an empty disk, so one that was wiped since the first; and it has seen every other voter empty
// after that. What could still be under way then is the first founder's word to them. So an answer to
// the voter with the lowest number is a promise: until the next, only the word of the process that got
// it, by the number that it sent along, is taken. And a node that has promised drops what it had learnt
// from others before.
//
// Where somebody holds a cluster, an empty node takes that cluster's log over from its leader. If its
// directory is one of the voters (it was told of too late, or lost power before it could write), it
// votes at once: it has never voted or acknowledged anything that it could have forgotten. Otherwise it
// asks to be taken in, as a member without a vote, and is promoted when it has caught up (changes.go).

const (
	askPatience = time.Second // for one voter's answer
	askEvery    = 250 * time.Millisecond
)

// ErrLostLog: the directory belongs to a cluster and its metadata log is gone. As a voter it must not
// begin again under the same name.
var ErrLostLog = errors.New("the metadata log of this directory is gone")

// FormationOptions is what Form needs. All fields are required unless they say otherwise.
type FormationOptions struct {
	FS     disk.FS
	Dir    *commitlog.Dir
	NodeID int32
	// Voters are the nodes that begin a cluster. One that is not among them joins theirs, without a vote.
	Voters []int32
	// ClusterID is that of any of this node's data directories, "" where all are new.
	ClusterID string
	Transport Transport
	Logger    *slog.Logger
	Now       func() time.Time
	Random    io.Reader // draws the cluster's id
	Seed      uint64
	// Waiting is told what the formation waits for, whenever that changes; "" at its end. Optional.
	Waiting func(string)
}

// Formation is how this node's part in the quorum begins.
type Formation struct {
	ClusterID string
	// Blank and Admission are for the quorum's Options.
	Blank, Admission bool
}

// description is what a node says of itself.
type description struct {
	Voters  []int32  `json:"voters"`            // as its configuration names them
	Cluster string   `json:"cluster"`           // that it belongs to
	Holds   bool     `json:"holds"`             // it has the metadata log, and is not just taking it over
	Members []Member `json:"members,omitempty"` // the voters, as it knows them
	Leader  int32    `json:"leader"`            // -1: it knows of none

	node peer.Node // that said it
}

// question asks for it. From the voter with the lowest number it brings the number that the promise is for.
type question struct {
	Voters []int32 `json:"voters"`
	Token  uint64  `json:"token,string"`
}

// foundation is the word of the founder.
type foundation struct {
	Token   uint64   `json:"token,string"`
	Cluster string   `json:"cluster"`
	Members []Member `json:"members"`
}

// formation is Form under way.
type formation struct {
	o      *FormationOptions
	self   Member
	lowest int32
	random *rand.Rand
	told   string // what was last said to be waited for
	wake   chan struct{}

	mu struct { // short
		sync.Mutex
		promises int         // how many were given
		to       peer.Node   // the last was given to it,
		token    uint64      // under this number
		chosen   *foundation // a founder's word that was taken
		settled  string      // the cluster that this node now belongs to
		holds    bool        // and whose beginning is on this disk
		members  []Member    // its voters
	}
}

// Form finds out which cluster this node belongs to, and returns when it does. It waits as long as that
// cannot be known, which ctx bounds. A node that has a metadata log, or is its quorum alone, is answered
// at once. Errors: ErrLostLog, ErrDamaged, ctx's, the disk's.
func Form(ctx context.Context, o FormationOptions) (Formation, error) {
	f := &formation{
		o: &o, self: Member{o.NodeID, o.Dir.ID()}, lowest: slices.Min(o.Voters), wake: make(chan struct{}, 1),
		random: rand.New(rand.NewPCG(o.Seed, uint64(o.NodeID)<<32)),
	}
	slices.Sort(o.Voters)
	held, found, err := f.held()
	switch {
	case err != nil:
		return Formation{}, fmt.Errorf("look for the metadata log: %w", err)
	case found:
		return Formation{ClusterID: held}, nil
	case o.Dir.ClusterID() != "":
		return Formation{}, fmt.Errorf("%s belongs to cluster %s: %w; the other voters have it: empty all data directories of this node and start it again",
			o.Dir.Path(), o.Dir.ClusterID(), ErrLostLog)
	}
	o.Transport.HandleEarly(kindDescribe, peer.Answer(f.answer))
	o.Transport.HandleEarly(kindFound, peer.Answer(f.hear))
	defer o.Transport.Handle(kindFound, nil)
	defer f.wait("")
	for {
		result, done, err := f.round(ctx)
		if done || err != nil {
			return result, err
		}
		if err := f.rest(ctx); err != nil {
			return Formation{}, err
		}
	}
}

// held finds the metadata log that stands here already.
func (f *formation) held() (cluster string, found bool, err error) {
	dir := f.o.Dir.Path() + "/" + logName
	if err := disk.MkdirAllSync(f.o.FS, dir); err != nil {
		return "", false, err
	}
	file, err := loadSnapshot(f.o.FS, dir, batch.NewChecker())
	if err != nil || file == nil {
		return "", false, err
	}
	cluster = file.members.ClusterID
	if cluster == "" {
		cluster = f.o.ClusterID
	}
	if f.o.ClusterID != "" && f.o.ClusterID != cluster {
		return "", false, fmt.Errorf("it is of cluster %s, and the data directories are of %s: %w", cluster, f.o.ClusterID, ErrDamaged)
	}
	return cluster, true, nil
}

// rest waits until it is time to ask again, or a founder has spoken.
func (f *formation) rest(ctx context.Context) error {
	timer := time.AfterFunc(askEvery+time.Duration(f.random.Int64N(int64(askEvery))), f.signal)
	defer timer.Stop()
	select {
	case <-f.wake:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return fmt.Errorf("find the cluster: %w", errors.Join(context.Cause(ctx), waitsFor(f.told)))
	}
	return nil
}

func waitsFor(what string) error {
	if what == "" {
		return nil
	}
	return errors.New(what)
}

func (f *formation) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// round asks all and acts on the answers.
func (f *formation) round(ctx context.Context) (Formation, bool, error) {
	promises, token := f.begin()
	answers, silent := f.askAll(ctx, token)
	if ctx.Err() != nil {
		return Formation{}, false, nil //nolint:nilerr // whoever asks sees for himself that the time is over
	}
	p := decide(f.self, f.o.Voters, f.o.ClusterID, answers, silent)
	if p.err != nil {
		return Formation{}, false, p.err
	}
	if p.found {
		id, err := uuid.New(f.o.Random)
		if err != nil {
			return Formation{}, false, fmt.Errorf("draw a cluster id: %w", err)
		}
		p.cluster = id.String()
	}
	word := f.settle(p, promises)
	switch {
	case word != nil:
		if err := f.write(word); err != nil {
			return Formation{}, false, err
		}
		f.o.Logger.Info("a new cluster has begun", "cluster", word.Cluster, "founder", f.lowest)
		return Formation{ClusterID: word.Cluster}, true, nil
	case p.found:
		word := &foundation{Token: token, Cluster: p.cluster, Members: p.members}
		if err := f.write(word); err != nil {
			return Formation{}, false, err
		}
		f.mu.Lock() // only now: who hears of it counts on it
		f.mu.settled, f.mu.members, f.mu.holds = p.cluster, p.members, true
		f.mu.Unlock()
		f.spread(ctx, word)
		f.o.Logger.Info("a new cluster has begun", "cluster", word.Cluster, "founder", f.o.NodeID)
		return Formation{ClusterID: word.Cluster}, true, nil
	case p.cluster != "":
		f.o.Logger.Info("this node's disk is empty, and takes over the metadata of the cluster", "cluster", p.cluster, "must_be_taken_in", p.admission)
		return Formation{ClusterID: p.cluster, Blank: true, Admission: p.admission}, true, nil
	}
	f.wait(p.waits)
	return Formation{}, false, nil
}

// begin opens a round.
func (f *formation) begin() (promises int, token uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.o.NodeID == f.lowest {
		token = f.random.Uint64() | 1
	}
	return f.mu.promises, token
}

// settle makes a plan this node's last word, unless it has changed its mind meanwhile: it returns a
// founder's word that came, or takes the plan back because a promise was given since it was made.
func (f *formation) settle(p *plan, promises int) *foundation {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.mu.chosen != nil:
		return f.mu.chosen
	case p.cluster == "" || p.found:
	case f.mu.promises != promises:
		p.cluster, p.waits = "", f.told
	default:
		f.mu.settled, f.mu.members = p.cluster, p.members
	}
	return nil
}

func (f *formation) wait(what string) {
	if what == f.told {
		return
	}
	f.told = what
	if what != "" {
		f.o.Logger.Info("waiting for a cluster: " + what)
	}
	if f.o.Waiting != nil {
		f.o.Waiting(what)
	}
}

// askAll asks the other voters, all at once. silent says why there is no answer.
func (f *formation) askAll(ctx context.Context, token uint64) (answers map[int32]description, silent map[int32]error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	asked, err := json.Marshal(question{f.o.Voters, token})
	if err != nil {
		panic(fmt.Sprintf("BUG: encode a question: %v", err))
	}
	found := make([]description, len(f.o.Voters))
	errs := make([]error, len(f.o.Voters))
	var asking sync.WaitGroup
	for i, node := range f.o.Voters {
		if node == f.o.NodeID {
			continue
		}
		asking.Go(func() {
			var answer []byte
			if answer, errs[i] = f.o.Transport.Call(ctx, node, kindDescribe, asked); errs[i] == nil {
				found[i], errs[i] = parseDescription(answer)
			}
		})
	}
	asking.Wait()
	answers, silent = map[int32]description{}, map[int32]error{}
	for i, node := range f.o.Voters {
		switch {
		case node == f.o.NodeID:
		case errs[i] != nil:
			silent[node] = errs[i]
		default:
			found[i].node.ID = node
			answers[node] = found[i]
		}
	}
	return answers, silent
}

// described is a description on the wire, with the directory of who gives it.
type described struct {
	description
	Directory metadata.UUID `json:"directory"`
}

func parseDescription(b []byte) (description, error) {
	var d described
	if err := json.Unmarshal(b, &d); err != nil {
		return description{}, fmt.Errorf("a node's description of itself: %w", err)
	}
	if len(d.Members) > maxMembers {
		return description{}, fmt.Errorf("a node's description of itself: %d members", len(d.Members))
	}
	d.node.Directory = d.Directory
	return d.description, nil
}

// answer says what this node holds, and promises.
func (f *formation) answer(_ context.Context, from peer.Node, body []byte) ([]byte, error) {
	var q question
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, fmt.Errorf("a question about this node: %w", err)
	}
	f.mu.Lock()
	d := described{description{Voters: f.o.Voters, Cluster: f.o.ClusterID, Leader: -1}, f.self.Directory}
	switch {
	case f.mu.settled != "":
		d.Cluster, d.Holds, d.Members = f.mu.settled, f.mu.holds, f.mu.members
	case f.mu.chosen != nil:
		d.Cluster, d.Holds, d.Members = f.mu.chosen.Cluster, true, f.mu.chosen.Members
	case q.Token != 0 && from.ID == f.lowest && slices.Equal(q.Voters, f.o.Voters):
		f.mu.promises++
		f.mu.to, f.mu.token = from, q.Token
	}
	f.mu.Unlock()
	return json.Marshal(d)
}

// hear takes a founder's word, if it was promised.
func (f *formation) hear(_ context.Context, from peer.Node, body []byte) ([]byte, error) {
	var word foundation
	if err := json.Unmarshal(body, &word); err != nil {
		return nil, fmt.Errorf("a founder's word: %w", err)
	}
	var nodes []int32
	for _, m := range word.Members {
		nodes = append(nodes, m.NodeID)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.mu.settled != "" || f.mu.chosen != nil:
		return nil, errors.New("this node belongs to a cluster already")
	case f.mu.to != from || f.mu.token != word.Token || word.Token == 0:
		return nil, errors.New("that was not promised")
	case !slices.Equal(nodes, f.o.Voters) || !slices.Contains(word.Members, f.self) || word.Cluster == "" || f.o.ClusterID != "":
		return nil, errors.New("this node is not one of these founders")
	}
	f.mu.chosen = &word
	f.signal()
	return nil, nil
}

// write makes the cluster's beginning durable here.
func (f *formation) write(word *foundation) error {
	s := &storage{fs: f.o.FS, home: f.o.Dir, dir: f.o.Dir.Path() + "/" + logName} // for its files alone
	if _, voted, err := loadState(s.fs, s.dir); err != nil {
		return fmt.Errorf("begin the metadata log: %w", err)
	} else if !voted {
		if err := saveState(s.home, &pb.HardState{Term: new(uint64(1))}); err != nil {
			return fmt.Errorf("begin the metadata log: %w", err)
		}
	}
	conf := &pb.ConfState{}
	for _, m := range word.Members {
		conf.Voters = append(conf.Voters, m.raftID())
	}
	slices.Sort(conf.Voters)
	first := &snapshotFile{
		meta:    &pb.SnapshotMetadata{Index: new(uint64(1)), Term: new(uint64(1)), ConfState: conf},
		members: membership{ClusterID: word.Cluster, Members: word.Members},
	}
	if err := s.saveSnapshot(first, f.o.Now().UnixMilli()); err != nil {
		return fmt.Errorf("begin the metadata log: %w", err)
	}
	return nil
}

// spread tells the other founders. Who does not hear it finds out by asking.
func (f *formation) spread(ctx context.Context, word *foundation) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	body, err := json.Marshal(word)
	if err != nil {
		panic(fmt.Sprintf("BUG: encode a founder's word: %v", err))
	}
	var telling sync.WaitGroup
	for _, node := range f.o.Voters {
		if node == f.o.NodeID {
			continue
		}
		telling.Go(func() {
			if _, err := f.o.Transport.Call(ctx, node, kindFound, body); err != nil {
				f.o.Logger.Debug("a founder was not told of its cluster", "node", node, "err", err)
			}
		})
	}
	telling.Wait()
}

// answerDescribe is a formation's answer from a node that has gone past it.
func (q *Quorum) answerDescribe(context.Context, peer.Node, []byte) ([]byte, error) {
	q.mu.Lock()
	leader := q.mu.status.Leader
	last := q.mu.confs[len(q.mu.confs)-1]
	q.mu.Unlock()
	d := described{description{Voters: q.o.Expected, Cluster: q.o.ClusterID, Leader: leader}, q.o.Dir.ID()}
	d.Holds = last.index > 0
	for _, m := range last.members.Members {
		if slices.Contains(last.state.GetVoters(), m.raftID()) || slices.Contains(last.state.GetVotersOutgoing(), m.raftID()) {
			d.Members = append(d.Members, m)
		}
	}
	return json.Marshal(d)
}
