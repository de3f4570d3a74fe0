//go:build plant_wiped_voter_votes

package planted

const WipedVoterVotes = true
