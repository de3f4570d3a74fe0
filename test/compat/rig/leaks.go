//go:build linux

package rig

import (
	"bytes"
	"context"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// leakLabel marks the goroutines of a test: those that it starts inherit it from the one that runs it.
const leakLabel = "leaks-of"

// goneWithin is how long what a test closed may take to be gone.
const goneWithin = 10 * time.Second

// NoLeaks fails the test if, once all its cleanups have run, a goroutine that it has started is at work in code of a
// package whose import path contains one of these. Others' goroutines, and those of tests beside it, do not count.
// Call it first.
func NoLeaks(t *testing.T, packages ...string) {
	t.Helper()
	name := t.Name()
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels(leakLabel, name)))
	t.Cleanup(func() {
		deadline := time.After(goneWithin)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			left := goroutinesOf(name, packages)
			if len(left) == 0 {
				return
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Errorf("%d kinds of goroutines outlive the test:\n%s", len(left), strings.Join(left, "\n\n"))
				return
			}
		}
	})
}

// goroutinesOf gives the stacks with a test's label, or that of a test below it, which have a frame in one of the packages.
func goroutinesOf(test string, packages []string) (stacks []string) {
	var all bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
		return []string{err.Error()}
	}
	for _, stack := range strings.Split(all.String(), "\n\n") {
		_, label, labelled := strings.Cut(stack, `"`+leakLabel+`":"`)
		if !labelled {
			continue
		}
		label, _, _ = strings.Cut(label, `"`)
		if label != test && !strings.HasPrefix(label, test+"/") {
			continue
		}
		for _, p := range packages {
			if strings.Contains(stack, p) {
				stacks = append(stacks, stack)
				break
			}
		}
	}
	return stacks
}
