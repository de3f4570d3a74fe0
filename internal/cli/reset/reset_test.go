package reset

import (
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"barnabas/client"
)

func tp(topic string, partition int32) client.TopicPartition {
	return client.TopicPartition{Topic: topic, Partition: partition}
}

// Whatever is asked for, each partition gets one offset, and it lies in its log; only what is
// committed may stay where the log is no longer.
func TestPlansStayInsideTheLogs(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 4))
		f := Facts{
			Committed: map[client.TopicPartition]int64{}, Start: map[client.TopicPartition]int64{},
			End: map[client.TopicPartition]int64{}, AtTime: map[client.TopicPartition]int64{},
		}
		var partitions []client.TopicPartition
		each := map[client.TopicPartition]int64{}
		for n := range 1 + random.IntN(6) {
			p := tp(string(rune('a'+random.IntN(2))), int32(n))
			f.Start[p] = random.Int64N(100)
			f.End[p] = f.Start[p] + random.Int64N(100)
			f.AtTime[p] = min(f.Start[p]+random.Int64N(100), f.End[p])
			if random.IntN(4) == 0 {
				f.AtTime[p] = -1
			}
			f.Committed[p] = random.Int64N(250)
			each[p] = random.Int64N(250)
			partitions = append(partitions, p)
		}
		shift := []int64{random.Int64N(400) - 200, math.MaxInt64, math.MinInt64}[random.IntN(3)]
		for name, target := range map[string]Target{
			"earliest": Earliest, "latest": Latest, "current": Current, "offset": Offset(random.Int64N(250)),
			"shift": ShiftBy(shift), "time": Time(time.Unix(1, 0)), "each": Each(each),
		} {
			plan, err := Plan(target, partitions, f)
			if err != nil || len(plan) != len(partitions) {
				t.Fatalf("seed %d, %s: %d of %d partitions, %v", seed, name, len(plan), len(partitions), err)
			}
			for _, c := range plan {
				p := c.TopicPartition
				inside := c.New >= f.Start[p] && c.New <= f.End[p]
				if name == "current" {
					inside = c.New == f.Committed[p]
				}
				if !inside || c.Old != f.Committed[p] || c.Clamped() != (c.Asked != c.New) {
					t.Fatalf("seed %d, %s: %+v in [%d, %d]", seed, name, c, f.Start[p], f.End[p])
				}
			}
			sorted := slices.IsSortedFunc(plan, func(a, b Change) int {
				return strings.Compare(a.TopicPartition.String(), b.TopicPartition.String()) // one digit each
			})
			if !sorted {
				t.Fatalf("seed %d, %s: not sorted: %+v", seed, name, plan)
			}
		}
	}
}

func TestTargets(t *testing.T) {
	p, fresh := tp("t", 0), tp("t", 1)
	f := Facts{
		Committed: map[client.TopicPartition]int64{p: 40},
		Start:     map[client.TopicPartition]int64{p: 10, fresh: 20}, End: map[client.TopicPartition]int64{p: 100, fresh: 50},
		AtTime: map[client.TopicPartition]int64{p: 70, fresh: -1},
	}
	for _, c := range []struct {
		name         string
		target       Target
		want, wantNo int64 // of p, of fresh
		asked        int64 // of p
	}{
		{"earliest", Earliest, 10, 20, 10},
		{"latest", Latest, 100, 50, 100},
		{"current", Current, 40, 50, 40},
		{"offset", Offset(60), 60, 50, 60},
		{"an offset past the end", Offset(1000), 100, 50, 1000},
		{"an offset before the beginning", Offset(3), 10, 20, 3},
		{"time", Time(time.Unix(1, 0)), 70, 50, 70},
		{"each", Each(map[client.TopicPartition]int64{p: 99, fresh: 30}), 99, 30, 99},
	} {
		plan, err := Plan(c.target, []client.TopicPartition{fresh, p}, f)
		if err != nil || plan[0].New != c.want || plan[1].New != c.wantNo || plan[0].Asked != c.asked || plan[0].Old != 40 || plan[1].Old != -1 {
			t.Errorf("%s: %+v, %v", c.name, plan, err)
		}
	}
	for by, want := range map[int64]int64{5: 45, -5: 35, -1000: 10, 1000: 100, math.MaxInt64: 100, math.MinInt64: 10} {
		plan, err := Plan(ShiftBy(by), []client.TopicPartition{p}, f)
		if err != nil || plan[0].New != want {
			t.Errorf("shift by %d: %+v, %v", by, plan, err)
		}
	}
	if _, err := Plan(ShiftBy(1), []client.TopicPartition{p, fresh}, f); !errors.Is(err, ErrNothingCommitted) || !strings.Contains(err.Error(), "t-1") {
		t.Errorf("shift of nothing: %v", err)
	}
}

