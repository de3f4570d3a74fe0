import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** Numbered records, with each codec and each number of acknowledgements asked for. */
final class Produce {
    private final AtomicReference<Exception> failure = new AtomicReference<>();
    private final String topic;
    private final int size;
    private final int pause;

    private Produce(Client flags) {
        topic = flags.text("topic");
        size = flags.number("size");
        pause = flags.number("pace-ms", 0);
    }

    static void run(Client flags) throws Exception {
        Produce work = new Produce(flags);
        boolean idempotent = Boolean.parseBoolean(flags.text("idempotent", "false"));
        int count = flags.number("count");
        int start = flags.number("start");
        int next = start;
        for (String codec : flags.text("codec", "none").split(",")) {
            for (String acks : flags.text("acks", "all").split(",")) {
                Map<String, Object> settings = flags.settings();
                settings.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, codec);
                settings.put(ProducerConfig.ACKS_CONFIG, acks);
                settings.put(ProducerConfig.ENABLE_IDEMPOTENCE_CONFIG, idempotent);
                settings.put(ProducerConfig.DELIVERY_TIMEOUT_MS_CONFIG, 60_000);
                if (!idempotent) {
                    settings.put(ProducerConfig.MAX_IN_FLIGHT_REQUESTS_PER_CONNECTION, 1); // else a record sent again is overtaken
                }
                work.send(settings, next, next + count);
                next += count;
            }
        }
        Lines.print(Lines.object().put("done", next - start));
    }

    private void send(Map<String, Object> settings, int from, int to) throws Exception {
        try (Producer<String, String> producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            for (int i = from; i < to && failure.get() == null; i++) {
                int number = i;
                producer.send(record(number), (sent, error) -> {
                    if (error != null) {
                        failure.compareAndSet(null, error);
                        return;
                    }
                    Lines.print(Lines.object().put("acked", number).put("partition", sent.partition()).put("offset", sent.offset()));
                });
                if (pause > 0) {
                    Thread.sleep(pause);
                }
            }
        }
        if (failure.get() != null) {
            throw failure.get();
        }
    }

    private ProducerRecord<String, String> record(int number) {
        String text = Integer.toString(number);
        ProducerRecord<String, String> record =
                new ProducerRecord<>(topic, "k" + number % 100, text + " ".repeat(Math.max(0, size - text.length())));
        record.headers().add("n", text.getBytes(StandardCharsets.UTF_8));
        return record;
    }
}
