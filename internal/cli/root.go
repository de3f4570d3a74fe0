// Package cli is the command line: it turns arguments into calls of the client package (or of
// node, for serve), and what comes back into tables, JSON, and exit codes.
//
// It decides how things are named, shown and explained to a person at a terminal, and nothing
// else. Client commands reach brokers through the public client package as any program does; they
// have no back door. A noun has a file, with its shorter verbs in it; a longer verb has one of its own, as in
// topic_create.go. What all of them share is in package terminal; larger families have packages of their own.
package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"barnabas/internal/cli/clustercmd"
	"barnabas/internal/cli/localcmd"
	"barnabas/internal/cli/terminal"
)

// Streams are the standard streams of the process, or a test's.
type Streams = terminal.Streams

// Main runs the program and returns its exit code.
func Main(ctx context.Context, args []string, s terminal.Streams) int {
	p := &terminal.Program{Streams: s, Env: os.Getenv}
	root := newRoot(p)
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	ctx, stop := untilSignal(ctx)
	defer stop()
	err := root.ExecuteContext(ctx)
	if err != nil && !p.Began {
		err = terminal.UsageError{Err: err} // cobra refused what was typed
	}
	if err == nil {
		return terminal.ExitOK
	}
	p.Report(err)
	return terminal.CodeOf(err)
}

func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	stopped := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-signals:
			signal.Stop(signals)
			cancel(terminal.ErrInterrupted)
		case <-stopped:
			signal.Stop(signals)
		}
	}()
	return ctx, func() {
		close(stopped)
		<-ended
		cancel(nil)
	}
}

const rootHelp = `Barnabas is an event-streaming platform that speaks Apache Kafka's protocol.
One program is broker, controller and command line.

'barnabas serve' starts a broker, 'barnabas local' a cluster on this machine. Every other command is a client of one, or of an
Apache Kafka: it asks the brokers that --brokers or BARNABAS_BROKERS names, and
127.0.0.1:9092 without either.

Results go to standard output, everything else to standard error. Exit codes:
0 done, 1 failed, 2 wrong usage, 3 there is no such topic, partition, group or broker,
4 no broker could be reached, 5 a data directory has failed, 130 interrupted.`

func newRoot(p *terminal.Program) *cobra.Command {
	root := &cobra.Command{
		Use:           "barnabas",
		Short:         "An event-streaming platform that speaks Apache Kafka's protocol",
		Long:          rootHelp,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       Version(),
		PersistentPreRun: func(*cobra.Command, []string) {
			p.Began = true
		},
		Args: terminal.UnknownVerb,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetVersionTemplate("barnabas {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return terminal.Hinted{Err: terminal.UsageError{Err: err}, Hint: fmt.Sprintf("'%s --help' lists the flags", c.CommandPath())}
	})
	cluster := clustercmd.New(p)
	cluster.AddCommand(newClusterRecover(p))
	root.AddCommand(
		newServe(p), localcmd.New(p), newTopic(p), newProduce(p), newConsume(p), newGroup(p), newConfig(p), cluster, newLog(p), newVersion(p),
	)
	root.InitDefaultCompletionCmd()
	return root
}

// developmentVersion is what a build from a checkout calls itself.
const developmentVersion = "0.1.0-dev"

// Version is the program's version, from the build.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return developmentVersion
}

// build is what version -o json shows.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // the checkout had changes that were not committed
	Time     string `json:"time,omitempty"`     // of the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func thisBuild() build {
	b := build{Version: Version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		case "vcs.time":
			b.Time = s.Value
		}
	}
	return b
}

func newVersion(p *terminal.Program) *cobra.Command {
	var out terminal.Format
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the program's version",
		Args:  terminal.Exactly(),
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			return p.Show(out, b, func() error {
				text := fmt.Sprintf("barnabas %s (%s, %s)\n", b.Version, b.Go, b.Platform)
				return p.Write([]byte(text))
			})
		},
	}
	terminal.RegisterFormat(c, c.Flags(), &out)
	return c
}
