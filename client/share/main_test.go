package share

import (
	"testing"

	"go.uber.org/goleak"
)

// Nothing that a test starts may outlive it. Inside a synctest bubble the bubble itself sees to it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
