package api

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/controller"
	"barnabas/internal/metadata"
	"barnabas/internal/wire"
)

// Metadata, key 3, versions 0 to 13. Version 1 tells all topics (null) from none (empty), 4 lets the
// client forbid auto-creation (KIP-204), 8 to 10 name the cluster's authorized operations (KIP-430),
// 10 gives topic ids, 12 takes them (KIP-516), 13 has an error for the whole answer (KIP-1102).

// autoCreateWait bounds how long a Metadata request waits for the topics that it makes. Past it the
// topics may yet appear; the answer is the same.
const autoCreateWait = 5 * time.Second

// maxAutoCreated bounds the topics that one Metadata request makes. Those past it are answered with
// UNKNOWN_TOPIC_OR_PARTITION, so clients ask again, and are then among the first. A hundred topics of
// up to 99 partitions (num.partitions) are also within what the controller takes in one request.
const maxAutoCreated = 100

func (h *Handler) metadata(_ context.Context, c *call) (wire.Reply, bool, error) {
	q, err := decoded(c, kmsg.NewPtrMetadataRequest())
	if err != nil {
		return nil, false, err
	}
	c.req = nil // its memory is not ours any more once phase one has ended
	if q.Version < 12 {
		for _, t := range q.Topics {
			if t.Topic == nil || t.TopicID != [16]byte{} {
				return replyWith(refuseMetadata(q, kerr.InvalidRequest.Code)), true, nil
			}
		}
	}
	missing := h.toBeCreated(q)
	return func(ctx context.Context, out *wire.Out) error {
		made, err := h.autoCreate(ctx, missing)
		if err != nil {
			return err
		}
		out.Append(h.describeMetadata(c.peer, q, made).AppendTo)
		return nil
	}, len(missing) == 0, nil
}

// toBeCreated finds the topics that asking for them makes, at most maxAutoCreated.
func (h *Handler) toBeCreated(q *kmsg.MetadataRequest) []string {
	if q.Version >= 4 && !q.AllowAutoTopicCreation || byID(q) || !h.o.Config().Bool("auto.create.topics.enable") {
		return nil
	}
	image := h.o.Images.Image()
	var missing []string
	seen := map[string]bool{} // those in missing
	for _, t := range q.Topics {
		if len(missing) == maxAutoCreated {
			break
		}
		if t.Topic == nil || seen[*t.Topic] || controller.CheckTopicName(*t.Topic) != "" {
			continue
		}
		if _, exists := image.Topic(*t.Topic); !exists {
			seen[*t.Topic] = true
			missing = append(missing, *t.Topic)
		}
	}
	return missing
}

// autoCreate makes the missing topics and returns the code that each is answered with.
// UNKNOWN_TOPIC_OR_PARTITION makes a client ask again, and is the code of a topic that has been made,
// too, as in Kafka: who looks whether a topic is gone and forgets to forbid its creation is told that
// it is gone, once. The second question finds the topic, for it is part of the image by then.
func (h *Handler) autoCreate(ctx context.Context, missing []string) (made map[string]int16, err error) {
	image := h.o.Images.Image() // requests before this one may have made some
	missing = slices.DeleteFunc(missing, func(name string) bool { _, exists := image.Topic(name); return exists })
	if len(missing) == 0 {
		return nil, nil
	}
	limited, cancel := context.WithTimeout(ctx, autoCreateWait)
	defer cancel()
	res, err := h.o.Controller.AutoCreateTopics(limited, missing)
	if err != nil {
		if ctx.Err() != nil {
			return nil, errors.Join(ctx.Err(), err)
		}
		h.log.Warn("topics are not made by being used", "topics", missing, "err", err)
		return nil, nil
	}
	made = map[string]int16{}
	for _, t := range res.Topics {
		made[t.Topic] = kerr.UnknownTopicOrPartition.Code
		switch t.ErrorCode {
		case kerr.InvalidTopicException.Code, kerr.InvalidReplicationFactor.Code, kerr.PolicyViolation.Code:
			made[t.Topic] = t.ErrorCode // it stays so until somebody acts
		}
	}
	return made, nil
}

