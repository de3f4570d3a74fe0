package metadata

// Member is a broker in one of its lives: the epoch is that of its registration, so that a broker that came
// back with an empty disk is not taken for the one that it was (KIP-903).
type Member struct {
	Broker int32
	Epoch  int64
}

// ISRProposal is what a partition's leader asks the controller for: these in-sync replicas instead of those
// that the partition has at PartitionEpoch.
type ISRProposal struct {
	Topic          UUID
	Partition      int32
	LeaderEpoch    int32
	PartitionEpoch int32    // that the leader knows; the controller's must be the same
	ISR            []Member // the leader among them, unless it is in Lost
	// Lost are replicas that no longer have what they had: found damaged, or shorter than they were. They are
	// not in ISR and may not become eligible leader replicas by having been in it. A leader that names itself
	// hands the partition over.
	Lost []int32
	// Unflushed, if it is set, is what the partition's mark of that name is to be. It is set where nothing else is to change.
	Unflushed *bool `json:",omitempty"`
}

// ISROutcome is the controller's answer to one proposal.
type ISROutcome uint8

const (
	// ISRAccepted: committed as proposed, or a little otherwise; the image says how.
	ISRAccepted ISROutcome = iota + 1
	// ISRStale: the partition, or its leader, is no longer what the proposal took it for. A newer image says what it is.
	ISRStale
	// ISRIneligible: a member is fenced, shutting down, or registered under another epoch (KIP-841, KIP-903); or
	// nobody can take over from a leader that resigns. Nothing changed.
	ISRIneligible
	// ISRBehind: the controller has not heard yet of what the proposal is based on. Ask again.
	ISRBehind
	// ISRUnknown: there is no such topic or partition.
	ISRUnknown
	// ISRInvalid: no leader of this program makes such a proposal.
	ISRInvalid
)

func (o ISROutcome) String() string {
	names := [...]string{"none", "accepted", "stale", "ineligible", "controller behind", "unknown partition", "invalid"}
	if int(o) >= len(names) {
		return "out of range"
	}
	return names[o]
}
