package controller

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/config"
	"barnabas/internal/metadata"
)

const (
	// maxConfigBytes bounds a key and a value of a config, as Kafka does; a longer one is refused.
	maxConfigBytes = 1<<15 - 1
	// maxConfigKeys bounds the keys that one resource sets; brokers take keys of any name, so
	// without it they could grow for ever.
	maxConfigKeys = 1000
)

// validText replaces what is not UTF-8, as Kafka does when it reads a request.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// brokerName is the name of a broker's own configs.
func brokerName(id int32) string { return strconv.Itoa(int(id)) }

func checkSizes(configs map[string]string) *refusal {
	if len(configs) > maxConfigKeys {
		return refuse(kerr.InvalidConfig, "%d configs for one resource; %d are allowed", len(configs), maxConfigKeys)
	}
	for key, value := range configs {
		if size := max(len(key), len(value)); size > maxConfigBytes {
			return refuse(kerr.InvalidConfig, "config %.60q takes %d bytes; %d are allowed", key, size, maxConfigBytes)
		}
	}
	return nil
}

// alterConfigs decides AlterConfigs, which puts what it brings in the place of all that a resource
// had set.
func alterConfigs(v *view, req *kmsg.AlterConfigsRequest) ([]metadata.Record, *kmsg.AlterConfigsResponse) {
	resp := kmsg.NewPtrAlterConfigsResponse()
	resp.Version = req.Version
	times := make(map[metadata.Resource]int)
	for _, r := range req.Resources {
		times[resourceOf(r.ResourceType, r.ResourceName)]++
	}
	var records []metadata.Record
	for _, r := range req.Resources {
		resource := resourceOf(r.ResourceType, r.ResourceName)
		changed, outcome := v.alterOnce(resource, times[resource], func() (map[string]string, *refusal) {
			return replacement(r.Configs)
		})
		records = append(records, changed...)
		answer := kmsg.NewAlterConfigsResponseResource()
		answer.ResourceType, answer.ResourceName = r.ResourceType, r.ResourceName
		answer.ErrorCode, answer.ErrorMessage = outcome.fields()
		resp.Resources = append(resp.Resources, answer)
	}
	if req.ValidateOnly {
		return nil, resp
	}
	return records, resp
}

func resourceOf(kind kmsg.ConfigResourceType, name string) metadata.Resource {
	return metadata.Resource{Kind: metadata.ResourceKind(kind), Name: validText(name)}
}

func replacement(given []kmsg.AlterConfigsRequestResourceConfig) (map[string]string, *refusal) {
	next := make(map[string]string, len(given))
	for _, c := range given {
		key := validText(c.Name)
		if _, again := next[key]; again {
			return nil, keyTwice(key)
		}
		if c.Value == nil {
			return nil, noValue(key)
		}
		next[key] = validText(*c.Value)
	}
	return next, nil
}

func keyTwice(key string) *refusal {
	return refuse(kerr.InvalidRequest, "config %q is in the request twice for one resource", key)
}

func noValue(key string) *refusal {
	return refuse(kerr.InvalidRequest, "no value for config %q", key)
}

// incrementalAlterConfigs decides IncrementalAlterConfigs, which changes single keys (KIP-339).
func incrementalAlterConfigs(v *view, req *kmsg.IncrementalAlterConfigsRequest) ([]metadata.Record, *kmsg.IncrementalAlterConfigsResponse) {
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	resp.Version = req.Version
	times := make(map[metadata.Resource]int)
	for _, r := range req.Resources {
		times[resourceOf(r.ResourceType, r.ResourceName)]++
	}
	var records []metadata.Record
	for _, r := range req.Resources {
		resource := resourceOf(r.ResourceType, r.ResourceName)
		changed, outcome := v.alterOnce(resource, times[resource], func() (map[string]string, *refusal) {
			return increment(resource.Kind, v.image.Config(resource.Kind, resource.Name), r.Configs)
		})
		records = append(records, changed...)
		answer := kmsg.NewIncrementalAlterConfigsResponseResource()
		answer.ResourceType, answer.ResourceName = r.ResourceType, r.ResourceName
		answer.ErrorCode, answer.ErrorMessage = outcome.fields()
		resp.Resources = append(resp.Resources, answer)
	}
	if req.ValidateOnly {
		return nil, resp
	}
	return records, resp
}

// outcome is how the change of one resource's configs ended: refused, or done with or without a
// warning.
type outcome struct {
	why     *refusal
	warning string
}

func (o outcome) fields() (int16, *string) {
	if o.why == nil && o.warning != "" {
		return 0, kmsg.StringPtr(o.warning)
	}
	return o.why.fields()
}

// alterOnce changes the configs of a resource that the request names times times, to those that
// next returns.
func (v *view) alterOnce(r metadata.Resource, times int, next func() (map[string]string, *refusal)) ([]metadata.Record, outcome) {
	switch {
	case times > 1:
		return nil, outcome{why: refuse(kerr.InvalidRequest, "%s is in the request %d times", resourceText(r), times)}
	case r.Kind != metadata.TopicResource && r.Kind != metadata.BrokerResource:
		return nil, outcome{why: refuse(kerr.InvalidRequest, "configs of resource type %d cannot be changed here", r.Kind)}
	}
	if r.Kind == metadata.BrokerResource {
		if why := v.checkBrokerName(r.Name); why != nil {
			return nil, outcome{why: why}
		}
	}
	configs, why := next()
	if why != nil {
		return nil, outcome{why: why}
	}
	if why := v.checkConfigs(r, configs); why != nil {
		return nil, outcome{why: why}
	}
	old := v.image.Config(r.Kind, r.Name)
	records := append(v.minISRLowered(r, old, configs), configRecords(r, old, configs)...)
	return records, outcome{warning: v.configWarning(r, old, configs)}
}

