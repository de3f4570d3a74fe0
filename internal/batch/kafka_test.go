package batch

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// kafkaLines returns the lines of one kind of testdata/kafka.txt.gz, which testdata/java/Golden.java made with
// Apache Kafka 4.3.1's own classes.
func kafkaLines(tb testing.TB, kind string) [][]string {
	tb.Helper()
	packed, err := os.ReadFile("testdata/kafka.txt.gz")
	if err != nil {
		tb.Fatal(err)
	}
	stream, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		tb.Fatal(err)
	}
	var lines [][]string
	scanner := bufio.NewScanner(stream)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		if fields := strings.Split(scanner.Text(), "\t"); fields[0] == kind {
			lines = append(lines, fields[1:])
		}
	}
	if err := scanner.Err(); err != nil {
		tb.Fatal(err)
	}
	if len(lines) == 0 {
		tb.Fatalf("no line of kind %s", kind)
	}
	return lines
}

func fromBase64(tb testing.TB, s string) Batch {
	tb.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// describe writes records down as Golden.java does.
func describe(tb testing.TB, b Batch) string {
	tb.Helper()
	var all []string
	for r, err := range NewChecker().Records(b) {
		if err != nil {
			tb.Fatalf("read records: %v", err)
		}
		one := []string{fmt.Sprint(b.OffsetOf(&r)), fmt.Sprint(b.TimestampOf(&r)), hexOrNull(r.Key), hexOrNull(r.Value)}
		for _, h := range r.Headers {
			one = append(one, hex.EncodeToString(h.Key), hexOrNull(h.Value))
		}
		all = append(all, strings.Join(one, ","))
	}
	return strings.Join(all, ";")
}

func hexOrNull(p []byte) string {
	if p == nil {
		return "null"
	}
	return hex.EncodeToString(p)
}

// rebuild makes from described records a batch like b.
func rebuild(tb testing.TB, b Batch, described string, levels Levels) Batch {
	tb.Helper()
	builder := NewBuilder(BuilderOptions{Codec: b.Codec(), Levels: levels, LeaderEpoch: b.LeaderEpoch()})
	builder.SetProducer(b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), b.IsTransactional())
	for record := range strings.SplitSeq(described, ";") {
		fields := strings.Split(record, ",")
		timestamp, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			tb.Fatal(err)
		}
		var headers []Header
		for i := 4; i < len(fields); i += 2 {
			headers = append(headers, Header{Key: unhex(tb, fields[i]), Value: unhex(tb, fields[i+1])})
		}
		key, value := unhex(tb, fields[2]), unhex(tb, fields[3])
		want := builder.SizeWith(timestamp, key, value, headers)
		builder.Append(timestamp, key, value, headers)
		if got := builder.UncompressedSize(); got != want {
			tb.Fatalf("size after Append is %d, SizeWith said %d", got, want)
		}
	}
	made, err := builder.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return made
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	if s == "null" {
		return nil
	}
	p, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	if p == nil {
		p = []byte{}
	}
	return p
}

