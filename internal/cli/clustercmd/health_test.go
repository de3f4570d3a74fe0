package clustercmd

import (
	"errors"
	"strings"
	"testing"
	"time"

	"barnabas/client"
	"barnabas/client/admin"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.Local)

// three is a healthy cluster of three brokers with a topic of 48 partitions.
func three() *observed {
	o := &observed{now: noon, minISR: map[string]int{"orders": 2}}
	orders := admin.TopicDescription{Name: "orders"}
	for n := range int32(48) {
		orders.Partitions = append(orders.Partitions, admin.PartitionDescription{
			Partition: n, Leader: n%3 + 1, Replicas: []int32{1, 2, 3}, InSync: []int32{1, 2, 3},
		})
	}
	o.topics = []admin.TopicDescription{orders}
	o.quorum = admin.Quorum{Leader: 1, LeaderEpoch: 4, HighWatermark: 100}
	for n := range int32(3) {
		o.cluster.Brokers = append(o.cluster.Brokers, admin.BrokerDescription{Node: n + 1, Host: "h", Port: 9092})
		o.quorum.Voters = append(o.quorum.Voters, admin.QuorumReplica{Node: n + 1, LogEnd: 100, LastFetch: noon, LastCaughtUp: noon})
		o.dirs = append(o.dirs, admin.LogDir{Node: n + 1, Path: "/data"})
	}
	return o
}

func (o *observed) inSync(ids []int32, numbers ...int) {
	for _, n := range numbers {
		o.topics[0].Partitions[n].InSync = ids
	}
}

// TestHealthSaysWhatIsWrong: one line, the worst first, with what it means and since when.
func TestHealthSaysWhatIsWrong(t *testing.T) {
	away := func(o *observed, node int) {
		o.cluster.Brokers[node-1].Fenced = true
		o.quorum.Voters[node-1].LastFetch = noon.Add(-90 * time.Second)
		o.quorum.Voters[node-1].LastCaughtUp = noon.Add(-2 * time.Minute)
	}
	for name, c := range map[string]struct {
		wrong func(*observed)
		want  string
	}{
		"nothing": {func(*observed) {}, "healthy: 3 brokers, 48 partitions with all replicas in sync, 3 voters led by node 1"},
		"too few in sync": {
			func(o *observed) { o.inSync([]int32{1}, 3, 7) },
			"2 of 48 partitions have fewer in-sync replicas than min.insync.replicas: producers with acks=all are refused on orders-3, orders-7",
		},
		"few in sync": {
			func(o *observed) { o.inSync([]int32{1, 2}, 3) },
			"1 of 48 partitions has replicas that are not in sync: everything is served, but fewer failures can be borne on orders-3",
		},
		"min.insync.replicas counts as the number of replicas": {func(o *observed) {
			o.minISR["orders"] = 9
			o.topics[0].Partitions[0].Replicas = []int32{1}
			o.inSync([]int32{1}, 0)
		}, "healthy: 3 brokers, 48 partitions with all replicas in sync, 3 voters led by node 1"},
		"no leader, the worst first": {func(o *observed) {
			o.inSync([]int32{1, 2}, 0, 1, 2, 3, 4, 5, 6)
			o.topics[0].Partitions[9].Leader = -1
		}, "1 of 48 partitions has no leader: there are neither reads nor writes on orders-9; " +
			"7 of 48 partitions have replicas that are not in sync: everything is served, but fewer failures can be borne on orders-0, orders-1, orders-2, orders-3, orders-4 and 2 more"},
		"a broker away": {
			func(o *observed) { away(o, 3) },
			"broker 3 is fenced (stopped, cut off or starting) since 2026-05-01 11:58:30 (1m30s): others serve its partitions where they have replicas in sync; " +
				"voter 3 of the quorum is not up to date since 2026-05-01 11:58:00 (2m0s): one more lost voter stops every change of topics, settings and leaders",
		},
		"no quorum": {
			func(o *observed) {
				o.quorum, o.quorumErr = admin.Quorum{}, errors.New("describe the quorum: no leader in time")
			},
			"the metadata quorum does not answer (describe the quorum: no leader in time): records flow where leaders live, but topics, settings, groups' coordinators and leaders cannot change",
		},
		"positions that nobody told": {func(o *observed) {
			o.quorum.Voters[1] = admin.QuorumReplica{Node: 2, LogEnd: -1}
		}, "healthy: 3 brokers, 48 partitions with all replicas in sync, 3 voters led by node 1"},
		"a disk": {
			func(o *observed) { o.dirs[1].Err = client.ErrKafkaStorageError },
			"data directory /data of broker 2 has failed: its replicas are offline until the disk is replaced and the broker restarted",
		},
		"a full disk": {
			func(o *observed) {
				o.dirs[0].TotalBytes, o.dirs[0].UsableBytes = 40<<20, 20<<20 // small and half empty
				o.dirs[1].TotalBytes, o.dirs[1].UsableBytes = 10<<40, 1<<20
				o.dirs[2].TotalBytes, o.dirs[2].UsableBytes = -1, -1
			},
			"the disk of data directory /data of broker 2 is full (1.0 MiB of 10.0 TiB left): what it leads takes no records, and what it follows falls out of sync, " +
				"until there is room (shorter retention, topics deleted, a larger disk)",
		},
		"a broker that hangs": {
			func(o *observed) { o.dirs[1] = admin.LogDir{Node: 2, Err: errors.New("no answer")} },
			"broker 2 does not say how its data directories are (no answer): its replicas may not be served",
		},
	} {
		o := three()
		c.wrong(o)
		h := o.judge()
		want := c.want
		if h.Summary != want || h.Healthy != strings.HasPrefix(want, "healthy") || h.Healthy != (len(h.Findings) == 0) || strings.Contains(h.Summary, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", name, h.Summary, want)
		}
		if h.Partitions != 48 || h.Brokers != 3 {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

// TestVotersOfFive: two of five may go.
func TestVotersOfFive(t *testing.T) {
	o := three()
	for n := int32(4); n <= 5; n++ {
		o.quorum.Voters = append(o.quorum.Voters, admin.QuorumReplica{Node: n, LogEnd: 3, LastFetch: noon, LastCaughtUp: noon.Add(-time.Hour)})
	}
	if got := o.judge().Summary; !strings.Contains(got, "voters 4 and 5 of the quorum are not up to date") || !strings.Contains(got, "one more lost voter stops") {
		t.Error(got)
	}
	o.quorum.Voters = o.quorum.Voters[:4]
	o.quorum.Voters = append(o.quorum.Voters, admin.QuorumReplica{Node: 5, LogEnd: 100, LastFetch: noon, LastCaughtUp: noon})
	if got := o.judge().Summary; !strings.Contains(got, "can bear the loss of 1 more voter") {
		t.Error(got)
	}
}
