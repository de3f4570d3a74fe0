//go:build compat

package compat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"barnabas/test/compat/rig"
)

const (
	consumerGroups = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
	groupsCommand  = "org.apache.kafka.tools.GroupsCommand"
	offsetsFormat  = "org.apache.kafka.tools.consumer.OffsetsMessageFormatter"
	metadataFormat = "org.apache.kafka.tools.consumer.GroupMetadataMessageFormatter"
	groupTopic     = "group-tools"
	liveGroup      = "group-tools-live"
	idleGroup      = "group-tools-idle"
	recordsEach    = 40 // in each of the three partitions of groupTopic
)

var firstRecordTime = yesterday // the others follow a minute apart each

// TestGroupTools lets Apache Kafka's tools for groups and ours look at the same groups, one with members and
// one without, and change them in turn: what the one says or does, the other says and sees.
func TestGroupTools(t *testing.T) {
	g := groupTools{t: t, b: rig.Start(t, "group.initial.rebalance.delay.ms=0")}
	g.prepare()
	g.sub("lists", groupTools.lists)
	g.sub("states", groupTools.states)
	g.sub("members", groupTools.members)
	g.sub("offsets and lag", groupTools.offsets)
	g.sub("a group with members is left alone", groupTools.busy)
	g.sub("plans", groupTools.plans)
	g.sub("resets of the one read by the other", groupTools.resets)
	g.sub("files of plans", groupTools.files)
	g.sub("offsets formatter", groupTools.offsetsFormatter)
	g.sub("group metadata formatter", groupTools.metadataFormatter)
	g.sub("our consumer beside Kafka's", groupTools.mixed)
	g.sub("deletion", groupTools.deletion)
}

type groupTools struct {
	t *testing.T
	b *rig.Broker
}

func (g groupTools) sub(name string, test func(groupTools)) {
	g.t.Run(name, func(t *testing.T) { test(groupTools{t, g.b}) })
}

// kafka runs Kafka's tool and gives the cells of its table's rows, by the heading of the table.
func (g groupTools) kafka(args ...string) []map[string]string {
	g.t.Helper()
	return table(rig.Java(g.t, nil, consumerGroups, append([]string{"--bootstrap-server", g.b.Addr}, args...)...))
}

