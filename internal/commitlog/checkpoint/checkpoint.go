// Package checkpoint reads and writes the text of Kafka's checkpoint files: a version, a count, and a line of fields for each
// entry. It knows no file; commitlog decides which there are and what a damaged one means. Its functions are safe for
// concurrent use.
package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"barnabas/internal/commitlog/epoch"
)

// ErrMalformed: the text is not what such a file has, or is not all of it.
var ErrMalformed = errors.New("malformed checkpoint")

// Offset reads an offset, which is not negative. Errors: ErrMalformed.
func Offset(s string) (int64, error) {
	offset, err := strconv.ParseInt(s, 10, 64)
	if err != nil || offset < 0 {
		return 0, fmt.Errorf("%w: offset %q", ErrMalformed, s)
	}
	return offset, nil
}

// Lines hands every line's fields to line, and ends with its first error. The count guards against a file that was cut.
// Errors: ErrMalformed, and those of line.
func Lines(data []byte, fields int, line func([]string) error) error {
	lines := strings.Split(string(bytes.TrimSuffix(data, []byte("\n"))), "\n")
	if lines[0] != "0" {
		return fmt.Errorf("%w: version %.20q", ErrMalformed, lines[0])
	}
	if len(lines) < 2 || lines[1] != strconv.Itoa(len(lines)-2) {
		return fmt.Errorf("%w: %d lines do not match their count", ErrMalformed, len(lines))
	}
	for _, l := range lines[2:] {
		f := strings.Split(l, " ")
		if len(f) != fields {
			return fmt.Errorf("%w: line %.80q", ErrMalformed, l)
		}
		if err := line(f); err != nil {
			return err
		}
	}
	return nil
}

// FormatEpochs writes the text of leader-epoch-checkpoint.
func FormatEpochs(entries []epoch.Start) []byte {
	out := fmt.Appendf(nil, "0\n%d\n", len(entries))
	for _, e := range entries {
		out = fmt.Appendf(out, "%d %d\n", e.Epoch, e.Offset)
	}
	return out
}

// ParseEpochs reads the text of leader-epoch-checkpoint, whose epochs and offsets ascend. Errors: ErrMalformed.
func ParseEpochs(data []byte) ([]epoch.Start, error) {
	var entries []epoch.Start
	err := Lines(data, 2, func(f []string) error {
		number, err := strconv.ParseInt(f[0], 10, 32)
		if err != nil || number < 0 {
			return fmt.Errorf("%w: epoch %q", ErrMalformed, f[0])
		}
		start, err := Offset(f[1])
		if err != nil {
			return err
		}
		e := epoch.Start{Epoch: int32(number), Offset: start}
		if n := len(entries); n > 0 && (entries[n-1].Epoch >= e.Epoch || entries[n-1].Offset >= e.Offset) {
			return fmt.Errorf("%w: epoch %d at %d after epoch %d at %d", ErrMalformed, e.Epoch, e.Offset,
				entries[n-1].Epoch, entries[n-1].Offset)
		}
		entries = append(entries, e)
		return nil
	})
	return entries, err
}
