package identity

import (
	"encoding/json"
	"errors"
	"fmt"

	"barnabas/internal/disk"
)

// cleanMark is what the mark of a clean stop says: Kafka's, version 0.
type cleanMark struct {
	Version     int   `json:"version"`
	BrokerEpoch int64 `json:"brokerEpoch"` // -1: none
}

// mostCleanBytes is more than the mark of a clean stop has.
const mostCleanBytes = 4 << 10

// CleanMark is the content of the mark that a process leaves that stops in peace, registered in a broker epoch; 0: in none.
func CleanMark(brokerEpoch int64) []byte {
	mark := cleanMark{BrokerEpoch: brokerEpoch}
	if brokerEpoch <= 0 {
		mark.BrokerEpoch = -1
	}
	content, err := json.Marshal(mark)
	if err != nil {
		panic(fmt.Sprintf("BUG: encode the mark of a clean stop: %v", err))
	}
	return content
}

// ReadCleanMark reads the broker epoch from such a mark; 0 where it names none, or is not ours: that it is there says enough.
func ReadCleanMark(fsys disk.FS, name string) (brokerEpoch int64, err error) {
	content, err := disk.ReadFile(fsys, name, mostCleanBytes)
	if errors.Is(err, disk.ErrTooLarge) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	var mark cleanMark
	if json.Unmarshal(content, &mark) != nil || mark.BrokerEpoch < 0 {
		return 0, nil
	}
	return mark.BrokerEpoch, nil
}
