package planted

// Bug is one of the mistakes.
type Bug struct {
	Name, Tag, Where string
	Planted          bool // in this build
}

// All are the ten, in the order of the package's documentation.
func All() []Bug {
	return []Bug{
		{"truncate by watermark", "plant_truncate_by_watermark", "replica/fetcher.go", TruncateByWatermark},
		{"count an unflushed follower", "plant_count_unflushed", "replica/leading.go", CountUnflushed},
		{"accept a stale ISR", "plant_accept_stale_isr", "controller/isr.go", AcceptStaleISR},
		{"vote twice", "plant_vote_twice", "quorum/storage.go", VoteTwice},
		{"lose a directory entry", "plant_lose_directory_entry", "commitlog/flusher.go", LoseDirectoryEntry},
		{"skip the sequence check", "plant_skip_sequence_check", "commitlog/append.go", SkipSequenceCheck},
		{"let a wiped voter vote", "plant_wiped_voter_votes", "quorum/decide.go and quorum/options.go", WipedVoterVotes},
		{"serve above the watermark", "plant_serve_above_watermark", "replica/read.go", ServeAboveWatermark},
		{"ELR ignored", "plant_ignore_elr", "controller/partitionchange.go", IgnoreELR},
		{"epoch not checked on fetch", "plant_fetch_any_epoch", "replica/roles.go", FetchAnyEpoch},
	}
}
