package cluster

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
	"barnabas/internal/wire/shape"
)

// errShape says that a body is not a response of its kind and version.
var errShape = errors.New("malformed response")

// maxBodyBytes bounds a response that brings no records: Metadata of a million partitions fits. A larger
// one is refused undecoded.
const maxBodyBytes = 64 << 20

const (
	fetchKey      = 1
	shareFetchKey = 78
)

// checkShape walks a response's body before kmsg sees it. Versions that are not flexible have no tagged fields.
// What kmsg then makes is a small multiple of the body.
func checkShape(key, version int16, body []byte) error {
	if key != fetchKey && key != shareFetchKey && len(body) > maxBodyBytes {
		return fmt.Errorf("%s of %d bytes: %w", kmsg.NameForKey(key), len(body), errShape)
	}
	fields, known := shapes[kmsg.Key(key)]
	if !known || !wire.FlexibleRequest(key, version) {
		return nil
	}
	if _, ok := shape.Walk(fields, version, body); !ok {
		return fmt.Errorf("%s version %d: %w", kmsg.NameForKey(key), version, errShape)
	}
	return nil
}
