package node_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/clustertest"
	"barnabas/internal/disk"
)

const metadataDir = "/data/__cluster_metadata-0"

// nodeEffects are those of the keys of the node, its topics by default, and the metadata log.
var nodeEffects = map[string]effect{
	"node.id":                                         {see: brokerID, cases: []string{"3", "3", "4", "4"}},
	"broker.id":                                       {see: brokerID, cases: []string{"5", "5", "6", "6"}},
	"broker.rack":                                     {see: rack, cases: []string{"here", "here", "there", "there"}},
	"num.partitions":                                  {see: partitionsByDefault, cases: []string{"1", "1", "7", "7"}},
	"default.replication.factor":                      {see: replicationByDefault, cases: []string{"-1", "created", "2", "INVALID_REPLICATION_FACTOR"}},
	"auto.create.topics.enable":                       {see: createdByUse, cases: []string{"true", "created", "false", "UNKNOWN_TOPIC_OR_PARTITION"}},
	"delete.topic.enable":                             {see: deletable, cases: []string{"true", "taken", "false", "TOPIC_DELETION_DISABLED"}},
	"controller.quorum.voters":                        {see: starts, cases: []string{"1@localhost:9093", "starts", "1@a:1,2@b:1", "refused: controller.quorum.voters"}},
	"cluster.secret.file":                             {see: formsCluster, cases: []string{"/secret", "formed", "/missing", "not formed"}},
	"metadata.log.dir":                                {see: metadataLog, cases: []string{"/meta", "/meta", "/data", "/data"}},
	"metadata.log.segment.bytes":                      {see: metadataSegment, cases: []string{"8388608", "8388608", "16777216", "16777216"}},
	"internal.metadata.log.segment.bytes":             {see: metadataSegment, cases: []string{"20000", "20000", "30000", "30000"}},
	"unclean.leader.election.interval.ms":             {see: ledWithoutDirectory, cases: []string{"1u", "led", "100u", "waiting"}},
	"metadata.log.segment.ms":                         {see: metadataSegmentsByTime, cases: []string{"1u", "2", "100u", "1"}},
	"metadata.log.max.record.bytes.between.snapshots": {see: snapshotBySize, cases: []string{"1000", "written", "20971520", "not written"}},
	"metadata.log.max.snapshot.interval.ms":           {see: snapshotByTime, cases: []string{"1u", "written", "100u", "not written", "0", "not written"}},
}

// startAs starts a node that has no id but the one of the key, if that is one.
func (p *probe) startAs() {
	p.n = p.Node("broker", "node.id", p.key+"="+p.value)
	p.n.MustStart()
	p.c = p.MustDial("client", p.n)
}

func (p *probe) brokers() []kmsg.MetadataResponseBroker {
	res, err := clustertest.Call[*kmsg.MetadataResponse](p.Context(), p.c, kmsg.NewPtrMetadataRequest())
	if err != nil || len(res.Brokers) != 1 {
		p.Fatalf("metadata: %v", err)
	}
	return res.Brokers
}

func brokerID(p *probe) string {
	p.startAs()
	return fmt.Sprint(p.brokers()[0].NodeID)
}

func rack(p *probe) string {
	p.startAs()
	if r := p.brokers()[0].Rack; r != nil {
		return *r
	}
	return "none"
}

func partitionsByDefault(p *probe) string {
	p.start()
	p.topic("t", -1)
	t, err := p.c.Topic(p.Context(), "t")
	if err != nil {
		p.Fatalf("metadata: %v", err)
	}
	return fmt.Sprint(len(t.Partitions))
}

func replicationByDefault(p *probe) string {
	p.start()
	return p.topic("t", 1)
}

func createdByUse(p *probe) string {
	p.start()
	name := "t"
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &name
	q := kmsg.NewPtrMetadataRequest()
	q.Topics, q.AllowAutoTopicCreation = append(q.Topics, t), true
	var code int16
	for range 3 {
		res, err := clustertest.Call[*kmsg.MetadataResponse](p.Context(), p.c, q)
		if err != nil {
			p.Fatalf("metadata: %v", err)
		}
		code = res.Topics[0].ErrorCode
		time.Sleep(time.Second)
	}
	return yes(code == 0, "created", kafkaName(code))
}

