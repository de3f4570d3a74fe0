package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// ResourceType is what kind of thing has a configuration.
type ResourceType int8

// Kafka's resource types.
const (
	TopicResource         ResourceType = 2
	BrokerResource        ResourceType = 4
	BrokerLoggerResource  ResourceType = 8
	ClientMetricsResource ResourceType = 16
	GroupResource         ResourceType = 32
)

// String gives the name that Kafka's tools have for the type.
func (t ResourceType) String() string {
	switch t {
	case TopicResource:
		return "topic"
	case BrokerResource:
		return "broker"
	case BrokerLoggerResource:
		return "broker-logger"
	case ClientMetricsResource:
		return "client-metrics"
	case GroupResource:
		return "group"
	default:
		return fmt.Sprintf("resource type %d", int8(t))
	}
}

// Resource is something that has a configuration.
type Resource struct {
	Type ResourceType
	Name string // a broker's node id in decimal; empty for the defaults of all brokers
}

// String gives type and name, as in "topic orders".
func (r Resource) String() string {
	if r == AllBrokers() {
		return "all brokers"
	}
	return r.Type.String() + " " + r.Name
}

// Topic is a topic's configuration.
func Topic(name string) Resource { return Resource{TopicResource, name} }

// Broker is one broker's configuration.
func Broker(node int32) Resource { return Resource{BrokerResource, strconv.Itoa(int(node))} }

// AllBrokers is what holds for every broker that has no value of its own.
func AllBrokers() Resource { return Resource{BrokerResource, ""} }

// BrokerLogger is how much one broker logs: a level for each logger's name.
func BrokerLogger(node int32) Resource {
	return Resource{BrokerLoggerResource, strconv.Itoa(int(node))}
}

// ClientMetrics is a subscription to metrics of clients (KIP-714).
func ClientMetrics(name string) Resource { return Resource{ClientMetricsResource, name} }

// Group is a consumer group's configuration.
func Group(id string) Resource { return Resource{GroupResource, id} }

func compareResources(a, b Resource) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
}

// target is the broker that knows: a broker answers for its own configuration alone.
func (r Resource) target() (client.Target, error) {
	if (r.Type != BrokerResource && r.Type != BrokerLoggerResource) || r.Name == "" {
		return client.AnyBroker, nil
	}
	node, err := strconv.ParseInt(r.Name, 10, 32)
	if err != nil {
		return client.Target{}, fmt.Errorf("%q is not a broker's id: %w", r.Name, client.ErrInvalidRequest)
	}
	return client.ToBroker(int32(node)), nil
}

// ConfigSource is where a value comes from.
type ConfigSource int8

// Kafka's sources of values, the first that has one counts.
const (
	UnknownSource              ConfigSource = 0
	DynamicTopicConfig         ConfigSource = 1
	DynamicBrokerConfig        ConfigSource = 2
	DynamicDefaultBrokerConfig ConfigSource = 3
	StaticBrokerConfig         ConfigSource = 4
	DefaultConfig              ConfigSource = 5
	DynamicBrokerLoggerConfig  ConfigSource = 6
	ClientMetricsConfig        ConfigSource = 7
	GroupConfig                ConfigSource = 8
)

var sourceNames = map[ConfigSource]string{
	DynamicTopicConfig: "DYNAMIC_TOPIC_CONFIG", DynamicBrokerConfig: "DYNAMIC_BROKER_CONFIG",
	DynamicDefaultBrokerConfig: "DYNAMIC_DEFAULT_BROKER_CONFIG", StaticBrokerConfig: "STATIC_BROKER_CONFIG",
	DefaultConfig: "DEFAULT_CONFIG", DynamicBrokerLoggerConfig: "DYNAMIC_BROKER_LOGGER_CONFIG",
	ClientMetricsConfig: "CLIENT_METRICS_CONFIG", GroupConfig: "GROUP_CONFIG",
}

// String gives Kafka's name.
func (s ConfigSource) String() string { return cmp.Or(sourceNames[s], "UNKNOWN") }

// ConfigType is the type of a value.
type ConfigType int8

