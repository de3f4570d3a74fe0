package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"barnabas/client"
	"barnabas/internal/cli/terminal"
)

// anyPieces hands out its text in pieces of random sizes.
type anyPieces struct {
	text   []byte
	random *rand.Rand
}

func (p *anyPieces) Read(b []byte) (int, error) {
	if len(p.text) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), 1+p.random.IntN(3*chunkBytes/2))], p.text)
	p.text = p.text[n:]
	return n, nil
}

// TestLinesSurviveAnyReads: however an input comes in pieces, its lines are those of the text, and
// one that is too long is one nil.
func TestLinesSurviveAnyReads(t *testing.T) {
	const longest = chunkBytes * 2
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		var text []byte
		var want [][]byte
		for range random.IntN(40) {
			n := random.IntN(100)
			switch random.IntN(6) {
			case 0:
				n = random.IntN(chunkBytes * 3 / 2)
			case 1:
				n = longest + chunkBytes + random.IntN(2*chunkBytes)
			}
			line := bytes.Repeat([]byte{'a' + byte(random.IntN(26))}, n)
			text = append(append(text, line...), '\n')
			if n > longest {
				line = nil
			}
			want = append(want, line)
		}
		if random.IntN(2) == 0 && len(want) > 0 && want[len(want)-1] != nil && len(want[len(want)-1]) > 0 {
			text = text[:len(text)-1] // a last line without an end
		}
		var got [][]byte
		lines := readLines(t.Context(), &anyPieces{text, random}, longest)
		for {
			c, err := lines.next(t.Context())
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for line := range c.lines() {
				got = append(got, bytes.Clone(line))
			}
			lines.recycle(c)
		}
		same := func(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }
		if !slices.EqualFunc(got, want, same) {
			t.Fatalf("seed %d: %d lines, want %d", seed, len(got), len(want))
		}
	}
}

func TestReadErrorIsNotTheEnd(t *testing.T) {
	lines := readLines(t.Context(), io.MultiReader(strings.NewReader("one\n"), iotest.ErrReader(io.ErrClosedPipe)), maxRecordBytes)
	for {
		if _, err := lines.next(t.Context()); err != nil {
			if !errors.Is(err, io.ErrClosedPipe) {
				t.Fatalf("%v, want %v", err, io.ErrClosedPipe)
			}
			return
		}
	}
}

// checkJSONKey compares splitJSON with a decoder.
func checkJSONKey(t *testing.T, line, field string) {
	t.Helper()
	key, value, err := splitJSON(field)([]byte(line))
	if errors.Is(err, errNothing) {
		if strings.TrimSpace(line) != "" {
			t.Fatalf("%q was taken for blank", line)
		}
		return
	}
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(line), &object) != nil || object == nil {
		if err == nil {
			t.Fatalf("%q is no object, and gave key %q", line, key)
		}
		return
	}
	raw, there := object[field]
	if !there {
		if err == nil {
			t.Fatalf("%q has no field %q, and gave key %q", line, field, key)
		}
		return
	}
	want := string(raw)
	switch raw[0] {
	case '{', '[':
		if err == nil {
			t.Fatalf("%q: field %q is no scalar, and gave key %q", line, field, key)
		}
		return
	case '"':
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
	case 'n':
		want = ""
	}
	// A decoder replaces what is not UTF-8; a key keeps its bytes.
	if err != nil || strings.ToValidUTF8(string(key), "\ufffd") != strings.ToValidUTF8(want, "\ufffd") || (key == nil) != (raw[0] == 'n') {
		t.Fatalf("%q, field %q: key %q (%v), want %q", line, field, key, err, want)
	}
	if string(value) != strings.TrimRight(line, "\r") {
		t.Fatalf("%q became %q", line, value)
	}
}

func TestJSONKeyIsTheDecoders(t *testing.T) {
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 1))
		names := []string{"a", "key", "", "k\"q", "ü", "\\", "nested"}
		var value func(depth int) any
		value = func(depth int) any {
			switch n := random.IntN(8); {
			case n == 0 && depth > 0:
				return map[string]any{names[random.IntN(len(names))]: value(depth - 1), "key": value(depth - 1)}
			case n == 1 && depth > 0:
				return []any{value(depth - 1), value(depth - 1)}
			case n == 2:
				return nil
			case n == 3:
				return random.IntN(2) == 0
			case n == 4:
				return random.NormFloat64() * 1e9
			}
			return []string{"", "plain", "q\"q", "back\\", "}{][,:", "\u2028<é>", "tab\t"}[random.IntN(7)]
		}
		object := map[string]any{}
		for range random.IntN(5) {
			object[names[random.IntN(len(names))]] = value(3)
		}
		line, err := json.Marshal(object)
		if random.IntN(2) == 0 {
			line, err = json.MarshalIndent(object, "", " ")
			line = bytes.ReplaceAll(line, []byte("\n"), []byte("\t"))
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for _, field := range slices.Sorted(maps.Keys(object)) {
			checkJSONKey(t, string(line), field)
		}
		checkJSONKey(t, string(line), "key")
	}
}

func FuzzJSONKey(f *testing.F) {
	for _, line := range []string{
		`{"key":"v"}`, `{"a":{"key":1},"key":[]}`, `{"key":null,"key":2}`, `{"k\u0065y":"\ud800"}`, `[1]`, `{`, ` {} `, "", "\r", `{"key":1e9}`, `{"key":"\"}"}`,
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.Contains(line, "\n") {
			return // no line has one
		}
		checkJSONKey(t, line, "key")
	})
}

