import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupListing;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;

/** What an administrator does, step by step. */
@SuppressWarnings("deprecation") // listConsumerGroups and state are what all versions of the library have
final class AdminSteps {
    private static final String RETENTION = "retention.ms";

    private final Admin admin;
    private final String topic;
    private final String data;
    private final String group;

    private AdminSteps(Admin admin, Client flags) {
        this.admin = admin;
        topic = flags.text("topic");
        data = flags.text("data");
        group = flags.text("group");
    }

    static void run(Client flags) {
        try (Admin admin = Admin.create(flags.settings())) {
            new AdminSteps(admin, flags).all();
        }
    }

    private void all() {
        step("create-topic", () -> {
            NewTopic wanted = new NewTopic(topic, 3, (short) 1).configs(Map.of(RETENTION, "3600000"));
            return admin.createTopics(Set.of(wanted)).all().get();
        });
        step("describe-topic", this::partitions);
        step("describe-config", this::retention);
        step("alter-config", () -> {
            AlterConfigOp set = new AlterConfigOp(new ConfigEntry(RETENTION, "7200000"), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(resource(), Set.of(set))).all().get();
            return soon(() -> Optional.of(retention()).filter("7200000"::equals));
        });
        step("create-partitions", () -> {
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
            return soon(() -> partitions() == 5 ? Optional.of(5) : Optional.empty());
        });
        step("list-offsets", () -> {
            ObjectNode found = Lines.object();
            for (int p = 0; p < 3; p++) {
                found.putArray(Integer.toString(p)).add(offset(p, OffsetSpec.earliest())).add(offset(p, OffsetSpec.latest()));
            }
            return found;
        });
        step("describe-cluster", () -> {
            var cluster = admin.describeCluster();
            ObjectNode found = Lines.object();
            var brokers = found.putArray("brokers");
            cluster.nodes().get().stream().mapToInt(Node::id).sorted().forEach(brokers::add);
            return found.put("controller", cluster.controller().get().id());
        });
        step("list-groups", () -> names(admin.listConsumerGroups().all().get()));
        step("describe-group", () -> admin.describeConsumerGroups(Set.of(group)).describedGroups().get(group).get().state().toString());
        step("fetch-offsets", () -> {
            Map<Integer, Long> found = new TreeMap<>();
            admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().forEach((p, o) -> {
                if (p.topic().equals(data)) {
                    found.put(p.partition(), o.offset());
                }
            });
            return found;
        });
        step("delete-records", () -> {
            TopicPartition first = new TopicPartition(data, 0);
            admin.deleteRecords(Map.of(first, RecordsToDelete.beforeOffset(10))).all().get();
            return offset(0, OffsetSpec.earliest());
        });
        step("delete-group", () -> admin.deleteConsumerGroups(Set.of(group)).all().get());
        step("delete-topic", () -> admin.deleteTopics(Set.of(topic)).all().get());
    }

    private int partitions() throws Exception {
        // Metadata of a broker may be a moment behind what the controller has answered.
        return soon(() -> {
            try {
                return Optional.of(Topics.describe(admin, topic).get().partitions().size());
            } catch (ExecutionException e) {
                if (e.getCause() instanceof org.apache.kafka.common.errors.UnknownTopicOrPartitionException) {
                    return Optional.empty();
                }
                throw e;
            }
        });
    }

    private ConfigResource resource() {
        return new ConfigResource(ConfigResource.Type.TOPIC, topic);
    }

    private String retention() throws Exception {
        return admin.describeConfigs(Set.of(resource())).all().get().get(resource()).get(RETENTION).value();
    }

    private long offset(int partition, OffsetSpec spec) throws Exception {
        TopicPartition p = new TopicPartition(data, partition);
        return admin.listOffsets(Map.of(p, spec)).partitionResult(p).get().offset();
    }

    private static List<String> names(Collection<ConsumerGroupListing> groups) {
        return groups.stream().map(ConsumerGroupListing::groupId).sorted().collect(Collectors.toList());
    }

    private static <T> T soon(Callable<Optional<T>> attempt) throws Exception {
        for (long deadline = System.nanoTime() + 60_000_000_000L; ; Thread.sleep(50)) {
            Optional<T> found = attempt.call();
            if (found.isPresent()) {
                return found.get();
            }
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException("not within 60 s");
            }
        }
    }

    private static void step(String name, Callable<?> action) {
        ObjectNode line = Lines.object().put("step", name);
        try {
            JsonNode detail = Lines.JSON.valueToTree(action.call());
            line.put("ok", true).set("detail", detail);
        } catch (Exception e) {
            line.put("ok", false).put("detail", (e instanceof ExecutionException ? e.getCause() : e).toString());
        }
        Lines.print(line);
    }
}
