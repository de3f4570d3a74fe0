package admin

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// LogDir is a data directory of a broker.
type LogDir struct {
	Node        int32
	Path        string
	TotalBytes  int64 // of its file system; -1 where the broker does not say
	UsableBytes int64 // -1 where the broker does not say
	Cordoned    bool  // gets no new replicas (KIP-1066)
	Replicas    []LogDirReplica
	Err         error // ErrKafkaStorageError: the directory is offline
}

// LogDirReplica is a replica in a data directory.
type LogDirReplica struct {
	TopicPartition client.TopicPartition
	Bytes          int64
	OffsetLag      int64 // behind the high watermark; for a Future one behind the replica that it is to replace
	Future         bool  // being moved here
}

// DescribeLogDirs gives the data directories of brokers (none given: all of them), sorted by node
// and path, and their replicas sorted by partition. A broker that does not answer has one LogDir
// without a path, with Err.
func (a *Admin) DescribeLogDirs(ctx context.Context, nodes ...int32) ([]LogDir, error) {
	if len(nodes) == 0 {
		cluster, err := a.DescribeCluster(ctx)
		if err != nil {
			return nil, fmt.Errorf("describe log directories: %w", err)
		}
		for _, b := range cluster.Brokers {
			nodes = append(nodes, b.Node)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var out []LogDir
	for _, node := range nodes {
		wg.Go(func() {
			dirs, err := a.logDirs(ctx, node)
			if err != nil {
				dirs = []LogDir{{Node: node, TotalBytes: -1, UsableBytes: -1, Err: err}}
			}
			mu.Lock()
			defer mu.Unlock()
			out = append(out, dirs...)
		})
	}
	wg.Wait()
	slices.SortFunc(out, func(a, b LogDir) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Path, b.Path)) })
	return out, nil
}

func (a *Admin) logDirs(ctx context.Context, node int32) ([]LogDir, error) {
	req := kmsg.NewPtrDescribeLogDirsRequest() // no list of topics: all
	var out []LogDir
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.DescribeLogDirsResponse](ctx, a, client.ToBroker(node), req)
		if err != nil {
			return err
		}
		out = nil
		for i := range resp.Dirs {
			out = append(out, readLogDir(node, &resp.Dirs[i]))
		}
		return client.CodeError(resp.ErrorCode, nil)
	})
	return out, err
}

func readLogDir(node int32, in *kmsg.DescribeLogDirsResponseDir) LogDir {
	d := LogDir{
		Node: node, Path: in.Dir, TotalBytes: in.TotalBytes, UsableBytes: in.UsableBytes,
		Cordoned: in.IsCordoned, Err: client.CodeError(in.ErrorCode, nil),
	}
	for _, t := range in.Topics {
		for _, p := range t.Partitions {
			d.Replicas = append(d.Replicas, LogDirReplica{
				client.TopicPartition{Topic: t.Topic, Partition: p.Partition}, p.Size, p.OffsetLag, p.IsFuture,
			})
		}
	}
	slices.SortFunc(d.Replicas, func(a, b LogDirReplica) int { return comparePartitions(a.TopicPartition, b.TopicPartition) })
	return d
}

// PartitionReplica is a replica of a partition: the one that a broker has.
type PartitionReplica struct {
	TopicPartition client.TopicPartition
	Node           int32
}

// ReplicaResult is what became of a replica in a call that only changes it.
type ReplicaResult struct {
	Replica PartitionReplica
	Err     error // ErrLogDirNotFound, ErrUnknownTopicOrPartition, ErrKafkaStorageError, client.ErrUnknownBroker, …
}

// AlterReplicaLogDirs begins to move replicas to other data directories of their brokers, each to the path given for it
// (KIP-113). It does not wait for the moves: DescribeLogDirs shows a Future replica until one is done. A replica that its
// broker does not have yet has an Err, ErrUnknownTopicOrPartition or ErrNotLeaderOrFollower, and is nevertheless put into
// that directory once it is made. The results are sorted by partition, then node.
func (a *Admin) AlterReplicaLogDirs(ctx context.Context, to map[PartitionReplica]string) ([]ReplicaResult, error) {
	byNode := map[int32]map[client.TopicPartition]string{}
	for r, path := range to {
		if byNode[r.Node] == nil {
			byNode[r.Node] = map[client.TopicPartition]string{}
		}
		byNode[r.Node][r.TopicPartition] = path
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var out []ReplicaResult
	for node, paths := range byNode {
		wg.Go(func() {
			results := a.alterLogDirs(ctx, node, paths)
			mu.Lock()
			defer mu.Unlock()
			for _, r := range results {
				out = append(out, ReplicaResult{PartitionReplica{r.TopicPartition, node}, r.Err})
			}
		})
	}
	wg.Wait()
	slices.SortFunc(out, func(a, b ReplicaResult) int {
		return cmp.Or(comparePartitions(a.Replica.TopicPartition, b.Replica.TopicPartition), cmp.Compare(a.Replica.Node, b.Replica.Node))
	})
	return out, nil
}

func (a *Admin) alterLogDirs(ctx context.Context, node int32, paths map[client.TopicPartition]string) []PartitionResult {
	partitions := slices.SortedFunc(maps.Keys(paths), comparePartitions)
	results, err := decide(ctx, a, fmt.Sprintf("alter log directories of broker %d", node), client.ToBroker(node), partitions,
		func(_ context.Context, of []client.TopicPartition) kmsg.Request {
			req := kmsg.NewPtrAlterReplicaLogDirsRequest()
			byPath := map[string][]client.TopicPartition{}
			for _, tp := range of {
				byPath[paths[tp]] = append(byPath[paths[tp]], tp)
			}
			for _, path := range slices.Sorted(maps.Keys(byPath)) {
				d := kmsg.NewAlterReplicaLogDirsRequestDir()
				d.Dir = path
				eachTopic(byPath[path], func(topic string, tps []client.TopicPartition) {
					d.Topics = append(d.Topics, kmsg.AlterReplicaLogDirsRequestDirTopic{Topic: topic, Partitions: numbers(tps)})
				})
				req.Dirs = append(req.Dirs, d)
			}
			return req
		},
		func(resp *kmsg.AlterReplicaLogDirsResponse, give func(client.TopicPartition, PartitionResult, error)) {
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					tp := client.TopicPartition{Topic: t.Topic, Partition: p.Partition}
					give(tp, PartitionResult{TopicPartition: tp}, client.CodeError(p.ErrorCode, nil))
				}
			}
		},
		failedPartition)
	if err != nil {
		results = partitionResults(partitions, forAll(partitions, err))
	}
	return results
}
