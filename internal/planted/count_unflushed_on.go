//go:build plant_count_unflushed

package planted

const CountUnflushed = true
