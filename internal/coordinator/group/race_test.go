//go:build race

package group

// underRace: the detector allocates too.
const underRace = true
