//go:build !plant_skip_sequence_check

package planted

// SkipSequenceCheck: a batch of an idempotent producer is appended without a look at its sequence number.
const SkipSequenceCheck = false
