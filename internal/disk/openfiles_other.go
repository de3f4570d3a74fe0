//go:build !linux && !darwin

package disk

// OpenFileLimit is not known here.
func OpenFileLimit() int { return 0 }
