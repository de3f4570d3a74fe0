package controller

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The scripts in testdata say what is asked (a line each) and, on lines that begin with "=", what
// Apache Kafka 4.3.1 answers, but for the wording of its messages. To ask a real one again, whose
// topics this deletes: go test ./internal/controller -run Golden -kafka 127.0.0.1:9092
var kafkaAddress = flag.String("kafka", "", "rewrite the scripts' answers with those of the Apache Kafka at this address")

// answerer is a broker as the scripts see it.
type answerer interface {
	ask(req kmsg.Request) (kmsg.Response, error)
	// state lists topics with partitions, and all configs that were set while running.
	state() ([]string, error)
}

func TestGoldenScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, script := range scripts {
		t.Run(filepath.Base(script), func(t *testing.T) {
			text, err := os.ReadFile(script)
			if err != nil {
				t.Fatal(err)
			}
			var a answerer
			if *kafkaAddress != "" {
				a = newRealKafka(t, *kafkaAddress)
			} else {
				a = newOwnBroker(t)
			}
			got := play(t, a, string(text))
			if *kafkaAddress != "" {
				if err := os.WriteFile(script, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			compareScripts(t, script, string(text), got)
		})
	}
}

func compareScripts(t *testing.T, name, want, got string) {
	t.Helper()
	wants, gots := strings.Split(want, "\n"), strings.Split(got, "\n")
	asked := ""
	for i := range max(len(wants), len(gots)) {
		var w, g string
		if i < len(wants) {
			w = wants[i]
		}
		if i < len(gots) {
			g = gots[i]
		}
		if w != g {
			t.Fatalf("%s:%d: after %q\nKafka says %q\nwe say    %q", name, i+1, asked, w, g)
		}
		if !strings.HasPrefix(w, "=") {
			asked = w
		}
	}
}

// play asks what the script says and returns it with the answers given now.
func play(t *testing.T, a answerer, script string) string {
	t.Helper()
	var out strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "=") {
			continue
		}
		fmt.Fprintln(&out, line)
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		answers, err := playLine(a, words[0], words[1:])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for _, answer := range answers {
			fmt.Fprintln(&out, "=", answer)
		}
	}
	return out.String()
}

func playLine(a answerer, verb string, words []string) ([]string, error) {
	var req kmsg.Request
	switch verb {
	case "create":
		req = parseCreate(words)
	case "delete":
		req = parseDelete(words)
	case "grow":
		req = parseGrow(words)
	case "alter":
		req = parseAlter(words)
	case "replace":
		req = parseReplace(words)
	case "feature":
		req = parseFeature(words)
	case "state":
		return a.state()
	default:
		return nil, fmt.Errorf("no such verb: %s", verb)
	}
	resp, err := a.ask(req)
	if err != nil {
		return nil, err
	}
	answers := show(resp)
	slices.Sort(answers) // Kafka shuffles some
	return answers, nil
}

