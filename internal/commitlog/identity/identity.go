// Package identity is the content of the files that say whose a directory is: meta.properties in a data
// directory, partition.metadata in a log's, and the mark of a clean stop, which tells under which registration the
// broker wrote there last; named and written as Kafka does (KIP-858, KIP-516, KIP-966). It turns bytes into
// values and back. It knows no disk, and leaves to commitlog what follows when an identity is not the expected one.
package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"barnabas/internal/uuid"
)

const (
	MetaFile      = "meta.properties"
	PartitionFile = "partition.metadata"
	// MaxBytes bounds the two files, which hold a few short lines.
	MaxBytes = 64 << 10

	metaVersion = 1
)

var (
	// ErrNewerFormat: the directory was written by a later version, which may keep what this one would destroy.
	ErrNewerFormat = errors.New("data directory has a newer format")
	// ErrMeta: meta.properties does not say what it must.
	ErrMeta = errors.New("malformed " + MetaFile)
)

// Properties is the content of meta.properties, version 1.
type Properties struct {
	ClusterID   string
	NodeID      int32
	DirectoryID uuid.UUID // all zeros in a file of Kafka's before 3.7
}

// Format is the file's content; now stands in its comment.
func (m Properties) Format(now time.Time) []byte {
	return fmt.Appendf(nil, "#\n#%s\nnode.id=%d\ndirectory.id=%s\nversion=%d\ncluster.id=%s\n",
		now.UTC().Format("Mon Jan 02 15:04:05 MST 2006"), m.NodeID, m.DirectoryID, metaVersion, escapeProperty(m.ClusterID))
}

// Parse is the inverse of Format. A newer version is refused (ErrNewerFormat) before anything else is looked at, for its
// other fields may mean something else; ErrMeta is everything else that is wrong.
func Parse(data []byte) (Properties, error) {
	var m Properties
	values := map[string]string{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return m, fmt.Errorf("%w: line %.80q", ErrMeta, line)
		}
		values[strings.TrimSpace(key)] = unescapeProperty(strings.TrimSpace(value))
	}
	version, err := strconv.Atoi(values["version"])
	if err != nil || version < 0 {
		return m, fmt.Errorf("%w: version %.20q", ErrMeta, values["version"])
	}
	if version != metaVersion {
		if version > metaVersion {
			return m, fmt.Errorf("version %d, this program knows %d: %w", version, metaVersion, ErrNewerFormat)
		}
		return m, fmt.Errorf("%w: version %d of a ZooKeeper cluster cannot be used", ErrMeta, version)
	}
	node, err := strconv.ParseInt(values["node.id"], 10, 32)
	if err != nil || node < 0 {
		return m, fmt.Errorf("%w: node.id %.20q", ErrMeta, values["node.id"])
	}
	m.NodeID, m.ClusterID = int32(node), values["cluster.id"]
	if text, ok := values["directory.id"]; ok { // Kafka before 3.7 wrote none
		if m.DirectoryID, err = uuid.Parse(text); err != nil {
			return m, fmt.Errorf("%w: directory.id %.40q", ErrMeta, text)
		}
	}
	return m, nil
}

// escapeProperty does for values what Java's Properties do.
func escapeProperty(s string) string {
	return strings.NewReplacer(`\`, `\\`, ":", `\:`, "=", `\=`, "#", `\#`, "!", `\!`).Replace(s)
}

func unescapeProperty(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// FormatPartition is the content of partition.metadata.
func FormatPartition(topicID uuid.UUID) []byte {
	return fmt.Appendf(nil, "version: 0\ntopic_id: %s", topicID)
}

// ParsePartition is the inverse of FormatPartition.
func ParsePartition(data []byte) (topicID uuid.UUID, err error) {
	version, rest, _ := strings.Cut(string(data), "\n")
	if strings.TrimSpace(version) != "version: 0" {
		return topicID, fmt.Errorf("%s: %.40q", PartitionFile, version)
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(rest), "topic_id: ")
	if !ok {
		return topicID, fmt.Errorf("%s: %.80q", PartitionFile, rest)
	}
	return uuid.Parse(strings.TrimSpace(text))
}

// NoEpoch stands for a broker epoch that is not known.
const NoEpoch int64 = -1

// cleanStop is the content of .kafka_cleanshutdown, version 0.
type cleanStop struct {
	Version     int   `json:"version"`
	BrokerEpoch int64 `json:"brokerEpoch"`
}

// FormatCleanStop is the content of the mark of a clean stop. brokerEpoch is that of the registration that ends with it.
func FormatCleanStop(brokerEpoch int64) []byte {
	return fmt.Appendf(nil, `{"version":0,"brokerEpoch":%d}`, brokerEpoch)
}

// ParseCleanStop is the inverse of FormatCleanStop. That there is a mark counts by itself, so one that says something else,
// or, as Kafka's before 3.7, nothing, has NoEpoch.
func ParseCleanStop(data []byte) (brokerEpoch int64) {
	said := cleanStop{Version: -1}
	if err := json.Unmarshal(data, &said); err != nil || said.Version != 0 || said.BrokerEpoch <= 0 {
		return NoEpoch
	}
	return said.BrokerEpoch
}
