//go:build !plant_vote_twice

package planted

// VoteTwice: a voter that starts again has forgotten whom it voted for in its term.
const VoteTwice = false