func deletable(p *probe) string {
	p.start()
	p.topic("t", 1)
	return verdict(p.c.DeleteTopic(p.Context(), "t"))
}

func starts(p *probe) string {
	p.n = p.Node("broker", p.key+"="+p.value)
	if err := p.n.Start(p.Context()); err != nil {
		return yes(strings.Contains(err.Error(), p.key), "refused: "+p.key, err.Error())
	}
	return "starts"
}

func metadataLog(p *probe) string {
	p.start()
	for _, dir := range []string{"/data", "/meta"} {
		if p.size(dir+"/__cluster_metadata-0/quorum-state") > 0 {
			return dir
		}
	}
	return "nowhere"
}

func metadataSegment(p *probe) string {
	p.n = p.Node("broker", p.key+"="+p.value)
	p.n.Record()
	p.n.MustStart()
	for _, op := range p.n.Record() {
		if op.Kind == disk.OpPreallocate && strings.HasPrefix(op.Path, metadataDir) && strings.Contains(op.Path, ".log") {
			return fmt.Sprint(op.Len - 4<<20) // what a full disk leaves it
		}
	}
	return "not reserved"
}

func metadataSegmentsByTime(p *probe) string {
	p.start()
	p.topic("one", 1)
	time.Sleep(p.unit + p.unit/10)
	p.topic("two", 1)
	return fmt.Sprint(len(p.files(metadataDir, ".log")))
}

// snapshots are those beside the one that a new log begins with.
func snapshots(p *probe) string {
	names := p.files(metadataDir, ".checkpoint")
	if len(names) == 0 {
		p.Fatalf("no snapshot at all")
	}
	return yes(names[len(names)-1] == "00000000000000000000-0000000001.checkpoint", "not written", "written")
}

func snapshotBySize(p *probe) string {
	p.start()
	for i := range 20 {
		p.topic(fmt.Sprint("t", i), 1)
	}
	time.Sleep(time.Second)
	return snapshots(p)
}

func snapshotByTime(p *probe) string {
	p.start()
	p.topic("t", 1)
	time.Sleep(p.unit + p.unit/10)
	return snapshots(p)
}

// ledWithoutDirectory is what becomes of partitions whose data directory has been replaced by an empty one.
func ledWithoutDirectory(p *probe) string {
	settings := []string{"log.dirs=/data,/more"}
	if p.key == "unclean.leader.election.interval.ms" {
		settings = append(settings, "unclean.leader.election.enable=true")
	} else {
		settings = append(settings, "unclean.leader.election.interval.ms=60000")
	}
	p.start(settings...)
	p.topic("t", 4)
	for n := range int32(4) {
		p.mustProduce("t", n, "kept")
	}
	if err := p.n.Stop(); err != nil {
		p.Fatalf("stop: %v", err)
	}
	if err := p.n.Disk().Remove("/more"); err != nil {
		p.Fatalf("replace a directory: %v", err)
	}
	p.n.MustStart()
	p.c = p.MustDial("client", p.n)
	time.Sleep(50 * p.unit)
	topic, err := p.c.Topic(p.Context(), "t")
	if err != nil {
		p.Fatalf("describe: %v", err)
	}
	kept, led := 0, 0
	for _, partition := range topic.Partitions {
		if partition.Leader < 0 {
			continue
		}
		led++
		records, err := p.c.ReadAll(p.Context(), "t", partition.Partition, 0)
		if err != nil {
			p.Fatalf("read: %v", err)
		}
		kept += len(records)
		p.mustProduce("t", partition.Partition, "new")
	}
	switch {
	case kept != 2: // those in the directory that is still there
		p.Fatalf("%d records of 4 are kept, %d partitions are led", kept, led)
	case led == 4:
		return "led"
	}
	return yes(led == 2, "waiting", "led in part")
}

// formsCluster starts three nodes, one of them with the setting.
func formsCluster(p *probe) string {
	nodes := p.Cluster(3)
	nodes[0].Set(p.key + "=" + p.value)
	ctx, cancel := context.WithTimeout(p.Context(), 10*time.Second)
	defer cancel()
	var starting sync.WaitGroup
	formed := make([]bool, len(nodes))
	for i, n := range nodes {
		starting.Go(func() { formed[i] = n.Start(ctx) == nil })
	}
	starting.Wait()
	if slices.Contains(formed, false) {
		return "not formed"
	}
	return "formed"
}
