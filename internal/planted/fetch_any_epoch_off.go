//go:build !plant_fetch_any_epoch

package planted

// FetchAnyEpoch: a leader answers a follower's fetch whatever epoch it follows in, and of whatever epoch its last record is (KIP-101, KIP-279).
const FetchAnyEpoch = false
