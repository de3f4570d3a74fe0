package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/cli/terminal"
)

// The producer's settings where no flag says otherwise. Larger batches than Kafka's 16 KiB, since
// lines come as fast as they are read.
const (
	produceTimeout    = 2 * time.Minute
	produceLinger     = 5 * time.Millisecond
	produceBatchBytes = 256 << 10
	produceBuffer     = 64 << 20
)

type produce struct {
	p          *terminal.Program
	t          terminal.Target
	out        terminal.Format
	topic      string
	file       string
	key        string
	separator  string
	jsonField  string
	nullMarker string
	headers    []string
	codec      string
	level      int
	acks       string
	partition  int32
	batch      int
	linger     time.Duration
	create     bool
	quiet      bool
}

const produceHelp = `Send each line of standard input, or of a file, as a record.

A line is a record's value, and the record has no key. With --key-separator what stands
before the first separator is its key; with --json FIELD each line is a JSON object, sent as it
is, and the object's FIELD is the key. Records of one key go to one partition and keep their
order.

A line that cannot be sent is named, counted and left out; the others are sent nevertheless, and
the exit code is 1.`

func newProduce(p *terminal.Program) *cobra.Command {
	o := &produce{p: p}
	c := &cobra.Command{
		Use:   "produce TOPIC",
		Short: "Send lines as records",
		Long:  produceHelp,
		Example: `  echo hello | barnabas produce greetings
  barnabas produce flights --json origin --file flights.jsonl --codec zstd
  printf 'k1:one\nk2:two\n' | barnabas produce pairs --key-separator :`,
		Args: terminal.Exactly("TOPIC"),
		RunE: func(c *cobra.Command, args []string) error {
			o.topic = args[0]
			return o.run(c)
		},
		ValidArgsFunction: o.t.TopicNames(1),
	}
	flags := c.Flags()
	o.t.Register(flags, p, produceTimeout)
	flags.StringVarP(&o.file, "file", "f", "", "read `FILE` instead of standard input")
	flags.StringVarP(&o.separator, "key-separator", "K", "", "a line is a key, this `TEXT`, and a value; \\t is a tab")
	flags.StringVar(&o.jsonField, "json", "", "each line is a JSON object, and its `FIELD` is the key")
	flags.StringVarP(&o.key, "key", "k", "", "every record has this `KEY`")
	flags.StringVar(&o.nullMarker, "null-marker", "", "a key or value that is this `TEXT` is sent as null")
	flags.StringArrayVarP(&o.headers, "header", "H", nil, "every record has this header, `NAME=VALUE`; repeatable")
	flags.StringVarP(&o.codec, "codec", "z", "none", "compress batches with `CODEC`: none, gzip, snappy, lz4 or zstd")
	flags.IntVar(&o.level, "level", 0, "how hard gzip, lz4 or zstd try, `N` (0: the codec's default)")
	flags.StringVar(&o.acks, "acks", "all", "wait for `WHOM`: all in-sync replicas, 1 (the leader) or 0 (nobody)")
	flags.Int32VarP(&o.partition, "partition", "p", -1, "send everything to partition `N`")
	flags.IntVar(&o.batch, "batch", produceBatchBytes, "send a batch once it holds so many `BYTES`")
	flags.DurationVar(&o.linger, "linger", produceLinger, "send a batch that is not full after this `TIME`")
	flags.BoolVar(&o.create, "create", false, "make the topic where there is none, with the broker's defaults")
	flags.BoolVarP(&o.quiet, "quiet", "q", false, "neither progress nor summary")
	terminal.RegisterFormat(c, flags, &o.out)
	_ = c.RegisterFlagCompletionFunc("codec", cobra.FixedCompletions([]string{"none", "gzip", "snappy", "lz4", "zstd"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("acks", cobra.FixedCompletions([]string{"all", "1", "0"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (o *produce) run(c *cobra.Command) error {
	split, err := o.splitter(c)
	if err != nil {
		return err
	}
	headers, err := readHeaders(o.headers)
	if err != nil {
		return err
	}
	options, err := o.options()
	if err != nil {
		return err
	}
	if c.Flags().Changed("partition") && o.partition < 0 {
		return terminal.Usagef("--partition %d: the first one is 0", o.partition)
	}
	in, size, err := o.open()
	if err != nil {
		return err
	}
	defer in.Close()
	ctx := c.Context()
	bar := newProgress(o.p, "records", size, o.quiet)
	cl, err := o.t.Connect(ctx, client.AllowAutoTopicCreation(false), client.Logger(bar.logger()))
	if err != nil {
		return err
	}
	bar.connected.Store(true)
	if err := o.checkTopic(ctx, cl); err != nil {
		return errors.Join(err, cl.Close())
	}
	sender, err := cl.NewProducer(options...)
	if err != nil {
		return errors.Join(terminal.UsageError{Err: err}, cl.Close())
	}
	l := &loader{o: o, producer: sender, split: split, headers: headers, bar: bar}
	err = l.run(ctx, in)
	return errors.Join(err, cl.Close())
}

// splitter says how a line becomes a key and a value.
func (o *produce) splitter(c *cobra.Command) (splitter, error) {
	ways := 0
	for _, name := range []string{"key-separator", "json", "key"} {
		if c.Flags().Changed(name) {
			ways++
		}
	}
	if ways > 1 {
		return nil, terminal.Usagef("--key, --key-separator and --json each say what the key is: give one of them")
	}
	var split splitter
	switch {
	case c.Flags().Changed("json"):
		if o.jsonField == "" {
			return nil, terminal.Usagef("--json: name the field that is the key")
		}
		return splitJSON(o.jsonField), nil
	case c.Flags().Changed("key-separator"):
		separator, err := unescape(o.separator)
		if err != nil || separator == "" {
			return nil, terminal.Usagef("--key-separator %q: write a text that is not empty; \\t, \\n, \\xNN are understood", o.separator)
		}
		split = splitAt(separator)
	case c.Flags().Changed("key"):
		key := []byte(o.key)
		split = func(line []byte) ([]byte, []byte, error) { return key, line, nil }
	default:
		split = func(line []byte) ([]byte, []byte, error) { return nil, line, nil }
	}
	if c.Flags().Changed("null-marker") {
		split = withNulls(split, o.nullMarker)
	}
	return split, nil
}

func readHeaders(pairs []string) ([]client.Header, error) {
	var out []client.Header
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, terminal.Usagef("--header %q: write NAME=VALUE", pair)
		}
		out = append(out, client.Header{Key: name, Value: []byte(value)})
	}
	return out, nil
}

func (o *produce) options() ([]client.ProducerOption, error) {
	codec, err := client.ParseCodec(o.codec)
	if err != nil {
		return nil, terminal.Usagef("--codec %q: none, gzip, snappy, lz4 or zstd", o.codec)
	}
	acks, err := client.ParseAcks(o.acks)
	if err != nil {
		return nil, terminal.Usagef("--acks %q: all, 1 or 0", o.acks)
	}
	if o.linger < 0 || o.linger >= o.t.Timeout {
		return nil, terminal.Usagef("--linger %v: not negative, and less than --timeout (%v)", o.linger, o.t.Timeout)
	}
	if o.batch < 0 || o.batch > maxRecordBytes {
		return nil, terminal.Usagef("--batch %d: between 0 and %d", o.batch, maxRecordBytes)
	}
	return []client.ProducerOption{
		client.Compression(codec), client.CompressionLevel(o.level), client.WithAcks(acks), client.Linger(o.linger), client.BatchSize(o.batch),
		client.BufferMemory(produceBuffer), client.MaxRequestSize(maxRecordBytes),
		client.DeliveryTimeout(max(o.t.Timeout, o.linger+min(30*time.Second, o.t.Timeout))), client.MaxBlock(o.t.Timeout),
	}, nil
}

// open gives the input and its size, -1 where that cannot be known.
func (o *produce) open() (io.ReadCloser, int64, error) {
	if o.file == "" || o.file == "-" {
		if terminal.IsTerminal(o.p.In) && !o.quiet {
			o.p.Note("one record a line; Ctrl-D ends")
		}
		return io.NopCloser(o.p.In), sizeOf(o.p.In), nil
	}
	f, err := os.Open(o.file)
	if err != nil {
		return nil, 0, fmt.Errorf("--file: %w", err)
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, 0, errors.Join(terminal.Usagef("--file %s is a directory", o.file), f.Close())
	}
	return f, sizeOf(f), nil
}

func sizeOf(r io.Reader) int64 {
	f, ok := r.(*os.File)
	if !ok {
		return -1
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return -1
	}
	return info.Size()
}

// checkTopic finds out before the first line is read whether there is something to send to.
func (o *produce) checkTopic(ctx context.Context, c *client.Client) error {
	ctx, cancel := o.t.Within(ctx)
	defer cancel()
	a := admin.New(c, admin.Timeout(o.t.Timeout))
	if o.create {
		_, err := a.CreateTopic(ctx, admin.NewTopic{Name: o.topic})
		if err != nil && !errors.Is(err, client.ErrTopicAlreadyExists) {
			return o.t.Explain(err)
		}
	}
	count, err := c.Partitions(ctx, o.topic)
	if err != nil {
		return o.t.Explain(terminal.UnknownTopic(ctx, a, o.topic, err))
	}
	if o.partition >= 0 {
		_, err = choosePartitions(o.topic, int(count), []int32{o.partition})
	}
	return err
}

// unescape reads \t, \n, \xNN and the like.
func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	text, err := strconv.Unquote(`"` + strings.ReplaceAll(s, `"`, `\"`) + `"`)
	if err != nil {
		return "", fmt.Errorf("%q: %w", s, err)
	}
	return text, nil
}

// rate is per second, 0 where no time has passed.
func rate(n int64, took time.Duration) float64 {
	if took <= 0 {
		return 0
	}
	return math.Round(float64(n) / took.Seconds())
}
