//go:build plant_skip_sequence_check

package planted

const SkipSequenceCheck = true