// FuzzRecordJSON: whatever a record holds, its line is JSON that decodes to the same.
func FuzzRecordJSON(f *testing.F) {
	f.Add("topic", []byte("key"), []byte(`{"a":"\n"}`), "h", []byte{0xff})
	f.Add("t", []byte{}, []byte("\x00\x7f\"\\é\u2028"), "\xff", []byte(nil))
	f.Fuzz(func(t *testing.T, topic string, key, value []byte, name string, header []byte) {
		r := client.Record{Topic: topic, Partition: 3, Offset: 7, Timestamp: time.UnixMilli(1), Key: key, Value: value, Headers: []client.Header{{Key: name, Value: header}}}
		line := appendJSON(nil, &r)
		if bytes.IndexByte(line, '\n') >= 0 {
			t.Fatalf("%q is several lines", line)
		}
		var got struct {
			Topic       string
			Key, Value  *string
			KeyBase64   []byte `json:"key_base64"`
			ValueBase64 []byte `json:"value_base64"`
			Headers     []struct{ Key string }
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		check := func(what string, want []byte, text *string, raw []byte) {
			switch {
			case want == nil && text == nil && raw == nil:
			case text != nil && string(want) == *text:
			case raw != nil && bytes.Equal(want, raw):
			default:
				t.Fatalf("%s %q is not in %q", what, want, line)
			}
		}
		check("key", key, got.Key, got.KeyBase64)
		check("value", value, got.Value, got.ValueBase64)
		if want := strings.ToValidUTF8(topic, "\ufffd"); strings.Count(topic, "\ufffd") == 0 && strings.ToValidUTF8(got.Topic, "") == topic && got.Topic != want {
			t.Fatalf("topic %q became %q", topic, got.Topic)
		}
	})
}

func TestMoments(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2026-01-31T10:00:00Z":      now.Add(-2 * time.Hour),
		"2026-01-31T12:00:00+02:00": now.Add(-2 * time.Hour),
		"1769860800000":             now,
		"2h":                        now.Add(-2 * time.Hour),
		"90s":                       now.Add(-90 * time.Second),
		"3d":                        now.AddDate(0, 0, -3),
		"0.5d":                      now.Add(-12 * time.Hour),
	} {
		if got, err := parseMoment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "soon", "-2h", "-3d", "1769860800", "2026-13-01", "d"} {
		if got, err := parseMoment(text, now); err == nil {
			t.Errorf("%q is %v, want an error", text, got)
		}
	}
}

// TestTrap06LoweredMinInSyncIsSaid: the scripts trap06.txtar sees it in create, alter and describe.
func TestTrap06LoweredMinInSyncIsSaid(t *testing.T) {
	for _, c := range []struct {
		configured string
		replicas   int
		lowered    bool
	}{{"2", 1, true}, {"3", 2, true}, {"2", 2, false}, {"1", 1, false}, {"1", 3, false}, {"", 1, false}, {"2", 0, false}} {
		if got := loweredInSync(c.configured, c.replicas); (got != "") != c.lowered {
			t.Errorf("min.insync.replicas=%s of %d replicas: %q", c.configured, c.replicas, got)
		}
	}
}

func TestNearestName(t *testing.T) {
	names := []string{"flights", "fares", "events-2026", "__internal"}
	for typed, want := range map[string]string{
		"fligths": "flights", "Flights": "flights", "flight": "flights", "fare": "fares", "event-2026": "events-2026", "zzz": "", "": "",
	} {
		if got := terminal.Nearest(typed, names); got != want {
			t.Errorf("nearest to %q is %q, want %q", typed, got, want)
		}
	}
}

func TestTableIsAligned(t *testing.T) {
	table := terminal.NewTable("NAME", "N", "LIST")
	table.Add("a", 5, []int32{1, 2})
	table.Add("longer ü", 12345, []int32{})
	want := "NAME          N  LIST\na             5  1,2\nlonger ü  12345  -\n"
	if got := string(table.Render(false)); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := string(table.Render(true)); !strings.HasPrefix(got, "\x1b[1mNAME          N  LIST\x1b[0m\n") {
		t.Errorf("on a terminal: %q", got)
	}
}

func TestProgressLine(t *testing.T) {
	b := &progress{what: "records", total: 1000, tty: true}
	if got, want := b.line(1500, 2, 500, 10*time.Second), "[###############...............]  50%  1,500 records, 150/s, 2 failed, 10s left"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	b.tty = false
	if got, want := b.line(1500, 0, 1000, 10*time.Second), "100%: 1,500 records, 150/s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	b.total = -1
	if got, want := b.line(1, 0, 10, 0), "1 records, 0/s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestConsumeEndsWhereItWasToEnd: records that came after the beginning are not printed, even where
// they arrive in one piece with others, nor are those of a partition that is done.
func TestConsumeEndsWhereItWasToEnd(t *testing.T) {
	o := &consume{shape: "value"}
	print, err := o.printer()
	if err != nil {
		t.Fatal(err)
	}
	records := func(partition int32, from, to int64) (out []client.Record) {
		for offset := from; offset < to; offset++ {
			out = append(out, client.Record{Topic: "t", Partition: partition, Offset: offset, Value: []byte{'0' + byte(offset)}})
		}
		return out
	}
	r := &reader{o: o, print: print, ends: map[client.TopicPartition]int64{{Topic: "t", Partition: 0}: 5}}
	for _, batch := range [][]client.Record{records(0, 3, 8), records(1, 0, 2)} {
		if done, err := r.take(batch); done || err != nil {
			t.Fatal(done, err)
		}
	}
	if got := string(r.out); got != "3\n4\n" || r.printed != 2 {
		t.Errorf("printed %q, want 3 and 4", got)
	}
	r = &reader{o: &consume{count: 3}, print: print}
	if done, err := r.take(records(0, 3, 8)); !done || err != nil || string(r.out) != "3\n4\n5\n" {
		t.Errorf("with --count 3: %q, done %v (%v)", r.out, done, err)
	}
}
