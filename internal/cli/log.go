package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"barnabas/internal/cli/logdump"
	"barnabas/internal/cli/terminal"
)

const logDumpHelp = `Show what data files hold, and whether they are whole.

FILE is a segment (.log), an index (.index, .timeindex, .txnindex), a producer snapshot
(.snapshot), a checkpoint, meta.properties, or the log or a snapshot of the metadata
(__cluster_metadata-0); or a directory with such files. No broker is needed, and one that runs is not disturbed; it may be
in the middle of writing its newest batch.

Exit code 5 says that something is damaged; each place is named.`

func newLog(p *terminal.Program) *cobra.Command {
	c := terminal.Noun(&cobra.Command{Use: "log", Short: "Look into data files"})
	var out terminal.Format
	var o logdump.Options
	dump := &cobra.Command{
		Use:   "dump FILE...",
		Short: "Show what data files hold, and whether they are whole",
		Long:  logDumpHelp,
		Example: `  barnabas log dump barnabas-data/flights-0/00000000000000000000.log --records
  barnabas log dump --quiet barnabas-data/flights-*`,
		Args: terminal.OneOrMore("FILE"),
		RunE: func(c *cobra.Command, files []string) error { return dumpFiles(p, files, o, out) },
	}
	dump.Flags().BoolVarP(&o.Records, "records", "r", false, "also the records of each batch")
	dump.Flags().BoolVarP(&o.Quiet, "quiet", "q", false, "only damage, and a line for each file")
	terminal.RegisterFormat(dump, dump.Flags(), &out)
	c.AddCommand(dump)
	return c
}

// dumpFiles shows the items of each file, with -o json one object a line.
func dumpFiles(p *terminal.Program, files []string, o logdump.Options, out terminal.Format) error {
	var gathered []byte
	flush := func() error {
		err := p.Write(gathered)
		gathered = gathered[:0]
		return err
	}
	emit := func(i logdump.Item) error {
		if out == terminal.FormatJSON {
			line, err := json.Marshal(i)
			if err != nil {
				return fmt.Errorf("make JSON of the result: %w", err)
			}
			gathered = append(gathered, line...)
		} else {
			gathered = append(gathered, i.Text()...)
		}
		if gathered = append(gathered, '\n'); len(gathered) < printAtOnce {
			return nil
		}
		return flush()
	}
	damaged := int64(0)
	for _, file := range files {
		n, err := logdump.Dump(file, o, emit)
		damaged += n
		if errors.Is(err, logdump.ErrUnknownFile) {
			err = terminal.UsageError{Err: err}
		}
		if err != nil {
			return errors.Join(err, flush())
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if damaged > 0 {
		return terminal.StorageError{Err: fmt.Errorf("%s damaged", places(damaged))}
	}
	return nil
}

func places(n int64) string {
	if n == 1 {
		return "one place is"
	}
	return fmt.Sprintf("%s places are", terminal.HumanCount(n))
}