func resourceText(r metadata.Resource) string {
	switch {
	case r.Kind == metadata.TopicResource:
		return fmt.Sprintf("topic %q", r.Name)
	case r.Name == "":
		return "the default of all brokers"
	default:
		return fmt.Sprintf("broker %q", r.Name)
	}
}

func (v *view) checkBrokerName(name string) *refusal {
	if name == "" {
		return nil // the default of all
	}
	id, err := strconv.ParseInt(name, 10, 32)
	if err != nil {
		return refuse(kerr.InvalidRequest, "%.60q is no broker id", name)
	}
	if _, registered := v.image.Broker(int32(id)); !registered || brokerName(int32(id)) != name {
		return refuse(kerr.InvalidRequest, "there is no broker %s", name)
	}
	return nil
}

func (v *view) checkConfigs(r metadata.Resource, configs map[string]string) *refusal {
	if why := checkSizes(configs); why != nil {
		return why
	}
	if r.Kind == metadata.BrokerResource {
		if err := config.CheckDynamicBroker(r.Name, configs, r.Name != ""); err != nil {
			return refuse(kerr.InvalidRequest, "%v", err)
		}
		return nil
	}
	if r.Name == "" {
		return refuse(kerr.InvalidRequest, "there are no configs of all topics: set them on the brokers")
	}
	if reason := CheckTopicName(r.Name); reason != "" {
		return refuse(kerr.InvalidTopicException, "topic %.60q: %s", r.Name, reason)
	}
	if err := config.CheckTopic(configs); err != nil {
		return refuse(kerr.InvalidConfig, "%v", err)
	}
	if _, exists := v.image.Topic(r.Name); !exists {
		return refuse(kerr.UnknownTopicOrPartition, "there is no topic %q", r.Name)
	}
	return nil
}

// configWarning tells of a change of min.insync.replicas that does not do what it seems to.
func (v *view) configWarning(r metadata.Resource, old, next map[string]string) string {
	const key = "min.insync.replicas"
	if next[key] == "" || next[key] == old[key] {
		return ""
	}
	if r.Kind == metadata.TopicResource {
		topic, _ := v.image.Topic(r.Name)
		return minISRWarning(v.settings.Topic(next), topic.ReplicationFactor())
	}
	configured, err := strconv.Atoi(next[key])
	if err != nil {
		return ""
	}
	affected := 0
	for t := range v.image.Topics() {
		_, own := v.image.Config(metadata.TopicResource, t.Name)[key]
		if _, lowered := metadata.EffectiveMinISR(configured, t.ReplicationFactor()); lowered && !own {
			affected++
		}
	}
	if affected == 0 {
		return ""
	}
	return fmt.Sprintf("warning: %d topics have fewer than %d replicas, so min.insync.replicas does not hold for them", affected, configured)
}

// increment applies operations on single keys to a resource's configs.
func increment(kind metadata.ResourceKind, current map[string]string, ops []kmsg.IncrementalAlterConfigsRequestResourceConfig) (map[string]string, *refusal) {
	next := maps.Clone(current)
	if next == nil {
		next = make(map[string]string)
	}
	seen := make(map[string]bool, len(ops))
	for _, op := range ops {
		key := validText(op.Name)
		if seen[key] {
			return nil, keyTwice(key)
		}
		seen[key] = true
		if op.Value == nil && op.Op != kmsg.IncrementalAlterConfigOpDelete {
			return nil, noValue(key)
		}
	}
	for _, op := range ops {
		key := validText(op.Name)
		switch op.Op {
		case kmsg.IncrementalAlterConfigOpSet:
			next[key] = validText(*op.Value)
		case kmsg.IncrementalAlterConfigOpDelete:
			delete(next, key)
		case kmsg.IncrementalAlterConfigOpAppend, kmsg.IncrementalAlterConfigOpSubtract:
			list, why := listOf(kind, key, next)
			if why != nil {
				return nil, why
			}
			next[key] = changeList(list, validText(*op.Value), op.Op == kmsg.IncrementalAlterConfigOpAppend)
		default:
			return nil, refuse(kerr.InvalidRequest, "config %q: there is no operation %d", key, op.Op)
		}
	}
	return next, nil
}

// listOf is the list that a resource has set under key, or that key's default.
func listOf(kind metadata.ResourceKind, key string, set map[string]string) ([]string, *refusal) {
	scope := config.Topics
	if kind == metadata.BrokerResource {
		scope = config.Broker
	}
	k, known := config.Lookup(scope, key)
	if !known || k.Type != config.List {
		return nil, refuse(kerr.InvalidConfig, "config %.60q is not a list: it cannot be appended to or subtracted from", key)
	}
	value, isSet := set[key]
	if !isSet {
		value = k.Default
	}
	return splitList(value), nil
}

// splitList leaves out empty elements. Spaces around the others do not count.
func splitList(s string) (elements []string) {
	for e := range strings.SplitSeq(s, ",") {
		if e = strings.TrimSpace(e); e != "" {
			elements = append(elements, e)
		}
	}
	return elements
}

// changeList appends the elements that list lacks, or removes those that it has.
func changeList(list []string, elements string, add bool) string {
	for _, e := range splitList(elements) {
		at := slices.Index(list, e)
		switch {
		case add && at < 0:
			list = append(list, e)
		case !add && at >= 0:
			list = slices.Delete(list, at, at+1)
		}
	}
	return strings.Join(list, ",")
}
