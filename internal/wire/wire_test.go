package wire

import (
	"bytes"
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The table must agree with the message definitions, for every key and version that exists.
func TestFlexibleTableAgreesWithMessageDefinitions(t *testing.T) {
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		req := kmsg.RequestForKey(key)
		for v := int16(0); v <= req.MaxVersion(); v++ {
			req.SetVersion(v)
			resp := req.ResponseKind()
			resp.SetVersion(v)
			if removed(key) {
				if _, err := ParseRequest(appendRequestHeader(nil, Header{Key: key, Version: v})); err == nil {
					t.Errorf("key %d version %d parses, brokers do not have it", key, v)
				}
				continue
			}
			if got := FlexibleRequest(key, v); got != req.IsFlexible() {
				t.Errorf("%s v%d request: flexible %t, want %t", kmsg.NameForKey(key), v, got, req.IsFlexible())
			}
			want := resp.IsFlexible() && key != keyAPIVersions
			if got := FlexibleResponse(key, v); got != want {
				t.Errorf("%s v%d response: flexible %t, want %t", kmsg.NameForKey(key), v, got, want)
			}
		}
	}
}

func TestRequestHeaderRoundTrip(t *testing.T) {
	body := []byte("body")
	for _, want := range []Header{
		{Key: 0, Version: 8, CorrelationID: 1, ClientID: "rdkafka"},
		{Key: 0, Version: 9, CorrelationID: -1, ClientID: ""},
		{Key: 18, Version: 4, CorrelationID: 1 << 30, ClientIDNull: true},
		{Key: 17, Version: 1, CorrelationID: 7, ClientID: string([]byte{0xff, 0})},
		{Key: 18, Version: 99, CorrelationID: 7}, // of a client from the future
		{Key: 1000, Version: 0, CorrelationID: 7},
	} {
		frame := append(appendRequestHeader(nil, want), body...)
		got, err := ParseRequest(frame)
		if err != nil || got.Header != want || !bytes.Equal(got.Body, body) || got.Bytes != len(frame) {
			t.Errorf("%+v: got %+v, %v", want, got, err)
		}
	}
}

// The header as kmsg, another implementation, writes it.
func TestRequestHeaderAgreesWithKmsg(t *testing.T) {
	id := "client"
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID(id))
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		req := kmsg.RequestForKey(key)
		for v := int16(0); v <= req.MaxVersion() && !removed(key); v++ {
			req.SetVersion(v)
			want := f.AppendRequest(nil, req, 77)[LengthBytes:]
			got := append(appendRequestHeader(nil, Header{Key: key, Version: v, CorrelationID: 77, ClientID: id}), req.AppendTo(nil)...)
			if !bytes.Equal(got, want) {
				t.Errorf("%s v%d: % x, want % x", kmsg.NameForKey(key), v, got, want)
			}
			parsed, err := ParseRequest(want)
			if err != nil || !bytes.Equal(parsed.Body, req.AppendTo(nil)) {
				t.Errorf("%s v%d: body % x, %v", kmsg.NameForKey(key), v, parsed.Body, err)
			}
		}
	}
}

func TestMalformedHeadersAreRefused(t *testing.T) {
	for name, frame := range map[string][]byte{
		"empty":               {},
		"short":               {0, 3, 0, 1, 0, 0, 0, 1, 0},
		"negative key":        {0xff, 0xff, 0, 1, 0, 0, 0, 1, 0xff, 0xff},
		"negative version":    {0, 3, 0x80, 1, 0, 0, 0, 1, 0xff, 0xff},
		"removed key":         {0, 7, 0, 0, 0, 0, 0, 1},
		"removed, long":       {0, 4, 0, 1, 0, 0, 0, 1, 0xff, 0xff},
		"client id too long":  {0, 3, 0, 1, 0, 0, 0, 1, 0, 5, 'a'},
		"client id of -2":     {0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xfe},
		"no tags":             {0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff},
		"more tags than data": {0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 9, 0, 0},
		"tag beyond the end":  {0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 1, 0, 9, 0},
		"endless number":      append([]byte{0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff}, bytes.Repeat([]byte{0xff}, 20)...),
	} {
		if r, err := ParseRequest(frame); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

func TestParsingTheSameClientAgainDoesNotAllocate(t *testing.T) {
	frame := appendRequestHeader(nil, Header{Key: 0, Version: 9, ClientID: "a client id longer than the smallest strings"})
	var r Request
	if n := testing.AllocsPerRun(100, func() {
		if err := ParseRequestInto(&r, frame); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever parses is written back the same, but for tagged fields that nobody knows.
func FuzzParseRequest(f *testing.F) {
	for key := int16(0); key < 93; key += 3 {
		for _, v := range []int16{0, 5, 12, 99} {
			f.Add(append(appendRequestHeader(nil, Header{Key: key, Version: v, CorrelationID: 5, ClientID: "seed"}), 1, 2, 3))
		}
	}
	f.Add([]byte{0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 1, 5, 2, 0, 0, 'b'})
	f.Fuzz(func(t *testing.T, frame []byte) {
		r, err := ParseRequest(frame)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("an error that is not ErrMalformed: %v", err)
			}
			return
		}
		again, err := ParseRequest(append(appendRequestHeader(nil, r.Header), r.Body...))
		if err != nil || again.Header != r.Header || !bytes.Equal(again.Body, r.Body) {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}
