//go:build plant_vote_twice

package planted

const VoteTwice = true
