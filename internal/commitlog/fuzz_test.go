package commitlog

import (
	"context"
	"encoding/binary"
	"testing"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/checkpoint"
	"barnabas/internal/commitlog/epoch"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

// FuzzRecovery puts any bytes where a segment, its indexes and a snapshot were. Whatever they are, the directory opens, what is
// served passes the checks, and an append follows.
func FuzzRecovery(f *testing.F) {
	var log []byte
	for i := range 5 {
		b := produced(4, 0, int32(i), i, 1)
		b.Assign(int64(i), 2)
		log = append(log, b...)
	}
	entry := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 2), uint32(len(log)/5*2))
	when := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, uint64(testNow+2)), 2)
	f.Add(log, entry, when, []byte(nil), []byte("0\n1\n2 0\n"), int64(0))
	f.Add(log[:len(log)-7], entry, when, []byte("\x00\x01junk"), []byte("0\n0\n"), int64(3))
	f.Add([]byte{}, []byte{}, []byte{}, []byte{}, []byte{}, int64(9))
	f.Fuzz(func(t *testing.T, log, index, times, snapshot, epochs []byte, point int64) {
		m := disk.NewMem()
		if err := m.MkdirAll("/data/orders-3"); err != nil {
			t.Fatal(err)
		}
		point &= 0xff
		for name, data := range map[string][]byte{
			"orders-3/" + segment.Name(0, segment.DataSuffix): log, "orders-3/" + segment.Name(0, segment.IndexSuffix): index,
			"orders-3/" + segment.Name(0, segment.TimeSuffix): times, "orders-3/" + segment.Name(min(point, 2), segment.SnapshotSuffix): snapshot,
			"orders-3/" + segment.Name(0, segment.AbortedSuffix): snapshot, "orders-3/" + epochFile: epochs,
			recoveryPointFile: formatOffsets(map[TopicPartition]int64{testTopic: point}),
		} {
			if err := disk.WriteFileAtomic(m, "/data/"+name, data); err != nil {
				t.Fatal(err)
			}
		}
		d := mustOpen(t, testOptions(m))
		l := mustLog(t, d, DefaultConfig())
		p := l.Progress()
		at, damaged := l.Damaged()
		if p.Start > p.End || (!damaged && p.End < point) {
			t.Fatalf("%+v, recovery point %d, damaged %v at %d", p, point, damaged, at)
		}
		for from := p.Start; from < p.End; {
			r, err := l.Read(from, 1<<20, p.End, true)
			if err != nil {
				break
			}
			data, err := r.AppendTo(nil)
			if e := r.Close(); e != nil {
				t.Fatal(e)
			}
			if err != nil || r.Next <= from {
				break
			}
			for len(data) > 0 {
				b, rest, err := batch.Next(data)
				if err != nil || b.CheckCRC() != nil {
					t.Fatalf("served what fails the check: %v", err)
				}
				data = rest
			}
			from = r.Next
		}
		_, _, _ = l.OffsetForTime(testNow)
		_, _ = l.AbortedTransactions(0, p.End)
		if _, damaged := l.Damaged(); !damaged {
			if a, err := l.Append(records(0, 1, 10), AppendOptions{LeaderEpoch: 1 << 30, NowMs: testNow}); err != nil || a.First != p.End {
				t.Fatalf("append after %+v: %+v %v", p, a, err)
			}
			if err := l.Flush(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	f.Add([]byte("0\n2\norders 3 17\na-b 0 5\n"))
	f.Add([]byte("0\n0\n"))
	f.Add([]byte("1\n0\n"))
	f.Add([]byte("0\n1\nx 0"))
	f.Fuzz(func(t *testing.T, data []byte) {
		offsets, err := parseOffsets(data)
		if err != nil {
			return
		}
		again, err := parseOffsets(formatOffsets(offsets))
		if err != nil || !equalOffsets(offsets, again) {
			t.Fatalf("%v, again %v %v", offsets, again, err)
		}
	})
}

func FuzzEpochs(f *testing.F) {
	f.Add([]byte("0\n2\n0 0\n3 17\n"))
	f.Add([]byte("0\n2\n3 17\n0 0\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := checkpoint.ParseEpochs(data)
		if err != nil {
			return
		}
		var e epoch.History
		e.Replace(entries)
		for _, s := range entries {
			if e.At(s.Offset) != s.Epoch {
				t.Fatalf("%v: epoch at %d", entries, s.Offset)
			}
		}
		if again, err := checkpoint.ParseEpochs(checkpoint.FormatEpochs(entries)); err != nil || len(again) != len(entries) {
			t.Fatalf("%v %v", again, err)
		}
	})
}
