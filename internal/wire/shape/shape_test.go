package shape

import (
	"encoding/hex"
	"strings"
	"testing"
)

// What each kind of field lets pass, and what it does not.
func TestWalk(t *testing.T) {
	pair := Structs(Int32, Text)
	for _, c := range []struct {
		name    string
		fields  []Field
		version int16
		bytes   string
		rest    int // -1: refused
	}{
		{"nothing", nil, 0, "00", 0},
		{"no tags", nil, 0, "", -1},
		{"what follows", nil, 0, "00 0102", 2},
		{"plain", []Field{Int8, Int16, Int32, Int64, UUID}, 0, strings.Repeat("01", 31) + "00", 0},
		{"plain, short", []Field{Int8, Int16, Int32, Int64, UUID}, 0, strings.Repeat("01", 31), -1},
		{"text", []Field{Text}, 0, "03 6162 00", 0},
		{"empty and null", []Field{Text, Text}, 0, "01 00 00", 0},
		{"text, short", []Field{Text}, 0, "05 6162 00", -1},
		{"structs", []Field{pair}, 0, "03 00000001 01 00 00000002 02 61 00 00", 0},
		{"structs, null", []Field{pair}, 0, "00 00", 0},
		{"structs, too many", []Field{pair}, 0, "ffffffff0f 00", -1},
		{"list", []Field{List(Int32)}, 0, "03 00000001 00000002 00", 0},
		{"list, short", []Field{List(Int32)}, 0, "03 00000001 0002 00", -1},
		{"list of texts", []Field{List(Text)}, 0, "03 0261 01 00", 0},
		{"list of texts, short", []Field{List(Text)}, 0, "03 0261 0361 00", -1},
		{"inline", []Field{Inline(Int8)}, 0, "07 00 00", 0},
		{"maybe, absent", []Field{Maybe(Int8)}, 0, "ff 00", 0},
		{"maybe, present", []Field{Maybe(Int8)}, 0, "01 07 00 00", 0},
		{"maybe, marked oddly", []Field{Maybe(Int8)}, 0, "fe 07 00 00", 0},
		{"maybe, marked oddly and short", []Field{Maybe(Int8)}, 0, "fe 00", -1},
		{"maybe, nothing", []Field{Maybe()}, 0, "", -1},
		{"unknown tag", []Field{Int8}, 0, "07 01 05 02 aabb", 0},
		{"unknown tag, short", []Field{Int8}, 0, "07 01 05 03 aabb", -1},
		{"too many tags", []Field{Int8}, 0, "07 ffffffff0f 0000", -1},
		{"known tag", []Field{Int8, Tag(5, Inline(Int16))}, 0, "07 01 05 03 0001 00", 0},
		{"known tag, short inside", []Field{Int8, Tag(5, Inline(Int16))}, 0, "07 01 05 02 0001 ffff", -1},
		{"known tag, hostile inside", []Field{Tag(5, Structs(Int8))}, 0, "01 05 05 ffffffff0f", -1},
		{"a tag of a struct inside", []Field{Structs(Int8, Tag(0, Int32))}, 0, "02 07 01 00 03 aabbcc 00", -1},
		{"before its version", []Field{Int8.Since(3), Int16.Until(2)}, 2, "0001 00", 0},
		{"in its version", []Field{Int8.Since(3), Int16.Until(2)}, 3, "01 00", 0},
		{"a number of more than 32 bits", []Field{Text}, 0, "ffffffff1f 00", -1},
	} {
		body, err := hex.DecodeString(strings.ReplaceAll(c.bytes, " ", ""))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		rest, ok := Walk(c.fields, c.version, body)
		if ok != (c.rest >= 0) || ok && len(rest) != c.rest {
			t.Errorf("%s: %v with %d bytes left, want %d", c.name, ok, len(rest), c.rest)
		}
		for cut := range len(body) {
			if _, short := Walk(c.fields, c.version, body[:cut]); short && c.rest == 0 {
				t.Errorf("%s: %d of %d bytes pass", c.name, cut, len(body))
			}
		}
	}
}