// table reads tables that begin with a line of capitals and end with an empty one.
func table(out string) []map[string]string {
	var heading []string
	var rows []map[string]string
	for _, line := range append(lines(out), "") {
		line = strings.ReplaceAll(line, "COORDINATOR (ID)", "COORDINATOR ID")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
			heading = nil
		case fields[0] == "GROUP" || fields[0] == "TOPIC":
			heading = fields
		case heading != nil && len(fields) >= len(heading)-1:
			if at := slices.Index(heading, "GROUP-INSTANCE-ID"); len(fields) < len(heading) && at >= 0 {
				fields = slices.Insert(fields, at, "") // a member that is not static leaves the column blank
			}
			row := map[string]string{}
			for i, h := range heading[:min(len(heading), len(fields))] {
				row[h] = fields[i]
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// said runs our program with -o json and reads what it prints.
func said[T any](g groupTools, args ...string) T {
	g.t.Helper()
	stdout, stderr, err := g.tryOurs(append(args, "-o", "json")...)
	if err != nil {
		g.t.Fatalf("barnabas %v: %v\n%s", args, err, stderr)
	}
	return decodeJSON[T](g.t, "barnabas "+strings.Join(args, " "), stdout)
}

func (g groupTools) tryOurs(args ...string) (stdout, stderr string, err error) {
	g.t.Helper()
	return rig.Try(g.t, nil, rig.Binary(g.t), append(args, "-b", g.b.Addr)...)
}

// prepare makes a topic with records a minute apart, a group with two members, one of them static,
// and a group of which only commits are left.
func (g groupTools) prepare() {
	createTopic(g.t, g.b.Addr, groupTopic, 3, "retention.ms=-1") // the records are old
	ctx := within(g.t, patience)
	producer := kgoClient(g.t, g.b.Addr, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range recordsEach {
		for p := range int32(3) {
			producer.Produce(ctx, &kgo.Record{Topic: groupTopic, Partition: p, Timestamp: firstRecordTime.Add(time.Duration(i) * time.Minute), Value: []byte("x")},
				func(_ *kgo.Record, err error) {
					if err != nil {
						g.t.Errorf("produce: %v", err)
					}
				})
		}
	}
	if err := producer.Flush(ctx); err != nil {
		g.t.Fatal(err)
	}
	var members []*kgo.Client
	for i, options := range [][]kgo.Opt{{kgo.ClientID("first")}, {kgo.ClientID("second"), kgo.InstanceID("static-2")}} {
		member := kgoClient(g.t, g.b.Addr, append(options, kgo.ConsumerGroup(liveGroup), kgo.ConsumeTopics(groupTopic), kgo.DisableAutoCommit(),
			kgo.Balancers(kgo.RangeBalancer()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
		members = append(members, member)
		polling, stop := context.WithCancel(g.t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for polling.Err() == nil {
				member.PollFetches(polling) // whoever does not poll does not join
			}
		}()
		g.t.Cleanup(func() {
			stop()
			<-ended
		})
		rig.Eventually(g.t, patience, "the member has joined", func() bool {
			d, err := admin(g.t, g.b.Addr).DescribeGroups(ctx, liveGroup)
			group := d[liveGroup]
			assigned := group.AssignedPartitions()
			return err == nil && group.State == "Stable" && len(group.Members) == i+1 && len(assigned[groupTopic]) == 3
		})
	}
	g.commit(idleGroup, map[int32]int64{0: 30, 1: 40, 2: 7})
	// A live group's offsets are its members' to commit. In partition 2 nothing has been.
	id, generation := members[0].GroupMetadata()
	g.commitAs(liveGroup, id, generation, map[int32]int64{0: 11, 1: 25})
}

func must[T any](g groupTools, get func(context.Context) (T, error)) T {
	g.t.Helper()
	v, err := get(within(g.t, patience))
	if err != nil {
		g.t.Fatal(err)
	}
	return v
}

// commit commits offsets for a group without members.
func (g groupTools) commit(group string, offsets map[int32]int64) {
	g.t.Helper()
	g.commitAs(group, "", -1, offsets)
}

// commitAs commits as a member does, with a leader epoch and metadata beside each offset.
func (g groupTools) commitAs(group, member string, generation int32, offsets map[int32]int64) {
	g.t.Helper()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation, req.MemberID = group, generation, member
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic = groupTopic
	for p, offset := range offsets {
		part := kmsg.NewOffsetCommitRequestTopicPartition()
		part.Partition, part.Offset, part.LeaderEpoch, part.Metadata = p, offset, 0, kmsg.StringPtr(fmt.Sprint("note ", p))
		topic.Partitions = append(topic.Partitions, part)
	}
	req.Topics = append(req.Topics, topic)
	cl := kgoClient(g.t, g.b.Addr, kgo.MaxVersions(kversion.V3_8_0())) // topics by name
	resp := must(g, func(ctx context.Context) (*kmsg.OffsetCommitResponse, error) { return req.RequestWith(ctx, cl) })
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				g.t.Fatalf("commit for %s: %+v", group, resp.Topics)
			}
		}
	}
}

type ourListed struct {
	Group, State, Type string
	ProtocolType       string `json:"protocol_type"`
}

func (g groupTools) lists() {
	var listed []string
	for _, l := range said[[]ourListed](g, "group", "list") {
		listed = append(listed, strings.Join([]string{l.Group, l.State, l.Type, l.ProtocolType}, " "))
	}
	// What Kafka's tools split over three tables.
	states, types := map[string]string{}, map[string]string{}
	for _, row := range g.kafka("--list", "--state") {
		states[row["GROUP"]] = row["STATE"]
	}
	for _, row := range g.kafka("--list", "--type") {
		types[row["GROUP"]] = strings.ToLower(row["TYPE"])
	}
	var theirs []string
	out := lines(rig.Java(g.t, nil, groupsCommand, "--bootstrap-server", g.b.Addr, "--list"))
	for _, line := range out[1:] {
		fields := append(strings.Fields(line), "", "") // an empty protocol leaves its column empty
		theirs = append(theirs, strings.Join([]string{fields[0], states[fields[0]], types[fields[0]], fields[2]}, " "))
	}
	slices.Sort(theirs)
	equalLines(g.t, "groups", listed, theirs)
	if len(listed) != 2 {
		g.t.Errorf("%d groups: %v", len(listed), listed)
	}
	for filter, want := range map[string]string{"--state=empty": idleGroup, "--state=Stable": liveGroup, "--type=consumer": ""} {
		stdout, _, err := g.tryOurs("group", "list", "-q", filter)
		if err != nil || strings.TrimSpace(stdout) != want {
			g.t.Errorf("%s: %q, %v", filter, stdout, err)
		}
	}
	if rows := g.kafka("--list", "--state", "empty"); len(rows) != 1 || rows[0]["GROUP"] != idleGroup {
		g.t.Errorf("empty groups: %v", rows)
	}
}

type ourMember struct {
	MemberID   string `json:"member_id"`
	InstanceID string `json:"instance_id"`
	ClientID   string `json:"client_id"`
	Host       string
	Topics     []string
	Assignment map[string][]int32
}

type ourGroup struct {
	Group, State, Protocol string
	ProtocolType           string `json:"protocol_type"`
	Coordinator            struct {
		Node int32
		Host string
		Port int32
	}
	Members    []ourMember
	Partitions []struct {
		Topic     string
		Partition int32
		Committed *int64 `json:"committed_offset"`
		End       *int64 `json:"end_offset"`
		Lag       *int64
		Metadata  string
		Epoch     *int32 `json:"leader_epoch"`
		MemberID  string `json:"member_id"`
		ClientID  string `json:"client_id"`
		Host      string
	}
	TotalLag int64 `json:"total_lag"`
}

func (g groupTools) described(group string) ourGroup {
	g.t.Helper()
	return said[[]ourGroup](g, "group", "describe", group)[0]
}

func (g groupTools) states() {
	rows := g.kafka("--describe", "--group", liveGroup, "--group", idleGroup, "--state")
	if len(rows) != 2 {
		g.t.Fatalf("states: %v", rows)
	}
	for _, row := range rows {
		d := g.described(row["GROUP"])
		assignor := d.Protocol
		if assignor == "" {
			assignor = "-"
		}
		got := fmt.Sprintf("%s %s %d %s:%d (%d)", d.State, assignor, len(d.Members), d.Coordinator.Host, d.Coordinator.Port, d.Coordinator.Node)
		want := fmt.Sprintf("%s %s %s %s %s", row["STATE"], row["ASSIGNMENT-STRATEGY"], row["#MEMBERS"], row["COORDINATOR"], row["ID"])
		if got != want {
			g.t.Errorf("%s: %s; Kafka's tool says %s", d.Group, got, want)
		}
	}
}

func (g groupTools) members() {
	var theirs, got []string
	for _, row := range g.kafka("--describe", "--group", liveGroup, "--members") {
		theirs = append(theirs, strings.Join([]string{row["CONSUMER-ID"], row["HOST"], row["CLIENT-ID"], row["#PARTITIONS"]}, " "))
	}
	for _, m := range g.described(liveGroup).Members {
		got = append(got, fmt.Sprintf("%s /%s %s %d", m.MemberID, m.Host, m.ClientID, len(m.Assignment[groupTopic])))
		if !slices.Equal(m.Topics, []string{groupTopic}) || (m.InstanceID == "static-2") != (m.ClientID == "second") {
			g.t.Errorf("member %+v", m)
		}
	}
	slices.Sort(theirs)
	slices.Sort(got)
	equalLines(g.t, "members", got, theirs)
	if len(got) != 2 {
		g.t.Errorf("%d members", len(got))
	}
}

func (g groupTools) offsets() {
	for _, group := range []string{liveGroup, idleGroup} {
		g.sameOffsets(group)
	}
	for _, p := range g.described(idleGroup).Partitions {
		if p.Metadata != fmt.Sprint("note ", p.Partition) || p.Epoch == nil || *p.Epoch != 0 {
			g.t.Errorf("beside the commit: %+v", p)
		}
	}
	if lag := g.described(idleGroup).TotalLag; lag != 10+0+33 {
		g.t.Errorf("lag of %s: %d", idleGroup, lag)
	}
}

// sameOffsets compares the table of offsets, and gives what is committed.
func (g groupTools) sameOffsets(group string) map[int32]int64 {
	g.t.Helper()
	orDash := func(n *int64) string {
		if n == nil {
			return "-"
		}
		return strconv.FormatInt(*n, 10)
	}
	var theirs, got []string
	for _, row := range g.kafka("--describe", "--group", group, "--offsets") {
		theirs = append(theirs, strings.Join([]string{
			row["TOPIC"], row["PARTITION"], row["CURRENT-OFFSET"], row["LOG-END-OFFSET"], row["LAG"], row["CONSUMER-ID"], row["HOST"], row["CLIENT-ID"],
		}, " "))
	}
	committed := map[int32]int64{}
	for _, p := range g.described(group).Partitions {
		who := "- - -"
		if p.MemberID != "" {
			who = fmt.Sprintf("%s /%s %s", p.MemberID, p.Host, p.ClientID)
		}
		got = append(got, fmt.Sprintf("%s %d %s %s %s %s", p.Topic, p.Partition, orDash(p.Committed), orDash(p.End), orDash(p.Lag), who))
		if p.Committed != nil {
			committed[p.Partition] = *p.Committed
		}
	}
	slices.Sort(theirs)
	slices.Sort(got)
	equalLines(g.t, "offsets of "+group, got, theirs)
	if len(got) == 0 {
		g.t.Errorf("%s: no offsets", group)
	}
	return committed
}

func (g groupTools) busy() {
	out, _ := rig.TryJava(g.t, nil, consumerGroups, "--bootstrap-server", g.b.Addr, "--reset-offsets", "--group", liveGroup, "--topic", groupTopic,
		"--to-earliest", "--execute")
	contains(g.t, "Kafka's reset", out, "current state is Stable")
	member := g.described(liveGroup).Members[0].MemberID
	for what, args := range map[string][]string{
		"reset":  {"group", "reset", liveGroup, "--topic", groupTopic, "--to-earliest", "--execute"},
		"delete": {"group", "delete", liveGroup},
	} {
		_, stderr, err := g.tryOurs(args...)
		if err == nil {
			g.t.Errorf("%s: no error", what)
		}
		contains(g.t, what, stderr, "has 2 members and is Stable", "stop them first", member)
	}
	_, stderr, err := g.tryOurs("group", "delete-offsets", liveGroup, "--topic", groupTopic)
	if err == nil {
		g.t.Error("offsets of a topic that is subscribed to: no error")
	}
	contains(g.t, "delete-offsets", stderr, "GROUP_SUBSCRIBED_TO_TOPIC")
	if committed := g.sameOffsets(liveGroup); committed[0] != 11 || committed[1] != 25 {
		g.t.Errorf("committed after all refusals: %v", committed)
	}
}

type ourReset struct {
	Executed bool
	Offsets  []struct {
		Topic     string
		Partition int32
		Old       *int64 `json:"old_offset"`
		New       int64  `json:"new_offset"`
		Asked     *int64 `json:"requested_offset"`
	}
}

// plans makes the same plan with both tools, and carries none out.
func (g groupTools) plans() {
	all := []string{"--topic", groupTopic}
	at := firstRecordTime.Add(12*time.Minute + 30*time.Second).UTC()
	for name, args := range map[string][]string{
		"earliest":              append(all, "--to-earliest"),
		"latest":                append(all, "--to-latest"),
		"current":               append(all, "--to-current"),
		"an offset":             append(all, "--to-offset", "12"),
		"past the end":          append(all, "--to-offset", "100000"),
		"some partitions":       {"--topic", groupTopic + ":0,2", "--to-offset", "5"},
		"back":                  {"--all-topics", "--shift-by", "-9"},
		"forward past the end":  append(all, "--shift-by", "35"),
		"a time with a zone":    append(all, "--to-datetime", at.In(time.FixedZone("", 7200)).Format("2006-01-02T15:04:05.000-07:00")),
		"a time without a zone": append(all, "--to-datetime", at.Format("2006-01-02T15:04:05.000")),
		"a time to come":        append(all, "--to-datetime", "2200-01-01T00:00:00.000"),
		"a duration":            append(all, "--by-duration", fmt.Sprintf("PT%dS", int(time.Since(firstRecordTime.Add(20*time.Minute)).Seconds()))),
	} {
		var theirs, got []string
		for _, row := range g.kafka(append([]string{"--reset-offsets", "--group", idleGroup, "--dry-run"}, args...)...) {
			theirs = append(theirs, row["TOPIC"]+" "+row["PARTITION"]+" "+row["NEW-OFFSET"])
		}
		plan := said[ourReset](g, append([]string{"group", "reset", idleGroup, "--dry-run"}, args...)...)
		for _, o := range plan.Offsets {
			got = append(got, fmt.Sprintf("%s %d %d", o.Topic, o.Partition, o.New))
		}
		slices.Sort(theirs)
		if name == "a duration" { // measured from two moments, some seconds apart, not long after it was made
			for i := range max(len(theirs), len(got)) {
				if a, b := lastNumber(g.t, theirs[i]), lastNumber(g.t, got[i]); a < 20 || b < a || b >= recordsEach {
					g.t.Errorf("%s: %s; Kafka's tool said %s before", name, got[i], theirs[i])
				}
			}
			continue
		}
		equalLines(g.t, name, got, theirs)
		if plan.Executed || len(got) == 0 {
			g.t.Errorf("%s: %+v", name, plan)
		}
	}
	if committed := g.sameOffsets(idleGroup); committed[0] != 30 || committed[1] != 40 || committed[2] != 7 {
		g.t.Errorf("a plan has been carried out: %v", committed)
	}
}

func lastNumber(t *testing.T, line string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(line[strings.LastIndexByte(line, ' ')+1:], 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return n
}

func (g groupTools) resets() {
	_, stderr, err := g.tryOurs("group", "reset", idleGroup, "--topic", groupTopic, "--shift-by", "8", "--execute")
	if err != nil {
		g.t.Fatal(err)
	}
	contains(g.t, "our warnings", stderr, groupTopic+"-1: 48 lies past the log's end, so it becomes 40")
	if committed := g.sameOffsets(idleGroup); committed[0] != 38 || committed[1] != 40 || committed[2] != 15 {
		g.t.Errorf("after our reset: %v", committed)
	}
	g.kafka("--reset-offsets", "--group", idleGroup, "--topic", groupTopic+":1", "--to-offset", "3", "--execute")
	if committed := g.sameOffsets(idleGroup); committed[0] != 38 || committed[1] != 3 || committed[2] != 15 {
		g.t.Errorf("after Kafka's reset: %v", committed)
	}
}

// files has each tool carry out what the other has exported.
func (g groupTools) files() {
	dir := g.t.TempDir()
	kafkas, our := filepath.Join(dir, "kafkas.csv"), filepath.Join(dir, "ours.csv")
	stdout, _, err := g.tryOurs("group", "reset", idleGroup, "--all-topics", "--to-current", "--export", "--dry-run")
	if err != nil {
		g.t.Fatal(err)
	}
	exported := rig.Java(g.t, nil, consumerGroups, "--bootstrap-server", g.b.Addr, "--reset-offsets", "--group", idleGroup, "--all-topics",
		"--to-earliest", "--export", "--dry-run")
	for file, text := range map[string]string{our: stdout, kafkas: exported} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			g.t.Fatal(err)
		}
	}
	if _, _, err := g.tryOurs("group", "reset", idleGroup, "--from-file", kafkas, "--execute"); err != nil {
		g.t.Fatal(err)
	}
	if committed := g.sameOffsets(idleGroup); committed[0] != 0 || committed[1] != 0 || committed[2] != 0 {
		g.t.Errorf("after Kafka's file: %v", committed)
	}
	g.kafka("--reset-offsets", "--group", idleGroup, "--from-file", our, "--execute")
	if committed := g.sameOffsets(idleGroup); committed[0] != 38 || committed[1] != 3 || committed[2] != 15 {
		g.t.Errorf("after our file: %v", committed)
	}
}

// offsetsPartition is where a group's records lie in __consumer_offsets: by Java's hash of the name.
func offsetsPartition(group string, partitions int) int {
	var h int32
	for _, unit := range utf16.Encode([]rune(group)) {
		h = 31*h + int32(unit)
	}
	return int(h&0x7fffffff) % partitions
}

// formatted reads a group's partition of __consumer_offsets with one of Kafka's formatters.
func formatted[T any](g groupTools, group, formatter string) []T {
	g.t.Helper()
	const topic = "__consumer_offsets"
	partition := offsetsPartition(group, 50)
	ends := must(g, func(ctx context.Context) (kadm.ListedOffsets, error) {
		return admin(g.t, g.b.Addr).ListEndOffsets(ctx, topic)
	})
	starts := must(g, func(ctx context.Context) (kadm.ListedOffsets, error) {
		return admin(g.t, g.b.Addr).ListStartOffsets(ctx, topic)
	})
	if len(ends[topic]) != 50 {
		g.t.Fatalf("%s has %d partitions", topic, len(ends[topic]))
	}
	count := ends[topic][int32(partition)].Offset - starts[topic][int32(partition)].Offset
	if count == 0 {
		g.t.Fatalf("partition %d of %s is empty", partition, topic)
	}
	out := rig.Java(g.t, nil, consoleConsumer, "--bootstrap-server", g.b.Addr, "--topic", topic, "--partition", fmt.Sprint(partition),
		"--offset", "earliest", "--max-messages", fmt.Sprint(count), "--timeout-ms", "60000", "--formatter", formatter)
	out = out[max(strings.IndexByte(out, '{'), 0):] // after what the consumer has to say
	var all []T
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var v T
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			g.t.Fatalf("%s: %v in %.2000s", formatter, err, out)
		}
		all = append(all, v)
	}
}

// offsetRecord is what Kafka's formatter prints of a commit, or with a null value of its deletion.
type offsetRecord struct {
	Key struct {
		Type int
		Data struct {
			Group, Topic string
			Partition    int32
		}
	}
	Value *struct {
		Version int
		Data    struct {
			Offset          int64
			LeaderEpoch     int32
			Metadata        string
			CommitTimestamp int64
		}
	}
}

func (g groupTools) offsetsFormatter() {
	for _, group := range []string{liveGroup, idleGroup} {
		last, newest := map[int32]int64{}, int64(0)
		for _, r := range formatted[offsetRecord](g, group, offsetsFormat) {
			if r.Key.Data.Group != group {
				continue
			}
			if r.Key.Type != 1 || r.Key.Data.Topic != groupTopic || r.Value == nil {
				g.t.Errorf("%+v", r)
				continue
			}
			if r.Value.Version != 4 {
				g.t.Errorf("a commit in version %d, Apache Kafka 4.3.1 writes 4: %+v", r.Value.Version, r)
			}
			if r.Value.Data.Metadata == "" && r.Value.Data.LeaderEpoch != -1 || r.Value.Data.Metadata != "" && r.Value.Data.LeaderEpoch != 0 {
				g.t.Errorf("leader epoch beside %q: %+v", r.Value.Data.Metadata, r.Value.Data)
			}
			last[r.Key.Data.Partition], newest = r.Value.Data.Offset, r.Value.Data.CommitTimestamp
		}
		if committed := g.sameOffsets(group); fmt.Sprint(committed) != fmt.Sprint(last) {
			g.t.Errorf("%s: the log has %v, committed is %v", group, last, committed)
		}
		if age := time.Since(time.UnixMilli(newest)); age < 0 || age > 10*time.Minute {
			g.t.Errorf("%s: committed %v ago", group, age)
		}
	}
}

func (g groupTools) metadataFormatter() {
	type record struct {
		Key struct {
			Type int
			Data struct{ Group string }
		}
		Value *struct {
			Data struct {
				ProtocolType, Protocol, Leader string
				Generation                     int32
				Members                        []struct {
					MemberID, GroupInstanceID, ClientID, ClientHost string
					RebalanceTimeout, SessionTimeout                int
					Subscription, Assignment                        []byte
				}
			}
		}
	}
	var last record
	for _, r := range formatted[record](g, liveGroup, metadataFormat) {
		if r.Key.Data.Group == liveGroup {
			last = r
		}
	}
	if last.Value == nil || last.Key.Type != 2 {
		g.t.Fatalf("no metadata of %s: %+v", liveGroup, last)
	}
	v, d := last.Value.Data, g.described(liveGroup)
	if v.ProtocolType != d.ProtocolType || v.Protocol != d.Protocol || v.Generation < 1 || len(v.Members) != len(d.Members) {
		g.t.Fatalf("the log has %+v, described is %+v", v, d)
	}
	leads := false
	for _, m := range v.Members {
		i := slices.IndexFunc(d.Members, func(o ourMember) bool {
			return o.MemberID == m.MemberID && o.InstanceID == m.GroupInstanceID && o.ClientID == m.ClientID && "/"+o.Host == m.ClientHost
		})
		if i < 0 {
			g.t.Fatalf("the log has member %+v, described are %+v", m, d.Members)
		}
		var s kmsg.ConsumerMemberMetadata
		var a kmsg.ConsumerMemberAssignment
		if err := errors.Join(s.ReadFrom(m.Subscription), a.ReadFrom(m.Assignment)); err != nil {
			g.t.Fatal(err)
		}
		if !slices.Equal(s.Topics, d.Members[i].Topics) || len(a.Topics) != 1 || len(a.Topics[0].Partitions) != len(d.Members[i].Assignment[groupTopic]) {
			g.t.Errorf("the log has %+v and %+v, described is %+v", s, a, d.Members[i])
		}
		leads = leads || m.MemberID == v.Leader
		if m.SessionTimeout <= 0 || m.RebalanceTimeout <= 0 {
			g.t.Errorf("timeouts of %+v", m)
		}
	}
	if !leads {
		g.t.Errorf("the leader %s is no member", v.Leader)
	}
}

// mixed has a member of ours and one of Kafka's share a topic: each gets partitions, and what they
// have printed, together, is every record once.
func (g groupTools) mixed() {
	const topic, group = groupTopic + "-mixed", "group-tools-mixed"
	createTopic(g.t, g.b.Addr, topic, 4)
	var mu sync.Mutex
	printed := map[string]string{} // by value: who
	take := func(who string) func(string) {
		return func(line string) {
			if _, err := strconv.Atoi(line); err != nil {
				return // Kafka's consumer has things to say beside its records
			}
			mu.Lock()
			defer mu.Unlock()
			if other, twice := printed[line]; twice {
				g.t.Errorf("%s printed %q, and so did %s", who, line, other)
			}
			printed[line] = who
		}
	}
	ours := rig.Launch(g.t, "our consumer", []string{
		rig.Binary(g.t), "consume", topic, "--group", group, "--follow", "-b", g.b.Addr, "--assignor", "range",
	}, take("ours"))
	kafkas := rig.Launch(g.t, "Kafka's consumer", rig.JavaCommand(g.t, consoleConsumer, "--bootstrap-server", g.b.Addr, "--topic", topic,
		"--group", group, "--command-property", "auto.offset.reset=earliest",
		"--command-property", "partition.assignment.strategy=org.apache.kafka.clients.consumer.RangeAssignor"), take("Kafka's"))
	rig.Eventually(g.t, patience, "each member has two partitions", func() bool {
		stdout, _, err := g.tryOurs("group", "describe", group, "-o", "json")
		if err != nil {
			return false // nobody has joined yet
		}
		d := decodeJSON[[]ourGroup](g.t, "the group", stdout)[0]
		return d.State == "Stable" && len(d.Members) == 2 && len(d.Members[0].Assignment[topic]) == 2 && len(d.Members[1].Assignment[topic]) == 2
	})
	producer := kgoClient(g.t, g.b.Addr, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	send := func(from, to int) {
		g.t.Helper()
		for i := from; i < to; i++ {
			r := &kgo.Record{Topic: topic, Partition: int32(i % 4), Value: fmt.Append(nil, i)}
			if err := producer.ProduceSync(within(g.t, patience), r).FirstErr(); err != nil {
				g.t.Fatal(err)
			}
		}
	}
	count := func(n int) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(printed) == n
		}
	}
	send(0, 100)
	rig.Eventually(g.t, patience, "both have printed what is theirs", count(100))
	mu.Lock()
	byOurs := 0
	for _, who := range printed {
		if who == "ours" {
			byOurs++
		}
	}
	mu.Unlock()
	if byOurs != 50 {
		g.t.Errorf("ours printed %d of 100", byOurs)
	}
	ours.Terminate()
	ours.Succeeds(patience)
	rig.Eventually(g.t, patience, "Kafka's member has all", func() bool {
		d := g.described(group)
		return d.State == "Stable" && len(d.Members) == 1 && len(d.Members[0].Assignment[topic]) == 4
	})
	send(100, 140)
	rig.Eventually(g.t, patience, "Kafka's member has printed the rest", count(140))
	kafkas.Terminate()
	<-kafkas.Ended()
	rig.Eventually(g.t, patience, "everything is committed", func() bool {
		d := g.described(group)
		return d.State == "Empty" && d.TotalLag == 0 && len(d.Partitions) == 4
	})
	if _, stderr, err := g.tryOurs("group", "delete", group); err != nil {
		g.t.Errorf("delete the group: %v\n%s", err, stderr)
	}
}

