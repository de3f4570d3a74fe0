package uuid

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestTextIsKafkas(t *testing.T) {
	for _, c := range []struct {
		id   UUID
		text string
	}{
		{UUID{}, "AAAAAAAAAAAAAAAAAAAAAA"},
		{UUID{15: 1}, "AAAAAAAAAAAAAAAAAAAAAQ"},
		{UUID{0xfb, 0xff, 0xfe}, "-__-AAAAAAAAAAAAAAAAAA"},
	} {
		if got := c.id.String(); got != c.text {
			t.Errorf("String() = %s, want %s", got, c.text)
		}
		if got, err := Parse(c.text); err != nil || got != c.id {
			t.Errorf("Parse(%s) = %v, %v", c.text, got, err)
		}
		if got, err := Parse(c.text + "=="); err != nil || got != c.id {
			t.Errorf("Parse with padding = %v, %v", got, err)
		}
	}
	for _, bad := range []string{"", "AAAA", strings.Repeat("A", 23), strings.Repeat("A", 21) + "+", strings.Repeat("A", 21) + "B", "AAAAAAAAAA\nAAAAAAAAAAA"} {
		if id, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) = %s, want an error", bad, id)
		}
	}
	type doc struct{ ID UUID }
	text, err := json.Marshal(doc{UUID{15: 1}})
	var back doc
	if err != nil || string(text) != `{"ID":"AAAAAAAAAAAAAAAAAAAAAQ"}` || json.Unmarshal(text, &back) != nil || back.ID != (UUID{15: 1}) {
		t.Errorf("JSON: %s, %v, back %s", text, err, back.ID)
	}
}

func TestNewAvoidsReservedAndDashes(t *testing.T) {
	// 0xf8 and more in the first byte would begin the text with '-' or '_'.
	seed := [32]byte{7}
	random := rand.NewChaCha8(seed)
	for range 10_000 {
		id, err := New(random)
		if err != nil {
			t.Fatal(err)
		}
		if id.Reserved() || id.String()[0] == '-' || id[6]>>4 != 4 || id[8]>>6 != 2 {
			t.Fatalf("seed %v: New = %s", seed, id)
		}
	}
	dash := bytes.Repeat([]byte{0xfb}, 16)
	plain := bytes.Repeat([]byte{0x11}, 16)
	id, err := New(bytes.NewReader(append(dash, plain...)))
	if err != nil || id[0] != 0x11 {
		t.Errorf("after an id that begins with '-': %s, %v", id, err)
	}
	if _, err := New(bytes.NewReader(dash)); err == nil {
		t.Error("no error from a source that ends")
	}
	for low := range 100 {
		if !(UUID{15: byte(low)}).Reserved() {
			t.Errorf("%d is not reserved", low)
		}
	}
	if (UUID{15: 100}).Reserved() || (UUID{0: 1}).Reserved() {
		t.Error("ordinary ids are reserved")
	}
}
