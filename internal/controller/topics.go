package controller

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/config"
	"barnabas/internal/metadata"
	"barnabas/internal/uuid"
)

// createTopics decides CreateTopics. A topic that cannot be made does not keep the others from it.
func createTopics(v *view, req *kmsg.CreateTopicsRequest) ([]metadata.Record, *kmsg.CreateTopicsResponse) {
	resp := kmsg.NewPtrCreateTopicsResponse()
	resp.Version = req.Version
	if tooMany := v.tooManyPartitions(req); tooMany != nil {
		return nil, refuseCreation(req, tooMany)
	}
	times := make(map[string]int)
	for _, t := range req.Topics {
		times[t.Topic]++
	}
	var records []metadata.Record
	for i := range req.Topics {
		t := &req.Topics[i]
		switch n := times[t.Topic]; {
		case n == 0: // a duplicate that has been answered
		case n > 1:
			resp.Topics = append(resp.Topics, notCreated(t.Topic, refuse(kerr.InvalidRequest, "topic %q is in the request %d times", t.Topic, n)))
			times[t.Topic] = 0
		default:
			made, result := v.createTopic(t)
			records = append(records, made...)
			resp.Topics = append(resp.Topics, result)
		}
	}
	if len(records) > maxRecordsPerRequest {
		return nil, refuseCreation(req, tooMuch(len(records)))
	}
	if req.ValidateOnly {
		return nil, resp
	}
	return records, resp
}

func tooMuch(records int) *refusal {
	return refuse(kerr.PolicyViolation, "%d changes in one request; %d are allowed: send several", records, maxRecordsPerRequest)
}

// tooManyPartitions refuses a request before its partitions cost anything.
func (v *view) tooManyPartitions(req *kmsg.CreateTopicsRequest) *refusal {
	total := 0
	for _, t := range req.Topics {
		switch {
		case len(t.ReplicaAssignment) > 0:
			total += len(t.ReplicaAssignment)
		case t.NumPartitions == -1:
			total += v.settings.Int("num.partitions")
		default:
			total += max(int(t.NumPartitions), 0)
		}
	}
	if total > maxRecordsPerRequest {
		return refuse(kerr.PolicyViolation, "%d partitions in one request; %d are allowed: send several", total, maxRecordsPerRequest)
	}
	return nil
}

// refuseCreation answers every topic of a request alike.
func refuseCreation(req *kmsg.CreateTopicsRequest, why *refusal) *kmsg.CreateTopicsResponse {
	resp := kmsg.NewPtrCreateTopicsResponse()
	resp.Version = req.Version
	var seen map[string]bool
	for _, t := range req.Topics {
		if !seen[t.Topic] {
			resp.Topics = append(resp.Topics, notCreated(t.Topic, why))
		}
		if seen == nil {
			seen = make(map[string]bool)
		}
		seen[t.Topic] = true
	}
	return resp
}

func notCreated(topic string, why *refusal) kmsg.CreateTopicsResponseTopic {
	r := kmsg.NewCreateTopicsResponseTopic()
	r.Topic = topic
	r.ErrorCode, r.ErrorMessage = why.fields()
	return r
}

func (v *view) createTopic(t *kmsg.CreateTopicsRequestTopic) ([]metadata.Record, kmsg.CreateTopicsResponseTopic) {
	if t.Topic == metadataTopic {
		return nil, notCreated(t.Topic, refuse(kerr.InvalidRequest, "%s is the cluster's own and nobody creates it", metadataTopic))
	}
	if why := checkNewName(v.image, t.Topic); why != nil {
		return nil, notCreated(t.Topic, why)
	}
	configs, why := newTopicConfigs(t.Configs)
	if why != nil {
		return nil, notCreated(t.Topic, why)
	}
	where, why := v.placeTopic(t)
	if why != nil {
		return nil, notCreated(t.Topic, why)
	}
	id, err := uuid.New(v.ids)
	if err != nil {
		return nil, notCreated(t.Topic, refuse(kerr.UnknownServerError, "%v", err))
	}
	records := []metadata.Record{&metadata.TopicRecord{Name: t.Topic, Id: id.Bytes()}}
	records = append(records, configRecords(metadata.Resource{Kind: metadata.TopicResource, Name: t.Topic}, nil, configs)...)
	durable := v.settings.Topic(configs).Bool("flush.before.ack")
	for n, w := range where {
		record, ok := w.record(v.image, id, int32(n), durable)
		if !ok {
			return nil, notCreated(t.Topic, allDown(t, n))
		}
		records = append(records, record)
	}
	return records, v.created(t.Topic, id, configs, where)
}

// allDown is Kafka's choice of code: it blames the assignment if there is one.
func allDown(t *kmsg.CreateTopicsRequestTopic, partition int) *refusal {
	code := kerr.InvalidReplicationFactor
	if len(t.ReplicaAssignment) > 0 {
		code = kerr.InvalidReplicaAssignment
	}
	return refuse(code, "all brokers for partition %d are fenced or shutting down", partition)
}

