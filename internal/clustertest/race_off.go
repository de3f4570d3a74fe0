//go:build !race

package clustertest

// UnderRace reports whether the race detector is at work: its scheduler is random, so no seed replays.
const UnderRace = false
