package logdump

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"sort"
	"strconv"
	"strings"
)

// Producer is an entry of a producer snapshot.
type Producer struct {
	Kind             string `json:"kind"` // "producer"
	ProducerID       int64  `json:"producer_id"`
	Epoch            int16  `json:"producer_epoch"`
	LastSequence     int32  `json:"last_sequence"` // -1: it has written nothing
	LastOffset       int64  `json:"last_offset"`
	OffsetDelta      int32  `json:"offset_delta"` // of its last batch
	Timestamp        string `json:"timestamp"`
	CoordinatorEpoch int32  `json:"coordinator_epoch"`
	Transaction      int64  `json:"transaction_first_offset"` // -1: none is open
}

// Text gives the entry in a line.
func (p Producer) Text() string {
	text := fmt.Sprintf("producer=%d epoch=%d last sequence=%d last offset=%d time=%s", p.ProducerID, p.Epoch, p.LastSequence, p.LastOffset, p.Timestamp)
	if p.Transaction >= 0 {
		text += fmt.Sprintf(" open transaction from offset %d (coordinator epoch %d)", p.Transaction, p.CoordinatorEpoch)
	}
	return text
}

const (
	snapshotHeadBytes  = 10
	snapshotEntryBytes = 46
	snapshotVersion    = 1
)

// producers reads a producer snapshot: version, CRC-32C of what follows, count, entries.
func (d *dumper) producers() error {
	data, ok, err := d.whole()
	if err != nil || !ok {
		return err
	}
	if len(data) < snapshotHeadBytes {
		return d.damage(0, "%d bytes are less than a header", len(data))
	}
	if v := binary.BigEndian.Uint16(data); v != snapshotVersion {
		return d.damage(0, "version %d is unknown", v)
	}
	said, is := binary.BigEndian.Uint32(data[2:]), crc32.Checksum(data[6:], crc32.MakeTable(crc32.Castagnoli))
	if said != is {
		if err := d.damage(2, "checksum is %08x, the bytes give %08x", said, is); err != nil {
			return err
		}
	}
	count, rest := binary.BigEndian.Uint32(data[6:]), data[snapshotHeadBytes:]
	if uint64(len(rest)) != uint64(count)*snapshotEntryBytes {
		if err := d.damage(6, "%d entries are said, and %d bytes follow", count, len(rest)); err != nil {
			return err
		}
	}
	for ; len(rest) >= snapshotEntryBytes; rest = rest[snapshotEntryBytes:] {
		d.sum.Entries++
		if err := d.show(parseProducer(rest)); err != nil {
			return err
		}
	}
	return nil
}

func parseProducer(e []byte) Producer {
	return Producer{
		"producer", int64(binary.BigEndian.Uint64(e)), int16(binary.BigEndian.Uint16(e[8:])), int32(binary.BigEndian.Uint32(e[10:])),
		int64(binary.BigEndian.Uint64(e[14:])), int32(binary.BigEndian.Uint32(e[22:])), timeText(int64(binary.BigEndian.Uint64(e[26:]))),
		int32(binary.BigEndian.Uint32(e[34:])), int64(binary.BigEndian.Uint64(e[38:])),
	}
}

// Epoch is a line of leader-epoch-checkpoint: the leader epoch begins at Start.
type Epoch struct {
	Kind  string `json:"kind"` // "epoch"
	Epoch int32  `json:"epoch"`
	Start int64  `json:"start_offset"`
}

// Text gives the line.
func (e Epoch) Text() string { return fmt.Sprintf("epoch=%d from offset %d", e.Epoch, e.Start) }