// Kafka's types of values.
const (
	UnknownType  ConfigType = 0
	BooleanType  ConfigType = 1
	StringType   ConfigType = 2
	IntType      ConfigType = 3
	ShortType    ConfigType = 4
	LongType     ConfigType = 5
	DoubleType   ConfigType = 6
	ListType     ConfigType = 7
	ClassType    ConfigType = 8
	PasswordType ConfigType = 9
)

var typeNames = map[ConfigType]string{
	BooleanType: "BOOLEAN", StringType: "STRING", IntType: "INT", ShortType: "SHORT", LongType: "LONG",
	DoubleType: "DOUBLE", ListType: "LIST", ClassType: "CLASS", PasswordType: "PASSWORD",
}

// String gives Kafka's name.
func (t ConfigType) String() string { return cmp.Or(typeNames[t], "UNKNOWN") }

// ConfigEntry is one setting of a resource.
type ConfigEntry struct {
	Name          string
	Value         string
	Null          bool // there is no value, or it is Sensitive and not shown
	ReadOnly      bool // needs a restart
	Sensitive     bool
	Source        ConfigSource
	Type          ConfigType
	Synonyms      []ConfigSynonym // all that could give the value, in the order in which they count
	Documentation string
}

// IsDefault says whether nobody has set the value.
func (e ConfigEntry) IsDefault() bool { return e.Source == DefaultConfig }

// ConfigSynonym is one of the places that a value can come from.
type ConfigSynonym struct {
	Name   string
	Value  string
	Null   bool
	Source ConfigSource
}

// ConfigDescription is the configuration of a resource.
type ConfigDescription struct {
	Resource Resource
	Entries  []ConfigEntry // by name
	Err      error         // ErrUnknownTopicOrPartition, ErrInvalidRequest, …
}

// DescribeOption says what DescribeConfigs is to tell.
type DescribeOption func(*describe)

type describe struct {
	names                   []string
	synonyms, documentation bool
}

// Only asks for these settings and no others.
func Only(names ...string) DescribeOption { return func(d *describe) { d.names = names } }

// WithSynonyms asks for all places that a value can come from.
func WithSynonyms() DescribeOption { return func(d *describe) { d.synonyms = true } }

// WithDocumentation asks for what the settings mean.
func WithDocumentation() DescribeOption { return func(d *describe) { d.documentation = true } }

// DescribeConfigs gives configurations, in the order of the resources.
func (a *Admin) DescribeConfigs(ctx context.Context, resources []Resource, options ...DescribeOption) ([]ConfigDescription, error) {
	var d describe
	for _, o := range options {
		o(&d)
	}
	found := map[Resource]ConfigDescription{}
	err := a.eachTarget(ctx, resources, func(ctx context.Context, to client.Target, of []Resource) error {
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.IncludeSynonyms, req.IncludeDocumentation = d.synonyms, d.documentation
		for _, r := range of {
			req.Resources = append(req.Resources, kmsg.DescribeConfigsRequestResource{
				ResourceType: kmsg.ConfigResourceType(r.Type), ResourceName: r.Name, ConfigNames: d.names,
			})
		}
		resp, err := ask[*kmsg.DescribeConfigsResponse](ctx, a, to, req)
		if err != nil {
			return err
		}
		for i := range resp.Resources {
			c := readConfigs(&resp.Resources[i])
			found[c.Resource] = c
		}
		return nil
	}, func(r Resource, err error) { found[r] = ConfigDescription{Resource: r, Err: err} })
	if err != nil {
		return nil, fmt.Errorf("describe configurations: %w", err)
	}
	out := make([]ConfigDescription, len(resources))
	for i, r := range resources {
		c, ok := found[r]
		if !ok {
			c = ConfigDescription{Resource: r, Err: errLeftOut}
		}
		out[i] = c
	}
	return out, nil
}

