package group

import (
	"iter"
	"os"
	"strconv"
	"strings"
	"testing"
)

// seedsVariable is that of internal/clustertest, which tests inside the package cannot import: N for
// the first N seeds, or FROM-TO with both ends.
const seedsVariable = "BARNABAS_TEST_SEEDS"

// seeds yields the seeds that a test tries, usual of them, a tenth under the race detector, unless the
// environment says otherwise.
func seeds(t *testing.T, usual uint64) iter.Seq[uint64] {
	t.Helper()
	first, end := uint64(0), usual
	if underRace {
		end = (usual + 9) / 10
	}
	from, to, isRange := strings.Cut(os.Getenv(seedsVariable), "-")
	if n, err := strconv.ParseUint(from, 10, 32); err == nil {
		end = n
		if m, err := strconv.ParseUint(to, 10, 32); err == nil && isRange {
			first, end = n, m+1
		}
	}
	return func(yield func(uint64) bool) {
		for seed := first; seed < end && yield(seed); seed++ {
		}
	}
}
