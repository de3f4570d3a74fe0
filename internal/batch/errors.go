package batch

import (
	"errors"
	"fmt"
)

var (
	// ErrIncomplete means that the bytes end inside a batch.
	ErrIncomplete = errors.New("bytes end inside a record batch")
	// ErrCorrupt means that the bytes are not what was written: checksum, length, magic, or compressed data
	// that cannot be decompressed. (CORRUPT_MESSAGE to a producer.)
	ErrCorrupt = errors.New("corrupt record batch")
	// ErrMagic means a message set of the formats 0 or 1, which Kafka 4 no longer takes either (KIP-724).
	ErrMagic = errors.New("message format 0 or 1 is not supported")
	// ErrUnsupportedCodec means a compression type that Kafka does not have.
	ErrUnsupportedCodec = errors.New("unsupported compression type")
	// ErrTooLarge means that a batch exceeds Rules.MaxBytes, as it came or after recompression.
	ErrTooLarge = errors.New("record batch is too large")
	// ErrEmpty means a batch without records where one was to be built.
	ErrEmpty = errors.New("record batch without records")
	// ErrInflates means that a batch exceeds Rules.MaxDecompressedBytes. It wraps ErrTooLarge.
	ErrInflates = fmt.Errorf("%w once decompressed", ErrTooLarge)
)

// RecordError says what is wrong with one record of a refused batch.
type RecordError struct {
	Index   int32 // within the batch, from 0
	Message string
}

// InvalidRecordsError refuses a batch whose bytes arrived whole and whose content is not allowed. The whole
// batch is refused, whichever records are at fault.
type InvalidRecordsError struct {
	Reason string
	// Records are the records at fault, in order; at most maxRecordErrors. Empty where the fault is the batch's.
	Records []RecordError
	// Timestamp: a timestamp is at fault (INVALID_TIMESTAMP rather than INVALID_RECORD to a producer).
	Timestamp bool
}

func (e *InvalidRecordsError) Error() string {
	if len(e.Records) == 0 {
		return "invalid records: " + e.Reason
	}
	return fmt.Sprintf("invalid records: %s (first at index %d: %s)", e.Reason, e.Records[0].Index, e.Records[0].Message)
}

func invalid(format string, args ...any) error {
	return &InvalidRecordsError{Reason: fmt.Sprintf(format, args...)}
}
