package sharemember

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/errcode"
)

func config() Config {
	return Config{
		Group: "g", MemberID: "m", Rack: "r", MaxPollInterval: time.Minute,
		RetryBackoff: 100 * time.Millisecond, RetryBackoffMax: time.Second, Jitter: func() float64 { return 0.5 },
	}
}

// script drives a Member and keeps what it wants done.
type script struct {
	t   *testing.T
	m   *Member
	now time.Time
}

func begin(t *testing.T) *script {
	return &script{t: t, m: New(config()), now: time.Unix(1000, 0)}
}

func take[A Action](s *script) A {
	s.t.Helper()
	var found []A
	for _, a := range s.m.Actions() {
		if wanted, ok := a.(A); ok {
			found = append(found, wanted)
		} else if _, ok := a.(Reassigned); !ok {
			s.t.Errorf("it wants %T", a)
		}
	}
	if len(found) != 1 {
		s.t.Fatalf("%d actions of the kind", len(found))
	}
	return found[0]
}

func (s *script) nothing() {
	s.t.Helper()
	for _, a := range s.m.Actions() {
		if _, ok := a.(Reassigned); !ok {
			s.t.Fatalf("it wants %T", a)
		}
	}
}

func (s *script) tick() {
	s.t.Helper()
	at, ok := s.m.Deadline()
	if !ok {
		s.t.Fatal("it waits for nothing")
	}
	s.now = at
	s.m.Tick(s.now)
}

func answer(epoch int32, partitions ...int32) *kmsg.ShareGroupHeartbeatResponse {
	resp := kmsg.NewPtrShareGroupHeartbeatResponse()
	resp.MemberEpoch, resp.HeartbeatIntervalMillis = epoch, 5000
	if partitions != nil {
		resp.Assignment = &kmsg.ShareGroupHeartbeatResponseAssignment{TopicPartitions: []kmsg.ShareGroupHeartbeatResponseAssignmentTopicPartition{
			{TopicID: [16]byte{1}, Partitions: partitions},
		}}
	}
	return resp
}

// join brings a member into its group.
func (s *script) join(partitions ...int32) {
	s.t.Helper()
	s.m.Subscribe(s.now, []string{"b", "a", "b"})
	s.m.PollBegan(s.now)
	s.m.Found(s.now, take[FindCoordinator](s).Flight, 7, nil)
	beat := take[Heartbeat](s)
	if r := beat.Request; beat.To != 7 || r.MemberEpoch != 0 || r.MemberID != "m" || r.GroupID != "g" || *r.RackID != "r" || !slices.Equal(r.SubscribedTopicNames, []string{"a", "b"}) {
		s.t.Fatalf("it joins with %+v", r)
	}
	s.m.Answered(s.now, beat.Flight, answer(3, partitions...), nil)
	s.nothing()
}

func (s *script) reads(want ...int32) {
	s.t.Helper()
	if got := s.m.Assignment()[[16]byte{1}]; !slices.Equal(got, want) {
		s.t.Errorf("it reads %v, not %v", got, want)
	}
}

// A heartbeat tells only what has changed, and a changed subscription does not wait for its time.
func TestHeartbeatsTellWhatIsNew(t *testing.T) {
	s := begin(t)
	s.join(2, 1, 1, -4)
	s.reads(1, 2)
	s.tick()
	beat := take[Heartbeat](s)
	if r := beat.Request; r.MemberEpoch != 3 || r.SubscribedTopicNames != nil || r.RackID != nil {
		t.Errorf("nothing is new, and it tells %+v", r)
	}
	s.m.Subscribe(s.now, []string{"c"})
	s.nothing() // one at a time
	s.m.Answered(s.now, beat.Flight, answer(4), nil)
	s.reads(1, 2)
	beat = take[Heartbeat](s)
	if r := beat.Request; r.MemberEpoch != 4 || !slices.Equal(r.SubscribedTopicNames, []string{"c"}) {
		t.Errorf("it tells %+v", r)
	}
	s.m.Answered(s.now, beat.Flight, nil, errcode.Network)
	s.nothing()
	s.tick()
	s.m.Found(s.now, take[FindCoordinator](s).Flight, 8, nil)
	if r := take[Heartbeat](s).Request; !slices.Equal(r.SubscribedTopicNames, []string{"c"}) {
		t.Errorf("after an answer was lost it tells %+v", r)
	}
}

// A member that its group does not know any more joins anew under its id, and reads nothing until then.
func TestFencedMemberJoinsAnew(t *testing.T) {
	for _, code := range []errcode.Error{errcode.UnknownMemberID, errcode.FencedMemberEpoch, errcode.GroupIDNotFound} {
		s := begin(t)
		s.join(1)
		s.tick()
		resp := answer(0)
		resp.ErrorCode = code.Code()
		s.m.Answered(s.now, take[Heartbeat](s).Flight, resp, nil)
		s.reads()
		beat := take[Heartbeat](s)
		if r := beat.Request; r.MemberEpoch != 0 || r.MemberID != "m" || len(r.SubscribedTopicNames) != 2 {
			t.Errorf("%v: it joins with %+v", code, r)
		}
		resp = answer(0)
		resp.ErrorCode = errcode.UnknownMemberID.Code()
		s.m.Answered(s.now, beat.Flight, resp, nil)
		s.nothing() // now it waits
		s.tick()
		s.m.Answered(s.now, take[Heartbeat](s).Flight, answer(5, 2), nil)
		s.reads(2)
	}
}

