import java.time.Duration;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What a broker has to refuse, and the name of the error it gives. */
final class Refusals {
    private Refusals() {}

    static void run(Client flags) {
        String topic = flags.text("topic");
        String group = flags.text("group");
        try (Admin admin = Admin.create(flags.settings())) {
            refused("create-existing", () -> admin.createTopics(Set.of(new NewTopic(topic, 1, (short) 1))).all().get());
            refused("bad-name", () -> admin.createTopics(Set.of(new NewTopic("not a name", 1, (short) 1))).all().get());
            refused("bad-partitions", () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(1))).all().get());
            refused("bad-config", () -> {
                NewTopic wrong = new NewTopic(topic + "-config", 1, (short) 1).configs(Map.of("retention.ms", "soon"));
                return admin.createTopics(Set.of(wrong)).all().get();
            });
            refused("too-large", () -> tooLarge(flags, topic));
            refused("out-of-range", () -> outOfRange(flags, topic));
            refused("delete-missing", () -> admin.deleteTopics(Set.of(topic + "-missing")).all().get());
            refused("delete-busy-group", () -> admin.deleteConsumerGroups(Set.of(group)).all().get());
            refused("delete-missing-group", () -> admin.deleteConsumerGroups(Set.of(group + "-missing")).all().get());
        }
    }

    private static Object tooLarge(Client flags, String topic) throws Exception {
        Map<String, Object> settings = flags.settings();
        settings.put(ProducerConfig.MAX_REQUEST_SIZE_CONFIG, 10_000_000);
        try (Producer<byte[], byte[]> producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            return producer.send(new ProducerRecord<>(topic, new byte[5_000])).get();
        }
    }

    private static Object outOfRange(Client flags, String topic) {
        Map<String, Object> settings = flags.settings();
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "none");
        settings.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        TopicPartition first = new TopicPartition(topic, 0);
        try (Consumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(Set.of(first));
            consumer.seek(first, 1_000_000);
            for (long deadline = System.nanoTime() + 60_000_000_000L; System.nanoTime() < deadline; ) {
                consumer.poll(Duration.ofSeconds(1));
            }
            return null;
        }
    }

    private static void refused(String name, Callable<?> action) {
        Throwable answer = null;
        try {
            action.call();
        } catch (ExecutionException e) {
            answer = e.getCause();
        } catch (Exception e) {
            answer = e;
        }
        Errors error = answer == null ? Errors.NONE
                : answer instanceof OffsetOutOfRangeException ? Errors.OFFSET_OUT_OF_RANGE // the consumer's own class of it
                : Errors.forException(answer);
        if (error == Errors.UNKNOWN_SERVER_ERROR) { // what the table does not have, such as a timeout of the client's own
            System.err.println(name + ": " + answer);
        }
        Lines.print(Lines.object().put("case", name).put("error", error.name()));
    }
}