func TestScopes(t *testing.T) {
	for in, want := range map[string]Scope{
		"t": {"t", nil}, "a.b_c-d": {"a.b_c-d", nil}, "t:0": {"t", []int32{0}}, "t:2, 1,0": {"t", []int32{2, 1, 0}},
	} {
		if got, err := ParseScope(in); err != nil || got.Topic != want.Topic || !slices.Equal(got.Partitions, want.Partitions) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", ":1", "t:", "t:x", "t:-1", "t:1,", "t:1:2", "t:4294967296"} {
		if got, err := ParseScope(in); err == nil {
			t.Errorf("%q became %+v", in, got)
		}
	}
}

func TestFiles(t *testing.T) {
	want := map[client.TopicPartition]int64{tp("a", 0): 5, tp("b", 2): 9}
	for name, text := range map[string]string{
		"as Kafka exports one group":    "\"a\",0,5\n\"b\",2,9\n",
		"plain, blank lines, no end":    "a,0,5\n\nb, 2, 9",
		"with Windows' ends":            "a,0,5\r\nb,2,9\r\n",
		"as Kafka exports many groups":  "\"g\",\"a\",0,5\n\"h\",\"a\",0,7\n\"g\",\"b\",2,9\n",
		"with the group, damage beside": "g,a,0,5\nother,a,x,y\ng,b,2,9\n",
	} {
		if got, err := File(strings.NewReader(text), "g"); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for text, reason := range map[string]string{
		"":                           "no line",
		"\n\n":                       "no line",
		"h,a,0,5\n":                  "no line of group",
		"a,0\n":                      "write topic,partition,offset",
		"a,0,5\nb,0\n":               "wrong number of fields",
		"a,x,5\n":                    "not a partition",
		"a,0,5\na,1,-5\n":            "line 2: \"-5\" is not an offset",
		"a,0,5\na,0,6\n":             "line 2: a-0 is there twice",
		"a,0,99999999999999999999\n": "not an offset",
		"\"a,0,5\n":                  "quote",
	} {
		if got, err := File(strings.NewReader(text), "g"); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q became %v, %v", text, got, err)
		}
	}
}

func TestDurations(t *testing.T) {
	day := 24 * time.Hour
	for in, want := range map[string]time.Duration{
		"2h": 2 * time.Hour, "1h30m": 90 * time.Minute, "3d": 3 * day, "0.5d": 12 * time.Hour, "0s": 0,
		"P1D": day, "PT2H": 2 * time.Hour, "P1DT2H3M4S": day + 2*time.Hour + 3*time.Minute + 4*time.Second, "PT0.25S": 250 * time.Millisecond,
		"PT90M": 90 * time.Minute, "P0DT0H0M5S": 5 * time.Second,
	} {
		if got, err := Duration(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "P", "PT", "P1DT", "1", "-2h", "-1d", "P-1D", "P1Y", "P1H", "NaNd", "Infd", "P99999999D", "999999999h", "d"} {
		if got, err := Duration(in); err == nil {
			t.Errorf("%q became %v", in, got)
		}
	}
}

// A file never makes it panic, and what it gives is whole.
func FuzzFile(f *testing.F) {
	for _, seed := range []string{"a,0,5\n", "\"g\",\"a\",0,5\n\"h\",\"a\",1,7\n", "a,0\n", "\"", "a,,\n", "g,,0,0\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := File(strings.NewReader(text), "g")
		if (err == nil) != (len(got) > 0) {
			t.Fatalf("%d offsets and %v", len(got), err)
		}
		for p, offset := range got {
			if p.Topic == "" || p.Partition < 0 || offset < 0 {
				t.Fatalf("%v: %d", p, offset)
			}
		}
	})
}

func FuzzDuration(f *testing.F) {
	for _, seed := range []string{"P1DT2H3M4.5S", "3d", "2h", "P", "1e300d", "P999999999999999999999D"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := Duration(s); err == nil && d < 0 {
			t.Fatalf("%q is %v", s, d)
		}
	})
}
