package wire

const (
	never = 127 // no version of this key is flexible
	gone  = -1  // brokers without ZooKeeper do not have this key

	keyAPIVersions = 18
)

// firstFlexible holds, by API key, the first version whose header and body are flexible
// (KIP-482). Responses turn flexible at the same version as their requests. The keys that came
// after the KIP were born flexible.
var firstFlexible = [...]int8{
	0: 9, 1: 12, 2: 6, 3: 9, 4: gone, 5: gone, 6: gone, 7: gone, 8: 8, 9: 6,
	10: 3, 11: 6, 12: 4, 13: 4, 14: 4, 15: 5, 16: 3, 17: never, 18: 3, 19: 5,
	20: 4, 21: 2, 22: 2, 23: 4, 24: 3, 25: 3, 26: 3, 27: 1, 28: 3, 29: 2,
	30: 2, 31: 2, 32: 4, 33: 2, 34: 2, 35: 2, 36: 2, 37: 2, 38: 2, 39: 2,
	40: 2, 41: 2, 42: 2, 43: 2, 44: 1, 45: 0, 46: 0, 47: never, 48: 1, 49: 1,
	50: 0, 51: 0, 52: 0, 53: 1, 54: 1, 55: 0, 56: 0, 57: 0, 58: 0, 59: 0,
	60: 0, 61: 0, 62: 0, 63: 0, 64: 0, 65: 0, 66: 0, 67: 0, 68: 0, 69: 0,
	70: 0, 71: 0, 72: 0, 73: 0, 74: 0, 75: 0, 76: 0, 77: 0, 78: 0, 79: 0,
	80: 0, 81: 0, 82: 0, 83: 0, 84: 0, 85: 0, 86: 0, 87: 0, 88: 0, 89: 0,
	90: 0, 91: 0, 92: 0,
}

// FlexibleRequest tells whether the header of a request ends in tagged fields (header version 2
// rather than 1). It is true for keys past those that Kafka 4.3 has.
func FlexibleRequest(key, version int16) bool {
	if key < 0 {
		return false
	}
	if int(key) >= len(firstFlexible) {
		return true
	}
	first := int16(firstFlexible[key])
	return first >= 0 && first != never && version >= first
}

// FlexibleResponse tells whether the header of a response ends in tagged fields (header version 1
// rather than 0). An ApiVersions response never has them, so that a client can read the answer
// to a version that the broker does not know.
func FlexibleResponse(key, version int16) bool {
	return key != keyAPIVersions && FlexibleRequest(key, version)
}

func removed(key int16) bool {
	return key >= 0 && int(key) < len(firstFlexible) && firstFlexible[key] == gone
}
