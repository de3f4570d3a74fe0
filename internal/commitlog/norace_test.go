//go:build !race

package commitlog

// underRace: the detector makes everything ten times slower, so there are fewer histories.
const underRace = false
