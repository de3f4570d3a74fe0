package barnabastest

import (
	"log"
	"slices"
	"testing"
)

// StartForExample is Start for Example functions, which have no test that a broker could live as long as, or that could
// fail: end stops the broker, and whatever goes wrong ends the program.
//
//	func ExampleSend() {
//		broker, end := barnabastest.StartForExample()
//		defer end()
//		…
//		// Output: sent
//	}
func StartForExample(options ...Option) (b *Broker, end func()) {
	t := &exampleTest{}
	return Start(t, options...), t.end
}

// exampleTest is what a Broker needs of a test.
type exampleTest struct {
	testing.TB // nil: nothing else is called
	cleanups   []func()
}

func (t *exampleTest) Helper() {}

func (t *exampleTest) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

func (t *exampleTest) Failed() bool { return false }

func (t *exampleTest) Errorf(format string, args ...any) { log.Fatalf(format, args...) }

func (t *exampleTest) Fatalf(format string, args ...any) { log.Fatalf(format, args...) }

func (t *exampleTest) end() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
	t.cleanups = nil
}
