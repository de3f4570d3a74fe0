package typed

import (
	"bytes"
	"strings"
	"testing"

	"barnabas/internal/faketime"
)

// A serialiser that appends makes no garbage.
func TestSerializingAllocatesNothing(t *testing.T) {
	p := NewProducer(nil, String{}, Integer[int64]{})
	r := ProducerRecord[string, int64]{Topic: "orders", Key: "a key of some length", Value: 42}
	allocs := testing.AllocsPerRun(1000, func() {
		m := p.memory()
		if raw, err := p.serialize(t.Context(), &r, m); err != nil || string(raw.Key) != r.Key || len(raw.Value) != 8 {
			t.Fatalf("%+v, %v", raw, err)
		}
		p.spare.Put(m)
	})
	if allocs > 0.1 && !faketime.RaceDetector {
		t.Errorf("%v allocations for each record", allocs)
	}
}

// What a serialiser returns may be the program's own memory: no later record is written into it.
func TestForeignMemoryIsNotWrittenTo(t *testing.T) {
	own := bytes.Repeat([]byte("own"), 100)
	before := bytes.Clone(own)
	mixed := Of(func(s string) ([]byte, error) {
		if s == "" {
			return own[:10], nil
		}
		return append([]byte(nil), s...), nil
	}, nil)
	foreign := NewProducer(nil, mixed, Bytes{})
	appending := NewProducer(nil, String{}, String{})
	m := new(memory)
	for n := range 200 {
		if _, err := foreign.serialize(t.Context(), &ProducerRecord[string, []byte]{Value: own[:n]}, m); err != nil {
			t.Fatal(err)
		}
		text := strings.Repeat("x", n)
		if _, err := appending.serialize(t.Context(), &ProducerRecord[string, string]{Key: text, Value: text}, m); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(own, before) {
		t.Errorf("the program's memory is now %q", own)
	}
}

func TestLargeValuesAreNotKept(t *testing.T) {
	p := NewProducer(nil, String{}, String{})
	m := new(memory)
	if _, err := p.serialize(t.Context(), &ProducerRecord[string, string]{Value: strings.Repeat("x", 10*keptBytes)}, m); err != nil {
		t.Fatal(err)
	}
	if cap(m.value) > keptBytes {
		t.Errorf("%d bytes are kept", cap(m.value))
	}
}
