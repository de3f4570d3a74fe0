package controller

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/config"
	"barnabas/internal/metadata"
)

// autoCreateRequest asks for topics that are made because somebody uses them. Internal ones get what
// their coordinator's settings say, others the defaults.
func autoCreateRequest(v *view, names []string) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version = req.MaxVersion()
	for _, name := range names {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = name, -1, -1
		switch name {
		case offsetsTopic:
			internalTopic(&t, v, "offsets.topic.", 1, "compact")
			setConfig(&t, "compression.type", "producer")
		case transactionsTopic:
			internalTopic(&t, v, "transaction.state.log.", v.settings.Int("transaction.state.log.min.isr"), "compact")
			setConfig(&t, "compression.type", "uncompressed")
			setConfig(&t, "unclean.leader.election.enable", "false")
		case shareStateTopic:
			internalTopic(&t, v, "share.coordinator.state.topic.", v.settings.Int("share.coordinator.state.topic.min.isr"), "delete")
			setConfig(&t, "compression.type", "producer")
			setConfig(&t, "retention.ms", "-1")
		}
		req.Topics = append(req.Topics, t)
	}
	return req
}

// internalTopic fills in what the settings that begin with prefix say. The replication factor is
// lowered to the number of brokers, so that one node needs no setting changed; min.insync.replicas
// is only asked for from three replicas on, since of two either must be able to fail.
func internalTopic(t *kmsg.CreateTopicsRequestTopic, v *view, prefix string, minISR int, cleanup string) {
	t.NumPartitions = int32(v.settings.Int(prefix + "num.partitions"))
	replicationFactor := v.atMost(max(min(v.settings.Int(prefix+"replication.factor"), len(v.image.Brokers())), 1))
	t.ReplicationFactor = int16(replicationFactor)
	setConfig(t, "cleanup.policy", cleanup)
	setConfig(t, "segment.bytes", strconv.Itoa(segmentBytes(v.settings, prefix+"segment.bytes")))
	if minISR > 1 && replicationFactor >= 3 {
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
func autoCreateTopics(v *view, names []string) ([]metadata.Record, *kmsg.CreateTopicsResponse) {
	return createTopics(v, autoCreateRequest(v, names))
}
