import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;

/** A topic from its beginning, without a group. */
final class Consume {
    private static final Duration PATIENCE = Duration.ofSeconds(60);

    private Consume() {}

    static void run(Client flags) {
        var settings = flags.settings();
        settings.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        int wanted = flags.number("count");
        int seen = 0;
        try (Consumer<String, String> consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> all = consumer.partitionsFor(flags.text("topic")).stream()
                    .map(p -> new TopicPartition(p.topic(), p.partition()))
                    .toList();
            consumer.assign(all);
            consumer.seekToBeginning(all);
            long deadline = System.nanoTime() + PATIENCE.toNanos();
            while (seen < wanted) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException(seen + " of " + wanted + " records within " + PATIENCE);
                }
                for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(500))) {
                    if (seen++ < wanted) {
                        print(r);
                    }
                }
            }
        }
        Lines.print(Lines.object().put("done", wanted));
    }

    private static void print(ConsumerRecord<String, String> r) {
        Header number = r.headers().lastHeader("n");
        Lines.print(Lines.object()
                .put("partition", r.partition())
                .put("offset", r.offset())
                .put("key", r.key() == null ? "" : r.key())
                .put("value", unpadded(r.value()))
                .put("header", number == null ? "" : new String(number.value(), StandardCharsets.UTF_8)));
    }

    static String unpadded(String value) {
        return value == null ? "" : value.stripTrailing();
    }
}
