package reset

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"barnabas/client"
)

// Scope is a topic, or some partitions of it.
type Scope struct {
	Topic      string
	Partitions []int32 // nil: all
}

// ParseScope reads TOPIC or TOPIC:0,1,2.
func ParseScope(s string) (Scope, error) {
	topic, list, some := strings.Cut(s, ":")
	if topic == "" {
		return Scope{}, fmt.Errorf("%q: write TOPIC, or TOPIC:0,1,2 for some of its partitions", s)
	}
	scope := Scope{Topic: topic}
	if !some {
		return scope, nil
	}
	for part := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseInt(strings.TrimSpace(part), 10, 32)
		if err != nil || n < 0 {
			return Scope{}, fmt.Errorf("%q: %q is not a partition's number", s, part)
		}
		scope.Partitions = append(scope.Partitions, int32(n))
	}
	return scope, nil
}

// maxFileLines bounds a file of offsets: a cluster does not have more partitions.
const maxFileLines = 10_000_000

// File reads a plan in the form of Kafka's --export: lines of topic,partition,offset, or of
// group,topic,partition,offset, of which those of other groups are left out.
func File(r io.Reader, group string) (map[client.TopicPartition]int64, error) {
	in := csv.NewReader(r)
	in.FieldsPerRecord, in.TrimLeadingSpace = 0, true
	out := map[client.TopicPartition]int64{}
	others := false
	for range maxFileLines {
		fields, err := in.Read()
		switch {
		case errors.Is(err, io.EOF) && len(out) == 0 && others:
			return nil, fmt.Errorf("there is no line of group %q", group)
		case errors.Is(err, io.EOF) && len(out) == 0:
			return nil, errors.New("there is no line in it")
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, err
		}
		line, _ := in.FieldPos(0)
		if len(fields) == 4 {
			if fields[0] != group {
				others = true
				continue
			}
			fields = fields[1:]
		}
		tp, offset, err := lineOf(fields)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if _, twice := out[tp]; twice {
			return nil, fmt.Errorf("line %d: %v is there twice", line, tp)
		}
		out[tp] = offset
	}
	return nil, fmt.Errorf("more than %d lines", maxFileLines)
}

func lineOf(fields []string) (client.TopicPartition, int64, error) {
	if len(fields) != 3 || fields[0] == "" {
		return client.TopicPartition{}, 0, errors.New("write topic,partition,offset or group,topic,partition,offset")
	}
	partition, err := strconv.ParseInt(strings.TrimSpace(fields[1]), 10, 32)
	if err != nil || partition < 0 {
		return client.TopicPartition{}, 0, fmt.Errorf("%q is not a partition's number", fields[1])
	}
	offset, err := strconv.ParseInt(strings.TrimSpace(fields[2]), 10, 64)
	if err != nil || offset < 0 {
		return client.TopicPartition{}, 0, fmt.Errorf("%q is not an offset", fields[2])
	}
	return client.TopicPartition{Topic: fields[0], Partition: int32(partition)}, offset, nil
}

var isoDuration = regexp.MustCompile(`^P(?:(\d+)D)?(T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d{1,9})?)S)?)?$`)

// Duration reads a span of time: ISO 8601 as far as Kafka's tool knows it (PnDTnHnMn.nS), days as
// in 3d, or Go's form, as in 2h30m.
func Duration(s string) (time.Duration, error) {
	wrong := fmt.Errorf("%q is no span of time: write 2h30m, 3d or P1DT12H", s)
	if strings.HasPrefix(s, "P") {
		m := isoDuration.FindStringSubmatch(s)
		if m == nil || s == "P" || m[2] == "T" {
			return 0, wrong
		}
		var sum float64
		for i, unit := range map[int]time.Duration{1: 24 * time.Hour, 3: time.Hour, 4: time.Minute, 5: time.Second} {
			if m[i] == "" {
				continue
			}
			n, err := strconv.ParseFloat(m[i], 64)
			if err != nil {
				return 0, wrong
			}
			sum += n * float64(unit)
		}
		return span(sum, wrong)
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil {
			return 0, wrong
		}
		return span(n*24*float64(time.Hour), wrong)
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, wrong
	}
	return d, nil
}

// span is nanoseconds as a Duration, which ends after 292 years.
func span(nanoseconds float64, wrong error) (time.Duration, error) {
	if !(nanoseconds >= 0 && nanoseconds < math.MaxInt64) {
		return 0, wrong
	}
	return time.Duration(nanoseconds), nil
}
