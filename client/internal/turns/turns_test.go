package turns

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// It is always the turn of the one that has been there longest, whoever leaves.
func TestPlacesHaveTheirTurnInOrder(t *testing.T) {
	const limit = 8
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var q Queue
		var model []*Place
		for range 100 {
			if i := rng.IntN(limit + 1); i < len(model) {
				q.Leave(model[i])
				model = slices.Delete(model, i, i+1)
			} else if p, ok := q.Enter(limit); ok != (len(model) < limit) {
				t.Fatalf("seed %d: beside %d places there is another: %v", seed, len(model), ok)
			} else if ok {
				model = append(model, p)
			}
			for i, p := range model {
				turn := false
				select {
				case <-p.turn:
					turn = true
				default:
				}
				if turn != (i == 0) {
					t.Fatalf("seed %d: place %d of %d has its turn: %v", seed, i, len(model), turn)
				}
			}
		}
	}
}
