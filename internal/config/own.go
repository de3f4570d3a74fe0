package config

// ownKeys are ours, not Kafka's.
var ownKeys = []string{
	"admin.listener",
	"cluster.secret.file",
	"connection.max.unanswered.requests",
	"connection.stall.ms",
	"flush.before.ack",
	"log.flush.before.ack",
	"log.idle.close.ms",
	"log.max.open.files",
	"message.max.decompressed.bytes",
	"producer.id.max.entries",
	"replica.lag.max.messages",
	"request.memory.internal.bytes",
	"server.shutdown.timeout.ms",
}

// dynamicKeys exist in Kafka only once they are set at run time: they have no place among the
// defaults that DescribeConfigs lists.
var dynamicKeys = []string{
	"follower.replication.throttled.rate",
	"leader.replication.throttled.rate",
	"replica.alter.log.dirs.io.max.bytes.per.second",
}

// internalKeys are taken as Kafka takes them, but DescribeConfigs shows them only where they
// are set.
var internalKeys = []string{
	"controller.performance.always.log.threshold.ms",
	"controller.performance.sample.period.ms",
	"group.consumer.regex.refresh.interval.ms",
	"group.share.initialize.retry.interval.ms",
	"group.share.persister.class.name",
	"internal.metadata.delete.delay.millis",
	"internal.metadata.log.segment.bytes",
	"internal.metadata.max.batch.size.in.bytes",
	"internal.segment.bytes",
	"log.initial.task.delay.ms",
	"producer.id.expiration.check.interval.ms",
	"remote.log.index.file.cache.ttl.ms",
	"remote.log.manager.task.retry.backoff.max.ms",
	"remote.log.manager.task.retry.backoff.ms",
	"remote.log.manager.task.retry.jitter",
	"server.max.startup.time.ms",
	"share.coordinator.cold.partition.snapshot.interval.ms",
	"share.coordinator.state.topic.prune.interval.ms",
	"unclean.leader.election.interval.ms",
	"unstable.api.versions.enable",
	"unstable.feature.versions.enable",
}

// deviations are the defaults that differ from Kafka's, each with its row in docs/deviations.md.
var deviations = map[string]struct{ kafka, why string }{
	"broker.heartbeat.interval.ms": {"2000", "a broker that hangs is replaced within two seconds"},
	"broker.session.timeout.ms":    {"9000", "a broker that hangs is replaced within two seconds"},
	"controller.listener.names":    {"null", "a broker starts without a configuration file"},
	"default.replication.factor":   {"1", "three copies, or as many as there are brokers, so that a cluster is safe without a setting; on one broker that is one"},
	"listeners":                    {"PLAINTEXT://:9092", "without authentication only this machine is served"},
	"log.dir":                      {"/tmp/kafka-logs", "what is acknowledged must not lie where the system cleans up"},
	"metadata.log.segment.bytes":   {"1073741824", "the space is reserved on disk at once, so that metadata can change when the disk is full"},
	"min.insync.replicas":          {"1", "what was acknowledged is on two disks where there are three copies, so that one that is lost costs nothing"},
	"node.id":                      {"null", "a broker starts without a configuration file"},
	"process.roles":                {"null", "a broker starts without a configuration file"},
	"queued.max.request.bytes":     {"-1", "memory is bounded by configuration, not by traffic"},
}
