package replica

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"barnabas/internal/metadata"
)

var sampleFetch = fetchRequest{
	session: 0x0102030405060708, sequence: 9, brokerEpoch: 77, waitMs: 500, maxBytes: 10 << 20, partBytes: 1 << 20,
	gone: []uint32{3, 300},
	asks: []ask{
		{slot: 1, flags: askNamed, topic: metadata.UUID{0xaa, 15: 0xbb}, partition: 2, epoch: 5, lastEpoch: 4, start: 7, end: 1000, flushed: 990},
		{slot: 200, flags: askCorrupt, epoch: 6, lastEpoch: -1},
	},
}

var sampleParts = []part{
	{slot: 1, highWatermark: 900, start: 10, everywhere: 890, records: []byte("records")},
	{slot: 2, code: answerFenced},
	{slot: 300, flags: partDiverged, highWatermark: 5, divergedEpoch: 3, divergedEnd: 4},
}

var sampleFlushed = flushedMessage{session: 258, brokerEpoch: 77, places: []flushedPlace{{slot: 1, epoch: 5, flushed: 1000}, {slot: 128, epoch: 6, flushed: 1}}}

// TestMessageBytes pins the bytes that brokers of one version exchange.
func TestMessageBytes(t *testing.T) {
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"fetch": {sampleFetch.append(nil), `
			03 0102030405060708 00000009 000000000000004d 000001f4 00a00000 00100000
			02 03 ac02
			02 01 01 aa0000000000000000000000000000bb 00000002 00000005 00000004 0000000000000007 00000000000003e8 00000000000003de
			c801 02 00000006 ffffffff 0000000000000000 0000000000000000 0000000000000000`},
		"answer": {sampleAnswer(), `
			03 00 0000000000000102
			01 00 00 0000000000000384 000000000000000a 000000000000037a 07 7265636f726473
			02 04 00 0000000000000000 0000000000000000 0000000000000000 00
			ac02 00 01 0000000000000005 0000000000000000 0000000000000000 00000003 0000000000000004 00`},
		"flushed": {sampleFlushed.append(nil), `
			03 0000000000000102 000000000000004d 02 01 00000005 00000000000003e8 8001 00000006 0000000000000001`},
	} {
		want, err := hex.DecodeString(strings.Join(strings.Fields(c.want), ""))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(c.got, want) {
			t.Errorf("%s:\n got %x\nwant %x", name, c.got, want)
		}
	}
}

func sampleAnswer() []byte {
	b := appendAnswerHead(nil, answerOK, 258)
	for i := range sampleParts {
		b = appendPart(b, &sampleParts[i], len(sampleParts[i].records))
		b = append(b, sampleParts[i].records...)
	}
	return b
}

// TestMessagesRoundTrip: what is parsed is what was written, and nothing shorter or longer is.
func TestMessagesRoundTrip(t *testing.T) {
	var r fetchRequest
	if err := r.parse(sampleFetch.append(nil)); err != nil || !reflect.DeepEqual(r, sampleFetch) {
		t.Fatalf("%+v %v", r, err)
	}
	var f flushedMessage
	if err := f.parse(sampleFlushed.append(nil)); err != nil || !reflect.DeepEqual(f, sampleFlushed) {
		t.Fatalf("%+v %v", f, err)
	}
	a, err := parseAnswer(sampleAnswer())
	if err != nil || a.session != 258 {
		t.Fatal(a, err)
	}
	for i := range sampleParts {
		p, more, err := a.next()
		if len(p.records) == 0 {
			p.records = nil
		}
		if err != nil || !more || !reflect.DeepEqual(p, sampleParts[i]) {
			t.Fatalf("part %d: %+v %v %v", i, p, more, err)
		}
	}
	if _, more, err := a.next(); more || err != nil {
		t.Fatal(more, err)
	}
	for name, c := range map[string]struct {
		whole []byte
		parse func([]byte) error
	}{
		"fetch":   {sampleFetch.append(nil), func(b []byte) error { return new(fetchRequest).parse(b) }},
		"flushed": {sampleFlushed.append(nil), func(b []byte) error { return new(flushedMessage).parse(b) }},
	} {
		for n := range c.whole {
			if err := c.parse(c.whole[:n]); !errors.Is(err, errMalformed) {
				t.Fatalf("%s cut to %d bytes: %v", name, n, err)
			}
		}
		if err := c.parse(append(slices.Clone(c.whole), 0)); !errors.Is(err, errMalformed) {
			t.Fatalf("%s with a byte more: %v", name, err)
		}
	}
}

func FuzzFetchRequest(f *testing.F) {
	f.Add(sampleFetch.append(nil))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again fetchRequest
		if r.parse(b) != nil {
			return
		}
		if err := again.parse(r.append(nil)); err != nil || !reflect.DeepEqual(r.asks, again.asks) {
			t.Fatalf("%+v became %+v: %v", r, again, err)
		}
	})
}

func FuzzFetchAnswer(f *testing.F) {
	f.Add(sampleAnswer())
	f.Add(appendAnswerHead(nil, answerNoSession, 0))
	f.Fuzz(func(_ *testing.T, b []byte) {
		a, err := parseAnswer(b)
		for more := err == nil; more && err == nil; {
			_, more, err = a.next()
		}
	})
}

func FuzzFlushedMessage(f *testing.F) {
	f.Add(sampleFlushed.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again flushedMessage
		if m.parse(b) != nil {
			return
		}
		if err := again.parse(m.append(nil)); err != nil || !reflect.DeepEqual(m.places, again.places) {
			t.Fatalf("%+v became %+v: %v", m, again, err)
		}
	})
}
