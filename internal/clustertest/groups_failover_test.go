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