func TestKafkasBatchesAreRead(t *testing.T) {
	for _, line := range kafkaLines(t, "batch") {
		name, b, records := line[0], fromBase64(t, line[1]), line[2]
		framed, rest, err := Next(b)
		if err != nil || len(rest) != 0 || len(framed) != len(b) {
			t.Fatalf("%s: Next gives %d of %d bytes, error %v", name, len(framed), len(b), err)
		}
		if err := b.CheckCRC(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := describe(t, b); records != "-" && got != records {
			t.Errorf("%s:\n got %s\nwant %s", name, got, records)
		}
	}
}

// What we build holds the same records, and where nothing is compressed it is the same bytes.
func TestBuilderMakesWhatKafkaMakes(t *testing.T) {
	for _, line := range kafkaLines(t, "batch") {
		name, b, records := line[0], fromBase64(t, line[1]), line[2]
		if records == "-" || b.TimestampType() == LogAppendTime {
			continue // a Builder makes batches of CreateTime only
		}
		made := rebuild(t, b, records, Levels{})
		if b.Codec() == None && !bytes.Equal(made, b) {
			t.Errorf("%s:\n got %x\nwant %x", name, made, b)
		}
		if !bytes.Equal(made[attributesAt:HeaderBytes], b[attributesAt:HeaderBytes]) {
			t.Errorf("%s: header\n got %x\nwant %x", name, made[attributesAt:HeaderBytes], b[attributesAt:HeaderBytes])
		}
		if got := describe(t, made); got != records {
			t.Errorf("%s:\n got %s\nwant %s", name, got, records)
		}
	}
}

func TestMarkersAreKafkas(t *testing.T) {
	c := NewChecker()
	for _, line := range kafkaLines(t, "marker") {
		name, b := line[0], fromBase64(t, line[1])
		var e EndTransaction
		if _, err := fmt.Sscan(line[2], &e.Commit, &e.ProducerID, &e.ProducerEpoch, &e.CoordinatorEpoch, &e.TimestampMs); err != nil {
			t.Fatal(err)
		}
		made := BuildEndTransaction(e)
		made.Assign(b.BaseOffset(), b.LeaderEpoch())
		if !bytes.Equal(made, b) {
			t.Errorf("%s:\n got %x\nwant %x", name, made, b)
		}
		ctl, err := c.ParseControl(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if (ctl.Type == CommitMarker) != e.Commit || ctl.CoordinatorEpoch != e.CoordinatorEpoch {
			t.Errorf("%s: parsed %+v, want %+v", name, ctl, e)
		}
		if _, err := c.Check(b, Rules{KeepCodec: true, MaxAfterMs: 1 << 60}); !isInvalid(err, false) {
			t.Errorf("%s: a client's control batch gives %v", name, err)
		}
		rules := Rules{NowMs: e.TimestampMs, Codec: Zstd, Internal: true}
		if checked, err := c.Check(slices.Clone(b), rules); err != nil || !bytes.Equal(checked.Batch, b) {
			t.Errorf("%s: a coordinator's control batch gives %v, or is not stored as it came", name, err)
		}
	}
}

func isInvalid(err error, timestamp bool) bool {
	var invalid *InvalidRecordsError
	return errors.As(err, &invalid) && invalid.Timestamp == timestamp
}

func parseRules(tb testing.TB, s string) Rules {
	tb.Helper()
	f := strings.Split(s, ",")
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			tb.Fatal(err)
		}
		return n
	}
	r := Rules{
		NowMs: number(f[0]), MaxBeforeMs: number(f[2]), MaxAfterMs: number(f[3]), RequireKeys: f[4] == "true",
		Internal: f[6] == "coordinator", MaxBytes: int(number(f[7])),
	}
	var err error
	if r.TimestampType, err = ParseTimestampType(f[1]); err != nil {
		tb.Fatal(err)
	}
	if r.Codec, err = ParseCodec(f[5]); err != nil {
		tb.Fatal(err)
	}
	return r
}

// verdictOf names an outcome as Golden.java does.
func verdictOf(c Checked, in Batch, err error) string {
	var invalid *InvalidRecordsError
	switch {
	case err == nil && &c.Batch[0] == &in[0]:
		return "OK"
	case err == nil:
		return "REBUILT"
	case errors.As(err, &invalid) && invalid.Timestamp:
		return "INVALID_TIMESTAMP"
	case errors.As(err, &invalid):
		return "INVALID_RECORD"
	case errors.Is(err, ErrTooLarge):
		return "TOO_LARGE"
	case errors.Is(err, ErrMagic):
		return "MAGIC"
	case errors.Is(err, ErrCorrupt):
		return "CORRUPT"
	case errors.Is(err, ErrUnsupportedCodec):
		return "CODEC"
	}
	return "OTHER " + err.Error()
}