// refuseMetadata answers every topic of a request with an error.
func refuseMetadata(q *kmsg.MetadataRequest, code int16) *kmsg.MetadataResponse {
	res := kmsg.NewPtrMetadataResponse()
	res.Version, res.ErrorCode, res.ControllerID = q.Version, code, -1
	for _, asked := range q.Topics {
		t := kmsg.NewMetadataResponseTopic()
		t.Topic, t.TopicID, t.ErrorCode = asked.Topic, asked.TopicID, code
		if t.Topic == nil && q.Version < 12 {
			t.Topic = kmsg.StringPtr("")
		}
		res.Topics = append(res.Topics, t)
	}
	return res
}

// byID says whether a request names topics by id, which then goes for all of them.
func byID(q *kmsg.MetadataRequest) bool {
	return slices.ContainsFunc(q.Topics, func(t kmsg.MetadataRequestTopic) bool { return t.TopicID != [16]byte{} })
}

func (h *Handler) describeMetadata(peer *wire.Peer, q *kmsg.MetadataRequest, made map[string]int16) *kmsg.MetadataResponse {
	image := h.o.Images.Image() // one image for the whole answer
	res := kmsg.NewPtrMetadataResponse()
	res.Version = q.Version
	res.ClusterID = kmsg.StringPtr(image.ClusterID())
	alive := aliveBrokers(image, peer)
	for _, b := range alive {
		node := kmsg.NewMetadataResponseBroker()
		node.NodeID, node.Host, node.Port, node.Rack = b.id, b.host, b.port, b.rack
		res.Brokers = append(res.Brokers, node)
	}
	res.ControllerID = anyOf(alive, h.o.NodeID)
	if q.IncludeClusterAuthorizedOperations && q.Version >= 8 && q.Version <= 10 {
		res.AuthorizedOperations = clusterOperations
	}
	d := topicDescriber{image: image, peer: peer, alive: alive, version: q.Version, operations: q.IncludeTopicAuthorizedOperations}
	switch {
	case q.Topics == nil, q.Version == 0 && len(q.Topics) == 0:
		for t := range image.Topics() {
			res.Topics = append(res.Topics, d.topic(t))
		}
	case byID(q):
		res.Topics = d.byID(q)
	default:
		res.Topics = d.byName(q, made)
	}
	return res
}

// topicDescriber describes topics as Metadata does.
type topicDescriber struct {
	image      *metadata.Image
	peer       *wire.Peer
	alive      []brokerAddress
	version    int16
	operations bool
}

func (d *topicDescriber) byID(q *kmsg.MetadataRequest) (all []kmsg.MetadataResponseTopic) {
	seen := map[metadata.UUID]bool{}
	for _, asked := range q.Topics {
		id := metadata.UUID(asked.TopicID)
		if id.IsZero() || seen[id] {
			continue
		}
		seen[id] = true
		if t, ok := d.image.TopicByID(id); ok {
			all = append(all, d.topic(t))
			continue
		}
		unknown := kmsg.NewMetadataResponseTopic()
		unknown.TopicID, unknown.ErrorCode = id, kerr.UnknownTopicID.Code
		all = append(all, unknown)
	}
	return all
}

func (d *topicDescriber) byName(q *kmsg.MetadataRequest, made map[string]int16) (all []kmsg.MetadataResponseTopic) {
	seen := map[string]bool{}
	for _, asked := range q.Topics {
		if asked.Topic == nil || seen[*asked.Topic] {
			continue
		}
		name := *asked.Topic
		seen[name] = true
		code, justMade := made[name]
		if t, ok := d.image.Topic(name); ok && !justMade {
			all = append(all, d.topic(t))
			continue
		}
		missing := kmsg.NewMetadataResponseTopic()
		missing.Topic, missing.ErrorCode, missing.IsInternal = &name, missingTopic(name), controller.InternalTopic(name)
		if justMade {
			missing.ErrorCode = code
		}
		if d.operations {
			missing.AuthorizedOperations = topicOperations
		}
		all = append(all, missing)
	}
	return all
}

