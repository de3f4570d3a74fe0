import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * A member of the group that counts flights. Per partition it keeps the next offset and the sums per
 * airport in one file that is replaced as a whole, so a flight that comes again counts once, whoever
 * read it first. What it prints is described in flights_group_test.go, two folders up.
 */
final class Flights implements ConsumerRebalanceListener {
    /** What has been counted of one partition, up to the offset next. */
    private static final class Sums {
        long next;
        final Map<String, long[]> airports = new HashMap<>(); // flights, minutes of delay
    }

    private final Consumer<String, String> consumer;
    private final Path state;
    private final Map<TopicPartition, Sums> mine = new HashMap<>();

    private Flights(Consumer<String, String> consumer, Path state) {
        this.consumer = consumer;
        this.state = state;
    }

    static void run(Client flags) throws IOException {
        AtomicBoolean stopping = new AtomicBoolean();
        Client.onTermination(() -> stopping.set(true));
        Map<String, Object> settings = Group.settings(flags);
        settings.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 10_000);
        try (Consumer<String, String> consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            Flights member = new Flights(consumer, Path.of(flags.text("state")));
            consumer.subscribe(Set.of(flags.text("topic")), member);
            while (!stopping.get()) {
                var records = consumer.poll(Duration.ofMillis(200));
                Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                for (TopicPartition p : records.partitions()) {
                    offsets.put(p, new OffsetAndMetadata(member.count(p, records.records(p))));
                }
                member.commit(offsets);
            }
        }
        Lines.print(Lines.object().put("left", true));
    }

    private long count(TopicPartition p, List<ConsumerRecord<String, String>> records) throws IOException {
        Sums sums = mine.get(p);
        for (ConsumerRecord<String, String> r : records) {
            if (r.offset() < sums.next) {
                continue;
            }
            if (r.offset() > sums.next) {
                throw new IllegalStateException(p + ": offset " + r.offset() + " came where " + sums.next + " should");
            }
            JsonNode flight = Lines.JSON.readTree(r.value());
            String origin = flight.get("origin").textValue();
            long[] airport = sums.airports.computeIfAbsent(origin, o -> new long[2]);
            if (flight.get("n").longValue() != airport[0] + 1 || !origin.equals(r.key())) {
                throw new IllegalStateException(p + ", offset " + r.offset() + ": " + r.value() + " came after flight " + airport[0]);
            }
            airport[0]++;
            airport[1] += flight.get("delay").longValue();
            sums.next++;
        }
        save(p.partition(), sums);
        return sums.next;
    }

    private void save(int partition, Sums sums) throws IOException {
        ObjectNode text = Lines.object().put("next", sums.next);
        ObjectNode airports = text.putObject("airports");
        sums.airports.forEach((name, a) -> airports.putObject(name).put("flights", a[0]).put("delays", a[1]));
        Path whole = file(partition);
        Path fresh = state.resolve(partition + ".java." + ProcessHandle.current().pid());
        try (FileChannel out = FileChannel.open(fresh, StandardOpenOption.CREATE, StandardOpenOption.WRITE, StandardOpenOption.TRUNCATE_EXISTING)) {
            ByteBuffer bytes = ByteBuffer.wrap(Lines.JSON.writeValueAsBytes(text));
            while (bytes.hasRemaining()) {
                out.write(bytes);
            }
            out.force(true);
        }
        Files.move(fresh, whole, StandardCopyOption.ATOMIC_MOVE);
        try (FileChannel folder = FileChannel.open(state, StandardOpenOption.READ)) {
            folder.force(true);
        }
        ObjectNode line = Lines.object();
        line.putObject("saved").put("partition", partition).put("next", sums.next);
        Lines.print(line);
    }

    private Path file(int partition) {
        return state.resolve(partition + ".json");
    }

    private void commit(Map<TopicPartition, OffsetAndMetadata> offsets) {
        if (offsets.isEmpty()) {
            return;
        }
        try {
            consumer.commitSync(offsets);
        } catch (KafkaException e) {
            System.err.println("commit " + offsets + ": " + e);
            return;
        }
        ObjectNode line = Lines.object().put("at", System.currentTimeMillis());
        ObjectNode committed = line.putObject("committed");
        offsets.forEach((p, o) -> committed.put(Integer.toString(p.partition()), o.offset()));
        Lines.print(line);
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        long asked = System.currentTimeMillis();
        Map<TopicPartition, OffsetAndMetadata> committed = consumer.committed(Set.copyOf(partitions));
        for (TopicPartition p : partitions) {
            Sums sums = load(p.partition());
            mine.put(p, sums);
            consumer.seek(p, sums.next);
            OffsetAndMetadata o = committed.get(p);
            ObjectNode line = Lines.object().put("at", asked);
            line.putObject("took").put("partition", p.partition()).put("committed", o == null ? -1 : o.offset()).put("next", sums.next);
            Lines.print(line);
        }
        Group.tell("assigned", partitions);
    }

    private Sums load(int partition) {
        Sums sums = new Sums();
        if (!Files.exists(file(partition))) {
            return sums;
        }
        try {
            JsonNode text = Lines.JSON.readTree(file(partition).toFile());
            sums.next = text.get("next").longValue();
            text.get("airports").fields().forEachRemaining(a -> sums.airports.put(
                    a.getKey(), new long[] {a.getValue().get("flights").longValue(), a.getValue().get("delays").longValue()}));
        } catch (IOException e) {
            throw new java.io.UncheckedIOException(e);
        }
        return sums;
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        mine.keySet().removeAll(partitions);
        Group.tell("revoked", partitions);
    }
}
