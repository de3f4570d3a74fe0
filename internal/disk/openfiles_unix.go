//go:build linux || darwin

package disk

import (
	"math"

	"golang.org/x/sys/unix"
)

// OpenFileLimit is how many descriptors this process may have, files and connections together
// (RLIMIT_NOFILE). Go's runtime has raised the soft limit to the hard one when a program starts. 0: not known, or none.
func OpenFileLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Cur > math.MaxInt32 {
		return 0
	}
	return int(l.Cur)
}
