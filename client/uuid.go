package client

import (
	"encoding/base64"
	"fmt"
)

// UUID is an id as Kafka gives to topics, directories and clusters.
type UUID [16]byte

// String gives Kafka's text form: 22 characters of URL-safe base64.
func (u UUID) String() string { return base64.RawURLEncoding.EncodeToString(u[:]) }

// ParseUUID reads Kafka's text form.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != len(u) {
		return UUID{}, fmt.Errorf("%q is not an id of 22 characters of URL-safe base64", s)
	}
	copy(u[:], b)
	return u, nil
}
