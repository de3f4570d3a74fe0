//go:build !plant_count_unflushed

package planted

// CountUnflushed: the leader of a durable topic counts a follower with what it has received, not with what is on its disk.
const CountUnflushed = false
