package batch

import (
	"hash/crc32"
	"math/bits"
)

// This file computes the checksum of a batch while it is being built: the records are summed soon after they were
// written, when the processor has them at hand still, and what the header adds once it is known.

// sumBytes is how many bytes of records are summed at once: enough for the sum to run at its full speed,
// and, with some batches being filled in turn, little enough to lie in a processor's own cache.
const sumBytes = 8 << 10

// running is the checksum of the first bytes of something that grows.
type running struct {
	sum   uint32
	bytes int
}

// follow sums what is new, unless it is too little yet.
func (r *running) follow(payload []byte) {
	if len(payload)-r.bytes >= sumBytes {
		r.finish(payload)
	}
}

// finish sums what is new, and gives the sum of all.
func (r *running) finish(payload []byte) uint32 {
	r.sum = crc32.Update(r.sum, castagnoli, payload[r.bytes:])
	r.bytes = len(payload)
	return r.sum
}

// joinedSum is the checksum of something with the checksum a, followed by n bytes with the checksum b. A checksum
// is a polynomial over GF(2) modulo the generator, and n bytes behind it multiply it by x to the 8n.
func joinedSum(a, b uint32, n int) uint32 {
	power := uint32(xToThe0)
	for left := uint64(n) * 8; left != 0; left &= left - 1 {
		power = multiply(power, doublings[bits.TrailingZeros64(left)])
	}
	return multiply(power, a) ^ b
}

// xToThe0 is the polynomial 1: the highest bit is the lowest power.
const xToThe0 = 1 << 31

// doublings are x to the powers 1, 2, 4, 8 and so on.
var doublings = func() (powers [64]uint32) {
	powers[0] = xToThe0 >> 1
	for i := range powers[1:] {
		powers[i+1] = multiply(powers[i], powers[i])
	}
	return powers
}()

// multiply multiplies two polynomials modulo the generator of CRC-32C.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		product ^= b & -(a >> 31)
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return product
}
