package cluster

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
)

// fill sets every field of a response to something.
func fill(rng *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if tags, ok := v.Addr().Interface().(*kmsg.Tags); ok {
			if rng.IntN(4) == 0 {
				tags.Set(uint32(1000+rng.IntN(9)), make([]byte, rng.IntN(5)))
			}
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "Version" {
				fill(rng, v.Field(i))
			}
		}
	case reflect.Pointer:
		if rng.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(rng, v.Elem())
		}
	case reflect.Slice:
		n := rng.IntN(4)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(rng, v.Index(i))
		}
	case reflect.Array:
		v.Index(rng.IntN(v.Len())).SetUint(1)
	case reflect.String:
		v.SetString("text"[:rng.IntN(5)])
	case reflect.Bool:
		v.SetBool(rng.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(rng.IntN(100)))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(uint64(rng.IntN(100)))
	case reflect.Float64:
		v.SetFloat(1)
	}
}

// Every response of every flexible version, as kmsg writes it, has its shape; and no response that
// kmsg knows is without one.
func TestShapesAreKmsgs(t *testing.T) {
	checked := 0
	for key := range int16(kmsg.MaxKey) + 1 {
		resp := kmsg.ResponseForKey(key)
		if resp == nil {
			continue
		}
		for version := range resp.MaxVersion() + 1 {
			if !wire.FlexibleRequest(key, version) {
				continue
			}
			if _, known := shapes[kmsg.Key(key)]; !known {
				t.Errorf("%s has no shape", kmsg.NameForKey(key))
				break
			}
			for seed := range uint64(20) {
				rng := rand.New(rand.NewPCG(seed, uint64(key)))
				resp := kmsg.ResponseForKey(key)
				fill(rng, reflect.ValueOf(resp).Elem())
				if r, ok := resp.(*kmsg.ApiVersionsResponse); ok {
					r.ErrorCode = 0 // with UNSUPPORTED_VERSION it is read as version 0
				}
				resp.SetVersion(version)
				body := resp.AppendTo(nil)
				if err := checkShape(key, version, body); err != nil {
					t.Fatalf("%s version %d, seed %d: %v: %x", kmsg.NameForKey(key), version, seed, err, body)
				}
				again := kmsg.ResponseForKey(key)
				again.SetVersion(version)
				if err := Decode(again, body); err != nil {
					t.Fatalf("%s version %d, seed %d: %v", kmsg.NameForKey(key), version, seed, err)
				}
				// Cut anywhere, it is refused: the walk ends exactly where kmsg does.
				if cut := rng.IntN(len(body)); checkShape(key, version, body[:cut]) == nil {
					t.Fatalf("%s version %d, seed %d: %d of %d bytes pass", kmsg.NameForKey(key), version, seed, cut, len(body))
				}
				checked++
			}
		}
	}
	if checked < 1000 {
		t.Errorf("%d responses", checked)
	}
}

// A few hostile bytes cost neither four billion steps nor memory without end.
func TestHostileCountsAreRefused(t *testing.T) {
	resp := kmsg.NewPtrHeartbeatResponse()
	resp.SetVersion(4)
	if err := Decode(resp, []byte{0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f}); err == nil {
		t.Error("four billion tagged fields were believed")
	}
	meta := kmsg.NewPtrMetadataResponse()
	meta.SetVersion(12)
	body := append([]byte{0, 0, 0, 0}, 0x80, 0x80, 0x40) // a million brokers
	body = append(body, make([]byte, 1<<20)...)
	var err error
	if allocs := testing.AllocsPerRun(1, func() { err = Decode(meta, body) }); err == nil || allocs > 100 {
		t.Errorf("%v, %v allocations", err, allocs)
	}
	if err := checkShape(3, 12, make([]byte, maxBodyBytes+1)); err == nil {
		t.Error(fmt.Sprint("a response of ", maxBodyBytes+1, " bytes was taken"))
	}
}
