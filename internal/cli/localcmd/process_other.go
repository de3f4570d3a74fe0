//go:build !unix

package localcmd

import "os/exec"

func separate(*exec.Cmd) {}

// terminate ends the process as best it can here: there is no signal that asks it to.
func terminate(c *exec.Cmd) error { return c.Process.Kill() }
