//go:build compat

package compat

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"barnabas/test/compat/rig"
)

// scenarios are the columns of the table, and what each of them shows.
var scenarios = []struct{ name, shows string }{
	{"produce", "every codec with acks 0, 1 and all; what lies in the topic afterwards has the keys, headers, order and codec that were sent"},
	{"idempotent", "the same with an idempotent producer"},
	{"consume", "a whole topic without a group, record by record"},
	{"group", "two members share a topic, a third joins while records are produced, one is killed with SIGKILL, one leaves, " +
		"the broker is killed and started again under the last one and the producer; then member and broker are killed together, and a new member begins exactly where the group had committed"},
	{"static", "a static member is killed and comes back to its partitions; the other one notices nothing"},
	{"assignors", "two members share a topic with each assignor"},
	{"admin", "topics, their configuration and partitions, offsets, the cluster, groups and their offsets, deletion of records, groups and topics"},
	{"errors", "what the broker refuses arrives as Kafka's error"},
}

// compatibility collects how each scenario went, for docs/compat.md.
type compatibility struct {
	libraries []*library
	partial   bool // not all of them

	mu     sync.Mutex
	ran    map[string]bool     // by library and scenario, mixture or tool
	passed map[string]bool     // likewise
	absent map[string][]string // what a library does not offer, by library and scenario
}

func newCompatibility(l []*library) *compatibility {
	return &compatibility{libraries: l, ran: map[string]bool{}, passed: map[string]bool{}, absent: map[string][]string{}}
}

func (v *compatibility) library(t *testing.T, name string) *library {
	t.Helper()
	for _, l := range v.libraries {
		if l.name == name && l.about.Client != "" {
			return l
		}
	}
	t.Fatalf("%s was not built", name)
	return nil
}

// has says whether all of these libraries are among those of this run.
func (v *compatibility) has(names []string) bool {
	for _, name := range names {
		if !slices.ContainsFunc(v.libraries, func(l *library) bool { return l.name == name }) {
			return false
		}
	}
	return true
}

// run runs a scenario as a subtest and keeps its verdict.
func (v *compatibility) run(t *testing.T, l *library, scenario string, test func(t *testing.T) (absent []string)) {
	var absent []string
	name := l.name + " " + scenario
	ran := false
	passed := t.Run(scenario, func(t *testing.T) { ran = true; absent = test(t) })
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ran[name], v.passed[name], v.absent[name] = ran, passed && ran, absent
}

// note keeps that a mixture or a tool did what it has to.
func (v *compatibility) note(t *testing.T, name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ran[name], v.passed[name] = true, !t.Failed()
}

// finish compares what the run has shown with docs/compat.md, or writes it there: `make compat` does.
// A run of some of the tests alone, or against Apache Kafka, tells too little and changes nothing.
func (v *compatibility) finish(t *testing.T) {
	t.Helper()
	if rig.System() != "barnabas" || v.partial || !v.complete() {
		t.Logf("docs/compat.md is left as it is: not everything has run against our broker")
		return
	}
	file := filepath.Join(rig.Root(), "docs", "compat.md")
	now := v.document()
	if os.Getenv("BARNABAS_COMPAT_WRITE") != "" {
		if err := os.WriteFile(file, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; make compat writes it", err)
	}
	equalLines(t, "docs/compat.md, which make compat writes", lines(string(before)), lines(now))
}

func (v *compatibility) complete() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	names := []string{}
	for _, l := range v.libraries {
		for _, s := range scenarios {
			if l.offers(s.name) {
				names = append(names, l.name+" "+s.name)
			}
		}
	}
	for _, m := range mixtures {
		names = append(names, "mixed "+m.assignor)
	}
	for _, tool := range toolsOfKafka {
		names = append(names, tool.name)
	}
	for _, name := range names {
		if !v.ran[name] {
			return false
		}
	}
	return true
}

// offers says whether a library has what a scenario is about.
func (l *library) offers(scenario string) bool {
	switch scenario {
	case "idempotent":
		return l.about.Idempotent
	case "static":
		return l.about.Static
	}
	return true
}

func (v *compatibility) verdict(name string) string {
	switch {
	case !v.passed[name]:
		return "**fails**"
	case len(v.absent[name]) > 0:
		return "in part"
	}
	return "yes"
}

// document is docs/compat.md. The same results make the same text.
func (v *compatibility) document() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	line("# Clients and tools\n")
	line("Written by the tests themselves (`make compat`): each client library below is installed from its registry,")
	line("and a program on it (`test/compat/clients`) is let at a broker. Apache Kafka 4.3.1 passes the same tests.\n")
	line("%s", row("Client", "Version", "Language", columns(func(s string) string { return s })...))
	line("%s", strings.Repeat("|---", len(scenarios)+3)+"|")
	for _, l := range v.sorted() {
		line("%s", row(l.about.Client, l.about.Version, l.about.Language, columns(func(s string) string {
			if !l.offers(s) {
				return "–"
			}
			return v.verdict(l.name + " " + s)
		})...))
	}
	line("\n“–”: the library does not offer it. “In part”: what it does not offer stands below.\n")
	for _, s := range scenarios {
		line("- **%s**: %s.", s.name, s.shows)
	}
	line("\n## What each library offers\n")
	line("%s", row("Client", "Version", "Assignors", "Not offered, and other notes"))
	line("%s", strings.Repeat("|---", 4)+"|")
	for _, l := range v.sorted() {
		line("%s", row(l.about.Client, l.about.Version, strings.Join(slices.Sorted(slices.Values(l.about.Assignors)), ", "), strings.Join(v.remarks(l), " ")))
	}
	line("\n## Groups of several libraries\n")
	line("They join one after the other while records are produced, the first is killed, the second leaves.\n")
	line("%s", row("Assignor", "Members", "Verdict"))
	line("%s", strings.Repeat("|---", 3)+"|")
	for _, m := range mixtures {
		line("%s", row(m.assignor, strings.Join(m.members, ", "), v.verdict("mixed "+m.assignor)))
	}
	line("\n## Apache Kafka's own programs with groups, 4.3.1\n")
	line("%s", row("Program", "Does", "Verdict"))
	line("%s", strings.Repeat("|---", 3)+"|")
	for _, tool := range toolsOfKafka {
		line("%s", row(tool.name, tool.does, v.verdict(tool.name)))
	}
	return text.String()
}

// remarks say what a library does not offer.
func (v *compatibility) remarks(l *library) []string {
	var all []string
	for _, s := range scenarios {
		if absent := v.absent[l.name+" "+s.name]; len(absent) > 0 {
			all = append(all, fmt.Sprintf("Not in %s: %s.", s.name, strings.Join(absent, ", ")))
		}
	}
	if !l.about.Listener {
		all = append(all, "Learns of a revocation too late to commit.")
	}
	for _, note := range l.about.Notes {
		all = append(all, strings.ToUpper(note[:1])+strings.TrimSuffix(note[1:], ".")+".")
	}
	return all
}

// sorted are the libraries by name and version, whatever the order in which they are built.
func (v *compatibility) sorted() []*library {
	return slices.SortedFunc(slices.Values(v.libraries), func(a, b *library) int {
		return cmp.Or(cmp.Compare(a.about.Client, b.about.Client), cmp.Compare(a.name, b.name))
	})
}

func row(first, second, third string, more ...string) string {
	return "| " + strings.Join(append([]string{first, second, third}, more...), " | ") + " |"
}

func columns(of func(scenario string) string) []string {
	var all []string
	for _, s := range scenarios {
		all = append(all, of(s.name))
	}
	return all
}
