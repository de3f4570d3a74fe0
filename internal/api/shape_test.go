package api

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
	"barnabas/internal/wire/shape"
)

// TestShapesAreKmsgs: whatever kmsg writes for a request is walked to its last byte, at every
// version, and nothing shorter is.
func TestShapesAreKmsgs(t *testing.T) {
	for _, kv := range servedVersions() {
		if !wire.FlexibleRequest(kv[0], kv[1]) {
			continue
		}
		key := kmsg.Key(kv[0])
		for seed := range uint64(100) {
			dice := rand.New(rand.NewPCG(seed, uint64(kv[0])<<8|uint64(kv[1])))
			req := key.Request()
			randomise(dice, reflect.ValueOf(req).Elem())
			req.SetVersion(kv[1])
			body := req.AppendTo(nil)
			if rest, ok := shape.Walk(shapes[key], kv[1], body); !ok || len(rest) > 0 {
				t.Fatalf("%s version %d seed %d: good %v, %d of %d bytes left\n%x", key.Name(), kv[1], seed, ok, len(rest), len(body), body)
			}
			if n := dice.IntN(len(body)); checkShape(kv[0], kv[1], body[:n]) == nil {
				t.Fatalf("%s version %d seed %d: %d of %d bytes are enough\n%x", key.Name(), kv[1], seed, n, len(body), body)
			}
		}
	}
}

// randomise fills a request's exported fields.
func randomise(dice *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if tags, ok := v.Addr().Interface().(*kmsg.Tags); ok {
			for range dice.IntN(3) {
				tags.Set(100+uint32(dice.IntN(100)), make([]byte, dice.IntN(200)))
			}
			return
		}
		for i := range v.NumField() {
			randomise(dice, v.Field(i))
		}
	case reflect.Pointer:
		if dice.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			randomise(dice, v.Elem())
		}
	case reflect.Slice:
		if n := dice.IntN(4); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
		}
		for i := range v.Len() {
			randomise(dice, v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			randomise(dice, v.Index(i))
		}
	case reflect.String:
		v.SetString(string(make([]byte, dice.IntN(300))))
	case reflect.Bool:
		v.SetBool(dice.IntN(2) == 0)
	case reflect.Uint8:
		v.SetUint(dice.Uint64() & 0xff)
	default:
		if v.CanInt() {
			v.SetInt(dice.Int64() >> dice.IntN(64))
		}
	}
}

// TestHostileCountsAreRefused: a body of a few bytes that promises four billion tagged fields, or
// elements, is refused before anybody counts them, wherever it stands. (Counting them all would take
// this test hours.)
func TestHostileCountsAreRefused(t *testing.T) {
	s := newStack(t)
	billions := []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
	for _, kv := range servedVersions() {
		if !wire.FlexibleRequest(kv[0], kv[1]) {
			continue
		}
		req := kmsg.Key(kv[0]).Request()
		req.SetVersion(kv[1])
		body := req.AppendTo(nil)
		for at := range len(body) {
			hostile := append(append([]byte(nil), body[:at]...), billions...)
			if _, _, err := s.beginRaw(s.peer(), kv[0], kv[1], hostile); !errors.Is(err, errShape) {
				t.Fatalf("key %d version %d, at byte %d: %v", kv[0], kv[1], at, err)
			}
		}
	}
}

// TestNoAllocationsForShapes: every request passes here.
func TestNoAllocationsForShapes(t *testing.T) {
	body := produceTo(12, -1, "orders", [16]byte{}, 0, records(1, 1)).AppendTo(nil)
	if n := testing.AllocsPerRun(100, func() {
		if err := checkShape(0, 12, body); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Fatalf("%v allocations", n)
	}
}
