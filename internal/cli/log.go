package cli

import "github.com/spf13/cobra"

func newLog(p *program) *cobra.Command {
	return noun(&cobra.Command{Use: "log", Short: "Look into data files"})
}
