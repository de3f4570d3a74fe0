import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.KafkaFuture;

/** The call that has changed its name: this one was there until 3.9. */
final class Topics {
    private Topics() {}

    static KafkaFuture<TopicDescription> describe(Admin admin, String topic) {
        return admin.describeTopics(Set.of(topic)).values().get(topic);
    }
}