// eachTarget asks, one after another, the brokers that know the resources. A resource whose broker
// cannot be asked fails alone.
func (a *Admin) eachTarget(ctx context.Context, resources []Resource,
	ask func(context.Context, client.Target, []Resource) error, fail func(Resource, error),
) error {
	byTarget := map[client.Target][]Resource{}
	var order []client.Target
	for _, r := range resources {
		to, err := r.target()
		if err != nil {
			fail(r, err)
			continue
		}
		if byTarget[to] == nil {
			order = append(order, to)
		}
		byTarget[to] = append(byTarget[to], r)
	}
	for _, to := range order {
		err := a.try(ctx, func(ctx context.Context) error { return ask(ctx, to, byTarget[to]) })
		switch {
		case err == nil:
		case to == client.AnyBroker || ctx.Err() != nil:
			return err
		default:
			for _, r := range byTarget[to] {
				fail(r, err)
			}
		}
	}
	return nil
}

func readConfigs(in *kmsg.DescribeConfigsResponseResource) ConfigDescription {
	c := ConfigDescription{
		Resource: Resource{ResourceType(in.ResourceType), in.ResourceName},
		Err:      client.CodeError(in.ErrorCode, in.ErrorMessage),
	}
	for i := range in.Configs {
		e := &in.Configs[i]
		entry := ConfigEntry{
			Name: e.Name, Value: text(e.Value), Null: e.Value == nil, ReadOnly: e.ReadOnly, Sensitive: e.IsSensitive,
			Source: ConfigSource(e.Source), Type: ConfigType(e.ConfigType), Documentation: text(e.Documentation),
		}
		for _, s := range e.ConfigSynonyms {
			entry.Synonyms = append(entry.Synonyms, ConfigSynonym{s.Name, text(s.Value), s.Value == nil, ConfigSource(s.Source)})
		}
		c.Entries = append(c.Entries, entry)
	}
	slices.SortFunc(c.Entries, func(a, b ConfigEntry) int { return cmp.Compare(a.Name, b.Name) })
	return c
}

// ConfigChange is what is to change of a resource. Settings that it does not name stay.
type ConfigChange struct {
	Resource Resource
	Set      map[string]string
	Delete   []string          // back to what holds without it
	Append   map[string]string // to settings that are lists: further members, separated by commas
	Subtract map[string]string // from settings that are lists
}

// ResourceResult is what became of a ConfigChange.
type ResourceResult struct {
	Resource Resource
	Err      error // ErrInvalidConfig, ErrUnknownTopicOrPartition, …
}

// AlterConfigs changes configurations: of each resource all that is asked for, or nothing. The
// results are in the order of the changes. Kafka: incrementalAlterConfigs.
func (a *Admin) AlterConfigs(ctx context.Context, changesOf []ConfigChange, options ...ChangeOption) ([]ResourceResult, error) {
	byResource := map[Resource]ConfigChange{}
	var resources []Resource
	for _, c := range changesOf {
		byResource[c.Resource] = c
		resources = append(resources, c.Resource)
	}
	return a.changeConfigs(ctx, resources, func(ctx context.Context, to client.Target, of []Resource, answer func(Resource, error)) error {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.ValidateOnly = changes(options).validateOnly
		for _, r := range of {
			req.Resources = append(req.Resources, changeRequest(byResource[r]))
		}
		resp, err := ask[*kmsg.IncrementalAlterConfigsResponse](ctx, a, to, req)
		if err != nil {
			return err
		}
		for _, r := range resp.Resources {
			answer(Resource{ResourceType(r.ResourceType), r.ResourceName}, client.CodeError(r.ErrorCode, r.ErrorMessage))
		}
		return nil
	})
}

