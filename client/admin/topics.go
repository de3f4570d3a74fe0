package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// NewTopic is a topic to be made.
type NewTopic struct {
	Name              string
	Partitions        int32             // 0: the broker's num.partitions
	ReplicationFactor int16             // 0: the broker's default.replication.factor
	Assignments       map[int32][]int32 // brokers by partition, the first to lead; Partitions and ReplicationFactor must be 0 then
	Configs           map[string]string // topic settings, for instance "retention.ms"
}

// CreatedTopic is what became of a NewTopic.
type CreatedTopic struct {
	Name              string
	ID                client.UUID
	Partitions        int32 // -1 where the broker does not say
	ReplicationFactor int16 // -1 where the broker does not say
	Configs           []ConfigEntry
	Err               error // ErrTopicAlreadyExists, ErrInvalidPartitions, ErrInvalidReplicationFactor, ErrInvalidConfig, …
}

// ChangeOption says how a change is made.
type ChangeOption func(*change)

type change struct{ validateOnly bool }

// ValidateOnly lets the broker check a change without making it.
func ValidateOnly() ChangeOption { return func(c *change) { c.validateOnly = true } }

func changes(options []ChangeOption) change {
	var c change
	for _, o := range options {
		o(&c)
	}
	return c
}

// CreateTopics makes topics. The results are in the order of the topics.
func (a *Admin) CreateTopics(ctx context.Context, topics []NewTopic, options ...ChangeOption) ([]CreatedTopic, error) {
	byName := map[string]NewTopic{}
	var names []string
	for _, t := range topics {
		byName[t.Name] = t
		names = append(names, t.Name)
	}
	return decide(ctx, a, "create topics", client.Controller, names,
		func(ctx context.Context, names []string) kmsg.Request {
			req := kmsg.NewPtrCreateTopicsRequest()
			req.TimeoutMillis, req.ValidateOnly = millis(ctx), changes(options).validateOnly
			for _, name := range names {
				req.Topics = append(req.Topics, newTopicRequest(byName[name]))
			}
			return req
		},
		func(resp *kmsg.CreateTopicsResponse, give func(string, CreatedTopic, error)) {
			for i := range resp.Topics {
				t := readCreatedTopic(&resp.Topics[i])
				give(t.Name, t, t.Err)
			}
		},
		func(name string, err error) CreatedTopic { return CreatedTopic{Name: name, Err: err} })
}

// CreateTopic makes one topic; the topic's own error is the call's.
func (a *Admin) CreateTopic(ctx context.Context, topic NewTopic, options ...ChangeOption) (CreatedTopic, error) {
	made, err := a.CreateTopics(ctx, []NewTopic{topic}, options...)
	if err != nil {
		return CreatedTopic{Name: topic.Name, Err: err}, err
	}
	if made[0].Err != nil {
		return made[0], fmt.Errorf("create topic %q: %w", topic.Name, made[0].Err)
	}
	return made[0], nil
}

// errLeftOut is the Err of an item that a broker's answer does not mention.
var errLeftOut = fmt.Errorf("the answer leaves it out: %w", client.ErrUnknownServerError)

func newTopicRequest(t NewTopic) kmsg.CreateTopicsRequestTopic {
	out := kmsg.NewCreateTopicsRequestTopic()
	out.Topic, out.NumPartitions, out.ReplicationFactor = t.Name, t.Partitions, t.ReplicationFactor
	if t.Partitions == 0 {
		out.NumPartitions = -1
	}
	if t.ReplicationFactor == 0 {
		out.ReplicationFactor = -1
	}
	for _, p := range slices.Sorted(maps.Keys(t.Assignments)) {
		out.ReplicaAssignment = append(out.ReplicaAssignment,
			kmsg.CreateTopicsRequestTopicReplicaAssignment{Partition: p, Replicas: t.Assignments[p]})
	}
	for _, name := range slices.Sorted(maps.Keys(t.Configs)) {
		out.Configs = append(out.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: name, Value: kmsg.StringPtr(t.Configs[name])})
	}
	return out
}

