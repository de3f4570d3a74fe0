package clustercmd

import (
	"strings"
	"testing"
	"time"

	"barnabas/client/admin"
)

// A vote is taken only where those that are left can lead the quorum, in every state of every size of it.
func TestVotesAreNotTakenFromAMajority(t *testing.T) {
	for voters := 1; voters <= 5; voters++ {
		for states := range 1 << voters {
			for leaving := 1; leaving <= voters; leaving++ {
				q := &admin.Quorum{Leader: -1}
				left, there := 0, 0
				for id := 1; id <= voters; id++ {
					v := admin.QuorumReplica{Node: int32(id), LogEnd: 9, LastFetch: noon, LastCaughtUp: noon}
					away := states>>(id-1)&1 == 1
					if away {
						v.LastCaughtUp = noon.Add(-time.Minute)
					} else if q.Leader < 0 {
						q.Leader = v.Node
					}
					if id != leaving {
						left++
						if !away {
							there++
						}
					}
					q.Voters = append(q.Voters, v)
				}
				err := staysLed(q, int32(leaving), noon)
				if refused := err != nil; refused != (there*2 <= left) {
					t.Errorf("%d voters, away %b, without %d: %v", voters, states, leaving, err)
				}
			}
		}
	}
	q := three().quorum
	q.Voters[1].LastCaughtUp = noon.Add(-time.Minute)
	if err := staysLed(&q, 3, noon); err == nil || !strings.Contains(err.Error(), "without node 3 the quorum would have no majority: of the voters that are left, voter 2 is not up to date") {
		t.Errorf("%v", err)
	}
}
