package clustertest

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestUsedTopicIsMadeByItsBrokersDefaults: a topic that somebody uses has as many partitions and replicas as the broker that was
// asked for it is configured with, and as the controller is where that broker says nothing; one that is created without
// numbers as the controller is, whoever was asked (KAFKA-19655).
func TestUsedTopicIsMadeByItsBrokersDefaults(t *testing.T) {
	Run(t, 1, func(w *World) {
		nodes := w.Cluster(3)
		w.StartAll(nodes...)
		controller := w.leader(w.MustDial("asks", nodes[0]), nodes)
		var others []*Node
		for _, n := range nodes {
			if n != controller {
				others = append(others, n)
			}
		}
		silent := w.Broker(nodes)
		others[0].Set("num.partitions=5", "default.replication.factor=2")
		others[1].Set("num.partitions=6", "default.replication.factor=2")
		silent.MustStart()
		for _, n := range others {
			if err := n.Stop(); err != nil {
				w.Fatalf("%v", err)
			}
			n.MustStart()
		}
		if now := w.leader(w.MustDial("asks again", nodes[0]), nodes); now != controller {
			w.Fatalf("%s is the controller by now", now.Name)
		}
		use := func(n *Node, name string, partitions, replicas int) {
			w.T.Helper()
			c := w.MustDial("client", n)
			req := kmsg.NewPtrMetadataRequest()
			req.Version, req.AllowAutoTopicCreation = 8, true
			topic := kmsg.NewMetadataRequestTopic()
			topic.Topic = &name
			req.Topics = []kmsg.MetadataRequestTopic{topic}
			w.Eventually(name+" is there", 5*time.Second, func() bool {
				res, err := Call[*kmsg.MetadataResponse](w.Context(), c, req)
				if err != nil {
					w.Fatalf("%v", err)
				}
				got := res.Topics[0]
				if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
					time.Sleep(50 * time.Millisecond)
					return false
				}
				if len(got.Partitions) != partitions || len(got.Partitions[0].Replicas) != replicas {
					w.Fatalf("%s has %d partitions of %d replicas, want %d of %d", name, len(got.Partitions), len(got.Partitions[0].Replicas), partitions, replicas)
				}
				return true
			})
		}
		use(others[0], "used-there", 5, 2)
		use(others[1], "used-elsewhere", 6, 2)
		use(silent, "used-where-nothing-is-set", 1, 3)
		use(controller, "used-at-the-controller", 1, 3)
		c := w.MustDial("client", others[0])
		w.mustCreate(c, "created", -1)
		use(others[0], "created", 1, 3)
	})
}
