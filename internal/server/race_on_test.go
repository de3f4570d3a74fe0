//go:build race

package server

// With the race detector a sync.Pool forgets at random what it is given.
const poolsForget = true
