package quorum

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"barnabas/internal/metadata"
	"barnabas/internal/peer"
)

// Changes of the voters on request (KIP-853), by the leader, one at a time.

// What a change of the voters is refused for.
var (
	// ErrDuplicateVoter: the node has a vote already, perhaps with another directory.
	ErrDuplicateVoter = errors.New("the node is a voter already")
	// ErrVoterNotFound: no voter has that number and that directory.
	ErrVoterNotFound = errors.New("there is no such voter")
	// ErrLastVoter: without it there would be none.
	ErrLastVoter = errors.New("the last voter cannot be removed")
	// ErrTooManyVoters: there may be no more.
	ErrTooManyVoters = errors.New("there are as many voters as there may be")
	// ErrFixedVoters: the node was started as the only one, without a listener for others.
	ErrFixedVoters = errors.New("the voters of a node that was started alone cannot be changed (key controller.quorum.voters)")
	// ErrNotInTime: it could not be made in time. It may still come to pass where it was begun.
	ErrNotInTime = errors.New("the voters could not be changed in time")
)

// VoterChange is a change of the voters.
type VoterChange struct {
	Do        VoterChangeKind `json:"do"`
	NodeID    int32           `json:"nodeId"`
	Directory metadata.UUID   `json:"directoryId"`
	Listeners []Listener      `json:"listeners,omitempty"` // the first is where other nodes reach it
}

// VoterChangeKind is what is to be done.
type VoterChangeKind int8

// The kinds of changes.
const (
	AddVoter    VoterChangeKind = iota + 1 // a node that follows and has caught up gets a vote
	RemoveVoter                            // a voter loses it; the leader hands over first
	UpdateVoter                            // a voter is reached elsewhere
)

func (c *VoterChange) member() Member { return Member{c.NodeID, c.Directory} }

// changePause is how often it is looked what has become of a change.
const (
	changePause = 20 * time.Millisecond
	// proposeAgain is how long a change that has no effect is waited for before it is proposed again: raft drops
	// one without a word while another is under way.
	proposeAgain = 500 * time.Millisecond
	// mostChangeTime bounds the time that another node asks for.
	mostChangeTime = 10 * time.Minute
)

// changeAnswer is what the leader says of it, on the wire.
type changeAnswer struct {
	Leader  int32  `json:"leader"` // who else leads, -1: nobody known; with Refused ""
	Done    bool   `json:"done"`
	Begun   bool   `json:"begun,omitempty"` // it was proposed, and what became of it is not known
	Refused string `json:"refused,omitempty"`
	Text    string `json:"text,omitempty"`
}

// refusedNames are the sentinels on the wire.
var refusedNames = map[string]error{
	"duplicate": ErrDuplicateVoter, "not found": ErrVoterNotFound, "last": ErrLastVoter, "many": ErrTooManyVoters, "late": ErrNotInTime,
}

// remoteRefusal is what the leader has said, with its words.
type remoteRefusal struct {
	is   error
	text string
}

func (e *remoteRefusal) Error() string { return e.text }
func (e *remoteRefusal) Unwrap() error { return e.is }

// changeQuestion is a change on its way to the leader.
type changeQuestion struct {
	VoterChange
	Millis int64 `json:"millis"`
	// Again: it was perhaps begun before. Then it is no error that it has been made.
	Again bool `json:"again,omitempty"`
}

// ChangeVoters changes the voters, here or at the leader, and returns once that is committed. It waits, as
// long as ctx allows, for a leader, for another change under way, and for the new voter to catch up.
// Errors: ErrDuplicateVoter, ErrVoterNotFound, ErrLastVoter, ErrTooManyVoters, ErrFixedVoters, ErrNotInTime,
// ErrClosed.
func (q *Quorum) ChangeVoters(ctx context.Context, c VoterChange) error {
	if q.o.Transport == nil {
		return ErrFixedVoters
	}
	var last error
	again := false
	for {
		a, err := q.changeOnce(ctx, c, again)
		switch {
		case err == nil && a.Done:
			return nil
		case err == nil && a.Refused != "":
			return &remoteRefusal{refusedNames[a.Refused], a.Text}
		case errors.Is(err, ErrClosed):
			return err
		case err != nil:
			last = err
		}
		again = again || a.Begun || err != nil && !errors.Is(err, errNoLeaderKnown)
		if !pause(ctx, changePause) {
			return fmt.Errorf("change the voters: %w: %w", ErrNotInTime, errors.Join(context.Cause(ctx), last))
		}
		if q.ctx.Err() != nil {
			return ErrClosed
		}
	}
}

