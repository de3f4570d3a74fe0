// Prints, in hexadecimal, what Apache Kafka's consumers tell each other.
import java.nio.ByteBuffer;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.*;
import org.apache.kafka.clients.consumer.internals.ConsumerProtocol;
import org.apache.kafka.common.*;

public class Bytes {
    static String hex(ByteBuffer b) {
        if (b == null) return "";
        StringBuilder s = new StringBuilder();
        while (b.hasRemaining()) s.append(String.format("%02x", b.get()));
        return s.toString();
    }
    public static void main(String[] args) {
        List<TopicPartition> owned = List.of(new TopicPartition("a", 0), new TopicPartition("a", 2), new TopicPartition("b", 1));
        Subscription s = new Subscription(List.of("b", "a"), null, owned, 7, Optional.of("r1"));
        for (short v = 0; v <= 3; v++) System.out.println("subscription " + v + " " + hex(ConsumerProtocol.serializeSubscription(s, v)));
        System.out.println("assignment 3 " + hex(ConsumerProtocol.serializeAssignment(new Assignment(owned))));
        StickyAssignor sticky = new StickyAssignor();
        CooperativeStickyAssignor coop = new CooperativeStickyAssignor();
        ConsumerGroupMetadata meta = new ConsumerGroupMetadata("g", 7, "m", Optional.empty());
        sticky.onAssignment(new Assignment(owned), meta);
        coop.onAssignment(new Assignment(owned), meta);
        System.out.println("sticky 1 " + hex(sticky.subscriptionUserData(Set.of("a", "b"))));
        System.out.println("cooperative-sticky 0 " + hex(coop.subscriptionUserData(Set.of("a", "b"))));
    }
}
