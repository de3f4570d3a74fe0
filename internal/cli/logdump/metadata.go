package logdump

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"barnabas/internal/batch"
	"barnabas/internal/metadata"
)

// Change is a record of the metadata log: what changed, or in a snapshot what was so.
type Change struct {
	Kind   string         `json:"kind"`             // "change"
	Offset int64          `json:"offset,omitempty"` // of the entry; 0 in a snapshot
	Type   string         `json:"type"`
	Fields map[string]any `json:"fields,omitempty"`
	order  []string
}

// Text gives the change in a line.
func (c Change) Text() string {
	var text strings.Builder
	text.WriteString("  " + c.Type)
	for _, name := range c.order {
		fmt.Fprintf(&text, " %s=%v", name, c.Fields[name])
	}
	return text.String()
}

// SnapshotHead begins a metadata snapshot.
type SnapshotHead struct {
	Kind   string   `json:"kind"` // "snapshot"
	Offset int64    `json:"last_offset"`
	Term   uint64   `json:"term"`
	Voters []uint64 `json:"voters"` // raft's ids
}

// Text gives the head in a line.
func (s SnapshotHead) Text() string {
	return fmt.Sprintf("snapshot up to offset %d, term %d, voters %v", s.Offset, s.Term, s.Voters)
}

const (
	// proposalIDBytes begin the data of an entry: the id under which its proposer waits.
	proposalIDBytes = 8
	// indexAhead is how much raft's index of an entry is above its offset.
	indexAhead = 2
)

// metadataEntry shows what an entry of the metadata log changes. Its key is raft's type.
func (d *dumper) metadataEntry(c *batch.Checker, at int64, b batch.Batch) error {
	if b.IsControl() {
		return d.voters(c, at, b)
	}
	for r, err := range c.Records(b) {
		if err != nil {
			return d.damage(at, "%v", err)
		}
		if len(r.Key) != 1 {
			return d.damage(at, "the entry's key has %d bytes, and raft's type is one", len(r.Key))
		}
		switch kind := pb.EntryType(r.Key[0]); {
		case kind != pb.EntryType_EntryNormal:
			err = d.show(Change{Kind: "change", Offset: b.BaseOffset(), Type: kind.String()})
		case len(r.Value) == 0:
			err = d.show(Change{Kind: "change", Offset: b.BaseOffset(), Type: "beginning of a term"})
		case len(r.Value) < proposalIDBytes:
			err = d.damage(at, "the entry has %d bytes, and its id is %d", len(r.Value), proposalIDBytes)
		default:
			err = d.changes(at, b.BaseOffset(), r.Value[proposalIDBytes:])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// voters shows what Kafka's control records say of the quorum.
func (d *dumper) voters(c *batch.Checker, at int64, b batch.Batch) error {
	for r, err := range c.Records(b) {
		if err != nil {
			return d.damage(at, "%v", err)
		}
		if len(r.Key) != 4 || batch.ControlType(binary.BigEndian.Uint16(r.Key[2:])) != batch.KRaftVoters {
			continue
		}
		voters, _, err := metadata.ParseVoters(r.Value)
		if err != nil {
			return d.damage(at, "%v", err)
		}
		if err := d.show(Change{Kind: "change", Offset: b.BaseOffset(), Type: "KRaftVoters", Fields: map[string]any{"voters": voters}, order: []string{"voters"}}); err != nil {
			return err
		}
	}
	return nil
}

// changes decodes and shows metadata records.
func (d *dumper) changes(at, offset int64, data []byte) error {
	records, err := metadata.Decode(data)
	if err != nil {
		return d.damage(at, "%v", err)
	}
	for _, r := range records {
		d.sum.Entries++
		c := Change{Kind: "change", Offset: offset, Type: string(r.ProtoReflect().Descriptor().Name())}
		c.Fields, c.order = fieldsOf(r.ProtoReflect())
		if err := d.show(c); err != nil {
			return err
		}
	}
	return nil
}

// fieldsOf gives the fields of a record but for lists and options that are empty, and their names in
// the order of their numbers.
func fieldsOf(m protoreflect.Message) (map[string]any, []string) {
	fields, order := map[string]any{}, []string{}
	all := m.Descriptor().Fields()
	for i := range all.Len() {
		f := all.Get(i)
		if !m.Has(f) && (f.IsList() || f.HasPresence()) {
			continue
		}
		name := string(f.Name())
		fields[name] = valueOf(f, m.Get(f))
		order = append(order, name)
	}
	return fields, order
}

func valueOf(f protoreflect.FieldDescriptor, v protoreflect.Value) any {
	if !f.IsList() {
		return scalar(v)
	}
	list := make([]any, v.List().Len())
	for i := range list {
		list[i] = scalar(v.List().Get(i))
	}
	return list
}

// scalar makes an id of bytes, in Kafka's form, and a map of a message.
func scalar(v protoreflect.Value) any {
	switch v := v.Interface().(type) {
	case []byte:
		return base64.RawURLEncoding.EncodeToString(v)
	case protoreflect.Message:
		fields, _ := fieldsOf(v)
		return fields
	default:
		return v
	}
}

// The keys of the batches of a metadata snapshot.
const (
	keyHeader  = 'h'
	keyMembers = 'v'
	keyRecords = 'r'
	keyFooter  = 'f'
)

// metadataSnapshot reads a .checkpoint file: a head, records by the thousand, and a footer with their count.
func (d *dumper) metadataSnapshot() error {
	checker := batch.NewChecker()
	footer, headed := false, false
	err := d.walk(func(at int64, b batch.Batch) error {
		if err := b.CheckCRC(); err != nil {
			return d.damage(at, "%v", err)
		}
		d.sum.Batches++
		if b.IsControl() && headed && !footer {
			return d.voters(checker, at, b)
		}
		for r, err := range checker.Records(b) {
			if err != nil {
				return d.damage(at, "%v", err)
			}
			if footer || len(r.Key) != 1 || (r.Key[0] == keyHeader) == headed {
				return d.damage(at, "a record with key %q is out of place", r.Key)
			}
			headed = true
			if err := d.snapshotPart(at, r, &footer); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.sum.Records = d.sum.Entries
	if !footer {
		return d.damage(d.size, "there is no footer: the file was cut short")
	}
	return nil
}

func (d *dumper) snapshotPart(at int64, r batch.Record, footer *bool) error {
	switch r.Key[0] {
	case keyHeader:
		var m pb.SnapshotMetadata
		if err := proto.Unmarshal(r.Value, &m); err != nil {
			return d.damage(at, "the head cannot be decoded: %v", err)
		}
		return d.show(SnapshotHead{"snapshot", int64(m.GetIndex()) - indexAhead, m.GetTerm(), m.GetConfState().GetVoters()})
	case keyMembers:
		c := Change{Kind: "change", Type: "QuorumMembers"}
		if err := json.Unmarshal(r.Value, &c.Fields); err != nil {
			return d.damage(at, "the members of the quorum cannot be decoded: %v", err)
		}
		c.order = slices.Sorted(maps.Keys(c.Fields))
		return d.show(c)
	case keyRecords:
		return d.changes(at, 0, r.Value)
	case keyFooter:
		*footer = true
		if len(r.Value) != 8 || binary.BigEndian.Uint64(r.Value) != uint64(d.sum.Entries) {
			return d.damage(at, "the footer does not count the %d records that there are", d.sum.Entries)
		}
		return nil
	}
	return d.damage(at, "a record with key %q is unknown", r.Key)
}
