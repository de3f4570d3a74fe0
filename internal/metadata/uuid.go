package metadata

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
)

// UUID identifies a topic, a log directory or a run of a broker. Its text form is Kafka's: 22
// characters of URL-safe base64 without padding.
type UUID [16]byte

// Directory ids with a meaning of their own (KIP-858). NewUUID never returns one of them, nor any
// other of the first hundred, which Kafka reserves.
var (
	ZeroUUID            = UUID{}        // "no id" in requests; also a directory about to be migrated
	UnassignedDirectory = UUID{15: 1}   // the broker has not said yet where it keeps the replica
	LostDirectory       = UUID{15: 2}   // the replica was in a directory that went offline
	MetadataTopicID     = UUID{15: 1}   // of __cluster_metadata
	reservedBelow       = UUID{15: 100} // ids below this one are reserved
)

// NewUUID draws a random UUID (version 4) from rand. It never returns a reserved one, nor one
// whose text begins with '-', which command lines would take for a flag.
func NewUUID(rand io.Reader) (UUID, error) {
	for {
		var u UUID
		if _, err := io.ReadFull(rand, u[:]); err != nil {
			return UUID{}, fmt.Errorf("draw a UUID: %w", err)
		}
		u[6] = u[6]&0x0f | 0x40
		u[8] = u[8]&0x3f | 0x80
		if !u.Reserved() && u.String()[0] != '-' {
			return u, nil
		}
	}
}

// Reserved reports whether u is one of the hundred ids that never name anything created at run time.
func (u UUID) Reserved() bool { return u.Compare(reservedBelow) < 0 }

// IsZero reports whether u is the id that means none.
func (u UUID) IsZero() bool { return u == ZeroUUID }

// Compare orders UUIDs by their bytes.
func (u UUID) Compare(o UUID) int { return bytes.Compare(u[:], o[:]) }

func (u UUID) String() string { return base64.RawURLEncoding.EncodeToString(u[:]) }

// MarshalText makes UUIDs readable in JSON.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (u *UUID) UnmarshalText(text []byte) error {
	parsed, err := ParseUUID(string(text))
	if err != nil {
		return err
	}
	*u = parsed
	return nil
}

// ParseUUID reads Kafka's text form, with or without padding.
func ParseUUID(text string) (UUID, error) {
	encoding := base64.RawURLEncoding.Strict()
	if len(text) == 24 && text[22:] == "==" {
		text = text[:22]
	}
	var u UUID
	if len(text) != 22 {
		return UUID{}, fmt.Errorf("parse UUID %.40q: want 22 characters, have %d", text, len(text))
	}
	if _, err := encoding.Decode(u[:], []byte(text)); err != nil {
		return UUID{}, fmt.Errorf("parse UUID %q: %w", text, err)
	}
	return u, nil
}

// Bytes returns u as records carry it, in memory of its own.
func (u UUID) Bytes() []byte { return bytes.Clone(u[:]) }

func uuidFrom(b []byte) (UUID, error) {
	if len(b) != len(UUID{}) {
		return UUID{}, fmt.Errorf("%w: a UUID of %d bytes", ErrMalformed, len(b))
	}
	return UUID(b), nil
}

func uuidsFrom(bs [][]byte) ([]UUID, error) {
	if len(bs) == 0 {
		return nil, nil
	}
	ids := make([]UUID, len(bs))
	for i, b := range bs {
		var err error
		if ids[i], err = uuidFrom(b); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// DirectoryBytes returns ids as records carry them.
func DirectoryBytes(ids []UUID) [][]byte {
	if len(ids) == 0 {
		return nil
	}
	bs := make([][]byte, len(ids))
	for i, id := range ids {
		bs[i] = id.Bytes()
	}
	return bs
}
