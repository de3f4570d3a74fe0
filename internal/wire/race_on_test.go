//go:build race

package wire

// With the race detector a sync.Pool forgets at random what it is given.
const poolsForget = true