// missingTopic is the error for a topic that is not there: that it cannot be, if so.
func missingTopic(name string) int16 {
	if controller.CheckTopicName(name) != "" {
		return kerr.InvalidTopicException.Code
	}
	return kerr.UnknownTopicOrPartition.Code
}

func (d *topicDescriber) topic(t *metadata.Topic) kmsg.MetadataResponseTopic {
	res := kmsg.NewMetadataResponseTopic()
	res.Topic, res.TopicID, res.IsInternal = &t.Name, t.ID, controller.InternalTopic(t.Name)
	if d.operations {
		res.AuthorizedOperations = topicOperations
	}
	res.Partitions = make([]kmsg.MetadataResponseTopicPartition, 0, len(t.Partitions))
	for number, state := range t.Partitions {
		p := kmsg.NewMetadataResponseTopicPartition()
		p.Partition, p.Replicas, p.ISR = int32(number), state.Replicas, state.ISR
		p.OfflineReplicas = offlineReplicas(d.image, state, d.alive)
		p.Leader, p.LeaderEpoch = state.Leader, state.LeaderEpoch
		switch {
		case isAlive(d.alive, state.Leader):
			p.ErrorCode = d.unavailable(&p)
		case d.version >= 6 && d.registered(state.Leader):
			p.Leader, p.ErrorCode = metadata.NoLeader, kerr.ListenerNotFound.Code
		default:
			p.Leader, p.ErrorCode = metadata.NoLeader, kerr.LeaderNotAvailable.Code
		}
		res.Partitions = append(res.Partitions, p)
	}
	return res
}

// unavailable leaves the dead out of version 0's replicas, and says so.
func (d *topicDescriber) unavailable(p *kmsg.MetadataResponseTopicPartition) int16 {
	if d.version > 0 {
		return 0
	}
	dead := func(id int32) bool { return !isAlive(d.alive, id) }
	if !slices.ContainsFunc(p.Replicas, dead) && !slices.ContainsFunc(p.ISR, dead) {
		return 0
	}
	p.Replicas = slices.DeleteFunc(slices.Clone(p.Replicas), dead)
	p.ISR = slices.DeleteFunc(slices.Clone(p.ISR), dead)
	return kerr.ReplicaNotAvailable.Code
}

// registered: the leader lives, but not on the listener that the client came by.
func (d *topicDescriber) registered(id int32) bool {
	b, ok := d.image.Broker(id)
	return ok && !b.Fenced
}

// aliveBrokers are the brokers that clients of the peer's listener can reach.
func aliveBrokers(image *metadata.Image, peer *wire.Peer) []brokerAddress {
	var all []brokerAddress
	for _, b := range image.Brokers() {
		if b.Fenced {
			continue
		}
		if a, ok := addressOf(b, peer); ok {
			all = append(all, a)
		}
	}
	return all
}

func isAlive(alive []brokerAddress, id int32) bool {
	return slices.ContainsFunc(alive, func(b brokerAddress) bool { return b.id == id })
}

// anyOf names a broker for the requests that go to the controller: any takes them, so this one does
// if it is listed. -1: none.
func anyOf(alive []brokerAddress, own int32) int32 {
	switch {
	case isAlive(alive, own):
		return own
	case len(alive) > 0:
		return alive[0].id
	}
	return -1
}

// offlineReplicas are those on brokers that cannot be reached, or in a directory that has failed.
func offlineReplicas(image *metadata.Image, p *metadata.Partition, alive []brokerAddress) []int32 {
	var offline []int32
	for i, id := range p.Replicas {
		b, ok := image.Broker(id)
		switch {
		case !ok || b.Fenced || !isAlive(alive, id):
			offline = append(offline, id)
		case i < len(p.Directories) && !online(b, p.Directories[i]):
			offline = append(offline, id)
		}
	}
	return offline
}

// online says whether a replica's directory serves, as far as its broker has said.
func online(b *metadata.Broker, directory metadata.UUID) bool {
	switch {
	case directory == metadata.LostDirectory:
		return false
	case directory.Reserved(), len(b.Directories) == 0:
		return true
	}
	return slices.Contains(b.Directories, directory)
}
