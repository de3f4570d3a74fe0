// Command bench measures Barnabas beside Apache Kafka 4.3.1 with its defaults: one driver on
// franz-go for both, in one run on one machine.
//
//	bench -binary bin/barnabas [-row produce,sync] [-pairs 5] [-scale 1] [-append bench/RESULTS.md]
//
// Both brokers run side by side and are warmed first. Every round measures each in turn, and the
// order turns round with every round (ABBA), so that drift of the machine hits both alike. What
// counts is the median of the per-round ratios; broker processor time comes from /proc.
// "page cache" is a topic with flush.before.ack=false, which is Apache Kafka's own behaviour;
// "durable" is our default.
//
// BARNABAS_SHARED names the folder with peers/kafka (default: beside the repository).
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	binary, shared, dir string
	rows                string
	pairs               int
	scale               float64 // of how much is sent and how long is measured
	appendTo, raw       string
	kafkaPort, ourPort  int
	adminPort           int
	variants            string
	list                bool
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "bin/barnabas", "our program")
	flag.StringVar(&o.shared, "shared", os.Getenv("BARNABAS_SHARED"), "the folder with peers/kafka")
	flag.StringVar(&o.dir, "dir", "", "where a folder for data is made (default: where temporary files are)")
	flag.StringVar(&o.rows, "row", "", "only rows whose name begins with one of these, comma separated")
	flag.IntVar(&o.pairs, "pairs", 5, "rounds; each gives one ratio")
	flag.Float64Var(&o.scale, "scale", 1, "multiplies records and seconds; below 1 to try things out")
	flag.StringVar(&o.appendTo, "append", "", "append the table to this file")
	flag.StringVar(&o.raw, "raw", "", "append every measurement to this file, a JSON line each")
	flag.IntVar(&o.kafkaPort, "kafka-port", 21092, "Apache Kafka's port; the next one is its controller's")
	flag.IntVar(&o.ourPort, "port", 21094, "our port")
	flag.IntVar(&o.adminPort, "admin-port", 0, "the nodes of our cluster serve pprof at this port and those that follow")
	flag.StringVar(&o.variants, "variant", "", "only these variants, comma separated: to profile one alone")
	flag.BoolVar(&o.list, "list", false, "list the rows")
	flag.Parse()
	if o.list {
		for _, r := range rows(o) {
			fmt.Println(r.name, "\t", r.title)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.shared == "" {
		o.shared = "../shared"
	}
	if _, err := os.Stat(filepath.Join(o.shared, "peers", "kafka")); err != nil {
		return fmt.Errorf("no peers/kafka in %s: set BARNABAS_SHARED to the folder that has it", o.shared)
	}
	if o.dir, err = os.MkdirTemp(o.dir, "barnabas-bench"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(o.dir) }()
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	lab, err := newLab(ctx, o)
	if err != nil {
		return err
	}
	defer lab.close()
	var results []result
	for _, r := range rows(o) {
		if !wanted(o.rows, r.name) {
			continue
		}
		got, err := lab.measure(ctx, r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		results = append(results, got)
		writeRow(os.Stdout, got)
		if err := writeRaw(o.raw, got); err != nil {
			return err
		}
	}
	if o.appendTo == "" {
		return nil
	}
	return appendTable(o, results)
}

func wanted(rows, name string) bool {
	return rows == "" || slices.ContainsFunc(strings.Split(rows, ","), func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// writeRaw keeps what was measured, so that a table can be made again.
func writeRaw(name string, r result) error {
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	return json.NewEncoder(f).Encode(map[string]any{"row": r.row.name, "at": time.Now().UTC().Format(time.RFC3339), "rounds": r.rounds})
}

func appendTable(o options, results []result) error {
	f, err := os.OpenFile(o.appendTo, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	var all strings.Builder
	writeHead(&all, o)
	for _, r := range results {
		for _, line := range tableLines(r) {
			all.WriteString(line)
		}
	}
	_, err = io.WriteString(f, all.String())
	return err
}
