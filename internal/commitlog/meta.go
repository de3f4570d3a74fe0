package commitlog

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"barnabas/internal/disk"
)

const (
	metaFile      = "meta.properties"
	metaVersion   = 1
	partitionFile = "partition.metadata"
	// maxMetaBytes bounds the two files above, which hold a few short lines.
	maxMetaBytes = 64 << 10
)

var (
	// ErrNewerFormat: the directory was written by a later version, which may keep what this one would destroy.
	ErrNewerFormat = errors.New("data directory has a newer format")
	// ErrForeign: the directory belongs to another node or cluster.
	ErrForeign = errors.New("data directory belongs to another node or cluster")
	errMeta    = errors.New("malformed " + metaFile)
)

// metaProperties is the content of meta.properties, Kafka's own file, version 1 (KIP-858).
type metaProperties struct {
	clusterID   string
	nodeID      int32
	directoryID [16]byte
}

func (m metaProperties) format(now time.Time) []byte {
	return fmt.Appendf(nil, "#\n#%s\nnode.id=%d\ndirectory.id=%s\nversion=%d\ncluster.id=%s\n",
		now.UTC().Format("Mon Jan 02 15:04:05 MST 2006"), m.nodeID, uuidText(m.directoryID), metaVersion, escapeProperty(m.clusterID))
}

// parseMeta reads meta.properties. A newer version is refused before anything else is looked at, for its other
// fields may mean something else.
func parseMeta(data []byte) (metaProperties, error) {
	var m metaProperties
	values := map[string]string{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return m, fmt.Errorf("%w: line %.80q", errMeta, line)
		}
		values[strings.TrimSpace(key)] = unescapeProperty(strings.TrimSpace(value))
	}
	version, err := strconv.Atoi(values["version"])
	if err != nil || version < 0 {
		return m, fmt.Errorf("%w: version %.20q", errMeta, values["version"])
	}
	if version != metaVersion {
		if version > metaVersion {
			return m, fmt.Errorf("version %d, this program knows %d: %w", version, metaVersion, ErrNewerFormat)
		}
		return m, fmt.Errorf("%w: version %d of a ZooKeeper cluster cannot be used", errMeta, version)
	}
	node, err := strconv.ParseInt(values["node.id"], 10, 32)
	if err != nil || node < 0 {
		return m, fmt.Errorf("%w: node.id %.20q", errMeta, values["node.id"])
	}
	m.nodeID, m.clusterID = int32(node), values["cluster.id"]
	if text, ok := values["directory.id"]; ok { // Kafka before 3.7 wrote none
		if m.directoryID, err = parseUUID(text); err != nil {
			return m, fmt.Errorf("%w: directory.id %.40q", errMeta, text)
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

// uuidText is Kafka's form of a UUID: base64url without padding.
func uuidText(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

func parseUUID(text string) (id [16]byte, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("%.40q is not a UUID", text)
	}
	return [16]byte(raw), nil
}

// newUUID draws a random (version 4) UUID.
func newUUID(r io.Reader) (id [16]byte, err error) {
	if _, err := io.ReadFull(r, id[:]); err != nil {
		return id, fmt.Errorf("draw a UUID: %w", err)
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id, nil
}

func formatPartition(topicID [16]byte) []byte {
	return fmt.Appendf(nil, "version: 0\ntopic_id: %s", uuidText(topicID))
}

func parsePartition(data []byte) (topicID [16]byte, err error) {
	version, rest, _ := strings.Cut(string(data), "\n")
	if strings.TrimSpace(version) != "version: 0" {
		return topicID, fmt.Errorf("%s: %.40q", partitionFile, version)
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(rest), "topic_id: ")
	if !ok {
		return topicID, fmt.Errorf("%s: %.80q", partitionFile, rest)
	}
	return parseUUID(strings.TrimSpace(text))
}

// loadMeta reads or makes the directory's identity. Without a cluster id a new directory gets its file later, from
// SetClusterID: meta.properties of version 1 has one.
func (d *Dir) loadMeta(o *DirOptions) error {
	data, err := disk.ReadFile(d.fs, d.join(metaFile), maxMetaBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.mu.meta.nodeID = o.NodeID
		if d.mu.meta.directoryID, err = newUUID(o.Rand); err != nil {
			return err
		}
		if o.ClusterID == "" {
			return nil
		}
		return d.SetClusterID(o.ClusterID)
	case err != nil:
		return err
	}
	m, err := parseMeta(data)
	if err != nil {
		return fmt.Errorf("%s: %w", d.join(metaFile), err)
	}
	if m.nodeID != o.NodeID {
		return fmt.Errorf("%s: it is node %d's, this is node %d: %w", d.join(metaFile), m.nodeID, o.NodeID, ErrForeign)
	}
	if o.ClusterID != "" && m.clusterID != o.ClusterID {
		return fmt.Errorf("%s: it is of cluster %s, this node is of %s: %w", d.join(metaFile), m.clusterID, o.ClusterID, ErrForeign)
	}
	d.mu.meta = m
	if m.directoryID == [16]byte{} {
		if d.mu.meta.directoryID, err = newUUID(o.Rand); err != nil {
			return err
		}
		return disk.WriteFileAtomic(d.fs, d.join(metaFile), d.mu.meta.format(d.now()))
	}
	return nil
}

// SetClusterID writes the identity of a directory that has none yet: the cluster was formed, or joined, after the
// directory was opened. It is durable when this returns.
func (d *Dir) SetClusterID(id string) error {
	d.mu.Lock()
	m := d.mu.meta
	d.mu.Unlock()
	if m.clusterID != "" && m.clusterID != id {
		return fmt.Errorf("%s is of cluster %s, not %s: %w", d.path, m.clusterID, id, ErrForeign)
	}
	if m.clusterID == id {
		return nil
	}
	m.clusterID = id
	if err := disk.WriteFileAtomic(d.fs, d.join(metaFile), m.format(d.now())); err != nil {
		return fmt.Errorf("write %s: %w", metaFile, err)
	}
	d.mu.Lock()
	d.mu.meta = m
	d.mu.Unlock()
	return nil
}