// changeOnce asks whoever leads.
func (q *Quorum) changeOnce(ctx context.Context, c VoterChange, again bool) (a changeAnswer, err error) {
	leader := q.Status().Leader
	switch leader {
	case -1:
		return a, errNoLeaderKnown
	case q.o.NodeID:
		return q.changeHere(ctx, c, again)
	}
	asked := changeQuestion{c, mostChangeTime.Milliseconds(), again}
	if end, bounded := ctx.Deadline(); bounded {
		asked.Millis = max(1, end.Sub(q.o.Now()).Milliseconds()-changePause.Milliseconds())
	}
	body, err := json.Marshal(asked)
	if err != nil {
		return a, fmt.Errorf("encode a change of the voters: %w", err)
	}
	answer, err := q.o.Transport.Call(ctx, leader, kindChange, body)
	if err == nil {
		err = json.Unmarshal(answer, &a)
	}
	if err != nil {
		return a, fmt.Errorf("ask node %d to change the voters: %w", leader, err)
	}
	return a, nil
}

// answerChange does what another node was asked for.
func (q *Quorum) answerChange(ctx context.Context, _ peer.Node, body []byte) ([]byte, error) {
	var asked changeQuestion
	if err := json.Unmarshal(body, &asked); err != nil {
		return nil, fmt.Errorf("a change of the voters: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, min(mostChangeTime, max(0, time.Duration(asked.Millis)*time.Millisecond)))
	defer cancel()
	a, err := q.changeHere(ctx, asked.VoterChange, asked.Again)
	if err != nil {
		return nil, err
	}
	return json.Marshal(a)
}

// changeHere makes the change while this node leads.
func (q *Quorum) changeHere(ctx context.Context, c VoterChange, again bool) (changeAnswer, error) {
	var proposed time.Time
	if again {
		proposed = q.o.Now().Add(-proposeAgain)
	}
	for {
		type outcome struct {
			a    changeAnswer
			err  error
			more error // what is waited for
		}
		done := make(chan outcome, 1)
		if !q.do(func() {
			var o outcome
			o.a, o.more, o.err = q.changeStep(c, &proposed)
			done <- o
		}) {
			return changeAnswer{}, ErrClosed
		}
		var o outcome
		select {
		case o = <-done:
		case <-q.ctx.Done():
			return changeAnswer{}, ErrClosed
		}
		if o.more == nil {
			return o.a, o.err
		}
		if !pause(ctx, changePause) {
			return changeAnswer{Refused: "late", Text: fmt.Sprintf("%v: %v", ErrNotInTime, o.more)}, nil
		}
	}
}

// What a change waits for.
var (
	errOtherChange  = errors.New("another change of the voters is under way")
	errNotCommitted = errors.New("it is not committed yet")
	errHandingOver  = errors.New("the leader hands over before it is removed")
)

// changeStep looks how far a change is, and proposes it when it can be; more says what is waited for. Owner
// only. proposed is when it was last.
func (q *Quorum) changeStep(c VoterChange, proposed *time.Time) (a changeAnswer, more, err error) {
	s := q.raft.Status()
	if s.RaftState != raft.StateLeader {
		return changeAnswer{Leader: q.leaderNode(s.Lead), Begun: !proposed.IsZero()}, nil, nil
	}
	refuse := func(name, format string, args ...any) (changeAnswer, error, error) {
		return changeAnswer{Refused: name, Text: fmt.Sprintf(format, args...)}, nil, nil
	}
	id := c.member().raftID()
	_, votes := s.Config.Voters.IDs()[id]
	underWay := len(s.Config.Voters[1]) > 0
	voter, isVoter := q.voterOf(&s, c.NodeID)
	var changes []*pb.ConfChangeSingle
	var said membersChange
	switch c.Do {
	case AddVoter:
		switch {
		case votes && !proposed.IsZero() && !underWay:
			return changeAnswer{Done: true}, nil, nil
		case isVoter && (proposed.IsZero() || voter != id && !underWay):
			return refuse("duplicate", "The voter id for %d is already part of the set of voters: it votes with directory %s", c.NodeID, q.members[voter].Directory)
		case len(s.Config.Voters[0]) >= maxVoters:
			return refuse("many", "There are %d voters already, and at most %d", len(s.Config.Voters[0]), maxVoters)
		}
		if behind := q.behind(&s, c.member()); behind != nil {
			return a, behind, nil
		}
		changes = []*pb.ConfChangeSingle{change(pb.ConfChangeAddNode, id)}
		said = membersChange{Members: []Member{c.member()}, Returned: []int32{c.NodeID}, Addresses: []address{{c.NodeID, c.Listeners}}}
	case RemoveVoter:
		switch {
		case !votes && !proposed.IsZero() && !underWay:
			return changeAnswer{Done: true}, nil, nil
		case !votes && proposed.IsZero():
			return refuse("not found", "Cannot remove voter %d with directory %s: it is not part of the set of voters", c.NodeID, c.Directory)
		case len(s.Config.Voters[0]) == 1:
			return refuse("last", "Cannot remove voter %d: it is the last", c.NodeID)
		case id == q.self:
			if s.LeadTransferee == raft.None && !q.startHandOver(&s) {
				return a, fmt.Errorf("%w, and no other voter answers", errHandingOver), nil
			}
			return a, errHandingOver, nil
		}
		changes = []*pb.ConfChangeSingle{change(pb.ConfChangeRemoveNode, id)}
		said = membersChange{Removed: []int32{c.NodeID}}
	case UpdateVoter:
		switch {
		case !votes:
			return refuse("not found", "Cannot update voter %d with directory %s: it is not part of the set of voters", c.NodeID, c.Directory)
		case slices.Equal(q.membership().listeners(c.NodeID), c.Listeners):
			return changeAnswer{Done: true}, nil, nil
		}
		changes = []*pb.ConfChangeSingle{change(pb.ConfChangeUpdateNode, id)}
		said = membersChange{Addresses: []address{{c.NodeID, c.Listeners}}}
	default:
		return a, nil, fmt.Errorf("change %d of the voters is unknown", c.Do)
	}
	now := q.o.Now()
	switch {
	case underWay || s.LeadTransferee != raft.None:
		return a, errOtherChange, nil
	case now.Sub(*proposed) < proposeAgain:
		return a, errNotCommitted, nil
	}
	*proposed = now
	q.log.Info("the voters are changed on request", "node", c.NodeID, "directory", c.Directory.String(), "change", c.Do)
	if err := q.proposeChange(changes, said); err != nil {
		return a, fmt.Errorf("propose it: %w", err), nil
	}
	return a, errNotCommitted, nil
}

// behind tells why a node that is to vote is not far enough; nil: it is. With its vote counted and its log
// short, the quorum would stand until it has caught up. Owner only.
func (q *Quorum) behind(s *raft.Status, m Member) error {
	var has uint64
	if p, isMember := s.Progress[m.raftID()]; isMember {
		has = p.Match
	} else if o := q.observers[m]; o != nil && q.o.Now().Sub(o.at) < fetchPatience {
		has = o.has
	} else {
		return fmt.Errorf("node %d with directory %s does not follow the metadata log", m.NodeID, m.Directory)
	}
	if has+nearlyThere < s.GetCommit() {
		return fmt.Errorf("node %d is behind: it has the metadata log up to offset %d, and %d is committed", m.NodeID, offsetOf(has), offsetOf(s.GetCommit()))
	}
	return nil
}
