//go:build compat

package compat

import (
	"sync"
	"testing"
)

// compatibility collects how each scenario went, for docs/compat.md.
type compatibility struct {
	libraries []*library

	mu     sync.Mutex
	passed map[string]bool     // by library and scenario
	absent map[string][]string // what a library does not offer, by library and scenario
}

func newCompatibility(l []*library) *compatibility {
	return &compatibility{libraries: l, passed: map[string]bool{}, absent: map[string][]string{}}
}

// run runs a scenario as a subtest and keeps its verdict.
func (v *compatibility) run(t *testing.T, l *library, scenario string, test func(t *testing.T) (absent []string)) {
	var absent []string
	passed := t.Run(scenario, func(t *testing.T) { absent = test(t) })
	v.mu.Lock()
	defer v.mu.Unlock()
	v.passed[l.name+" "+scenario], v.absent[l.name+" "+scenario] = passed, absent
}

func (v *compatibility) finish(t *testing.T) {}
