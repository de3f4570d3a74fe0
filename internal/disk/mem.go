package disk

import "syscall"

// errNoSpace is what a full Mem answers, on every platform.
const errNoSpace = syscall.ENOSPC