// created answers for a topic that will exist. The message of a success is a warning.
func (v *view) created(name string, id metadata.UUID, configs map[string]string, where []placement) kmsg.CreateTopicsResponseTopic {
	r := kmsg.NewCreateTopicsResponseTopic()
	r.Topic, r.TopicID = name, id
	r.NumPartitions, r.ReplicationFactor = int32(len(where)), int16(len(where[0].replicas))
	effective := v.settings.Topic(configs)
	for _, e := range effective.Entries(int(r.ReplicationFactor)) {
		// Clients may look up what is told here in Kafka's own table of settings, so they are told of
		// ours only if they know them. DescribeConfigs shows all.
		if _, set := configs[e.Key.Name]; e.Key.Own && !set {
			continue
		}
		c := kmsg.NewCreateTopicsResponseTopicConfig()
		c.Name, c.ReadOnly, c.Source, c.IsSensitive = e.Key.Name, e.ReadOnly, int8(e.Source), e.Sensitive
		if !e.Null {
			c.Value = kmsg.StringPtr(e.Value)
		}
		r.Configs = append(r.Configs, c)
	}
	if warning := minISRWarning(effective, int(r.ReplicationFactor)); warning != "" {
		r.ErrorMessage = kmsg.StringPtr(warning)
	}
	return r
}

// minISRWarning tells of a min.insync.replicas that has no effect, or is empty.
func minISRWarning(t *config.Topic, replicationFactor int) string {
	configured := t.Int("min.insync.replicas")
	effective, lowered := metadata.EffectiveMinISR(configured, replicationFactor)
	if !lowered {
		return ""
	}
	return fmt.Sprintf("warning: min.insync.replicas is %d but there are only %d replicas, so writes with acks=all wait for %d", configured, replicationFactor, effective)
}

// placeTopic finds brokers for all partitions of a new topic.
func (v *view) placeTopic(t *kmsg.CreateTopicsRequestTopic) ([]placement, *refusal) {
	p := newPlacer(v.image, v.random)
	if len(t.ReplicaAssignment) > 0 {
		return assignTopic(p, t)
	}
	switch {
	case t.ReplicationFactor < -1 || t.ReplicationFactor == 0:
		return nil, refuse(kerr.InvalidReplicationFactor, "replication factor %d: it is at least 1, or -1 for the default", t.ReplicationFactor)
	case t.NumPartitions < -1 || t.NumPartitions == 0:
		return nil, refuse(kerr.InvalidPartitions, "%d partitions: there is at least 1, or -1 for the default", t.NumPartitions)
	}
	partitions, replicationFactor := int(t.NumPartitions), int(t.ReplicationFactor)
	if partitions == -1 {
		partitions = v.settings.Int("num.partitions")
	}
	if replicationFactor == -1 {
		replicationFactor = v.automaticReplicationFactor(v.settings.Int("default.replication.factor"))
	}
	if why := p.check(replicationFactor); why != nil {
		return nil, why
	}
	where := make([]placement, partitions)
	for n := range where {
		where[n] = p.place(replicationFactor)
	}
	return where, nil
}

func assignTopic(p *placer, t *kmsg.CreateTopicsRequestTopic) ([]placement, *refusal) {
	if t.ReplicationFactor != -1 || t.NumPartitions != -1 {
		return nil, refuse(kerr.InvalidRequest, "with an assignment of replicas, the number of partitions and the replication factor are -1")
	}
	where := make([]placement, len(t.ReplicaAssignment))
	replicationFactor := 0
	for _, a := range t.ReplicaAssignment {
		w, why := p.assign(a.Replicas, replicationFactor)
		if why != nil {
			return nil, why
		}
		if a.Partition < 0 || int(a.Partition) >= len(where) || where[a.Partition].replicas != nil {
			return nil, refuse(kerr.InvalidReplicaAssignment, "partition %d: %d assignments are for the partitions 0 to %d, each once", a.Partition, len(where), len(where)-1)
		}
		replicationFactor, where[a.Partition] = len(w.replicas), w
	}
	return where, nil
}

// newTopicConfigs checks the configs of a topic to be. As in Kafka, of a key given twice the last
// value counts.
func newTopicConfigs(given []kmsg.CreateTopicsRequestTopicConfig) (map[string]string, *refusal) {
	configs := make(map[string]string, len(given))
	var null []string
	for _, c := range given {
		if c.Value == nil {
			null = append(null, c.Name)
			continue
		}
		configs[c.Name] = validText(*c.Value)
	}
	if len(null) > 0 {
		return nil, refuse(kerr.InvalidConfig, "no value for %s", strings.Join(null, ", "))
	}
	if err := checkSizes(configs); err != nil {
		return nil, err
	}
	if err := config.CheckTopic(configs); err != nil {
		return nil, refuse(kerr.InvalidConfig, "%v", err)
	}
	return configs, nil
}

