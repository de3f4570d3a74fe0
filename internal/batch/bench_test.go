package batch

import (
	"fmt"
	"testing"
)

// benchBatch is about what the bench's producers send: 124-byte values in a batch of 16 KiB.
func benchBatch(tb testing.TB, codec Codec, records, valueBytes int) Batch {
	tb.Helper()
	b := NewBuilder(BuilderOptions{Codec: codec})
	value := make([]byte, valueBytes)
	for i := range records {
		for j := range value {
			value[j] = "abcdefgh"[(i*7+j*j)%8]
		}
		b.Append(1_700_000_000_000+int64(i), nil, value, nil)
	}
	made, err := b.Build()
	if err != nil {
		tb.Fatal(err)
	}
	return made
}

var benchRules = Rules{NowMs: 1_700_000_000_000, MaxBeforeMs: 1 << 40, MaxAfterMs: 1 << 40, KeepCodec: true}

func BenchmarkWalk(b *testing.B) {
	batch := benchBatch(b, None, 1000, 124)
	rules := benchRules
	b.SetBytes(int64(len(batch)))
	for b.Loop() {
		k := newWalk(batch, &rules)
		w := window{buf: batch.payload()}
		if err := k.run(&w, batch.Count()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/record")
}

func BenchmarkCheck(b *testing.B) {
	for codec := None; codec < codecs; codec++ {
		b.Run(fmt.Sprint(codec), func(b *testing.B) {
			batch := benchBatch(b, codec, 1000, 124)
			c := NewChecker()
			b.SetBytes(int64(len(batch)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Check(batch, benchRules); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/record")
		})
	}
}

func BenchmarkRecords(b *testing.B) {
	for _, codec := range []Codec{None, Lz4} {
		b.Run(fmt.Sprint(codec), func(b *testing.B) {
			batch := benchBatch(b, codec, 1000, 124)
			c := NewChecker()
			b.ReportAllocs()
			for b.Loop() {
				for _, err := range c.Records(batch) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/record")
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	for codec := None; codec < codecs; codec++ {
		b.Run(fmt.Sprint(codec), func(b *testing.B) {
			builder := NewBuilder(BuilderOptions{Codec: codec})
			value := make([]byte, 124)
			b.ReportAllocs()
			for b.Loop() {
				builder.Reset()
				for i := range 1000 {
					builder.Append(int64(i), nil, value, nil)
				}
				if _, err := builder.Build(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/record")
		})
	}
}

// BenchmarkBuildInPlace fills batches of several partitions in turn, as a producer does.
func BenchmarkBuildInPlace(b *testing.B) {
	for _, valueBytes := range []int{124, 1024} {
		b.Run(fmt.Sprint(valueBytes), func(b *testing.B) {
			const partitions, batchBytes = 6, 1_000_000
			value := make([]byte, valueBytes)
			var builders [partitions]*Builder
			for i := range builders {
				builders[i] = NewBuilder(BuilderOptions{})
			}
			b.SetBytes(int64(valueBytes))
			n := 0
			for b.Loop() {
				k := builders[n%partitions]
				n++
				k.Append(1_700_000_000_000, nil, value, nil)
				if k.UncompressedSize() < batchBytes {
					continue
				}
				if _, err := k.BuildInPlace(); err != nil {
					b.Fatal(err)
				}
				k.Reset()
			}
		})
	}
}
