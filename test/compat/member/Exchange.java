import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The Java client's part in what TestOurClient exchanges between libraries: see client_exchange_test.go, which runs it.
 *
 * <pre>
 * write BROKERS TOPIC TRANSACTIONS    the records of the table, with every codec
 * read BROKERS TOPIC,TOPIC.. COUNT    so many of each topic, a line for each: TOPIC tab KEY|VALUE|HEADERS
 * </pre>
 */
final class Exchange {
    record Row(byte[] key, byte[] value, Object... headers) {}

    static final List<Row> TABLE = List.of(
            new Row(bytes("k"), bytes("v"), "a", bytes("1"), "b", null),
            new Row(null, bytes("v")),
            new Row(bytes("k"), null),
            new Row(bytes(""), bytes("")),
            new Row(null, null),
            new Row(bytes("k"), bytes("x".repeat(5000)), "a", bytes("1"), "a", bytes("2"), "c", bytes("")));

    static byte[] bytes(String s) {
        return s.getBytes(StandardCharsets.UTF_8);
    }

    static String shown(byte[] value) {
        if (value == null) {
            return "-";
        }
        if (value.length > 64) {
            return value.length + "*" + HexFormat.of().toHexDigits(value[0]);
        }
        return HexFormat.of().formatHex(value);
    }

    static void write(String brokers, String topic, boolean transactions) throws Exception {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            Map<String, Object> settings = new java.util.HashMap<>(
                    Map.of("bootstrap.servers", brokers, "compression.type", codec, "linger.ms", 50));
            if (transactions) {
                settings.put("transactional.id", topic + codec);
            }
            List<Row> last = List.of(new Row(bytes("last"), bytes(codec)));
            try (KafkaProducer<byte[], byte[]> producer =
                    new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
                if (!transactions) {
                    send(producer, topic, TABLE);
                    send(producer, topic, last);
                    continue;
                }
                producer.initTransactions();
                producer.beginTransaction();
                send(producer, topic, TABLE);
                producer.commitTransaction();
                producer.beginTransaction();
                Row aborted = new Row(bytes("aborted"), bytes("aborted"));
                send(producer, topic, List.of(aborted, aborted, aborted));
                producer.abortTransaction();
                producer.beginTransaction();
                send(producer, topic, last);
                producer.commitTransaction();
            }
        }
    }

    static void send(KafkaProducer<byte[], byte[]> producer, String topic, List<Row> rows) throws Exception {
        List<Future<?>> sent = new ArrayList<>();
        for (Row row : rows) {
            ProducerRecord<byte[], byte[]> r = new ProducerRecord<>(topic, 0, row.key(), row.value());
            for (int i = 0; i < row.headers().length; i += 2) {
                r.headers().add((String) row.headers()[i], (byte[]) row.headers()[i + 1]);
            }
            sent.add(producer.send(r));
        }
        producer.flush();
        for (Future<?> f : sent) {
            f.get();
        }
    }

    static void read(String brokers, String topics, int count) {
        Map<String, Object> settings = Map.of("bootstrap.servers", brokers, "isolation.level", "read_committed", "auto.offset.reset", "earliest");
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            for (String topic : topics.split(",")) {
                TopicPartition partition = new TopicPartition(topic, 0);
                consumer.assign(List.of(partition));
                consumer.seekToBeginning(List.of(partition));
                for (int n = 0; n < count; ) {
                    for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofSeconds(1))) {
                        List<String> headers = new ArrayList<>();
                        for (Header h : r.headers()) {
                            headers.add(h.key() + "=" + shown(h.value()));
                        }
                        System.out.println(topic + "\t" + shown(r.key()) + "|" + shown(r.value()) + "|" + String.join(",", headers));
                        n++;
                    }
                }
            }
        }
    }

    public static void main(String[] args) throws Exception {
        if (args[0].equals("write")) {
            write(args[1], args[2], Boolean.parseBoolean(args[3]));
        } else {
            read(args[1], args[2], Integer.parseInt(args[3]));
        }
    }
}