// PartitionOffset is a line of a checkpoint of a data directory.
type PartitionOffset struct {
	Kind      string `json:"kind"` // "offset"
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// Text gives the line.
func (o PartitionOffset) Text() string {
	return fmt.Sprintf("%s-%d offset=%d", o.Topic, o.Partition, o.Offset)
}

// checkpoint reads a file of lines under a version and a count.
func (d *dumper) checkpoint(fields int, each func(at int64, f []string) error) error {
	data, ok, err := d.whole()
	if err != nil || !ok {
		return err
	}
	lines := strings.SplitAfter(string(data), "\n")
	if len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	if len(lines) < 2 {
		return d.damage(0, "version and count are missing")
	}
	if strings.TrimSpace(lines[0]) != "0" {
		return d.damage(0, "version %.20q is unknown", strings.TrimSpace(lines[0]))
	}
	at := int64(len(lines[0]))
	if count := strings.TrimSpace(lines[1]); count != strconv.Itoa(len(lines)-2) {
		if err := d.damage(at, "%.20q lines are said, and %d follow", count, len(lines)-2); err != nil {
			return err
		}
	}
	at += int64(len(lines[1]))
	for _, line := range lines[2:] {
		f := strings.Fields(line)
		if len(f) != fields {
			err = d.damage(at, "the line %.80q has not %d fields", strings.TrimSpace(line), fields)
		} else {
			d.sum.Entries++
			err = each(at, f)
		}
		if err != nil {
			return err
		}
		at += int64(len(line))
	}
	return nil
}

func (d *dumper) epochs() error {
	last := Epoch{Epoch: -1, Start: -1}
	return d.checkpoint(2, func(at int64, f []string) error {
		epoch, err1 := strconv.ParseInt(f[0], 10, 32)
		start, err2 := strconv.ParseInt(f[1], 10, 64)
		if err1 != nil || err2 != nil || epoch < 0 || start < 0 {
			return d.damage(at, "%q %q are not an epoch and an offset", f[0], f[1])
		}
		e := Epoch{"epoch", int32(epoch), start}
		if err := d.show(e); err != nil {
			return err
		}
		before := last
		last = e
		if e.Epoch <= before.Epoch || e.Start <= before.Start {
			return d.damage(at, "epoch %d at %d does not ascend from epoch %d at %d", e.Epoch, e.Start, before.Epoch, before.Start)
		}
		return nil
	})
}

func (d *dumper) offsets() error {
	return d.checkpoint(3, func(at int64, f []string) error {
		partition, err1 := strconv.ParseInt(f[1], 10, 32)
		offset, err2 := strconv.ParseInt(f[2], 10, 64)
		if err1 != nil || err2 != nil || partition < 0 || offset < 0 {
			return d.damage(at, "%q %q are not a partition and an offset", f[1], f[2])
		}
		return d.show(PartitionOffset{"offset", f[0], int32(partition), offset})
	})
}

// Property is a name and a value.
type Property struct {
	Kind  string `json:"kind"` // "property"
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Text gives name and value.
func (p Property) Text() string { return p.Name + "=" + p.Value }

// metaVersion is the version of meta.properties that this program knows.
const metaVersion = "1"

func (d *dumper) properties() error {
	return d.pairs("=", func(values map[string]string) error {
		if v := values["version"]; v != metaVersion {
			return d.damage(0, "version %.20q is unknown", v)
		}
		for _, name := range []string{"node.id", "cluster.id"} {
			if values[name] == "" {
				return d.damage(0, "%s is missing", name)
			}
		}
		return nil
	})
}

func (d *dumper) partition() error {
	return d.pairs(": ", func(values map[string]string) error {
		if v := values["version"]; v != "0" {
			return d.damage(0, "version %.20q is unknown", v)
		}
		if values["topic_id"] == "" {
			return d.damage(0, "topic_id is missing")
		}
		return nil
	})
}

// pairs reads lines of names and values, and lets check say what is wrong with all of them.
func (d *dumper) pairs(separator string, check func(map[string]string) error) error {
	data, ok, err := d.whole()
	if err != nil || !ok {
		return err
	}
	values := map[string]string{}
	at := int64(0)
	for line := range strings.Lines(string(data)) {
		text := strings.TrimSpace(line)
		if text != "" && text[0] != '#' {
			name, value, ok := strings.Cut(text, separator)
			if !ok {
				err = d.damage(at, "the line %.80q has no %q", text, separator)
			} else {
				values[name] = value
				d.sum.Entries++
				err = d.show(Property{"property", name, value})
			}
			if err != nil {
				return err
			}
		}
		at += int64(len(line))
	}
	return check(values)
}

func (d *dumper) quorumState() error {
	data, ok, err := d.whole()
	if err != nil || !ok {
		return err
	}
	var values map[string]any
	if err := json.Unmarshal(data, &values); err != nil {
		return d.damage(0, "it is not JSON: %v", err)
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		d.sum.Entries++
		if err := d.show(Property{"property", name, fmt.Sprint(values[name])}); err != nil {
			return err
		}
	}
	return nil
}

// text shows a file of a line or two as it is.
func (d *dumper) text() error {
	data, ok, err := d.whole()
	if err != nil || !ok {
		return err
	}
	return d.show(Property{"property", "content", strings.TrimSpace(string(data))})
}
