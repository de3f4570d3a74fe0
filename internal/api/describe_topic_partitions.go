package api

import (
	"iter"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/controller"
	"barnabas/internal/metadata"
)

// DescribeTopicPartitions, key 75, version 0 (KIP-966): topics by name, page by page. A page holds at
// most so many partitions as the request says and max.request.partition.size.limit allows; where it
// ends inside a topic or before one, a cursor says where the next begins.

func describeTopicPartitions(c *call, q *kmsg.DescribeTopicPartitionsRequest) kmsg.Response {
	names, ok := topicsOfPage(q)
	if !ok {
		return refuseTopicPartitions(q)
	}
	d := &topicPage{c: c, image: c.h.o.Images.Image(), res: kmsg.NewPtrDescribeTopicPartitionsResponse()}
	d.alive = aliveBrokers(d.image, c.peer)
	d.left = max(1, min(int(q.ResponsePartitionLimit), c.h.o.Config().Int("max.request.partition.size.limit")))
	if names == nil {
		names = d.allFrom(q.Cursor)
	}
	for name := range names {
		first := 0
		if q.Cursor != nil && q.Cursor.Topic == name {
			first = int(q.Cursor.Partition)
		}
		if !d.add(name, first, len(q.Topics) > 0) {
			break
		}
	}
	return d.res
}

// topicsOfPage names, in order, the topics that are asked for and not before the cursor; nil for
// all. Not ok: the cursor does not belong to the request.
func topicsOfPage(q *kmsg.DescribeTopicPartitionsRequest) (names iter.Seq[string], ok bool) {
	if q.Cursor != nil && q.Cursor.Partition < 0 {
		return nil, false
	}
	if len(q.Topics) == 0 {
		return nil, true
	}
	var asked []string
	for _, t := range q.Topics {
		if q.Cursor == nil || t.Topic >= q.Cursor.Topic {
			asked = append(asked, t.Topic)
		}
	}
	slices.Sort(asked)
	asked = slices.Compact(asked)
	if q.Cursor != nil && !slices.Contains(asked, q.Cursor.Topic) {
		return nil, false
	}
	return slices.Values(asked), true
}

func refuseTopicPartitions(q *kmsg.DescribeTopicPartitionsRequest) kmsg.Response {
	res := kmsg.NewPtrDescribeTopicPartitionsResponse()
	for i := range q.Topics {
		t := kmsg.NewDescribeTopicPartitionsResponseTopic()
		t.Topic, t.ErrorCode = &q.Topics[i].Topic, kerr.InvalidRequest.Code
		res.Topics = append(res.Topics, t)
	}
	return res
}

// topicPage is a response under way.
type topicPage struct {
	c     *call
	image *metadata.Image
	alive []brokerAddress
	left  int // partitions that still have room
	res   *kmsg.DescribeTopicPartitionsResponse
}

func (d *topicPage) allFrom(cursor *kmsg.DescribeTopicPartitionsRequestCursor) iter.Seq[string] {
	from := ""
	if cursor != nil {
		from = cursor.Topic
	}
	return func(yield func(string) bool) {
		for t := range d.image.TopicsFrom(from) {
			if !yield(t.Name) {
				return
			}
		}
	}
}

// add describes a topic from its partition first on. False: the page is full.
func (d *topicPage) add(name string, first int, missingToo bool) bool {
	if d.left == 0 {
		d.continueAt(name, 0)
		return false
	}
	t, ok := d.image.Topic(name)
	if !ok && !missingToo {
		return true
	}
	res := kmsg.NewDescribeTopicPartitionsResponseTopic()
	res.Topic, res.IsInternal, res.AuthorizedOperations = &name, controller.InternalTopic(name), topicOperations
	if !ok {
		res.ErrorCode = missingTopic(name)
		d.res.Topics = append(d.res.Topics, res)
		return true
	}
	res.TopicID = t.ID
	end := min(len(t.Partitions), first+d.left)
	for number := first; number < end; number++ {
		res.Partitions = append(res.Partitions, d.partition(int32(number), t.Partitions[number]))
	}
	d.res.Topics = append(d.res.Topics, res)
	d.left -= len(res.Partitions)
	if end < len(t.Partitions) {
		d.continueAt(name, int32(end))
		return false
	}
	return true
}

func (d *topicPage) partition(number int32, state *metadata.Partition) kmsg.DescribeTopicPartitionsResponseTopicPartition {
	p := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
	p.Partition, p.LeaderID, p.LeaderEpoch = number, state.Leader, state.LeaderEpoch
	p.Replicas, p.ISR, p.OfflineReplicas = state.Replicas, state.ISR, offlineReplicas(d.image, state, d.alive)
	p.EligibleLeaderReplicas, p.LastKnownELR = orEmpty(state.ELR), orEmpty(state.LastKnownELR)
	if !isAlive(d.alive, state.Leader) {
		p.LeaderID, p.ErrorCode = metadata.NoLeader, kerr.LeaderNotAvailable.Code
	}
	return p
}

// orEmpty: Kafka's tools tell "none" from "not known", which is null.
func orEmpty(ids []int32) []int32 {
	if ids == nil {
		return []int32{}
	}
	return ids
}

func (d *topicPage) continueAt(topic string, partition int32) {
	next := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
	next.Topic, next.Partition = topic, partition
	d.res.NextCursor = &next
}
