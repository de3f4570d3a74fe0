package localcmd

import (
	"os/exec"
	"syscall"
)

// separate keeps a terminal's Ctrl-C away from the process, which is stopped by its supervisor, and stops it if the
// supervisor is killed.
func separate(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

func terminate(c *exec.Cmd) error { return c.Process.Signal(syscall.SIGTERM) }
