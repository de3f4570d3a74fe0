// Prints a table of assignments that Apache Kafka's own assignors make: one JSON object a line.
import java.nio.ByteBuffer;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.*;
import org.apache.kafka.common.*;

public class Assignments {
    static String quote(Collection<String> l) {
        StringJoiner j = new StringJoiner(",", "[", "]");
        for (String s : l) j.add("\"" + s + "\"");
        return j.toString();
    }

    public static void main(String[] args) {
        Random r = new Random(4);
        for (int n = 0; n < 150; n++) {
            int racks = n % 3 == 0 ? 0 : 1 + r.nextInt(3);
            List<Node> nodes = new ArrayList<>();
            for (int i = 0; i < 4; i++) nodes.add(new Node(i, "h" + i, 9092, racks == 0 ? null : "r" + i % racks));
            List<PartitionInfo> infos = new ArrayList<>();
            int topics = 1 + r.nextInt(4);
            StringJoiner topicJson = new StringJoiner(",", "{", "}");
            int same = 1 + r.nextInt(9);
            for (int t = 0; t < topics; t++) {
                int count = r.nextInt(2) == 0 ? same : 1 + r.nextInt(12);
                int factor = 1 + r.nextInt(3);
                StringJoiner parts = new StringJoiner(",", "[", "]");
                for (int p = 0; p < count; p++) {
                    Node[] replicas = new Node[factor];
                    List<String> replicaRacks = new ArrayList<>();
                    for (int f = 0; f < factor; f++) {
                        replicas[f] = nodes.get((p + t + f) % nodes.size());
                        if (replicas[f].rack() != null) replicaRacks.add(replicas[f].rack());
                    }
                    infos.add(new PartitionInfo("t" + t, p, replicas[0], replicas, replicas));
                    parts.add(quote(replicaRacks));
                }
                topicJson.add("\"t" + t + "\":" + parts);
            }
            Cluster cluster = new Cluster("c", nodes, infos, Set.of(), Set.of());
            Map<String, Subscription> members = new HashMap<>();
            StringJoiner memberJson = new StringJoiner(",", "[", "]");
            int count = 1 + r.nextInt(7);
            boolean alike = r.nextBoolean();
            for (int m = 0; m < count; m++) {
                List<String> names = new ArrayList<>();
                for (int t = 0; t < topics + 1; t++) if (alike || r.nextInt(3) > 0) names.add("t" + t);
                String rack = racks > 0 && r.nextInt(4) > 0 ? "r" + r.nextInt(racks + 1) : null;
                String instance = r.nextInt(4) == 0 ? "i" + (9 - m) : null;
                Subscription s = new Subscription(names, null, List.of(), -1, Optional.ofNullable(rack));
                s.setGroupInstanceId(Optional.ofNullable(instance));
                String id = "m" + (m * 5 % 7) + "x" + m;
                members.put(id, s);
                memberJson.add("{\"id\":\"" + id + "\",\"instance\":\"" + (instance == null ? "" : instance) + "\",\"rack\":\"" + (rack == null ? "" : rack) + "\",\"topics\":" + quote(names) + "}");
            }
            StringBuilder line = new StringBuilder("{\"topics\":" + topicJson + ",\"members\":" + memberJson);
            for (ConsumerPartitionAssignor a : List.of(new RangeAssignor(), new RoundRobinAssignor())) {
                Map<String, Assignment> got = a.assign(cluster, new GroupSubscription(members)).groupAssignment();
                StringJoiner j = new StringJoiner(",", "{", "}");
                for (String id : new TreeSet<>(got.keySet())) {
                    List<String> tps = new ArrayList<>();
                    List<TopicPartition> list = new ArrayList<>(got.get(id).partitions());
                    list.sort(Comparator.comparing(TopicPartition::topic).thenComparing(TopicPartition::partition));
                    for (TopicPartition tp : list) tps.add(tp.toString());
                    j.add("\"" + id + "\":" + quote(tps));
                }
                line.append(",\"" + a.name() + "\":" + j);
            }
            System.out.println(line.append("}"));
        }
    }
}
