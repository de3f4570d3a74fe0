package controller

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"barnabas/internal/metadata"
)

// maxTopicName is Kafka's limit: with a partition's number it still fits into a directory's name.
const maxTopicName = 249

// Topics that the cluster keeps its own state in. The first is not created by anybody.
const (
	metadataTopic     = "__cluster_metadata"
	offsetsTopic      = "__consumer_offsets"
	transactionsTopic = "__transaction_state"
	shareStateTopic   = "__share_group_state"
)

// InternalTopic reports whether name belongs to a coordinator's state. Such topics are made like
// others, but by default with the coordinator's partitions, replicas and configs.
func InternalTopic(name string) bool {
	return name == offsetsTopic || name == transactionsTopic || name == shareStateTopic
}

// CheckTopicName says why a topic cannot have a name, or "".
func CheckTopicName(name string) string {
	switch {
	case name == "":
		return "a topic's name must not be empty"
	case name == "." || name == "..":
		return "a topic cannot be called . or .."
	case len(name) > maxTopicName:
		return "a topic's name has at most 249 characters"
	}
	for i := range len(name) {
		if !legalInName(name[i]) {
			return "a topic's name has only letters, digits, '.', '_' and '-' (ASCII)"
		}
	}
	return ""
}

func legalInName(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || isSeparator(c) || c == '-'
}

// isSeparator: in the names of metrics both become '_', so two topics that differ only in these
// would share theirs.
func isSeparator(c byte) bool { return c == '.' || c == '_' }

// checkNewName refuses names that no topic can have, or not beside those that exist.
func checkNewName(image *metadata.Image, name string) *refusal {
	if reason := CheckTopicName(name); reason != "" {
		return refuse(kerr.InvalidTopicException, "topic %.60q: %s", name, reason)
	}
	if _, exists := image.Topic(name); exists {
		return refuse(kerr.TopicAlreadyExists, "topic %q exists already", name)
	}
	if other, collides := colliding(image, "", name); collides {
		return refuse(kerr.InvalidTopicException, "topic %q differs from the existing topic %q only in '.' and '_', so their metrics would be mixed up", name, other)
	}
	return nil
}

// colliding finds an existing topic whose name begins with prefix and goes on like rest, where
// '.' and '_' count as one. It follows only beginnings that some topic has, so it looks at few
// topics even where ten thousand share a prefix.
func colliding(image *metadata.Image, prefix, rest string) (string, bool) {
	for t := range image.TopicsFrom(prefix) {
		if !strings.HasPrefix(t.Name, prefix) {
			return "", false
		}
		break
	}
	at := strings.IndexFunc(rest, func(r rune) bool { return r == '.' || r == '_' })
	if at < 0 {
		_, exists := image.Topic(prefix + rest)
		return prefix + rest, exists
	}
	for _, separator := range []string{".", "_"} {
		if other, collides := colliding(image, prefix+rest[:at]+separator, rest[at+1:]); collides {
			return other, true
		}
	}
	return "", false
}
