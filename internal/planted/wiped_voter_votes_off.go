//go:build !plant_wiped_voter_votes

package planted

// WipedVoterVotes: a voter is known by its node's number alone, so that an empty disk has the vote of the one that was wiped.
const WipedVoterVotes = false
