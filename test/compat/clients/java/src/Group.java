import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/** A member of a group that says what it is given, reads and commits. */
final class Group implements ConsumerRebalanceListener {
    static final Map<String, Class<?>> ASSIGNORS = Map.of(
            "range", RangeAssignor.class,
            "roundrobin", RoundRobinAssignor.class,
            "sticky", StickyAssignor.class,
            "cooperative-sticky", CooperativeStickyAssignor.class);

    private final Consumer<String, String> consumer;
    private final int commitEvery;
    private final Map<TopicPartition, OffsetAndMetadata> uncommitted = new HashMap<>();
    private int sinceCommit;

    private Group(Consumer<String, String> consumer, int commitEvery) {
        this.consumer = consumer;
        this.commitEvery = commitEvery;
    }

    static void run(Client flags) {
        AtomicBoolean stopping = new AtomicBoolean();
        Client.onTermination(() -> stopping.set(true));
        try (Consumer<String, String> consumer =
                new KafkaConsumer<>(settings(flags), new StringDeserializer(), new StringDeserializer())) {
            Group member = new Group(consumer, flags.number("commit-every", 50));
            consumer.subscribe(Set.of(flags.text("topic")), member);
            while (!stopping.get()) {
                for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(200))) {
                    member.read(r);
                }
            }
            member.commit(); // closing revokes too, but what it commits then is told by the listener
        }
        Lines.print(Lines.object().put("left", true));
    }

    static Map<String, Object> settings(Client flags) {
        Map<String, Object> settings = flags.settings();
        settings.put(ConsumerConfig.GROUP_ID_CONFIG, flags.text("group"));
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        settings.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        settings.put(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG, 1_000);
        String instance = flags.text("instance", "");
        settings.put(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, instance.isEmpty() ? 6_000 : 30_000);
        if (!instance.isEmpty()) {
            settings.put(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG, instance);
        }
        String assignor = flags.text("assignor", "");
        if (!assignor.isEmpty()) {
            settings.put(ConsumerConfig.PARTITION_ASSIGNMENT_STRATEGY_CONFIG, ASSIGNORS.get(assignor).getName());
        }
        return settings;
    }

    private void read(ConsumerRecord<String, String> r) {
        ObjectNode line = Lines.object();
        line.putObject("record").put("partition", r.partition()).put("offset", r.offset()).put("value", Consume.unpadded(r.value()));
        Lines.print(line);
        uncommitted.put(new TopicPartition(r.topic(), r.partition()), new OffsetAndMetadata(r.offset() + 1));
        if (++sinceCommit >= commitEvery) {
            commit();
        }
    }

    /** Commits what has been printed. What is refused stays, and goes with the next commit. */
    private void commit() {
        sinceCommit = 0;
        if (uncommitted.isEmpty()) {
            return;
        }
        Map<TopicPartition, OffsetAndMetadata> offsets = Map.copyOf(uncommitted);
        try {
            consumer.commitSync(offsets);
        } catch (KafkaException e) {
            System.err.println("commit " + offsets + ": " + e);
            return;
        }
        uncommitted.clear();
        ObjectNode line = Lines.object();
        ObjectNode committed = line.putObject("committed");
        offsets.forEach((p, o) -> committed.put(Integer.toString(p.partition()), o.offset()));
        Lines.print(line);
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        tell("assigned", partitions);
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        if (partitions.isEmpty()) {
            return;
        }
        commit();
        onPartitionsLost(partitions);
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
        uncommitted.keySet().removeAll(partitions);
        tell("revoked", partitions);
    }

    static void tell(String what, Collection<TopicPartition> partitions) {
        ObjectNode line = Lines.object();
        ArrayNode numbers = line.putArray(what);
        partitions.stream().mapToInt(TopicPartition::partition).sorted().forEach(numbers::add);
        Lines.print(line);
    }
}