// deletion deletes some offsets with each tool, then groups with each.
func (g groupTools) deletion() {
	if _, _, err := g.tryOurs("group", "delete-offsets", idleGroup, "--topic", groupTopic+":1"); err != nil {
		g.t.Fatal(err)
	}
	if committed := g.sameOffsets(idleGroup); len(committed) != 2 {
		g.t.Errorf("after our deletion of offsets: %v", committed)
	}
	g.kafka("--delete-offsets", "--group", idleGroup, "--topic", groupTopic+":0")
	if committed := g.sameOffsets(idleGroup); len(committed) != 1 {
		g.t.Errorf("after Kafka's deletion of offsets: %v", committed)
	}
	other := idleGroup + "-2"
	g.commit(other, map[int32]int64{0: 1})
	g.kafka("--delete", "--group", other)
	_, stderr, err := g.tryOurs("group", "delete", other)
	if err == nil {
		g.t.Error("a group was deleted twice")
	}
	contains(g.t, "deleting what is not there", stderr, "there is no group")
	if _, _, err := g.tryOurs("group", "delete", idleGroup); err != nil {
		g.t.Fatal(err)
	}
	last := map[int32]bool{} // by partition: deleted
	for _, r := range formatted[offsetRecord](g, idleGroup, offsetsFormat) {
		if r.Key.Data.Group == idleGroup {
			last[r.Key.Data.Partition] = r.Value == nil
		}
	}
	if !last[0] || !last[1] || !last[2] {
		g.t.Errorf("the log ends with commits of a group that has been deleted: %v", last)
	}
	out, _ := rig.TryJava(g.t, nil, consumerGroups, "--bootstrap-server", g.b.Addr, "--delete", "--group", idleGroup)
	contains(g.t, "Kafka's deletion of what is not there", out, "GroupIdNotFoundException")
	for _, row := range g.kafka("--list", "--state") {
		if row["GROUP"] != liveGroup {
			g.t.Errorf("left is %v", row)
		}
	}
}
