//go:build compat

package compat

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/test/compat/rig"
)

const (
	consoleProducer = "org.apache.kafka.tools.ConsoleProducer"
	consoleConsumer = "org.apache.kafka.tools.consumer.ConsoleConsumer"
	topicCommand    = "org.apache.kafka.tools.TopicCommand"
	configCommand   = "kafka.admin.ConfigCommand"
	offsetShell     = "org.apache.kafka.tools.GetOffsetShell"
	deleteRecords   = "org.apache.kafka.tools.DeleteRecordsCommand"
	logDirs         = "org.apache.kafka.tools.LogDirsCommand"
	perfProducer    = "org.apache.kafka.tools.ProducerPerformance"
	endToEnd        = "org.apache.kafka.tools.EndToEndLatency"
	dumpSegments    = "org.apache.kafka.tools.DumpLogSegments"
)

// TestJava runs the tools that come with Apache Kafka, as they are and with their defaults.
func TestJava(t *testing.T) {
	b := rig.Start(t)
	for _, codec := range codecs {
		t.Run("console codec "+codec, func(t *testing.T) { consoleRoundTrip(t, b.Addr, codec) })
	}
	t.Run("console", func(t *testing.T) { consoleShapes(t, b.Addr) })
	t.Run("console errors", func(t *testing.T) { consoleErrors(t, b.Addr) })
	t.Run("topics", func(t *testing.T) { javaTopics(t, b.Addr) })
	t.Run("configs", func(t *testing.T) { javaConfigs(t, b.Addr) })
	t.Run("offsets, deletion, directories", func(t *testing.T) { javaOffsets(t, b) })
	t.Run("performance", func(t *testing.T) { javaPerformance(t, b.Addr) })
	t.Run("end to end latency", func(t *testing.T) { javaEndToEnd(t, b.Addr) })
}

// consoleRoundTrip goes through acks 0, 1 and all with one codec; each is a run of the producer.
func consoleRoundTrip(t *testing.T, addr, codec string) {
	topic := "console-" + codec
	createTopic(t, addr, topic, 1)
	var want []string
	for _, acks := range []string{"1", "all", "0"} { // last what nobody waits for
		var text []string
		for i := range 500 {
			text = append(text, fmt.Sprintf("%s-%d\t%s", acks, i%9, strings.Repeat(fmt.Sprint(i, " "), 10)))
		}
		rig.Java(t, strings.NewReader(strings.Join(text, "\n")+"\n"), consoleProducer, "--bootstrap-server", addr, "--topic", topic,
			"--compression-codec", codec, "--reader-property", "parse.key=true",
			"--command-property", "acks="+acks, "--command-property", "enable.idempotence="+strconv.FormatBool(acks == "all"))
		want = append(want, text...)
	}
	rig.Eventually(t, patience, "all records are there", func() bool {
		return strings.Contains(kcat(t, addr, "", "-Q", "-t", topic+":0:-1"), fmt.Sprintf("offset %d", len(want)))
	})
	got := rig.Java(t, nil, consoleConsumer, "--bootstrap-server", addr, "--topic", topic, "--partition", "0", "--offset", "earliest",
		"--max-messages", fmt.Sprint(len(want)), "--formatter-property", "print.key=true")
	equalLines(t, topic, lines(got), want)
	for _, r := range readAll(t, addr, topic)[0] {
		if r.Attrs.CompressionType() != uint8(slices.Index(codecs, codec)) {
			t.Fatalf("record %d came with codec %d, not %s", r.Offset, r.Attrs.CompressionType(), codec)
		}
	}
}

// consoleShapes sends headers, null and empty and a large record, and reads from the middle.
func consoleShapes(t *testing.T, addr string) {
	createTopic(t, addr, "console-shapes", 2, "max.message.bytes=4000000")
	large := strings.Repeat("x", 3_000_000)
	text := "h1:v1,h2:NULL\tk1\tplain\nh1:\tk1\tNULL\nNULL\tk1\t\nNULL\tk1\t" + large + "\n"
	rig.Java(t, strings.NewReader(text), consoleProducer, "--bootstrap-server", addr, "--topic", "console-shapes",
		"--reader-property", "parse.key=true", "--reader-property", "parse.headers=true", "--reader-property", "null.marker=NULL",
		"--command-property", "max.request.size=5000000")
	read := readAll(t, addr, "console-shapes")
	if len(read) != 1 {
		t.Fatalf("one key went to %d partitions", len(read))
	}
	var partition int32
	for partition = range read {
	}
	args := []string{
		"--bootstrap-server", addr, "--topic", "console-shapes", "--partition", fmt.Sprint(partition),
		"--formatter-property", "print.key=true", "--formatter-property", "print.headers=true", "--formatter-property", "print.offset=true",
		"--formatter-property", "print.timestamp=true", "--formatter-property", "null.literal=<null>",
	}
	out := lines(rig.Java(t, nil, consoleConsumer, append(args, "--offset", "0", "--max-messages", "4")...))
	shape := regexp.MustCompile(`^CreateTime:\d{13}\t`)
	var got []string
	for i, line := range out {
		if !shape.MatchString(line) {
			t.Errorf("line %d has no time of its creation: %.100s", i, line)
		}
		got = append(got, shape.ReplaceAllString(line, ""))
	}
	want := []string{
		"Offset:0\th1:v1,h2:<null>\tk1\tplain", "Offset:1\th1:\tk1\t<null>",
		"Offset:2\tNO_HEADERS\tk1\t", "Offset:3\tNO_HEADERS\tk1\t" + large,
	}
	equalLines(t, "records", got, want)
	middle := rig.Java(t, nil, consoleConsumer, append(args, "--offset", "2", "--max-messages", "1")...)
	contains(t, "from offset 2", middle, "Offset:2\t")
}