// configRecords returns what turns the configs of a resource from old into next, by key.
func configRecords(r metadata.Resource, old, next map[string]string) (records []metadata.Record) {
	keys := maps.Clone(next)
	if keys == nil {
		keys = make(map[string]string)
	}
	maps.Copy(keys, old)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		was, had := old[key]
		is, has := next[key]
		if had == has && was == is {
			continue
		}
		record := &metadata.ConfigRecord{Kind: int32(r.Kind), Name: r.Name, Key: key}
		if has {
			record.Value = kmsg.StringPtr(is)
		}
		records = append(records, record)
	}
	return records
}

// topicDefaults are what a broker is configured with for topics that are made because somebody uses them there
// (num.partitions, default.replication.factor); 0: it says nothing, and the controller's hold. A request to create
// topics that leaves them open gets the controller's in any case, as in Kafka (KAFKA-19655).
type topicDefaults struct {
	Partitions        int32 `json:"partitions,omitempty"`
	ReplicationFactor int16 `json:"replicationFactor,omitempty"`
}

func topicDefaultsOf(own *config.Set) (d topicDefaults) {
	if own.IsSet("num.partitions") {
		d.Partitions = int32(own.Int("num.partitions"))
	}
	if own.IsSet("default.replication.factor") {
		d.ReplicationFactor = int16(min(own.Int("default.replication.factor"), math.MaxInt16))
	}
	return d
}

// autoCreateRequest asks for topics that are made because somebody uses them. Internal ones get what
// their coordinator's settings say, others the defaults.
func autoCreateRequest(v *view, names []string, defaults topicDefaults) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version = req.MaxVersion()
	for _, name := range names {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic = name
		t.NumPartitions, t.ReplicationFactor = cmp.Or(defaults.Partitions, -1), cmp.Or(defaults.ReplicationFactor, -1)
		switch name {
		case offsetsTopic:
			internalTopic(&t, v, "compact")
			setConfig(&t, "compression.type", "producer")
		case transactionsTopic:
			internalTopic(&t, v, "compact")
			setConfig(&t, "compression.type", "uncompressed")
			setConfig(&t, "unclean.leader.election.enable", "false")
		case shareStateTopic:
			internalTopic(&t, v, "delete")
			setConfig(&t, "compression.type", "producer")
			setConfig(&t, "retention.ms", "-1")
		}
		req.Topics = append(req.Topics, t)
	}
	return req
}

// minISRFrom is the number of replicas from which an internal topic asks for more than one in-sync replica: of two
// either must be able to fail.
const minISRFrom = 3

// coordinatorSettings is what the settings of an internal topic begin with; "" for any other topic.
func coordinatorSettings(topic string) (prefix string) {
	switch topic {
	case offsetsTopic:
		return "offsets.topic."
	case transactionsTopic:
		return "transaction.state.log."
	case shareStateTopic:
		return "share.coordinator.state.topic."
	}
	return ""
}

// coordinatorMinISR is the min.insync.replicas that an internal topic sets for itself, from minISRFrom replicas on; 1 where
// it leaves that to the default.
func (v *view) coordinatorMinISR(topic string) int {
	switch topic {
	case transactionsTopic, shareStateTopic:
		return v.settings.Int(coordinatorSettings(topic) + "min.isr")
	}
	return 1
}

// internalTopic fills in what the settings of its coordinator say. The replication factor is lowered to the
// number of brokers, so that one node needs no setting changed; raiseInternal makes up for it when brokers join.
func internalTopic(t *kmsg.CreateTopicsRequestTopic, v *view, cleanup string) {
	prefix, minISR := coordinatorSettings(t.Topic), v.coordinatorMinISR(t.Topic)
	t.NumPartitions = int32(v.settings.Int(prefix + "num.partitions"))
	replicationFactor := max(min(v.settings.Int(prefix+"replication.factor"), len(v.image.Brokers())), 1)
	t.ReplicationFactor = int16(replicationFactor)
	setConfig(t, "cleanup.policy", cleanup)
	setConfig(t, "segment.bytes", strconv.Itoa(segmentBytes(v.settings, prefix+"segment.bytes")))
	if minISR > 1 && replicationFactor >= minISRFrom {
		setConfig(t, "min.insync.replicas", strconv.Itoa(minISR))
	}
}

// segmentBytes is a setting that may be lower than what a topic may have.
func segmentBytes(settings *config.Set, key string) int {
	const lowest = 1 << 20 // segment.bytes takes no less (KIP-1030)
	return max(settings.Int(key), lowest)
}

func setConfig(t *kmsg.CreateTopicsRequestTopic, key, value string) {
	c := kmsg.NewCreateTopicsRequestTopicConfig()
	c.Name, c.Value = key, kmsg.StringPtr(value)
	t.Configs = append(t.Configs, c)
}

// autoCreateTopics decides the creation of topics that somebody uses. One that exists is as good as
// made.
func autoCreateTopics(v *view, names []string, defaults topicDefaults) ([]metadata.Record, *kmsg.CreateTopicsResponse) {
	return createTopics(v, autoCreateRequest(v, names, defaults))
}