// ReplaceConfigs gives resources exactly the settings that are named for each: all others go back to what holds without
// them, also those that somebody else has set meanwhile. AlterConfigs is to be preferred. The results are sorted by
// resource. Kafka: alterConfigs, deprecated.
func (a *Admin) ReplaceConfigs(ctx context.Context, settings map[Resource]map[string]string, options ...ChangeOption) ([]ResourceResult, error) {
	resources := slices.SortedFunc(maps.Keys(settings), compareResources)
	return a.changeConfigs(ctx, resources, func(ctx context.Context, to client.Target, of []Resource, answer func(Resource, error)) error {
		req := kmsg.NewPtrAlterConfigsRequest()
		req.ValidateOnly = changes(options).validateOnly
		for _, r := range of {
			in := kmsg.AlterConfigsRequestResource{ResourceType: kmsg.ConfigResourceType(r.Type), ResourceName: r.Name}
			for _, name := range slices.Sorted(maps.Keys(settings[r])) {
				in.Configs = append(in.Configs, kmsg.AlterConfigsRequestResourceConfig{Name: name, Value: kmsg.StringPtr(settings[r][name])})
			}
			req.Resources = append(req.Resources, in)
		}
		resp, err := ask[*kmsg.AlterConfigsResponse](ctx, a, to, req)
		if err != nil {
			return err
		}
		for _, r := range resp.Resources {
			answer(Resource{ResourceType(r.ResourceType), r.ResourceName}, client.CodeError(r.ErrorCode, r.ErrorMessage))
		}
		return nil
	})
}

// changeConfigs asks for changes; ask tells what became of each resource.
func (a *Admin) changeConfigs(ctx context.Context, resources []Resource,
	ask func(context.Context, client.Target, []Resource, func(Resource, error)) error,
) ([]ResourceResult, error) {
	errs := map[Resource]error{}
	err := a.eachTarget(ctx, resources, func(ctx context.Context, to client.Target, of []Resource) error {
		var moved error
		err := ask(ctx, to, of, func(r Resource, err error) {
			if errs[r] = err; errors.Is(err, client.ErrNotController) {
				moved = err
			}
		})
		return cmp.Or(err, moved)
	}, func(r Resource, err error) { errs[r] = err })
	if err != nil {
		return nil, fmt.Errorf("alter configurations: %w", err)
	}
	out := make([]ResourceResult, len(resources))
	for i, r := range resources {
		err, answered := errs[r]
		if !answered {
			err = errLeftOut
		}
		out[i] = ResourceResult{r, err}
	}
	return out, nil
}

func changeRequest(c ConfigChange) kmsg.IncrementalAlterConfigsRequestResource {
	out := kmsg.IncrementalAlterConfigsRequestResource{
		ResourceType: kmsg.ConfigResourceType(c.Resource.Type), ResourceName: c.Resource.Name,
	}
	add := func(op kmsg.IncrementalAlterConfigOp, values map[string]string) {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			out.Configs = append(out.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{
				Name: name, Op: op, Value: kmsg.StringPtr(values[name]),
			})
		}
	}
	add(kmsg.IncrementalAlterConfigOpSet, c.Set)
	for _, name := range c.Delete {
		out.Configs = append(out.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{
			Name: name, Op: kmsg.IncrementalAlterConfigOpDelete,
		})
	}
	add(kmsg.IncrementalAlterConfigOpAppend, c.Append)
	add(kmsg.IncrementalAlterConfigOpSubtract, c.Subtract)
	return out
}

// ListConfigResources gives the resources of the given types (none: all types) that have a
// configuration, sorted.
func (a *Admin) ListConfigResources(ctx context.Context, types ...ResourceType) ([]Resource, error) {
	req := kmsg.NewPtrListConfigResourcesRequest()
	for _, t := range types {
		req.ResourceTypes = append(req.ResourceTypes, int8(t))
	}
	var out []Resource
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.ListConfigResourcesResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		// Version 0 lists subscriptions to client metrics, whatever it is asked for.
		const withTypes = 1
		if resp.Version < withTypes && !slices.Equal(types, []ResourceType{ClientMetricsResource}) {
			return tooOld(resp, withTypes, "resource types but "+ClientMetricsResource.String())
		}
		out = nil
		for _, r := range resp.ConfigResources {
			t := ResourceType(r.Type)
			if resp.Version < withTypes {
				t = ClientMetricsResource
			}
			out = append(out, Resource{t, r.Name})
		}
		return client.CodeError(resp.ErrorCode, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("list configuration resources: %w", err)
	}
	slices.SortFunc(out, compareResources)
	return out, nil
}
