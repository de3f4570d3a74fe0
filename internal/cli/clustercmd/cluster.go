// Package clustercmd is the commands about a cluster as a whole: what it consists of, what is wrong with it, and who
// takes part.
//
// It asks through client/admin, as any program does. What a finding means for users is decided here; what to do about
// it is left to them.
package clustercmd

import (
	"github.com/spf13/cobra"

	"barnabas/internal/cli/terminal"
)

// New makes the command and its verbs.
func New(p *terminal.Program) *cobra.Command {
	t := &terminal.Target{}
	c := terminal.Noun(&cobra.Command{Use: "cluster", Short: "Show the cluster, judge it, and change who takes part"})
	t.Register(c.PersistentFlags(), p, terminal.AdminTimeout)
	c.AddCommand(newDescribe(p, t), newHealth(p, t), newAdd(p, t), newRemove(p, t))
	return c
}
