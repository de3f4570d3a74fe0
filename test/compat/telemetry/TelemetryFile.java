import com.fasterxml.jackson.databind.ObjectMapper;

import org.apache.kafka.common.metrics.KafkaMetric;
import org.apache.kafka.common.metrics.MetricsReporter;
import org.apache.kafka.common.record.internal.CompressionType;
import org.apache.kafka.common.telemetry.internals.ClientTelemetryUtils;
import org.apache.kafka.server.telemetry.ClientTelemetryContext;
import org.apache.kafka.server.telemetry.ClientTelemetryExporter;
import org.apache.kafka.server.telemetry.ClientTelemetryExporterProvider;
import org.apache.kafka.server.telemetry.ClientTelemetryPayload;
import org.apache.kafka.shaded.io.opentelemetry.proto.common.v1.KeyValue;
import org.apache.kafka.shaded.io.opentelemetry.proto.metrics.v1.Metric;
import org.apache.kafka.shaded.io.opentelemetry.proto.metrics.v1.MetricsData;
import org.apache.kafka.shaded.io.opentelemetry.proto.metrics.v1.NumberDataPoint;
import org.apache.kafka.shaded.io.opentelemetry.proto.metrics.v1.ResourceMetrics;
import org.apache.kafka.shaded.io.opentelemetry.proto.metrics.v1.ScopeMetrics;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * A broker's receiver of client telemetry (KIP-714): every push becomes a line of JSON in the file that the broker's
 * setting telemetry.file names. What cannot be read is an error, which the broker answers the client.
 */
public class TelemetryFile implements MetricsReporter, ClientTelemetryExporterProvider, ClientTelemetryExporter {
    private static final ObjectMapper JSON = new ObjectMapper();
    private Path file;

    @Override
    public void configure(Map<String, ?> configs) {
        file = Path.of(String.valueOf(configs.get("telemetry.file")));
    }

    @Override
    public ClientTelemetryExporter clientTelemetryExporter() {
        return this;
    }

    @Override
    public synchronized void exportMetrics(ClientTelemetryContext context, ClientTelemetryPayload payload) {
        Map<String, Object> push = new TreeMap<>();
        push.put("at", System.currentTimeMillis());
        push.put("instance", payload.clientInstanceId().toString());
        push.put("terminating", payload.isTerminating());
        push.put("content_type", payload.contentType());
        push.put("interval_ms", context.pushIntervalMs());
        push.put("client_id", context.authorizableRequestContext().clientId());
        push.put("bytes", payload.data().remaining());
        try {
            push.put("metrics", metrics(payload.data()));
            Files.writeString(file, JSON.writeValueAsString(push) + "\n", StandardCharsets.UTF_8,
                StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        } catch (IOException e) {
            throw new IllegalStateException("a push that cannot be read or kept", e);
        }
    }

    /** Reads pushes as a broker does: lines of a codec's number and the bytes in base64. Prints each one's metrics. */
    public static void main(String[] none) throws IOException {
        for (String line : new String(System.in.readAllBytes(), StandardCharsets.UTF_8).split("\n")) {
            String[] words = line.split(" ");
            ByteBuffer packed = ByteBuffer.wrap(Base64.getDecoder().decode(words[1]));
            CompressionType codec = CompressionType.forId(Integer.parseInt(words[0]));
            System.out.println(JSON.writeValueAsString(metrics(ClientTelemetryUtils.decompress(packed, codec, 1 << 20))));
        }
    }

    private static List<Object> metrics(ByteBuffer data) throws IOException {
        List<Object> all = new ArrayList<>();
        for (ResourceMetrics resource : MetricsData.parseFrom(data).getResourceMetricsList()) {
            for (ScopeMetrics scope : resource.getScopeMetricsList()) {
                for (Metric metric : scope.getMetricsList()) {
                    List<NumberDataPoint> points = metric.hasSum() ? metric.getSum().getDataPointsList() : metric.getGauge().getDataPointsList();
                    for (NumberDataPoint point : points) {
                        Map<String, Object> one = point(metric, point);
                        one.put("resource", labels(resource.getResource().getAttributesList()));
                        one.put("scope", scope.getScope().getName());
                        all.add(one);
                    }
                }
            }
        }
        return all;
    }

    private static Map<String, Object> point(Metric metric, NumberDataPoint point) {
        Map<String, Object> one = new TreeMap<>();
        one.put("name", metric.getName());
        one.put("kind", metric.getDataCase().toString().toLowerCase());
        if (metric.hasSum()) {
            one.put("temporality", metric.getSum().getAggregationTemporality().toString());
            one.put("monotonic", metric.getSum().getIsMonotonic());
        }
        one.put("type", point.getValueCase().toString());
        one.put("value", point.hasAsInt() ? point.getAsInt() : point.getAsDouble());
        one.put("start", point.getStartTimeUnixNano());
        one.put("time", point.getTimeUnixNano());
        one.put("labels", labels(point.getAttributesList()));
        return one;
    }

    private static Map<String, String> labels(List<KeyValue> pairs) {
        Map<String, String> labels = new TreeMap<>();
        for (KeyValue pair : pairs) {
            labels.put(pair.getKey(), pair.getValue().hasStringValue() ? pair.getValue().getStringValue() : pair.getValue().toString());
        }
        return labels;
    }

    @Override
    public void init(List<KafkaMetric> metrics) {
    }

    @Override
    public void metricChange(KafkaMetric metric) {
    }

    @Override
    public void metricRemoval(KafkaMetric metric) {
    }

    @Override
    public void close() {
    }
}