func consoleErrors(t *testing.T, addr string) {
	createTopic(t, addr, "console-small", 1, "max.message.bytes=1000")
	out, _ := rig.TryJava(t, strings.NewReader(strings.Repeat("x", 3000)+"\n"), consoleProducer, "--bootstrap-server", addr, "--topic", "console-small")
	contains(t, "a large record", out, "RecordTooLargeException")
	out, _ = rig.TryJava(t, strings.NewReader("x\n"), consoleProducer, "--bootstrap-server", addr, "--topic", "a b", "--max-block-ms", "60000")
	contains(t, "a wrong name", out, "InvalidTopicException")
	out, _ = rig.TryJava(t, nil, consoleConsumer, "--bootstrap-server", addr, "--topic", "console-small", "--partition", "0", "--offset", "earliest",
		"--timeout-ms", "2000")
	contains(t, "an empty partition", out, "Processed a total of 0 messages")
}

func javaTopics(t *testing.T, addr string) {
	topic := func(args ...string) string {
		t.Helper()
		return rig.Java(t, nil, topicCommand, append([]string{"--bootstrap-server", addr}, args...)...)
	}
	fails := func(want string, args ...string) {
		t.Helper()
		out, err := rig.TryJava(t, nil, topicCommand, append([]string{"--bootstrap-server", addr}, args...)...)
		if err == nil {
			t.Errorf("%v did not fail", args)
		}
		contains(t, strings.Join(args, " "), out, want)
	}
	contains(t, "create", topic("--create", "--topic", "java.topic", "--partitions", "3", "--replication-factor", "1", "--config", "retention.ms=172800000"), "Created topic java.topic.")
	contains(t, "list", topic("--list"), "java.topic\n")
	contains(t, "describe", topic("--describe", "--topic", "java.topic"), "PartitionCount: 3", "ReplicationFactor: 1", "retention.ms=172800000",
		"Partition: 2", "Leader: 1", "Replicas: 1", "Isr: 1", "Elr:")
	topic("--alter", "--topic", "java.topic", "--partitions", "5")
	contains(t, "describe", topic("--describe", "--topic", "java.topic"), "PartitionCount: 5")
	fails("TopicExistsException", "--create", "--topic", "java.topic")
	fails("InvalidPartitionsException", "--alter", "--topic", "java.topic", "--partitions", "2")
	fails("InvalidReplicationFactorException", "--create", "--topic", "java.copies", "--replication-factor", "3")
	topic("--create", "--topic", "java.topic", "--if-not-exists")
	topic("--delete", "--topic", "java.topic")
	rig.Eventually(t, patience, "the topic is gone from the list", func() bool { return !strings.Contains(kcat(t, addr, "", "-L"), "java.topic") })
	fails("does not exist as expected", "--delete", "--topic", "java.topic")
}

func javaConfigs(t *testing.T, addr string) {
	createTopic(t, addr, "java.set", 1)
	config := func(args ...string) string {
		t.Helper()
		return rig.Java(t, nil, configCommand, append([]string{"--bootstrap-server", addr}, args...)...)
	}
	of := []string{"--entity-type", "topics", "--entity-name", "java.set"}
	config(append(of, "--alter", "--add-config", "max.message.bytes=5000,cleanup.policy=[compact,delete]")...)
	contains(t, "set values", config(append(of, "--describe")...), "max.message.bytes=5000 sensitive=false",
		"DYNAMIC_TOPIC_CONFIG:max.message.bytes=5000", "DEFAULT_CONFIG:message.max.bytes=1048588", "cleanup.policy=compact,delete")
	config(append(of, "--alter", "--delete-config", "max.message.bytes")...)
	all := config(append(of, "--describe", "--all")...)
	contains(t, "all values", all, "max.message.bytes=1048588", "segment.bytes=1073741824", "retention.ms=604800000", "min.insync.replicas=1")
	out, err := rig.TryJava(t, nil, configCommand, append([]string{"--bootstrap-server", addr}, append(of, "--alter", "--add-config", "no.such.key=1")...)...)
	if err == nil {
		t.Error("an unknown key was taken")
	}
	contains(t, "an unknown key", out, "InvalidConfigurationException")
	config("--entity-type", "brokers", "--entity-default", "--alter", "--add-config", "log.retention.ms=7200000")
	contains(t, "defaults of all brokers", config("--entity-type", "brokers", "--entity-default", "--describe"), "log.retention.ms=7200000", "DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=7200000")
	contains(t, "one broker", config("--entity-type", "brokers", "--entity-name", "1", "--describe", "--all"), "log.retention.ms=7200000", "num.partitions=1", "message.max.bytes=1048588", "log.dirs=")
}

