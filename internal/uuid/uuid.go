// Package uuid is the id that Kafka gives to topics, log directories, clusters and runs of a broker (KIP-516,
// KIP-858): 16 bytes, drawn at random, with a text of its own. There is one way to draw one, so that no id has a
// text which a command line takes for something else. It knows nothing of what an id names; ids with a meaning of
// their own are in package metadata.
package uuid

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
)

// UUID is an id. Its text form is Kafka's: 22 characters of URL-safe base64 without padding.
type UUID [16]byte

// reserved is Kafka's number of lowest ids that never name anything created at run time.
const reserved = 100

// New draws a random UUID (version 4) from rand. It never returns a reserved one, nor one whose text
// begins with '-', which command lines, Apache Kafka's tools among them, take for a flag.
func New(rand io.Reader) (UUID, error) {
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

// Parse reads Kafka's text form, with or without padding.
func Parse(text string) (UUID, error) {
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

// Reserved reports whether u is one of the hundred ids that never name anything created at run time.
func (u UUID) Reserved() bool { return u.Compare(UUID{15: reserved}) < 0 }

// IsZero reports whether u is the id that means none.
func (u UUID) IsZero() bool { return u == UUID{} }

// Compare orders UUIDs by their bytes.
func (u UUID) Compare(o UUID) int { return bytes.Compare(u[:], o[:]) }

func (u UUID) String() string { return base64.RawURLEncoding.EncodeToString(u[:]) }

// MarshalText makes UUIDs readable in JSON.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (u *UUID) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*u = parsed
	return nil
}

// Bytes returns u as records carry it, in memory of its own.
func (u UUID) Bytes() []byte { return bytes.Clone(u[:]) }
