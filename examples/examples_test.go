package examples_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"barnabas/barnabastest"
	"barnabas/client"
)

// Programs that end by themselves, with what they print: a regular expression for each line, in
// order. exactlyonce needs transactions and is run in test/compat, beside group and sharegroup, which do not
// end; embeddedtest is a test itself.
var programs = []struct {
	name  string
	args  []string
	stdin string // a file
	lines []string
	any   bool // in any order
}{
	{name: "hello", lines: []string{`wrote it to partition 0 at offset 0`, `read "hello"`}},
	{name: "callbacks", args: []string{"-records", "500"}, lines: []string{`500 written, 0 failed`}},
	{name: "keyedorder", args: []string{"-file", "flights/flights-1k.jsonl"}, lines: []string{`the flights of \d+ airports are in order, each airport's`}},
	{name: "batchimport", args: []string{"-topic", "flights"}, stdin: "flights/flights-1k.jsonl", lines: []string{`1000 records`}},
	{name: "admin", lines: []string{
		`invoices: 3 partitions`, `nonsense: UNKNOWN_TOPIC_OR_PARTITION \(3\).*`, `  cleanup.policy=compact`, `  retention.ms=86400000`,
	}},
	{name: "timetravel", args: []string{"-topic", "prices", "-from", "2026-01-31T10:00:00Z", "-to", "2026-01-31T11:00:00Z"}, lines: []string{
		`2026-01-31T10:00:00Z price 4`, `2026-01-31T10:15:00Z price 5`, `2026-01-31T10:30:00Z price 6`, `2026-01-31T10:45:00Z price 7`,
	}},
	{name: "typedrecords", lines: []string{
		`order 0: Klamm owes 1250`, `orders-0 at offset 1: the key cannot be read: null`, `order 1: Frieda owes 300`, `order 2: Olga owes 75`,
	}, any: true},
	{name: "requestreply", args: []string{"one", "two"}, lines: []string{`answer to question 0: ONE`, `answer to question 1: TWO`}},
}

const patience = time.Minute

func TestProgramsDoWhatTheySay(t *testing.T) {
	dir := t.TempDir()
	build := []string{"build", "-o", dir}
	for _, p := range programs {
		build = append(build, "./"+p.name)
	}
	if out, err := exec.Command("go", build...).CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(build, " "), err, out)
	}
	broker := barnabastest.Start(t, barnabastest.OverTCP(), barnabastest.Setting("num.partitions", "1"))
	writePrices(t, broker)
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			run := exec.CommandContext(ctx, filepath.Join(dir, p.name), append([]string{"-broker", broker.Addr()}, p.args...)...)
			var complaints strings.Builder
			run.Stderr = &complaints
			if p.stdin != "" {
				in, err := os.Open(p.stdin)
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				run.Stdin = in
			}
			out, err := run.Output()
			if err != nil {
				t.Fatalf("%v\n%s%s", err, out, complaints.String())
			}
			compare(t, string(out), p.lines, p.any)
		})
	}
}

// compare matches the lines that were printed.
func compare(t *testing.T, out string, want []string, anyOrder bool) {
	t.Helper()
	got := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if anyOrder {
		want = slices.Sorted(slices.Values(want))
		slices.Sort(got)
	}
	if len(got) != len(want) {
		t.Fatalf("%d lines, expected %d:\n%s", len(got), len(want), out)
	}
	for i, line := range want {
		if !regexp.MustCompile(`^(?:` + line + `)$`).MatchString(got[i]) {
			t.Errorf("line %d is %q, expected %s", i, got[i], line)
		}
	}
}

// writePrices writes one every quarter of an hour from nine to twelve.
func writePrices(t *testing.T, broker *barnabastest.Broker) {
	t.Helper()
	p, err := broker.Client().NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	nine := time.Date(2026, 1, 31, 9, 0, 0, 0, time.UTC)
	for n := range 12 {
		r := client.ProducerRecord{Topic: "prices", Value: fmt.Appendf(nil, "price %d", n), Timestamp: nine.Add(time.Duration(n) * 15 * time.Minute)}
		if err := p.Send(t.Context(), r, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Every program is run by some test, and README.md names it.
func TestEveryProgramIsRunAndNamed(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := []string{"group", "sharegroup", "exactlyonce"} // in test/compat
	mains, err := filepath.Glob("*/main.go")
	if err != nil || len(mains) == 0 {
		t.Fatalf("found %v, %v", mains, err)
	}
	for _, path := range mains {
		name := filepath.Dir(path)
		run := slices.Contains(elsewhere, name)
		for _, p := range programs {
			run = run || p.name == name
		}
		if !run {
			t.Errorf("no test runs %s", name)
		}
		if !strings.Contains(string(readme), "`"+name+"`") {
			t.Errorf("README.md does not name %s", name)
		}
	}
}
