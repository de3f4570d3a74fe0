package metadata

import (
	"fmt"

	"barnabas/internal/uuid"
)

// UUID identifies a topic, a log directory or a run of a broker.
type UUID = uuid.UUID

// Ids with a meaning of their own (KIP-858), of those that are never drawn.
var (
	ZeroUUID            = UUID{}      // "no id" in requests; also a directory about to be migrated
	UnassignedDirectory = UUID{15: 1} // the broker has not said yet where it keeps the replica
	LostDirectory       = UUID{15: 2} // the replica was in a directory that went offline
	MetadataTopicID     = UUID{15: 1} // of __cluster_metadata
)

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
