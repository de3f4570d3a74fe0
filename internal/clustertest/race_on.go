//go:build race

package clustertest

// underRace: the race detector's scheduler is random, so no seed replays.
const underRace = true
