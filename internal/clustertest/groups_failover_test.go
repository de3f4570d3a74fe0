package clustertest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// coordinatorOf finds the coordinator of a group, whom its partition may just be moving to.
func (w *World) coordinatorOf(c *Client, group string) int32 {
	w.T.Helper()
	found := int32(-1)
	w.Eventually("a coordinator of "+group+" is known", 10*time.Second, func() bool {
		id, err := c.Coordinator(w.Context(), group)
		if err != nil && !errors.Is(err, kerr.CoordinatorNotAvailable) {
			w.Fatalf("find the coordinator of %s: %v", group, err)
		}
		found = id
		return err == nil
	})
	return found
}

// TestGroupsGoOnAfterTheirCoordinatorIsKilled: the members of a group find another coordinator, which knows them, their
// generation and what they have committed. Nobody has to join again.
func TestGroupsGoOnAfterTheirCoordinatorIsKilled(t *testing.T) {
	for seed := range Seeds(8) {
		Run(t, seed, func(w *World) {
			nodes := w.Cluster(3, quick...)
			w.StartAll(nodes...)
			asked := w.MustDial("asks", nodes[0])
			if _, err := asked.CreateTopic(w.Context(), "orders", 4); err != nil {
				w.Fatalf("%v", err)
			}
			group := fmt.Sprint("group", seed)
			first := w.coordinatorOf(asked, group)
			w.whole(nodes, 10*time.Second, "__consumer_offsets")
			var members []*Member
			for i := range 3 {
				members = append(members, w.MustDial(fmt.Sprint("member", i), nodes[first-1]).NewMember(group, "a", "b", "c"))
			}
			w.Eventually("the coordinator has loaded", 5*time.Second, func() bool {
				_, err := members[0].DescribeGroup(w.Context(), group)
				return !errors.Is(err, kerr.CoordinatorLoadInProgress) && !errors.Is(err, kerr.NotCoordinator)
			})
			w.form(members...)
			generation := members[0].Generation
			committed := map[int32]int64{}
			for i, m := range members {
				committed[int32(i)] = int64(100 + i)
				if err := m.CommitAs(w.Context(), "orders", map[int32]int64{int32(i): int64(100 + i)}); err != nil {
					w.Fatalf("commit: %v", err)
				}
			}
			began := time.Now()
			nodes[first-1].Kill()
			other := nodes[first%3]
			asks := w.MustDial("asks", other)
			var next int32
			w.Eventually("another node coordinates", 5*time.Second, func() bool {
				next = w.coordinatorOf(asks, group)
				return next != first
			})
			for _, m := range members {
				m.Client = w.MustDial("member again", nodes[next-1])
				w.Eventually("the member is known", 5*time.Second, func() bool {
					err := m.Heartbeat(w.Context())
					if err != nil && !errors.Is(err, kerr.CoordinatorLoadInProgress) && !errors.Is(err, kerr.NotCoordinator) {
						w.Fatalf("heartbeat of a member of generation %d: %v", generation, err)
					}
					return err == nil
				})
				if err := m.CommitAs(w.Context(), "orders", map[int32]int64{3: 7}); err != nil {
					w.Fatalf("commit at the new coordinator: %v", err)
				}
			}
			if took := time.Since(began); took > 2*time.Second {
				w.Fatalf("the group went on after %v", took)
			}
			committed[3] = 7
			if found := w.committed(members[0].Client, group, "orders"); fmt.Sprint(found) != fmt.Sprint(committed) {
				w.Fatalf("committed is %v, was %v", found, committed)
			}
			g, err := members[0].DescribeGroup(w.Context(), group)
			if err != nil || g.State != "Stable" || len(g.Members) != 3 || members[2].Generation != generation {
				w.Fatalf("the group is %+v, %v", g, err)
			}
			// The coordinator that comes back is none, and says so.
			nodes[first-1].MustStart()
			back := w.MustDial("back", nodes[first-1])
			if _, err := back.DescribeGroup(w.Context(), group); !errors.Is(err, kerr.NotCoordinator) {
				w.Fatalf("the node that came back answers for the group: %v", err)
			}
		})
	}
}

// TestADeadMemberHasAWholeSessionAtEachCoordinator: who coordinates a group next cannot know who is dead, and gives every
// member a whole session from when it has loaded the group, as Apache Kafka does. So a member that was killed is waited
// for once more with every coordinator that follows, and no longer than that after the last of them.
func TestADeadMemberHasAWholeSessionAtEachCoordinator(t *testing.T) {
	const session = 6 * time.Second
	for seed := range Seeds(3) {
		Run(t, seed, func(w *World) {
			nodes := w.Cluster(5, append([]string{"offsets.topic.replication.factor=5"}, quick...)...)
			w.StartAll(nodes...)
			at := w.coordinatorOf(w.MustDial("asks", nodes[0]), "g")
			w.whole(nodes, 10*time.Second, "__consumer_offsets")
			var members []*Member
			for _, name := range []string{"dead", "living"} {
				m := w.MustDial(name, nodes[at-1]).NewMember("g", "a", "b")
				m.Session = session
				members = append(members, m)
			}
			w.form(members...)
			living := members[1]
			var failed time.Time
			dead := map[int32]bool{}
			for range 2 {
				for range 8 {
					if err := living.Heartbeat(w.Context()); err != nil {
						w.Fatalf("heartbeat: %v", err)
					}
					time.Sleep(session / 12)
				}
				failed = time.Now()
				nodes[at-1].Kill()
				before := at
				dead[at] = true
				asked := int32(1)
				for dead[asked] {
					asked++
				}
				other := w.MustDial("asks", nodes[asked-1])
				w.Eventually("another node coordinates", 10*time.Second, func() bool {
					at = w.coordinatorOf(other, "g")
					return at != before
				})
				living.Client = w.MustDial("living again", nodes[at-1])
				w.Eventually("the member is known", 5*time.Second, func() bool { return living.Heartbeat(w.Context()) == nil })
			}
			w.Eventually("the dead member is waited for no longer", 2*session, func() bool {
				err := living.Heartbeat(w.Context())
				time.Sleep(50 * time.Millisecond)
				return errors.Is(err, kerr.RebalanceInProgress)
			})
			if took := time.Since(failed); took < session || took > session+1500*time.Millisecond {
				w.Fatalf("waited for %v after the last coordinator had failed", took)
			}
			if err := living.Join(w.Context()); err != nil {
				w.Fatalf("join: %v", err)
			}
			if err := living.Sync(w.Context()); err != nil || len(living.Assigned) != 2 {
				w.Fatalf("sync: %v, %v", living.Assigned, err)
			}
		})
	}
}