// options takes leading words such as v=4 and validate off words and puts them into req.
func options(req kmsg.Request, words []string, validateOnly *bool) []string {
	for len(words) > 0 {
		switch name, value, _ := strings.Cut(words[0], "="); name {
		case "v":
			req.SetVersion(int16(number(value)))
		case "timeout":
			req.(kmsg.SetTimeoutRequest).SetTimeout(int32(number(value)))
		case "validate":
			*validateOnly = true
		default:
			return words
		}
		words = words[1:]
	}
	return words
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// groups splits words at "+".
func groups(words []string) [][]string {
	all := [][]string{nil}
	for _, w := range words {
		if w == "+" {
			all = append(all, nil)
			continue
		}
		all[len(all)-1] = append(all[len(all)-1], w)
	}
	return all
}

// name turns ” into the empty string and x*250 into 250 times x.
func name(s string) string {
	if s == "''" {
		return ""
	}
	if what, times, ok := strings.Cut(s, "*"); ok {
		return strings.Repeat(what, number(times))
	}
	return s
}

func nodes(s string) (ids []int32) {
	for id := range strings.SplitSeq(s, "/") {
		if id != "" {
			ids = append(ids, int32(number(id)))
		}
	}
	return ids
}

// create [v=N] [validate] TOPIC p=N r=N [P:B/B ...] [key=value ...] + ...
func parseCreate(words []string) kmsg.Request {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Version, req.TimeoutMillis = 7, 30_000
	for _, group := range groups(options(req, words, &req.ValidateOnly)) {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name(group[0]), -1, -1
		for _, word := range group[1:] {
			partition, brokers, assigns := strings.Cut(word, ":")
			key, value, isSet := strings.Cut(word, "=")
			switch {
			case key == "p":
				topic.NumPartitions = int32(number(value))
			case key == "r":
				topic.ReplicationFactor = int16(number(value))
			case isSet:
				config := kmsg.NewCreateTopicsRequestTopicConfig()
				if config.Name = key; value != "null" {
					config.Value = kmsg.StringPtr(name(value))
				}
				topic.Configs = append(topic.Configs, config)
			case assigns:
				assignment := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
				assignment.Partition, assignment.Replicas = int32(number(partition)), nodes(brokers)
				topic.ReplicaAssignment = append(topic.ReplicaAssignment, assignment)
			}
		}
		req.Topics = append(req.Topics, topic)
	}
	return req
}

// delete [v=N] NAME | id:NAME | both:NAME | zero | unknown + ...; an id is that of the topic of the name
func parseDelete(words []string) kmsg.Request {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.Version, req.TimeoutMillis = 6, 30_000
	for _, group := range groups(options(req, words, nil)) {
		topic := kmsg.NewDeleteTopicsRequestTopic()
		kind, what, ok := strings.Cut(group[0], ":")
		if !ok {
			what = kind
		}
		topic.Topic = kmsg.StringPtr(what)
		req.TopicNames = append(req.TopicNames, what)
		switch kind {
		case "id":
			topic.Topic, topic.TopicID = nil, idPlaceholder(what)
		case "both":
			topic.TopicID = idPlaceholder(what)
		case "zero":
			topic.Topic = nil
		case "unknown":
			topic.Topic, topic.TopicID = nil, [16]byte{1, 2, 3}
		}
		req.Topics = append(req.Topics, topic)
	}
	return req
}

// idPlaceholder stands for the id of a topic until the answerer looks it up.
func idPlaceholder(topic string) (id [16]byte) {
	copy(id[:], "id:"+topic)
	return id
}

func resolveIDs(req *kmsg.DeleteTopicsRequest, lookup func(name string) [16]byte) {
	for i := range req.Topics {
		text := strings.TrimRight(string(req.Topics[i].TopicID[:]), "\x00")
		if topic, ok := strings.CutPrefix(text, "id:"); ok {
			req.Topics[i].TopicID = lookup(topic)
		}
	}
}

// grow [v=N] [validate] TOPIC COUNT [B/B ...] + ...
func parseGrow(words []string) kmsg.Request {
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.Version, req.TimeoutMillis = 3, 30_000
	for _, group := range groups(options(req, words, &req.ValidateOnly)) {
		topic := kmsg.NewCreatePartitionsRequestTopic()
		topic.Topic, topic.Count = group[0], int32(number(group[1]))
		for _, brokers := range group[2:] {
			assignment := kmsg.NewCreatePartitionsRequestTopicAssignment()
			assignment.Replicas = nodes(brokers)
			topic.Assignment = append(topic.Assignment, assignment)
		}
		req.Topics = append(req.Topics, topic)
	}
	return req
}

func resource(s string) (kmsg.ConfigResourceType, string) {
	kind, what, _ := strings.Cut(s, ":")
	switch kind {
	case "topic":
		return kmsg.ConfigResourceTypeTopic, name(what)
	case "broker":
		return kmsg.ConfigResourceTypeBroker, name(what)
	default:
		return kmsg.ConfigResourceType(number(kind)), name(what)
	}
}

// alter [v=N] [validate] topic:NAME|broker:ID|KIND:NAME set|del|add|sub|OP KEY=VALUE|KEY ... + ...
func parseAlter(words []string) kmsg.Request {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Version = 1
	for _, group := range groups(options(req, words, &req.ValidateOnly)) {
		r := kmsg.NewIncrementalAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = resource(group[0])
		for i := 1; i+1 < len(group); i += 2 {
			config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			at := slices.Index([]string{"set", "del", "add", "sub"}, group[i])
			if at < 0 {
				at = number(group[i])
			}
			config.Op = kmsg.IncrementalAlterConfigOp(at)
			key, value, ok := strings.Cut(group[i+1], "=")
			config.Name = name(key)
			if ok {
				config.Value = kmsg.StringPtr(name(value))
			}
			r.Configs = append(r.Configs, config)
		}
		req.Resources = append(req.Resources, r)
	}
	return req
}

// replace [v=N] [validate] RESOURCE KEY=VALUE|KEY ... + ...
func parseReplace(words []string) kmsg.Request {
	req := kmsg.NewPtrAlterConfigsRequest()
	req.Version = 2
	for _, group := range groups(options(req, words, &req.ValidateOnly)) {
		r := kmsg.NewAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = resource(group[0])
		for _, word := range group[1:] {
			config := kmsg.NewAlterConfigsRequestResourceConfig()
			key, value, ok := strings.Cut(word, "=")
			config.Name = key
			if ok {
				config.Value = kmsg.StringPtr(name(value))
			}
			r.Configs = append(r.Configs, config)
		}
		req.Resources = append(req.Resources, r)
	}
	return req
}

// feature [v=N] [validate] NAME LEVEL TYPE + ...
func parseFeature(words []string) kmsg.Request {
	req := kmsg.NewPtrUpdateFeaturesRequest()
	req.Version, req.TimeoutMillis = 2, 30_000
	for _, group := range groups(options(req, words, &req.ValidateOnly)) {
		update := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
		update.Feature, update.MaxVersionLevel, update.UpgradeType = group[0], int16(number(group[1])), int8(number(group[2]))
		update.AllowDowngrade = update.UpgradeType > 1
		req.FeatureUpdates = append(req.FeatureUpdates, update)
	}
	return req
}

func code(c int16) string {
	if err := kerr.ErrorForCode(c); err != nil {
		var k *kerr.Error
		if errors.As(err, &k) {
			return k.Message
		}
	}
	return "NONE"
}

func show(resp kmsg.Response) (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	switch r := resp.(type) {
	case *kmsg.CreateTopicsResponse:
		for _, t := range r.Topics {
			line := fmt.Sprintf("%.20s %s", t.Topic, code(t.ErrorCode))
			if r.Version >= 7 {
				line += fmt.Sprintf(" id=%t", t.TopicID != [16]byte{})
			}
			if r.Version >= 5 {
				line += fmt.Sprintf(" p=%d r=%d", t.NumPartitions, t.ReplicationFactor)
				for _, c := range t.Configs {
					if c.Source == int8(kmsg.ConfigSourceDynamicTopicConfig) {
						line += fmt.Sprintf(" %s=%s", c.Name, *c.Value)
					}
				}
				line += fmt.Sprintf(" configs=%t", len(t.Configs) > 20)
			}
			lines = append(lines, line)
		}
	case *kmsg.DeleteTopicsResponse:
		for _, t := range r.Topics {
			topic := "null"
			if t.Topic != nil {
				topic = *t.Topic
			}
			add("%s id=%t %s", topic, t.TopicID != [16]byte{}, code(t.ErrorCode))
		}
	case *kmsg.CreatePartitionsResponse:
		for _, t := range r.Topics {
			add("%s %s", t.Topic, code(t.ErrorCode))
		}
	case *kmsg.IncrementalAlterConfigsResponse:
		for _, t := range r.Resources {
			add("%d:%s %s", t.ResourceType, t.ResourceName, code(t.ErrorCode))
		}
	case *kmsg.AlterConfigsResponse:
		for _, t := range r.Resources {
			add("%d:%s %s", t.ResourceType, t.ResourceName, code(t.ErrorCode))
		}
	case *kmsg.UpdateFeaturesResponse:
		add("all %s", code(r.ErrorCode))
		for _, f := range r.Results {
			add("%s %s", f.Feature, code(f.ErrorCode))
		}
	}
	return lines
}

type realKafka struct {
	t      *testing.T
	client *kgo.Client
	ids    map[string][16]byte // of the topics created here
}

func newRealKafka(t *testing.T, address string) answerer {
	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	k := &realKafka{t, client, make(map[string][16]byte)}
	k.wipe()
	return k
}

func (k *realKafka) ask(req kmsg.Request) (kmsg.Response, error) {
	if d, ok := req.(*kmsg.DeleteTopicsRequest); ok {
		resolveIDs(d, func(name string) [16]byte { return k.ids[name] })
	}
	resp, err := pinned{req}.on(k.client)
	if created, ok := resp.(*kmsg.CreateTopicsResponse); ok && err == nil {
		for _, t := range created.Topics {
			if t.ErrorCode == 0 {
				k.ids[t.Topic] = t.TopicID
			}
		}
	}
	return resp, err
}

// pinned keeps the client from choosing another version.
type pinned struct{ kmsg.Request }

func (p pinned) MaxVersion() int16 { return p.GetVersion() }

func (p pinned) on(client *kgo.Client) (kmsg.Response, error) {
	version := p.GetVersion()
	resp, err := client.Broker(1).Request(context.Background(), p)
	if err == nil && p.GetVersion() != version {
		err = fmt.Errorf("asked with version %d", p.GetVersion())
	}
	return resp, err
}

func (k *realKafka) topics() []kmsg.MetadataResponseTopic {
	req := kmsg.NewPtrMetadataRequest()
	resp, err := req.RequestWith(context.Background(), k.client)
	if err != nil {
		k.t.Fatal(err)
	}
	return resp.Topics
}

func (k *realKafka) configs(kind kmsg.ConfigResourceType, name string) (set []string) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kind, name
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(context.Background(), k.client)
	if err != nil {
		k.t.Fatal(err)
	}
	own := map[kmsg.ConfigSource]bool{kmsg.ConfigSourceDynamicTopicConfig: kind == kmsg.ConfigResourceTypeTopic}
	if kind == kmsg.ConfigResourceTypeBroker {
		own[kmsg.ConfigSourceDynamicBrokerConfig] = name != ""
		own[kmsg.ConfigSourceDynamicDefaultBrokerConfig] = name == ""
	}
	for _, c := range resp.Resources[0].Configs {
		if own[c.Source] {
			value := "null"
			if c.Value != nil {
				value = *c.Value
			}
			if c.Name == "min.insync.replicas" && kind == kmsg.ConfigResourceTypeBroker {
				continue // Kafka's format tool sets it for the sake of eligible leader replicas
			}
			set = append(set, c.Name+"="+value)
		}
	}
	slices.Sort(set)
	return set
}

