// Command clients measures our Go client beside franz-go 1.22 on the same broker, with the same
// settings, in one run.
//
//	clients -binary bin/barnabas [-row produce,consume] [-pairs 5] [-scale 1] [-append bench/RESULTS.md]
//
// Every measurement is a process of its own, which connects, warms up, and then measures itself: the
// time, its processor time (user and system, of getrusage) and what it allocated. The broker is
// another process, and is not counted. Both clients are measured in turn, and the order turns round
// with every pair (ABBA). What counts is the median of the pairs' ratios.
//
// The row of many members of one group is the exception: see crowd.go.
//
// The broker is ours, started here, with topics that do not wait for the disk, so that the client is
// the limit; -durable makes them wait. -brokers names one that runs already, for instance Apache Kafka.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	binary, dir, brokers string
	port                 int
	durable              bool
	rows                 string
	pairs                int
	scale                float64
	partitions           int
	appendTo, raw        string
	profiles             string
	work                 string // of a process that measures itself: a job as JSON
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "bin/barnabas", "our broker")
	flag.StringVar(&o.dir, "dir", "", "where a folder for the broker's data is made (default: where temporary files are)")
	flag.StringVar(&o.brokers, "brokers", "", "HOST:PORT,... of a broker that runs already, in place of ours")
	flag.IntVar(&o.port, "port", 21096, "our broker's port")
	flag.BoolVar(&o.durable, "durable", false, "acknowledgements wait for the disk, as is our default")
	flag.StringVar(&o.rows, "row", "", "only rows whose name begins with one of these, comma separated (default: all but crowd, which takes long)")
	flag.IntVar(&o.pairs, "pairs", 5, "how often both are measured; each gives one ratio")
	flag.Float64Var(&o.scale, "scale", 1, "multiplies records and seconds; below 1 to try things out")
	flag.IntVar(&o.partitions, "partitions", 6, "of the topics that are produced to and consumed")
	flag.StringVar(&o.appendTo, "append", "", "append the table to this file")
	flag.StringVar(&o.raw, "raw", "", "append every measurement to this file, a JSON line each")
	flag.StringVar(&o.profiles, "profiles", "", "a folder for processor and allocation profiles, one of each for every measurement")
	flag.StringVar(&o.work, "work", "", "used by the program itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	act := run
	if o.work != "" {
		act = measureSelf
	}
	if err := act(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	b, err := openBroker(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	var results []result
	for _, r := range rows(o) {
		if !wanted(o.rows, r.name) || r.long && o.rows == "" {
			continue
		}
		got, err := measure(ctx, o, b, r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		results = append(results, got)
		got.write(os.Stdout)
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

// measure runs a row's pairs, after one of each client that does not count: it warms the broker.
func measure(ctx context.Context, o options, b *broker, r row) (result, error) {
	res := result{row: r}
	j := r.job
	j.Brokers, j.Partitions = b.addr, o.partitions
	if r.single {
		j.Partitions = 1
	}
	fill := j
	if j.Kind == consuming {
		fill.Kind, fill.Client, fill.Topic = producing, clients[0], "consume-"+r.name
		if err := b.createTopic(ctx, fill.Topic, fill.Partitions); err != nil {
			return res, err
		}
		if _, err := measureApart(ctx, o, fill, ""); err != nil {
			return res, err
		}
	}
	first := -1
	if r.alone {
		first = 0 // nothing is warm for the next
	}
	for n := first; n < o.pairs; n++ {
		order := slices.Clone(clients)
		if n%2 != 0 {
			slices.Reverse(order)
		}
		pair := pair{}
		for _, client := range order {
			j.Client, j.Topic = client, fill.Topic
			ownTopic := j.Kind != consuming && !r.alone
			if ownTopic {
				j.Topic = fmt.Sprintf("%s-%s-%d", r.name, client, n+1)
				if err := b.createTopic(ctx, j.Topic, j.Partitions); err != nil {
					return res, err
				}
			}
			s, err := measureApart(ctx, o, j, fmt.Sprintf("%s-%s-%d", r.name, client, n+1))
			if err != nil {
				return res, fmt.Errorf("%s: %w", client, err)
			}
			pair[client] = s
			if ownTopic {
				if err := b.deleteTopic(ctx, j.Topic); err != nil {
					return res, err
				}
			}
		}
		if n >= 0 {
			res.pairs = append(res.pairs, pair)
		}
	}
	if j.Kind == consuming {
		return res, b.deleteTopic(ctx, fill.Topic)
	}
	return res, nil
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
	return json.NewEncoder(f).Encode(map[string]any{"row": r.row.name, "at": time.Now().UTC().Format(time.RFC3339), "pairs": r.pairs})
}
