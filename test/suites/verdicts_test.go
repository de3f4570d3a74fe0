//go:build compat

package suites

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// verdict is a line that a suite's script prints: "PASS|FAIL|SKIP test # why".
type verdict struct {
	outcome string
	test    string
	why     string
}

// readVerdict takes a line of a script's output. Lines that are none are the script's own talk.
func readVerdict(line string) (v verdict, ok bool) {
	outcome, rest, _ := strings.Cut(line, " ")
	if outcome != "PASS" && outcome != "FAIL" && outcome != "SKIP" || rest == "" {
		return verdict{}, false
	}
	test, why, _ := strings.Cut(rest, " # ")
	return verdict{outcome: outcome, test: strings.TrimSpace(test), why: strings.TrimSpace(why)}, true
}

// The reasons for which a script leaves a test out that say nothing against our broker: they hold
// for Apache Kafka as well. Any other is a test that should have run.
var allowedSkips = regexp.MustCompile(`^excluded |not in this build$|needs broker internals|needs \d+ brokers|needs listener |needs tiered storage`)

// leaveOut is a line of left-out.txt.
type leaveOut struct {
	pattern string // SUITE/TEST, * and ? as in a shell
	reason  string
}

// The only reasons that there are. What has one belongs to later work.
var reasons = []string{
	"transactions", "KIP-848", "share groups", "streams groups", "security", "quotas", "client telemetry",
	"reassignment", "several brokers", "controllers that are no brokers",
}

// readList reads lines "PATTERN # reason".
func readList(file string) ([]leaveOut, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []leaveOut
	for _, line := range lines(string(text)) {
		pattern, reason, said := strings.Cut(line, " # ")
		l := leaveOut{pattern: strings.TrimSpace(pattern), reason: strings.TrimSpace(reason)}
		if _, err := path.Match(glob(l.pattern), ""); err != nil || !said {
			return nil, fmt.Errorf("%s: %q is not PATTERN # reason", file, line)
		}
		list = append(list, l)
	}
	return list, nil
}

// lists says which tests need not pass.
type lists struct {
	leftOut        []leaveOut
	skipThemselves []leaveOut
}

func readLists() (l lists, err error) {
	if l.leftOut, err = readList("left-out.txt"); err != nil {
		return lists{}, err
	}
	for _, out := range l.leftOut {
		kind, _, _ := strings.Cut(out.reason, ":")
		if !slices.Contains(reasons, kind) {
			return lists{}, fmt.Errorf("left-out.txt, %s: %q is none of the reasons %s", out.pattern, kind, strings.Join(reasons, ", "))
		}
	}
	l.skipThemselves, err = readList("skip-themselves.txt")
	return l, err
}

// glob makes of a pattern one for path.Match, in which brackets are just brackets (they number a
// test's invocations) and * matches slashes too.
func glob(pattern string) string {
	return strings.NewReplacer("[", `\[`, "]", `\]`, "/", "\x00").Replace(pattern)
}

func matches(pattern, name string) bool {
	ok, err := path.Match(glob(pattern), strings.ReplaceAll(name, "/", "\x00"))
	return err == nil && ok
}

var invocation = regexp.MustCompile(`\[\w+\]$`)

// find says by which line a test is left out. A line that names a method of Apache Kafka's, or a
// test with subtests of Go's, names its invocations and subtests with it.
func find(list []leaveOut, name string) (leaveOut, bool) {
	for _, l := range list {
		if matches(l.pattern, name) || matches(l.pattern, invocation.ReplaceAllString(name, "")) || matches(l.pattern+"/*", name) {
			return l, true
		}
	}
	return leaveOut{}, false
}

// result is what became of a suite.
type result struct {
	passed   int
	excluded int       // by the suites' own files, or for what Apache Kafka would lack too
	leftOut  int       // that ran, nevertheless, and did not pass
	failed   []verdict // FAIL, or not run for no allowed reason
	pass     []verdict // that stand in left-out.txt and passed
}

// judge makes one verdict of all lines about a test, for the scripts name a test several times:
// once as it ended, once more where it is excluded.
func judge(suite string, all []verdict, l lists) result {
	last := map[string]verdict{}
	var order []string
	for _, v := range all {
		before, known := last[v.test]
		if !known {
			order = append(order, v.test)
		}
		excluded := v.outcome == "SKIP" && strings.HasPrefix(v.why, "excluded ")
		if !known || excluded || before.outcome != "FAIL" && !strings.HasPrefix(before.why, "excluded ") {
			last[v.test] = v
		}
	}
	var r result
	for _, test := range order {
		v := last[test]
		_, out := find(l.leftOut, suite+"/"+test)
		_, skips := find(l.skipThemselves, suite+"/"+test)
		switch {
		case v.outcome == "SKIP" && (skips || allowedSkips.MatchString(v.why)):
			r.excluded++
		case v.outcome == "PASS" && out && !sharesName(all, l.leftOut, suite, test):
			r.pass = append(r.pass, v)
		case v.outcome == "PASS":
			r.passed++
		case out:
			r.leftOut++
		default:
			r.failed = append(r.failed, v)
		}
	}
	return r
}

// sharesName says whether a passing test is left out only by a line that others need: one with a
// wildcard, or one that names a method of which another invocation did not pass.
func sharesName(all []verdict, list []leaveOut, suite, test string) bool {
	l, _ := find(list, suite+"/"+test)
	return slices.ContainsFunc(all, func(v verdict) bool {
		by, out := find(list, suite+"/"+v.test)
		return out && by == l && v.outcome != "PASS"
	})
}

// lines are the lines of a text that are neither empty nor a comment.
func lines(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool {
		return strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#")
	})
}