// A program that stays away from Poll leaves, and joins when it polls.
func TestStuckProgramLeaves(t *testing.T) {
	s := begin(t)
	s.join(1)
	s.m.PollEnded(s.now)
	limit := s.now.Add(config().MaxPollInterval)
	for s.now.Before(limit) {
		s.tick()
		for _, a := range s.m.Actions() {
			beat, ok := a.(Heartbeat)
			switch {
			case ok && beat.Leaves != !s.now.Before(limit):
				t.Fatalf("at %v it leaves: %v", limit.Sub(s.now), beat.Leaves)
			case ok && !beat.Leaves:
				s.m.Answered(s.now, beat.Flight, answer(3), nil)
			case ok && beat.Request.MemberEpoch != -1:
				t.Fatalf("it leaves with epoch %d", beat.Request.MemberEpoch)
			}
		}
	}
	s.reads()
	if at, ok := s.m.Deadline(); ok {
		t.Errorf("it waits for %v", at)
	}
	s.m.PollBegan(s.now)
	if beat := take[Heartbeat](s); beat.Request.MemberEpoch != 0 {
		t.Errorf("it comes back with %+v", beat.Request)
	}
}

func TestNoTopicsNoMember(t *testing.T) {
	s := begin(t)
	s.join(1)
	s.m.Subscribe(s.now, nil)
	if !take[Heartbeat](s).Leaves {
		t.Error("it does not leave")
	}
	s.reads()
	s.m.Close(s.now)
	take[Gone](s)
}

func TestCloseLeaves(t *testing.T) {
	s := begin(t)
	s.join(1)
	s.m.Close(s.now)
	beat := take[Heartbeat](s)
	if !beat.Leaves {
		t.Error("it does not leave")
	}
	s.m.Left(beat.Flight)
	take[Gone](s)
	s.m.Subscribe(s.now, []string{"z"})
	s.nothing()
}

func TestCloseBeforeAnything(t *testing.T) {
	s := begin(t)
	s.m.Close(s.now)
	take[Gone](s)
}

// What trying again does not mend ends the membership.
func TestFatalErrors(t *testing.T) {
	for _, err := range []error{errcode.GroupAuthorizationFailed, errcode.UnsupportedVersion, errcode.InvalidRequest, fmt.Errorf("tls: %w", errcode.ErrAuthentication)} {
		s := begin(t)
		s.join(1)
		s.tick()
		s.m.Answered(s.now, take[Heartbeat](s).Flight, nil, err)
		if f := take[Fail](s); !errors.Is(f.Err, err) {
			t.Errorf("%v: it fails with %v", err, f.Err)
		}
		s.reads()
		s.m.Close(s.now)
		take[Gone](s)
	}
}

// Whatever happens, in whatever order: at most one heartbeat is under way, it never claims an epoch that
// was not given, and a member that is closed ends.
func TestAnythingMayHappen(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		s := begin(t)
		flying := map[Flight]Action{}
		epoch, gone, failed := int32(0), false, false
		for range 200 {
			s.now = s.now.Add(time.Duration(rng.IntN(20_000)) * time.Millisecond)
			switch rng.IntN(9) {
			case 0:
				s.m.Subscribe(s.now, []string{"a", "b", "c"}[:rng.IntN(4)])
			case 1:
				s.m.PollBegan(s.now)
			case 2:
				s.m.PollEnded(s.now)
			case 3:
				if rng.IntN(20) == 0 {
					s.m.Close(s.now)
				}
			default:
				if at, ok := s.m.Deadline(); ok && !at.After(s.now) {
					s.m.Tick(s.now)
				}
			}
			for f, a := range flying {
				if rng.IntN(2) == 0 {
					continue
				}
				delete(flying, f)
				var err error
				if rng.IntN(4) == 0 {
					err = []error{errcode.Network, errcode.NotCoordinator, errcode.UnknownMemberID, errcode.FencedMemberEpoch, errcode.UnknownServerError}[rng.IntN(5)]
				}
				switch a := a.(type) {
				case FindCoordinator:
					if err != nil {
						err = errcode.CoordinatorNotAvailable
					}
					s.m.Found(s.now, f, int32(rng.IntN(3)), err)
				case Heartbeat:
					if a.Leaves {
						s.m.Left(f)
						continue
					}
					epoch++
					s.m.Answered(s.now, f, answer(epoch, int32(rng.IntN(4))), err)
				}
				break
			}
			beats := 0
			for _, a := range s.m.Actions() {
				switch a := a.(type) {
				case FindCoordinator:
					flying[a.Flight] = a
				case Heartbeat:
					if a.Request.MemberEpoch > epoch {
						t.Fatalf("seed %d: epoch %d was not given", seed, a.Request.MemberEpoch)
					}
					if a.Request.MemberEpoch == 0 && len(a.Request.SubscribedTopicNames) == 0 {
						t.Fatalf("seed %d: it joins for nothing", seed)
					}
					flying[a.Flight] = a
				case Gone:
					if gone {
						t.Fatalf("seed %d: gone twice", seed)
					}
					gone = true
				case Fail:
					failed = true
				}
			}
			for f, a := range flying {
				if b, ok := a.(Heartbeat); ok && !b.Leaves && f == s.m.beat {
					beats++
				}
			}
			if beats > 1 || gone && len(s.m.Assignment()) > 0 {
				t.Fatalf("seed %d: %d heartbeats, gone %v with %v", seed, beats, gone, s.m.Assignment())
			}
		}
		s.m.Close(s.now)
		for f := range flying {
			s.m.Left(f)
		}
		for _, a := range s.m.Actions() {
			switch a := a.(type) {
			case Gone:
				gone = true
			case Heartbeat:
				s.m.Left(a.Flight)
			}
		}
		for _, a := range s.m.Actions() {
			_, ok := a.(Gone)
			gone = gone || ok
		}
		if !gone || failed {
			t.Fatalf("seed %d: gone %v, failed %v", seed, gone, failed)
		}
	}
}