func javaOffsets(t *testing.T, b *rig.Broker) {
	addr := b.Addr
	createTopic(t, addr, "java.offsets", 2, "retention.ms=-1") // what javaConfigs has set for all others is two hours
	cl := kgoClient(t, addr, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range 10 {
		if err := cl.ProduceSync(within(t, patience), &kgo.Record{Topic: "java.offsets", Partition: int32(i % 2), Timestamp: yesterday.Add(time.Duration(i) * time.Millisecond), Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(time string) []string {
		t.Helper()
		return lines(rig.Java(t, nil, offsetShell, "--bootstrap-server", addr, "--topic", "java.offsets", "--time", time))
	}
	equalLines(t, "latest", ask("-1"), []string{"java.offsets:0:5", "java.offsets:1:5"})
	equalLines(t, "largest time", ask("max-timestamp"), []string{"java.offsets:0:4", "java.offsets:1:4"})
	equalLines(t, "from a time on", ask(fmt.Sprint(yesterday.UnixMilli()+3)), []string{"java.offsets:0:2", "java.offsets:1:1"})

	file := writeFile(t, "delete.json", `{"partitions":[{"topic":"java.offsets","partition":0,"offset":3},{"topic":"java.offsets","partition":1,"offset":-1}],"version":1}`)
	contains(t, "deletion", rig.Java(t, nil, deleteRecords, "--bootstrap-server", addr, "--offset-json-file", file),
		"partition: java.offsets-0\tlow_watermark: 3", "partition: java.offsets-1\tlow_watermark: 5")
	equalLines(t, "earliest", ask("-2"), []string{"java.offsets:0:3", "java.offsets:1:5"})
	beyond := writeFile(t, "beyond.json", `{"partitions":[{"topic":"java.offsets","partition":0,"offset":77}],"version":1}`)
	out, _ := rig.TryJava(t, nil, deleteRecords, "--bootstrap-server", addr, "--offset-json-file", beyond)
	contains(t, "deletion past the end", out, "OffsetOutOfRangeException")

	type dirs struct {
		Brokers []struct {
			Broker  int
			LogDirs []struct {
				LogDir     string
				Error      *string
				Partitions []struct {
					Partition string
					Size      int64
					OffsetLag int64
					IsFuture  bool
				}
			}
		}
	}
	out = rig.Java(t, nil, logDirs, "--bootstrap-server", addr, "--describe", "--topic-list", "java.offsets")
	printed := lines(out)
	d := decodeJSON[dirs](t, "directories", printed[len(printed)-1])
	if len(d.Brokers) != 1 || len(d.Brokers[0].LogDirs) != 1 || d.Brokers[0].LogDirs[0].Error != nil || len(d.Brokers[0].LogDirs[0].Partitions) != 2 {
		t.Fatalf("directories: %s", out)
	}
	if dir := d.Brokers[0].LogDirs[0]; dir.LogDir != b.Data || dir.Partitions[0].Size <= 0 {
		t.Errorf("directory %s, size %d; want %s and a size", dir.LogDir, dir.Partitions[0].Size, b.Data)
	}
}

func javaPerformance(t *testing.T, addr string) {
	createTopic(t, addr, "java.perf", 3)
	for _, properties := range [][]string{{"acks=all", "compression.type=lz4"}, {"acks=1", "linger.ms=5", "batch.size=200000"}} {
		out := rig.Java(t, nil, perfProducer, append([]string{
			"--bootstrap-server", addr, "--topic", "java.perf", "--num-records", "100000", "--record-size", "200",
			"--throughput", "-1", "--command-property",
		}, properties...)...)
		contains(t, "the measurement", out, "100000 records sent", "99.9th")
	}
	total := 0
	for _, line := range lines(rig.Java(t, nil, offsetShell, "--bootstrap-server", addr, "--topic", "java.perf")) {
		n, err := strconv.Atoi(line[strings.LastIndexByte(line, ':')+1:])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		total += n
	}
	if total != 200_000 {
		t.Errorf("%d records arrived, 200000 were sent", total)
	}
}

// javaEndToEnd measures 500 records. When it has printed its figures the tool commits its
// position, for which it needs a group coordinator; a broker that lists none fails it there.
func javaEndToEnd(t *testing.T, addr string) {
	createTopic(t, addr, "java.latency", 1)
	coordinated := lists(t, addr, kmsg.FindCoordinator)
	for _, acks := range []string{"1", "all"} {
		out, err := rig.TryJava(t, nil, endToEnd, addr, "java.latency", "500", acks, "100")
		contains(t, "the measurement with acks "+acks, out, "Avg latency:", "Percentiles: 50th")
		switch {
		case coordinated && err != nil:
			t.Errorf("acks %s: %v\n%s", acks, err, out)
		case !coordinated:
			contains(t, "the commit", out, "The node does not support FIND_COORDINATOR")
		}
	}
}
