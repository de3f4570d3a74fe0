package batch

import (
	"bytes"
	"testing"
)

func addSeeds(f *testing.F) {
	for i, line := range append(kafkaLines(f, "batch"), kafkaLines(f, "marker")...) {
		if b := fromBase64(f, line[1]); len(b) < 400 || i%7 == 0 && len(b) < 2000 {
			f.Add([]byte(b))
		}
	}
	for i, line := range kafkaLines(f, "verdict") {
		if i%20 == 0 {
			f.Add([]byte(fromBase64(f, line[1])))
		}
	}
	f.Add([]byte{})
}

func FuzzNext(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, buf []byte) {
		given := bytes.Clone(buf)
		b, rest, err := Next(buf)
		if err != nil {
			if b != nil || len(rest) != len(buf) {
				t.Fatalf("error %v, and yet %d bytes", err, len(b))
			}
			return
		}
		if len(b)+len(rest) != len(buf) || b.Size() != int64(len(b)) || len(b) < HeaderBytes || b.Magic() != 2 {
			t.Fatalf("%d and %d bytes of %d", len(b), len(rest), len(buf))
		}
		_ = b.CheckCRC()
		if b.LastSequence(); b.BaseSequence() == NoSequence && b.LastSequence() != NoSequence {
			t.Fatal("a last sequence without a first")
		}
		_, _, _ = b.LastOffset(), b.NextOffset(), b.Codec().String()
		if !bytes.Equal(given, buf) {
			t.Fatal("reading changed the bytes")
		}
	})
}

// FuzzCheck also repairs length and checksum, since the rest is out of reach otherwise.
func FuzzCheck(f *testing.F) {
	addSeeds(f)
	c := NewChecker()
	f.Fuzz(func(t *testing.T, buf []byte) {
		if _, err := c.Check(bytes.Clone(buf), anyTime); err == nil && Batch(buf).CheckCRC() != nil {
			t.Fatal("accepted with a wrong checksum")
		}
		if len(buf) < HeaderBytes {
			return
		}
		b := withPayload(buf, Batch(buf).Codec(), buf[HeaderBytes:])
		b.Assign(0, NoLeaderEpoch)
		b[magicAt] = magic
		rules := anyTime
		rules.Internal, rules.MaxDecompressedBytes = true, 8<<20
		for _, rules.KeepCodec = range []bool{true, false} {
			rules.Codec = Codec(len(buf) % codecs)
			checked, err := c.Check(bytes.Clone(b), rules)
			if err != nil {
				continue
			}
			if err := checked.Batch.CheckCRC(); err != nil {
				t.Fatal(err)
			}
			if again, err := c.Check(bytes.Clone(checked.Batch), rules); err != nil || !bytes.Equal(again.Batch, checked.Batch) {
				t.Fatalf("checked again: %v", err)
			}
		}
	})
}

func FuzzRecords(f *testing.F) {
	addSeeds(f)
	c := NewChecker()
	f.Fuzz(func(t *testing.T, buf []byte) {
		if len(buf) < HeaderBytes || len(buf) > 1<<16 {
			return
		}
		b := withPayload(buf, Batch(buf).Codec(), buf[HeaderBytes:])
		b[magicAt] = magic
		inflated := 0
		for r, err := range c.Records(b) {
			if err != nil {
				break
			}
			if inflated += len(r.Key) + len(r.Value); inflated > 8<<20 {
				return // the book would take all of it into memory
			}
		}
		_, _ = c.ParseControl(b)
		b.Assign(0, NoLeaderEpoch)
		holdToTheBook(t, "fuzz", c, b)
	})
}