func readCreatedTopic(in *kmsg.CreateTopicsResponseTopic) CreatedTopic {
	t := CreatedTopic{
		Name: in.Topic, ID: in.TopicID, Partitions: in.NumPartitions, ReplicationFactor: in.ReplicationFactor,
		Err: client.CodeError(in.ErrorCode, in.ErrorMessage),
	}
	for _, c := range in.Configs {
		t.Configs = append(t.Configs, ConfigEntry{
			Name: c.Name, Value: text(c.Value), Null: c.Value == nil, ReadOnly: c.ReadOnly,
			Source: ConfigSource(c.Source), Sensitive: c.IsSensitive,
		})
	}
	return t
}

// TopicListing is a topic as ListTopics gives it.
type TopicListing struct {
	Name              string
	ID                client.UUID
	Internal          bool // kept by the brokers for themselves, as __consumer_offsets
	Partitions        int
	ReplicationFactor int // of the first partition
}

// ListTopics gives all topics, internal ones too, sorted by name.
func (a *Admin) ListTopics(ctx context.Context) ([]TopicListing, error) {
	req := kmsg.NewPtrMetadataRequest() // no list of topics: all
	var resp *kmsg.MetadataResponse
	err := a.try(ctx, func(ctx context.Context) (err error) {
		resp, err = ask[*kmsg.MetadataResponse](ctx, a, client.AnyBroker, req)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	var out []TopicListing
	for _, t := range resp.Topics {
		if t.ErrorCode != 0 || t.Topic == nil {
			continue // being made or deleted at this moment
		}
		l := TopicListing{Name: *t.Topic, ID: t.TopicID, Internal: t.IsInternal, Partitions: len(t.Partitions)}
		if len(t.Partitions) > 0 {
			l.ReplicationFactor = len(t.Partitions[0].Replicas)
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b TopicListing) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// TopicDescription is a topic as DescribeTopics gives it.
type TopicDescription struct {
	Name       string
	ID         client.UUID
	Internal   bool
	Partitions []PartitionDescription // by number

	AuthorizedOperations []ACLOperation // on the topic; nil without the option of that name
	Err                  error          // ErrUnknownTopicOrPartition, ErrUnknownTopicID, ErrTopicAuthorizationFailed, ErrInvalidTopic
}

// PartitionDescription is a partition of a topic.
type PartitionDescription struct {
	Partition   int32
	Leader      int32 // -1: none
	LeaderEpoch int32 // -1 where the broker does not say
	Replicas    []int32
	InSync      []int32
	Offline     []int32 // replicas on brokers or disks that are down
	// Eligible and LastKnownEligible are the ELR and the ELR before an unclean stop (KIP-966):
	// replicas outside InSync that have everything committed. Nil where the broker does not say.
	Eligible          []int32
	LastKnownEligible []int32
	Err               error // ErrLeaderNotAvailable
}

// DescribeTopics gives topics with their partitions, in the order of the names.
func (a *Admin) DescribeTopics(ctx context.Context, names ...string) ([]TopicDescription, error) {
	var byName map[string]*TopicDescription
	err := a.try(ctx, func(ctx context.Context) (err error) {
		byName, err = a.describeTopicPartitions(ctx, names)
		if errors.Is(err, client.ErrUnsupported) {
			byName, err = a.describeByMetadata(ctx, names)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	out := make([]TopicDescription, len(names))
	for i, name := range names {
		if t := byName[name]; t != nil {
			slices.SortFunc(t.Partitions, func(a, b PartitionDescription) int { return cmp.Compare(a.Partition, b.Partition) })
			out[i] = *t
		} else {
			out[i] = TopicDescription{Name: name, Err: errLeftOut}
		}
	}
	return out, nil
}

// partitionsPerAnswer is how many partitions a broker may describe in one answer; for more it is
// asked again, with a cursor.
const partitionsPerAnswer = 2000

func (a *Admin) describeTopicPartitions(ctx context.Context, names []string) (map[string]*TopicDescription, error) {
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.ResponsePartitionLimit = partitionsPerAnswer
	for _, name := range slices.Sorted(slices.Values(names)) { // the cursor is by name
		req.Topics = append(req.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: name})
	}
	out := map[string]*TopicDescription{}
	for {
		resp, err := ask[*kmsg.DescribeTopicPartitionsResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return nil, err
		}
		for i := range resp.Topics {
			t := &resp.Topics[i]
			d := out[text(t.Topic)]
			if d == nil {
				d = &TopicDescription{
					Name: text(t.Topic), ID: t.TopicID, Internal: t.IsInternal, Err: client.CodeError(t.ErrorCode, nil),
				}
				if a.authorized { // this request's answer has them unasked
					d.AuthorizedOperations = operations(t.AuthorizedOperations)
				}
				out[d.Name] = d
			}
			for _, p := range t.Partitions {
				d.Partitions = append(d.Partitions, PartitionDescription{
					Partition: p.Partition, Leader: p.LeaderID, LeaderEpoch: p.LeaderEpoch, Replicas: p.Replicas,
					InSync: p.ISR, Offline: p.OfflineReplicas, Eligible: p.EligibleLeaderReplicas,
					LastKnownEligible: p.LastKnownELR, Err: client.CodeError(p.ErrorCode, nil),
				})
			}
		}
		next := resp.NextCursor
		if next == nil {
			return out, nil
		}
		if c := req.Cursor; c != nil && c.Topic == next.Topic && c.Partition == next.Partition {
			return nil, fmt.Errorf("the cursor stays at %s-%d: %w", next.Topic, next.Partition, client.ErrUnknownServerError)
		}
		req.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: next.Topic, Partition: next.Partition}
		req.Topics = slices.DeleteFunc(req.Topics, func(t kmsg.DescribeTopicPartitionsRequestTopic) bool { return t.Topic < next.Topic })
	}
}

func (a *Admin) describeByMetadata(ctx context.Context, names []string) (map[string]*TopicDescription, error) {
	resp, err := a.metadata(ctx, names)
	if err != nil {
		return nil, err
	}
	out := map[string]*TopicDescription{}
	for i := range resp.Topics {
		d := a.readTopic(&resp.Topics[i])
		out[d.Name] = d
	}
	return out, nil
}

func (a *Admin) readTopic(t *kmsg.MetadataResponseTopic) *TopicDescription {
	d := &TopicDescription{Name: text(t.Topic), ID: t.TopicID, Internal: t.IsInternal, Err: client.CodeError(t.ErrorCode, nil)}
	if a.authorized {
		d.AuthorizedOperations = operations(t.AuthorizedOperations)
	}
	for _, p := range t.Partitions {
		d.Partitions = append(d.Partitions, PartitionDescription{
			Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: p.Replicas,
			InSync: p.ISR, Offline: p.OfflineReplicas, Err: client.CodeError(p.ErrorCode, nil),
		})
	}
	slices.SortFunc(d.Partitions, func(a, b PartitionDescription) int { return cmp.Compare(a.Partition, b.Partition) })
	return d
}

// metadata asks for topics, and creates none.
func (a *Admin) metadata(ctx context.Context, names []string) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics, req.IncludeTopicAuthorizedOperations = []kmsg.MetadataRequestTopic{}, a.authorized
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	return ask[*kmsg.MetadataResponse](ctx, a, client.AnyBroker, req)
}

// The versions of Metadata and DeleteTopics that topics' ids can be asked about with.
const (
	metadataByID     int16 = 12
	deleteTopicsByID int16 = 6
)

// DescribeTopicsByID gives topics with their partitions, in the order of the ids (KIP-516). A topic that was deleted and
// made again has another id: the Err of the old one is ErrUnknownTopicID.
func (a *Admin) DescribeTopicsByID(ctx context.Context, ids ...client.UUID) ([]TopicDescription, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics, req.IncludeTopicAuthorizedOperations = []kmsg.MetadataRequestTopic{}, a.authorized
	for _, id := range ids {
		t := kmsg.NewMetadataRequestTopic()
		t.TopicID = id
		req.Topics = append(req.Topics, t)
	}
	byID := map[client.UUID]TopicDescription{}
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.MetadataResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		if resp.Version < metadataByID {
			return tooOld(resp, metadataByID, "topic ids")
		}
		for i := range resp.Topics {
			byID[resp.Topics[i].TopicID] = *a.readTopic(&resp.Topics[i])
		}
		return client.CodeError(resp.ErrorCode, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	out := make([]TopicDescription, len(ids))
	for i, id := range ids {
		t, ok := byID[id]
		if !ok {
			t = TopicDescription{ID: id, Err: errLeftOut}
		}
		out[i] = t
	}
	return out, nil
}

// TopicResult is what became of a topic in a call that only changes it.
type TopicResult struct {
	Name string
	Err  error
}

// DeleteTopics deletes topics with all their records. The results are in the order of the names.
// Errors: ErrUnknownTopicOrPartition, ErrTopicDeletionDisabled, ErrTopicAuthorizationFailed.
func (a *Admin) DeleteTopics(ctx context.Context, names ...string) ([]TopicResult, error) {
	return decide(ctx, a, "delete topics", client.Controller, names,
		func(ctx context.Context, names []string) kmsg.Request {
			req := kmsg.NewPtrDeleteTopicsRequest()
			req.TimeoutMillis, req.TopicNames = millis(ctx), names
			for _, name := range names {
				t := kmsg.NewDeleteTopicsRequestTopic()
				t.Topic = kmsg.StringPtr(name)
				req.Topics = append(req.Topics, t)
			}
			return req
		},
		func(resp *kmsg.DeleteTopicsResponse, give func(string, TopicResult, error)) {
			for _, t := range resp.Topics {
				give(text(t.Topic), TopicResult{Name: text(t.Topic)}, client.CodeError(t.ErrorCode, t.ErrorMessage))
			}
		},
		failedTopic)
}

// TopicIDResult is what became of a topic that was named by its id.
type TopicIDResult struct {
	ID   client.UUID
	Name string // where the broker says it
	Err  error
}

// DeleteTopicsByID deletes topics with all their records, and none that has taken the name of one that is gone (KIP-516).
// The results are in the order of the ids. Errors: ErrUnknownTopicID, and those of DeleteTopics. Brokers before Kafka 2.8
// cannot: ErrUnsupported.
func (a *Admin) DeleteTopicsByID(ctx context.Context, ids ...client.UUID) ([]TopicIDResult, error) {
	return decide(ctx, a, "delete topics", client.Controller, ids,
		func(ctx context.Context, ids []client.UUID) kmsg.Request {
			req := kmsg.NewPtrDeleteTopicsRequest()
			req.TimeoutMillis = millis(ctx)
			for _, id := range ids {
				t := kmsg.NewDeleteTopicsRequestTopic()
				t.TopicID = id
				req.Topics = append(req.Topics, t)
			}
			return req
		},
		func(resp *kmsg.DeleteTopicsResponse, give func(client.UUID, TopicIDResult, error)) {
			for _, t := range resp.Topics {
				give(t.TopicID, TopicIDResult{ID: t.TopicID, Name: text(t.Topic)}, client.CodeError(t.ErrorCode, t.ErrorMessage))
			}
			if resp.Version < deleteTopicsByID { // then the request named no topic at all
				for _, id := range ids {
					give(id, TopicIDResult{}, tooOld(resp, deleteTopicsByID, "topic ids"))
				}
			}
		},
		func(id client.UUID, err error) TopicIDResult { return TopicIDResult{ID: id, Err: err} })
}

func failedTopic(name string, err error) TopicResult { return TopicResult{name, err} }

// MorePartitions is a topic that is to have more partitions.
type MorePartitions struct {
	Topic       string
	Total       int32     // how many it is to have in all
	Assignments [][]int32 // the brokers of each new partition; nil lets the cluster choose
}

// CreatePartitions adds partitions. Records stay where they are, and keys then hash to other
// partitions. The results are in the order of the topics.
func (a *Admin) CreatePartitions(ctx context.Context, topics []MorePartitions, options ...ChangeOption) ([]TopicResult, error) {
	byName := map[string]MorePartitions{}
	var names []string
	for _, t := range topics {
		byName[t.Topic] = t
		names = append(names, t.Topic)
	}
	return decide(ctx, a, "create partitions", client.Controller, names,
		func(ctx context.Context, names []string) kmsg.Request {
			req := kmsg.NewPtrCreatePartitionsRequest()
			req.TimeoutMillis, req.ValidateOnly = millis(ctx), changes(options).validateOnly
			for _, name := range names {
				in := kmsg.NewCreatePartitionsRequestTopic()
				in.Topic, in.Count = name, byName[name].Total
				for _, replicas := range byName[name].Assignments {
					in.Assignment = append(in.Assignment, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: replicas})
				}
				req.Topics = append(req.Topics, in)
			}
			return req
		},
		func(resp *kmsg.CreatePartitionsResponse, give func(string, TopicResult, error)) {
			for _, t := range resp.Topics {
				give(t.Topic, TopicResult{Name: t.Topic}, client.CodeError(t.ErrorCode, t.ErrorMessage))
			}
		},
		failedTopic)
}