// Kafka's LogValidator and Check agree on what is accepted, on why not, and on what is stored, but for what
// stricter names.
func TestCheckDecidesAsKafkaDoes(t *testing.T) {
	c := NewChecker()
	accepted, refused, strict := 0, 0, 0
	for _, line := range kafkaLines(t, "verdict") {
		name, in, want, wantMax, wantIndexes := line[0], fromBase64(t, line[1]), line[3], line[4], line[5]
		given := slices.Clone(in)
		rules := parseRules(t, line[2])
		if given.Magic() == magic && given.CheckCRC() == nil {
			holdToTheBook(t, name, c, given)
		}
		checked, err := c.Check(in, rules)
		got := verdictOf(checked, in, err)
		if err != nil && !bytes.Equal(in, given) {
			t.Errorf("%s: refused and changed", name)
		}
		kafkaAccepts := want == "OK" || want == "REBUILT"
		switch {
		case got == want && kafkaAccepts:
			accepted++
			if given.TimestampType() == LogAppendTime {
				continue // Kafka keeps the maximum that such a batch claims; ours is that of the records
			}
			compareStored(t, name, checked, fromBase64(t, line[6]))
			if fmt.Sprint(checked.MaxTimestampMs) != wantMax {
				t.Errorf("%s: max timestamp %d, Kafka's is %s", name, checked.MaxTimestampMs, wantMax)
			}
		case got == want:
			refused++
			if indexes := faultyIndexes(err); indexes != wantIndexes {
				t.Errorf("%s: records %s at fault, Kafka says %s", name, indexes, wantIndexes)
			}
		case kafkaAccepts && err != nil && stricter(given, &rules):
			strict++
		case !kafkaAccepts && err != nil && sameRefusal(got, want):
			refused++
		default:
			t.Errorf("%s: got %s (%v), Kafka says %s %s\n%x", name, got, err, want, wantIndexes, given)
		}
	}
	t.Logf("%d accepted and %d refused by both, %d refused by us alone", accepted, refused, strict)
}

// compareStored compares what is to be stored: byte by byte where nothing was compressed on the way, otherwise
// record by record.
func compareStored(t *testing.T, name string, got Checked, want Batch) {
	t.Helper()
	if want.Codec() == None && bytes.Equal(got.Batch, want) {
		return
	}
	if err := got.Batch.CheckCRC(); err != nil {
		t.Errorf("%s: stored batch: %v", name, err)
	}
	g, w := slices.Clone(got.Batch[attributesAt:HeaderBytes]), slices.Clone(want[attributesAt:HeaderBytes])
	if got.AppendTimeMs >= 0 { // Kafka moves the base timestamp when it rebuilds a batch, which then means nothing
		clear(g[baseTimestampAt-attributesAt : maxTimestampAt-attributesAt])
		clear(w[baseTimestampAt-attributesAt : maxTimestampAt-attributesAt])
	}
	if !bytes.Equal(g, w) {
		t.Errorf("%s: stored header\n got %x\nwant %x", name, g, w)
	}
	if g, w := describe(t, got.Batch), describe(t, want); g != w {
		t.Errorf("%s: stored records\n got %s\nwant %s", name, g, w)
	}
}

func faultyIndexes(err error) string {
	var invalid *InvalidRecordsError
	if !errors.As(err, &invalid) {
		return ""
	}
	var indexes []string
	for _, r := range invalid.Records {
		indexes = append(indexes, fmt.Sprint(r.Index))
	}
	return strings.Join(indexes, ",")
}

// sameRefusal says whether two refusals differ in their name alone. Kafka answers what its decompressors choke on
// with whatever exception that ended in; and a compressed batch with wrong offset deltas it means to rewrite, and
// fails.
func sameRefusal(got, want string) bool {
	switch got {
	case "CODEC":
		return want == "OTHER IllegalArgumentException"
	case "CORRUPT", "INVALID_RECORD":
		return strings.HasPrefix(want, "OTHER ") || want == "INVALID_RECORD"
	}
	return false
}

// stricter says whether a batch that Kafka takes is one that we mean to refuse: its records are not what the
// format says when read by the book, or it claims LogAppendTime and its own timestamps are out of bounds, of which
// Kafka looks at the maximum in the header alone.
func stricter(b Batch, r *Rules) bool {
	records, err := byTheBook(b)
	if err != nil {
		return true
	}
	for _, record := range records {
		timestamp := b.BaseTimestamp() + record.TimestampDelta
		if b.TimestampType() == LogAppendTime && (timestamp < r.NowMs-r.MaxBeforeMs || timestamp > r.NowMs+r.MaxAfterMs) {
			return true
		}
	}
	return false
}
