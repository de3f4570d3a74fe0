package api

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/config"
	"barnabas/internal/controller"
	"barnabas/internal/metadata"
)

// DescribeConfigs, key 32, versions 1 to 4. Version 1 has sources and synonyms (KIP-226), 3 types and
// documentation (KIP-569).

func describeConfigs(c *call, q *kmsg.DescribeConfigsRequest) kmsg.Response {
	res := kmsg.NewPtrDescribeConfigsResponse()
	for i := range q.Resources {
		asked := &q.Resources[i]
		r := kmsg.NewDescribeConfigsResponseResource()
		r.ResourceType, r.ResourceName = asked.ResourceType, asked.ResourceName
		entries, err := c.h.configEntries(asked.ResourceType, asked.ResourceName)
		r.ErrorCode, r.ErrorMessage = codeOf(err), messageOf(err)
		r.Configs = make([]kmsg.DescribeConfigsResponseResourceConfig, 0, len(entries))
		for _, e := range entries {
			if len(asked.ConfigNames) == 0 || slices.Contains(asked.ConfigNames, e.Key.Name) {
				r.Configs = append(r.Configs, configFields(&e, q))
			}
		}
		res.Resources = append(res.Resources, r)
	}
	return res
}

// configEntries are the settings of one resource.
func (h *Handler) configEntries(kind kmsg.ConfigResourceType, name string) ([]config.Entry, error) {
	settings := h.o.Config()
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		if reason := controller.CheckTopicName(name); reason != "" {
			return nil, fmt.Errorf("%w: %s", errInvalidTopic, reason)
		}
		image := h.o.Images.Image()
		topic, ok := image.Topic(name)
		if !ok {
			return nil, fmt.Errorf("topic %q: %w", name, errUnknownTopic)
		}
		return settings.Topic(image.Config(metadata.TopicResource, name)).Entries(topic.ReplicationFactor()), nil
	case kmsg.ConfigResourceTypeBroker:
		if name == "" {
			return settings.DefaultEntries(), nil
		}
		if err := h.ownName(name); err != nil {
			return nil, err
		}
		return settings.Entries(), nil
	case kmsg.ConfigResourceTypeBrokerLogger:
		if name == "" {
			return nil, fmt.Errorf("%w: the loggers of which broker? A broker id must be given", errInvalidRequest)
		}
		if err := h.ownName(name); err != nil {
			return nil, err
		}
		return nil, errNoLoggers
	}
	return nil, fmt.Errorf("%w: resources of the type %s have no configs here", errInvalidRequest, kind)
}

// errNoLoggers: a Kafka broker's loggers are classes of its program; this program has none.
var errNoLoggers = fmt.Errorf("%w: this broker has no loggers whose levels could be told apart or changed", errInvalidRequest)

// ownName checks that a broker resource means this broker.
func (h *Handler) ownName(name string) error {
	id, err := strconv.ParseInt(name, 10, 32)
	switch {
	case err != nil:
		return fmt.Errorf("%w: a broker id is a number, not %.60q", errInvalidRequest, name)
	case int32(id) != h.o.NodeID:
		return fmt.Errorf("%w: broker %d cannot tell the configs of broker %d; ask that one", errInvalidRequest, h.o.NodeID, id)
	}
	return nil
}

func configFields(e *config.Entry, q *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
	res := kmsg.NewDescribeConfigsResponseResourceConfig()
	res.Name, res.ReadOnly, res.IsSensitive = e.Key.Name, e.ReadOnly, e.Sensitive
	res.Value = valueOrNull(e.Value, e.Null)
	res.Source, res.ConfigType = kmsg.ConfigSource(e.Source), kmsg.ConfigType(e.Key.Type)
	if q.IncludeSynonyms {
		for _, s := range e.Synonyms {
			synonym := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			synonym.Name, synonym.Value, synonym.Source = s.Name, valueOrNull(s.Value, s.Null), kmsg.ConfigSource(s.Source)
			res.ConfigSynonyms = append(res.ConfigSynonyms, synonym)
		}
	}
	if q.IncludeDocumentation && e.Key.Doc != "" {
		res.Documentation = &e.Key.Doc
	}
	return res
}

func valueOrNull(v string, null bool) *string {
	if null {
		return nil
	}
	return &v
}
