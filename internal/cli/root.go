// Package cli is the command line: it turns arguments into calls of the client package (or of
// node, for serve), and what comes back into tables, JSON, and exit codes.
//
// It decides how things are named, shown and explained to a person at a terminal, and nothing
// else. Client commands reach brokers through the public client package as any program does; they
// have no back door.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Streams are the standard streams of the process, or a test's.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Exit codes, for scripts. They are part of the command line's interface and documented in docs/cli.md.
const (
	exitOK      = 0
	exitFailure = 1 // the operation was tried and failed
	exitUsage   = 2 // wrong flag, argument or setting: nothing was tried
	exitStorage = 5 // serve: a data directory has failed; see its logs before starting again
)

// usageError is a mistake in what the user typed or configured.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// storageError is a data directory that has failed.
type storageError struct{ err error }

func (e storageError) Error() string { return e.err.Error() }
func (e storageError) Unwrap() error { return e.err }

// Main runs the program and returns its exit code.
func Main(ctx context.Context, args []string, s Streams) int {
	root := newRoot(s)
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(s.Err, "barnabas:", err)
	return codeOf(err)
}

func codeOf(err error) int {
	var usage usageError
	var storage storageError
	switch {
	case errors.As(err, &storage):
		return exitStorage
	case errors.As(err, &usage):
		return exitUsage
	}
	return exitFailure
}

func newRoot(s Streams) *cobra.Command {
	root := &cobra.Command{
		Use:           "barnabas",
		Short:         "An event-streaming platform that speaks Apache Kafka's protocol",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see '%s --help'", err, c.CommandPath())}
	})
	root.AddCommand(newServe(s))
	return root
}

// Version is the program's version, from the build.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "0.1.0-dev"
}
