//go:build !race

package faketime

// RaceDetector says whether the program is built with the race detector. Under it time passes many
// times slower, and sync.Pool forgets at random: figures of memory mean nothing there.
const RaceDetector = false