func (k *realKafka) state() (lines []string, _ error) {
	<-time.After(time.Second) // Kafka answers before its own brokers know
	for _, t := range k.topics() {
		line := fmt.Sprintf("topic %s p=%d r=%d", *t.Topic, len(t.Partitions), len(t.Partitions[0].Replicas))
		for _, c := range k.configs(kmsg.ConfigResourceTypeTopic, *t.Topic) {
			line += " " + c
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	for _, b := range []string{"", "1"} {
		if set := k.configs(kmsg.ConfigResourceTypeBroker, b); len(set) > 0 {
			lines = append(lines, fmt.Sprintf("broker %q %s", b, strings.Join(set, " ")))
		}
	}
	return lines, nil
}

func (k *realKafka) wipe() {
	req := kmsg.NewPtrDeleteTopicsRequest()
	for _, t := range k.topics() {
		topic := kmsg.NewDeleteTopicsRequestTopic()
		topic.Topic = t.Topic
		req.Topics, req.TopicNames = append(req.Topics, topic), append(req.TopicNames, *t.Topic)
	}
	if _, err := req.RequestWith(context.Background(), k.client); err != nil {
		k.t.Fatal(err)
	}
	alter := kmsg.NewPtrIncrementalAlterConfigsRequest()
	for _, b := range []string{"", "1"} {
		r := kmsg.NewIncrementalAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeBroker, b
		for _, c := range k.configs(kmsg.ConfigResourceTypeBroker, b) {
			config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			config.Name, _, _ = strings.Cut(c, "=")
			config.Op = kmsg.IncrementalAlterConfigOpDelete
			r.Configs = append(r.Configs, config)
		}
		alter.Resources = append(alter.Resources, r)
	}
	if _, err := alter.RequestWith(context.Background(), k.client); err != nil {
		k.t.Fatal(err)
	}
	<-time.After(time.Second)
}
