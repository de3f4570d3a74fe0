package accumulator

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/faketime"
)

func TestMemoryIsGivenInOrder(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		m := NewMemory(100)
		if !m.TryTake(80) {
			t.Fatal("nothing was taken, and nothing given")
		}
		var mu sync.Mutex
		var order []string
		far := time.Now().Add(time.Hour)
		for _, w := range []struct {
			name  string
			bytes int64
		}{{"large", 90}, {"small", 10}} {
			go func() {
				if err := m.Take(t.Context(), w.bytes, far, nil, nil); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, w.name)
			}()
			synctest.Wait()
		}
		if len(order) > 0 || m.TryTake(1) {
			t.Error("the small one passed the large one, or somebody passed both")
		}
		m.Release(80)
		synctest.Wait()
		if got := strings.Join(order, ", "); len(order) != 2 || m.Used() != 100 {
			t.Errorf("given to %s; %d bytes are used", got, m.Used())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := m.Take(ctx, 10, far, nil, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}
