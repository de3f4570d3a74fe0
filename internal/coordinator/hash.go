package coordinator

import "unicode/utf16"

// OffsetsTopic is where groups and their offsets are kept.
const OffsetsTopic = "__consumer_offsets"

// PartitionFor is the partition of __consumer_offsets that a group belongs to, of so many: Java's
// String.hashCode, without its sign, as in Kafka (whose absolute value of the least integer is 0).
func PartitionFor(group string, partitions int32) int32 {
	var h int32
	for _, r := range group {
		if high, low := utf16.EncodeRune(r); high != 0xFFFD {
			h = 31*h + high
			r = low
		}
		h = 31*h + r
	}
	if h < 0 {
		h = -h
	}
	if h < 0 { // the least integer has no positive counterpart
		h = 0
	}
	return h % partitions
}
