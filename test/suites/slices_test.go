//go:build compat

package suites

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// part is a share of a suite's tests: of every of tests one. Only Apache Kafka's can be shared out.
type part struct {
	suite
	share, of int // 1/1 is the whole
}

func (p part) String() string {
	if p.of == 1 {
		return p.name
	}
	return fmt.Sprintf("%s-%d-of-%d", p.name, p.share, p.of)
}

func everything() []part {
	var parts []part
	for _, s := range all {
		parts = append(parts, part{suite: s, share: 1, of: 1})
	}
	return parts
}

// readSlices reads lines "SLICE SUITE [SHARE/OF]".
func readSlices(file string) (map[string][]part, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }() // it was only read
	read := map[string][]part{}
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		p, err := parsePart(words[1:])
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", file, n, err)
		}
		read[words[0]] = append(read[words[0]], p)
	}
	return read, lines.Err()
}

func parsePart(words []string) (part, error) {
	if len(words) == 0 || len(words) > 2 {
		return part{}, fmt.Errorf("%q is not SLICE SUITE [SHARE/OF]", words)
	}
	i := slices.IndexFunc(all, func(s suite) bool { return s.name == words[0] })
	if i < 0 {
		return part{}, fmt.Errorf("there is no suite %q", words[0])
	}
	p := part{suite: all[i], share: 1, of: 1}
	if len(words) == 1 {
		return p, nil
	}
	if p.script != kafkaIT {
		return part{}, fmt.Errorf("%s runs as a whole", p.name)
	}
	if _, err := fmt.Sscanf(words[1], "%d/%d", &p.share, &p.of); err != nil || p.share < 1 || p.share > p.of {
		return part{}, fmt.Errorf("%q is no share of a suite", words[1])
	}
	return p, nil
}

// TestSlicesCoverEverything: each commit runs the slice that its number names, modulo how many there are,
// so together they must be the whole.
func TestSlicesCoverEverything(t *testing.T) {
	read, err := readSlices("slices.txt")
	if err != nil {
		t.Fatal(err)
	}
	covered := map[string]float64{}
	seen := map[string]bool{}
	for n := range len(read) {
		parts := read[fmt.Sprint(n)]
		if len(parts) == 0 {
			t.Errorf("there is no slice %d", n)
		}
		for _, p := range parts {
			if seen[p.String()] {
				t.Errorf("%s is in two slices", p)
			}
			seen[p.String()] = true
			covered[p.name] += 1 / float64(p.of)
		}
	}
	for _, s := range all {
		if share := covered[s.name]; share < 0.999 || share > 1.001 {
			t.Errorf("%.2f of %s is in the slices", share, s.name)
		}
	}
}
