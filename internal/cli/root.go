// Package cli is the command line: it turns arguments into calls of the client package (or of
// node, for serve), and what comes back into tables, JSON, and exit codes.
//
// It decides how things are named, shown and explained to a person at a terminal, and nothing
// else. Client commands reach brokers through the public client package as any program does; they
// have no back door. A noun has a file, with its shorter verbs in it; a longer verb has one of its own, as in
// topic_create.go.
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Streams are the standard streams of the process, or a test's.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Main runs the program and returns its exit code.
func Main(ctx context.Context, args []string, s Streams) int {
	return newProgram(s).run(ctx, args)
}

func newProgram(s Streams) *program {
	return &program{Streams: s, env: os.Getenv, patience: patience{start: 2 * time.Second, completion: 2 * time.Second}}
}

func (p *program) run(ctx context.Context, args []string) int {
	root := newRoot(p)
	root.SetArgs(args)
	root.SetIn(p.In)
	root.SetOut(p.Out)
	root.SetErr(p.Err)
	ctx, stop := untilSignal(ctx)
	defer stop()
	err := root.ExecuteContext(ctx)
	if err != nil && !p.began {
		err = usageError{err} // cobra refused what was typed
	}
	if err == nil {
		return exitOK
	}
	p.report(err)
	return codeOf(err)
}

// program is what every command is given.
type program struct {
	Streams
	env      func(string) string
	patience patience
	began    bool // a command was found and its arguments taken: whatever fails now is not the typing
}

// patience is how long a person, or the script of one, is kept waiting for a broker.
type patience struct {
	// start is how long a refused connection is tried again, so that 'barnabas serve &' and the command
	// after it can stand in one script.
	start time.Duration
	// completion bounds how long a shell waits for names when Tab is pressed.
	completion time.Duration
}

// errInterrupted is why a command's context ends at the first SIGINT or SIGTERM. A second signal
// ends the process at once.
var errInterrupted = fmt.Errorf("interrupted")

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
			cancel(errInterrupted)
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

'barnabas serve' starts a broker. Every other command is a client of one, or of an
Apache Kafka: it asks the brokers that --brokers or BARNABAS_BROKERS names, and
127.0.0.1:9092 without either.

Results go to standard output, everything else to standard error. Exit codes:
0 done, 1 failed, 2 wrong usage, 3 there is no such topic, partition, group or broker,
4 no broker could be reached, 5 a data directory has failed, 130 interrupted.`

func newRoot(p *program) *cobra.Command {
	root := &cobra.Command{
		Use:           "barnabas",
		Short:         "An event-streaming platform that speaks Apache Kafka's protocol",
		Long:          rootHelp,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       Version(),
		PersistentPreRun: func(*cobra.Command, []string) {
			p.began = true
		},
		Args: unknownVerb,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetVersionTemplate("barnabas {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return hinted{usageError{err}, fmt.Sprintf("'%s --help' lists the flags", c.CommandPath())}
	})
	root.AddCommand(
		newServe(p), newTopic(p), newProduce(p), newConsume(p), newGroup(p), newConfig(p), newCluster(p), newLog(p), newVersion(p),
	)
	root.InitDefaultCompletionCmd()
	return root
}

// noun is a command that only groups verbs.
func noun(c *cobra.Command) *cobra.Command {
	c.Args = unknownVerb
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return c
}

// unknownVerb refuses a word that is no command, and names those that look like it.
func unknownVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := usageError{fmt.Errorf("%s has no command %q", c.CommandPath(), args[0])}
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return hinted{err, fmt.Sprintf("did you mean '%s %s'?", c.CommandPath(), strings.Join(near, "' or '"))}
	}
	return hinted{err, fmt.Sprintf("'%s --help' lists them", c.CommandPath())}
}

// exactly demands one argument for each name.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return hinted{usageError{fmt.Errorf("%s is missing", names[len(args)])}, "usage: " + c.UseLine()}
		case len(args) > len(names):
			return hinted{usageError{fmt.Errorf("%q is one argument too many", args[len(names)])}, "usage: " + c.UseLine()}
		}
		return nil
	}
}

// oneOrMore demands at least one argument.
func oneOrMore(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return hinted{usageError{fmt.Errorf("%s is missing", name)}, "usage: " + c.UseLine()}
		}
		return nil
	}
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

func newVersion(p *program) *cobra.Command {
	var out format
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the program's version",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			b := thisBuild()
			return p.show(out, b, func() error {
				text := fmt.Sprintf("barnabas %s (%s, %s)\n", b.Version, b.Go, b.Platform)
				return p.write([]byte(text))
			})
		},
	}
	registerFormat(c, c.Flags(), &out)
	return c
}
