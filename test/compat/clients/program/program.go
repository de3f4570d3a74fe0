// Package program is what the client programs written in Go have in common: the verbs and flags of
// ../README.md, the lines they print, and the accounts of what a group's member has read and
// committed. How a library does its work, and which library, is not known here.
package program

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Patience bounds what a program waits for.
const Patience = 60 * time.Second

// About says what a library is and offers.
type About struct {
	Client     string   `json:"client"`
	Version    string   `json:"version"`
	Language   string   `json:"language"`
	Codecs     []string `json:"codecs"`
	Acks       []string `json:"acks"`
	Idempotent bool     `json:"idempotent"`
	Static     bool     `json:"static"`
	Commits    bool     `json:"commits"`
	Listener   bool     `json:"listener"`
	Assignors  []string `json:"assignors"`
	Notes      []string `json:"notes"`
}

// Production is a run of numbers to produce with one codec and one acks.
type Production struct {
	Brokers     []string
	Topic       string
	First, Past int // the numbers First <= i < Past
	Codec, Acks string
	Size        int
	Idempotent  bool
	Pace        time.Duration
}

// Reading asks for the first Count records of a topic, whatever their partition.
type Reading struct {
	Brokers []string
	Topic   string
	Count   int
}

// Membership is a group's member.
type Membership struct {
	Brokers       []string
	Topic, Group  string
	Instance      string // "" for a dynamic member
	Assignor      string // "" for the library's default
	CommitEvery   int
	Session, Beat time.Duration
}

// Administration names what the verbs admin and errors work on.
type Administration struct {
	Brokers            []string
	Topic, Group, Data string
}

// Client is what a library's program does for each verb. Group returns once ctx has ended, having
// committed and left.
type Client interface {
	About() About
	Produce(ctx context.Context, p Production) error
	Consume(ctx context.Context, r Reading) error
	Group(ctx context.Context, m Membership) error
	Admin(ctx context.Context, a Administration) error
	Errors(ctx context.Context, a Administration) error
}

