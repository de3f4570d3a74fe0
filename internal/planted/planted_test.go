package planted_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"barnabas/internal/planted"
)

// TestNothingIsPlanted: what is built without a tag has none of the mistakes. What is built with one is no release, and
// this test fails in it.
func TestNothingIsPlanted(t *testing.T) {
	for _, b := range planted.All() {
		if b.Planted {
			t.Errorf("%s is planted in this build: tag %s", b.Name, b.Tag)
		}
	}
}

// TestEveryBugHasATagOfItsOwn: each has a file for a build with its tag and one for all others, and is asked for where the list
// says.
func TestEveryBugHasATagOfItsOwn(t *testing.T) {
	constant := regexp.MustCompile(`(?m)^const (\w+) = (true|false)$`)
	var tags []string
	for _, b := range planted.All() {
		if slices.Contains(tags, b.Tag) {
			t.Errorf("tag %s is there twice", b.Tag)
		}
		tags = append(tags, b.Tag)
		file := strings.TrimPrefix(b.Tag, "plant_")
		name := ""
		for suffix, want := range map[string][2]string{"_on.go": {"//go:build " + b.Tag + "\n", "true"}, "_off.go": {"//go:build !" + b.Tag + "\n", "false"}} {
			src := read(t, file+suffix)
			found := constant.FindStringSubmatch(src)
			if !strings.HasPrefix(src, want[0]) || found == nil || found[2] != want[1] {
				t.Errorf("%s does not make the constant %s under %q", file+suffix, want[1], want[0])
				continue
			}
			name = found[1]
		}
		for where := range strings.SplitSeq(b.Where, " and ") {
			if !strings.Contains(read(t, "../"+where), "planted."+name) {
				t.Errorf("%s does not ask for %s", where, name)
			}
		}
	}
	if len(tags) != 10 {
		t.Errorf("%d bugs", len(tags))
	}
	// Nothing that is built for users may set a tag.
	for _, file := range []string{"../../Makefile", "../../.ci/run"} {
		for line := range strings.Lines(read(t, file)) {
			if strings.Contains(line, "plant_") {
				t.Errorf("%s: %s", file, line)
			}
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(src)
}
