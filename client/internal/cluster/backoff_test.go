package cluster

import (
	"testing"
	"time"
)

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	b := Backoff{100 * time.Millisecond, time.Second}
	r := NewRandom()
	for failures, want := range map[int]time.Duration{0: b.First, 1: b.First, 2: 2 * b.First, 4: 8 * b.First, 5: b.Most, 1000: b.Most} {
		for range 100 {
			if d := b.After(failures, r); d < want*8/10 || d > want*12/10 {
				t.Errorf("after %d failures %v, expected %v, a fifth more or less", failures, d, want)
			}
		}
	}
}
