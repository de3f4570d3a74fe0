package api

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"barnabas/internal/faketime"
	"barnabas/internal/replica"
)

// slowWord is a controller that takes a while to say whether the metadata is the newest.
type slowWord struct {
	Controller
	mu      sync.Mutex
	random  *rand.Rand
	asking  int
	asked   int
	answers []spell
}

// spell is from when a question was asked until it was answered.
type spell struct {
	from, to time.Time
	err      error
}

func (s *slowWord) Sync(ctx context.Context) error {
	s.mu.Lock()
	s.asking++
	s.asked++
	if s.asking > 1 {
		s.mu.Unlock()
		return errors.New("BUG: two questions at a time")
	}
	from, took := time.Now(), time.Duration(s.random.Int64N(int64(700*time.Millisecond)))
	s.mu.Unlock()
	var err error
	select {
	case <-time.After(took):
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asking--
	s.answers = append(s.answers, spell{from, time.Now(), err})
	return err
}

// However many ask, there is one question to the controller at a time; each is answered by one that was asked after
// they came, within two times the patience, and who gives up or is hurried is let go.
func TestReadersShareTheQuestionWhoLeads(t *testing.T) {
	for seed := range uint64(50) {
		faketime.Test(t, func(t *testing.T) {
			word := &slowWord{random: rand.New(rand.NewPCG(seed, 1))}
			h := &Handler{log: slog.New(slog.DiscardHandler)}
			h.o.Controller = word
			dice := rand.New(rand.NewPCG(seed, 2))
			var readers sync.WaitGroup
			const n = 300
			for range n {
				time.Sleep(time.Duration(dice.Int64N(int64(20 * time.Millisecond))))
				ctx, cancel := context.WithCancel(t.Context())
				var hurried chan struct{}
				manner, after := dice.IntN(8), time.Duration(dice.Int64N(int64(time.Second)))
				if manner == 1 {
					hurried = make(chan struct{})
				}
				came := time.Now()
				readers.Go(func() {
					err := h.confirm(ctx, hurried)
					answered := time.Now()
					if took := answered.Sub(came); took > 2*confirmPatience {
						t.Errorf("seed %d: waited for %v", seed, took)
					}
					switch {
					case err == nil:
						word.mu.Lock()
						defer word.mu.Unlock()
						for _, a := range word.answers {
							if a.err == nil && !a.from.Before(came) && !a.to.After(answered) {
								return
							}
						}
						t.Errorf("seed %d: who came at %v was confirmed by no question asked since: %v", seed, came, word.answers)
					case !errors.Is(err, replica.ErrCutOff) && (manner != 0 || !errors.Is(err, context.Canceled)):
						t.Errorf("seed %d: %v", seed, err)
					}
				})
				time.AfterFunc(after, func() {
					switch manner {
					case 0:
						cancel()
					case 1:
						close(hurried)
					}
				})
				defer cancel()
			}
			readers.Wait()
			time.Sleep(time.Second) // all have given up that are to
			if word.asked > n/4 {
				t.Errorf("seed %d: %d questions for %d readers", seed, word.asked, n)
			}
		})
	}
}