// Main runs the verb that the command line names, and ends the process.
func Main(c Client) {
	if err := run(c, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(c Client, args []string) error {
	if len(args) == 0 {
		return errors.New("no verb: about, produce, consume, group, admin or errors")
	}
	verb := args[0]
	flags := flag.NewFlagSet(verb, flag.ContinueOnError)
	var (
		brokers     = flags.String("brokers", "", "HOST:PORT, several with commas")
		topic       = flags.String("topic", "", "")
		group       = flags.String("group", "", "")
		data        = flags.String("data", "", "")
		start       = flags.Int("start", 0, "")
		count       = flags.Int("count", 0, "")
		codecs      = flags.String("codec", "none", "")
		acks        = flags.String("acks", "all", "")
		size        = flags.Int("size", 100, "bytes of a value")
		idempotent  = flags.Bool("idempotent", false, "")
		paceMs      = flags.Int("pace-ms", 0, "")
		instance    = flags.String("instance", "", "")
		assignor    = flags.String("assignor", "", "")
		commitEvery = flags.Int("commit-every", 50, "")
	)
	if err := flags.Parse(withEquals(args[1:])); err != nil {
		return err
	}
	seeds := strings.Split(*brokers, ",")
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	admin := Administration{Brokers: seeds, Topic: *topic, Group: *group, Data: *data}
	switch verb {
	case "about":
		Print(c.About())
		return nil
	case "produce":
		return produce(ctx, c, Production{
			Brokers: seeds, Topic: *topic, First: *start, Past: *start + *count, Size: *size, Idempotent: *idempotent,
			Pace: time.Duration(*paceMs) * time.Millisecond,
		}, strings.Split(*codecs, ","), strings.Split(*acks, ","))
	case "consume":
		if err := c.Consume(ctx, Reading{Brokers: seeds, Topic: *topic, Count: *count}); err != nil {
			return err
		}
		Print(map[string]int{"done": *count})
		return nil
	case "group":
		m := Membership{
			Brokers: seeds, Topic: *topic, Group: *group, Instance: *instance, Assignor: *assignor, CommitEvery: *commitEvery,
			Session: 6 * time.Second, Beat: time.Second,
		}
		if m.Instance != "" {
			m.Session = 30 * time.Second // the time to come back
		}
		return member(c, m)
	case "admin":
		return c.Admin(ctx, admin)
	case "errors":
		return c.Errors(ctx, admin)
	}
	return fmt.Errorf("unknown verb %q", verb)
}

// withEquals joins "--name value" to "--name=value", which is how package flag wants booleans.
func withEquals(args []string) []string {
	var joined []string
	for i := 0; i < len(args); i++ {
		if strings.HasPrefix(args[i], "--") && !strings.Contains(args[i], "=") && i+1 < len(args) {
			joined = append(joined, args[i]+"="+args[i+1])
			i++
			continue
		}
		joined = append(joined, args[i])
	}
	return joined
}

func produce(ctx context.Context, c Client, p Production, codecs, acks []string) error {
	count, total := p.Past-p.First, 0
	for _, p.Codec = range codecs {
		for _, p.Acks = range acks {
			if err := c.Produce(ctx, p); err != nil {
				return fmt.Errorf("produce with %s and acks %s: %w", p.Codec, p.Acks, err)
			}
			p.First, p.Past = p.Past, p.Past+count
			total += count
		}
	}
	Print(map[string]int{"done": total})
	return nil
}

func member(c Client, m Membership) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := c.Group(ctx, m); err != nil {
		return err
	}
	Print(map[string]bool{"left": true})
	return nil
}

// Again tries until it holds, or ctx has ended: what one request changed need not show in the next.
func Again(ctx context.Context, holds func() bool) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Key is the key of record i.
func Key(i int) string { return fmt.Sprintf("k%d", i%100) }

// Value is the number, followed by spaces up to size bytes.
func Value(i, size int) string { return fmt.Sprintf("%-*d", size, i) }

// Header is record i's value of the header n.
func Header(i int) string { return fmt.Sprint(i) }

var printing sync.Mutex

// Print writes one line of JSON. Safe for concurrent use.
func Print(v any) {
	line, err := json.Marshal(v)
	if err != nil {
		panic(err) // what is printed here has no values that JSON does not know
	}
	printing.Lock()
	defer printing.Unlock()
	_, _ = os.Stdout.Write(append(line, '\n'))
}

// Complain writes to standard error what is worth knowing and no failure.
func Complain(format string, args ...any) {
	fmt.Fprintln(os.Stderr, time.Now().UTC().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// Acked prints that record i has been acknowledged.
func Acked(i int, partition int32, offset int64) {
	Print(struct {
		Acked     int   `json:"acked"`
		Partition int32 `json:"partition"`
		Offset    int64 `json:"offset"`
	}{i, partition, offset})
}

// Consumed prints a record that was read without a group.
func Consumed(partition int32, offset int64, key, value, header []byte) {
	Print(struct {
		Partition int32  `json:"partition"`
		Offset    int64  `json:"offset"`
		Key       string `json:"key"`
		Value     string `json:"value"`
		Header    string `json:"header"`
	}{partition, offset, string(key), strings.TrimRight(string(value), " "), string(header)})
}

// Step prints how a step of the verb admin went: err, or else what it found.
func Step(name string, detail any, err error) {
	if err != nil {
		detail = err.Error()
	}
	Print(struct {
		Step   string `json:"step"`
		OK     bool   `json:"ok"`
		Detail any    `json:"detail"`
	}{name, err == nil, detail})
}

// StepUnsupported prints that a library does not offer a step.
func StepUnsupported(name string) {
	Print(map[string]string{"step": name, "unsupported": "by this client"})
}

// Case prints which error a case of the verb errors met.
func Case(name, kafkaError string) {
	Print(map[string]string{"case": name, "error": kafkaError})
}

// CaseUnsupported prints that a library does not offer a case.
func CaseUnsupported(name string) {
	Print(map[string]string{"case": name, "unsupported": "by this client"})
}

// ModuleVersion is the version of a module that this program was built with.
func ModuleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return strings.TrimPrefix(m.Version, "v")
		}
	}
	return "unknown"
}
