import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.CommonClientConfigs;
import org.apache.kafka.common.utils.AppInfoParser;
import sun.misc.Signal;

/** A user's program on Apache Kafka's own client. What it has to do stands in the README one folder up. */
public final class Client {
    private final Map<String, String> flags = new HashMap<>();

    private Client(String[] args) {
        for (int i = 1; i + 1 < args.length; i += 2) {
            flags.put(args[i].replaceFirst("^--", ""), args[i + 1]);
        }
    }

    public static void main(String[] args) throws Exception {
        Client flags = new Client(args);
        switch (args.length == 0 ? "" : args[0]) {
            case "about" -> about();
            case "produce" -> Produce.run(flags);
            case "consume" -> Consume.run(flags);
            case "group" -> Group.run(flags);
            case "admin" -> AdminSteps.run(flags);
            case "errors" -> Refusals.run(flags);
            case "flights" -> Flights.run(flags);
            default -> throw new IllegalArgumentException("about, produce, consume, group, admin, errors or flights");
        }
    }

    private static void about() {
        ObjectNode line = Lines.object().put("client", "kafka-clients").put("version", AppInfoParser.getVersion()).put("language", "Java");
        List.of("none", "gzip", "snappy", "lz4", "zstd").forEach(line.putArray("codecs")::add);
        List.of("0", "1", "all").forEach(line.putArray("acks")::add);
        line.put("idempotent", true).put("static", true).put("commits", true).put("listener", true);
        Group.ASSIGNORS.keySet().stream().sorted().forEach(line.putArray("assignors")::add);
        line.putArray("notes");
        Lines.print(line);
    }

    String text(String name) {
        String value = flags.get(name);
        if (value == null) {
            throw new IllegalArgumentException("--" + name + " is missing");
        }
        return value;
    }

    String text(String name, String otherwise) {
        return flags.getOrDefault(name, otherwise);
    }

    int number(String name) {
        return Integer.parseInt(text(name));
    }

    int number(String name, int otherwise) {
        return Integer.parseInt(text(name, Integer.toString(otherwise)));
    }

    /** What every client of the library is told. */
    Map<String, Object> settings() {
        return new HashMap<>(Map.of(CommonClientConfigs.BOOTSTRAP_SERVERS_CONFIG, text("brokers")));
    }

    /** Has SIGTERM do this and nothing else; the virtual machine's own answer to it is exit code 143. */
    static void onTermination(Runnable stop) {
        Signal.handle(new Signal("TERM"), signal -> stop.run());
    }
}
