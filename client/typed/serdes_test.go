package typed_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strconv"
	"testing"

	"barnabas/client/typed"
)

type order struct {
	ID    int
	Total float64
}

// written gives the bytes of v, made in memory that held something else.
func written[T any](t *testing.T, s typed.Serializer[T], v T) []byte {
	t.Helper()
	data, err := s.Serialize(t.Context(), "orders", []byte("something else")[:0], v)
	if err != nil {
		t.Fatalf("serialize %v: %v", v, err)
	}
	return data
}

func comesBack[T comparable](t *testing.T, s typed.Serde[T], v T, want []byte) {
	t.Helper()
	data := written(t, s, v)
	if !bytes.Equal(data, want) || (data == nil) != (want == nil) {
		t.Errorf("%T of %v: %q, expected %q", s, v, data, want)
	}
	if got, err := s.Deserialize(t.Context(), "orders", data); err != nil || got != v {
		t.Errorf("%T of %q: %v, %v; expected %v", s, data, got, err, v)
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	comesBack(t, typed.String{}, "über", []byte("über"))
	comesBack(t, typed.String{}, "", []byte{})
	comesBack(t, typed.String{}, "\xff\x00", []byte("\xff\x00"))
	comesBack(t, typed.Integer[int16]{}, -2, []byte{0xff, 0xfe})
	comesBack(t, typed.Integer[int32]{}, 66051, []byte{0, 1, 2, 3})
	comesBack(t, typed.Integer[int64]{}, 1, []byte{0, 0, 0, 0, 0, 0, 0, 1})
	comesBack(t, typed.JSON[order]{}, order{7, 1.5}, []byte(`{"ID":7,"Total":1.5}`))
	comesBack(t, typed.JSON[order]{Strict: true}, order{7, 1.5}, []byte(`{"ID":7,"Total":1.5}`))
	comesBack(t, typed.None{}, typed.None{}, nil)
	comesBack(t, typed.Of(func(n int) ([]byte, error) { return strconv.AppendInt(nil, int64(n), 10), nil },
		func(b []byte) (int, error) { return strconv.Atoi(string(b)) }), 12, []byte("12"))
	comesBack(t, typed.Optional(typed.String{}), nil, nil)
	for _, raw := range [][]byte{nil, {}, []byte("raw")} {
		data := written(t, typed.Bytes{}, raw)
		got, err := typed.Bytes{}.Deserialize(t.Context(), "orders", data)
		if !bytes.Equal(got, raw) || (got == nil) != (raw == nil) || err != nil {
			t.Errorf("%q came back as %q, %v", raw, got, err)
		}
	}
	text := "some"
	data := written(t, typed.Optional(typed.String{}), &text)
	if got, err := typed.Optional(typed.String{}).Deserialize(t.Context(), "orders", data); err != nil || *got != text {
		t.Errorf("an optional string came back as %v, %v", got, err)
	}
}

func TestIntegersAreJavas(t *testing.T) {
	for seed := range uint64(500) {
		n := int64(rand.New(rand.NewPCG(seed, 0)).Uint64())
		comesBack(t, typed.Integer[int64]{}, n, binary.BigEndian.AppendUint64(nil, uint64(n)))
		comesBack(t, typed.Integer[int32]{}, int32(n), binary.BigEndian.AppendUint32(nil, uint32(n)))
		comesBack(t, typed.Integer[int16]{}, int16(n), binary.BigEndian.AppendUint16(nil, uint16(n)))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func refused[T any](t *testing.T, s typed.Deserializer[T], data []byte, want error) {
	t.Helper()
	if v, err := s.Deserialize(t.Context(), "orders", data); err == nil || want != nil && !errors.Is(err, want) {
		t.Errorf("%T of %q: %v, %v", s, data, v, err)
	}
}

func TestNullIsNoValue(t *testing.T) {
	refused(t, typed.String{}, nil, typed.ErrNull)
	refused(t, typed.Integer[int32]{}, nil, typed.ErrNull)
	refused(t, typed.JSON[*order]{}, nil, typed.ErrNull)
	refused(t, typed.JSON[order]{Strict: true}, nil, typed.ErrNull)
	never := func([]byte) (int, error) { t.Error("decode was asked about null"); return 0, nil }
	refused(t, typed.Of(nil, never), nil, typed.ErrNull)

	empty := typed.Of(func(int) ([]byte, error) { return nil, nil }, nil)
	if data := written(t, empty, 1); data == nil {
		t.Error("a function that gives no bytes has written a tombstone")
	}
	if data := written(t, typed.Optional(empty), nil); data != nil {
		t.Errorf("a nil pointer is %q, not null", data)
	}
}

func TestWhatIsSomethingElseIsRefused(t *testing.T) {
	for n := range 20 {
		data := make([]byte, n)
		if n != 2 {
			refused(t, typed.Integer[int16]{}, data, nil)
		}
		if n != 4 {
			refused(t, typed.Integer[int32]{}, data, nil)
		}
		if n != 8 {
			refused(t, typed.Integer[int64]{}, data, nil)
		}
	}
	for _, text := range []string{``, `{`, `"text"`, `{"ID":"seven"}`, `{"ID":7} trailing`} {
		refused(t, typed.JSON[order]{}, []byte(text), nil)
		refused(t, typed.JSON[order]{Strict: true}, []byte(text), nil)
		refused(t, typed.Optional(typed.JSON[order]{}), []byte(text), nil)
	}
	more := []byte(`{"ID":7,"Colour":"red"}`)
	refused(t, typed.JSON[order]{Strict: true}, more, nil)
	if got, err := (typed.JSON[order]{}).Deserialize(t.Context(), "orders", more); err != nil || got.ID != 7 {
		t.Errorf("an unknown field: %v, %v", got, err)
	}
	refused(t, typed.Of[int](nil, nil), []byte("12"), nil)
	if _, err := typed.Of[int](nil, nil).Serialize(t.Context(), "orders", nil, 12); err == nil {
		t.Error("a function that was left out has written something")
	}
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"ID":7,"Total":1.5}`), true)
	f.Add([]byte(`{"ID":7}{}`), true)
	f.Add([]byte(`nul`), false)
	f.Fuzz(func(t *testing.T, data []byte, strict bool) {
		s := typed.JSON[order]{Strict: strict}
		v, err := s.Deserialize(t.Context(), "orders", data)
		if err != nil {
			return
		}
		if got, err := s.Deserialize(t.Context(), "orders", written(t, s, v)); err != nil || got != v {
			t.Errorf("%q is %v, which comes back as %v, %v", data, v, got, err)
		}
	})
}
