package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A variant is a broker together with how its topics are made durable.
type variant struct {
	name    string
	broker  *broker
	configs map[string]string
}

const (
	kafka     = "kafka"
	pageCache = "page cache"
	durable   = "durable"
)

// row is one line of what must be shown.
type row struct {
	name, title string
	variants    []string
	metrics     []metric
	bars        []bar
	alone       bool // no broker of the lab runs meanwhile: the row starts its own
	team        bool // on clusters of three nodes
	prepare     func(ctx context.Context, l *lab, v variant) error
	run         func(ctx context.Context, l *lab, v variant, topic string) (sample, error)
	tidyUp      func(ctx context.Context, l *lab, v variant) error
}

// lab keeps Apache Kafka and ours running side by side, warm.
type lab struct {
	o            options
	kafka, ours  *broker // as the row wants them: one node each, or a cluster each
	single, team pair
	warmed       bool
	topicsSoFar  int
	freshFolders int
}

// pair is Apache Kafka and ours.
type pair struct{ kafka, ours *broker }

func newLab(ctx context.Context, o options) (*lab, error) {
	l := &lab{o: o}
	var err error
	if l.single.kafka, err = newKafka(o, filepath.Join(o.dir, "kafka")); err != nil {
		return nil, err
	}
	l.single.ours = newOurs(o, filepath.Join(o.dir, "ours"))
	l.kafka, l.ours = l.single.kafka, l.single.ours
	return l, ctx.Err()
}

// seat puts the row's pair into the lab, and ends the other.
func (l *lab) seat(team bool) error {
	if team && l.team.kafka == nil {
		var err error
		if l.team.kafka, err = newTeam(l.o, kafka, filepath.Join(l.o.dir, "kafka-team")); err != nil {
			return err
		}
		if l.team.ours, err = newTeam(l.o, "ours", filepath.Join(l.o.dir, "ours-team")); err != nil {
			return err
		}
	}
	next := l.single
	if team {
		next = l.team
	}
	if next.kafka == l.kafka {
		return nil
	}
	for _, b := range []*broker{l.kafka, l.ours} {
		if err := b.end(syscall.SIGTERM); err != nil {
			return err
		}
	}
	l.kafka, l.ours, l.warmed = next.kafka, next.ours, false
	return nil
}

func (l *lab) close() {
	_ = l.kafka.end(syscall.SIGKILL)
	_ = l.ours.end(syscall.SIGKILL)
}

func (l *lab) fresh(name string) string {
	l.freshFolders++
	return filepath.Join(l.o.dir, fmt.Sprintf("%s-%d", name, l.freshFolders))
}

func (l *lab) variant(name string) variant {
	switch name {
	case kafka:
		return variant{kafka, l.kafka, nil}
	case pageCache:
		return variant{pageCache, l.ours, map[string]string{"flush.before.ack": "false"}}
	}
	return variant{name, l.ours, map[string]string{"flush.before.ack": "true"}}
}

// running brings the pair up, or down for rows that start brokers themselves.
func (l *lab) running(ctx context.Context, want bool) error {
	for _, b := range []*broker{l.kafka, l.ours} {
		switch {
		case b == l.kafka && !l.wants(kafka):
		case want && !b.isRunning():
			if err := b.start(ctx); err != nil {
				return err
			}
		case !want && b.isRunning():
			if err := b.end(syscall.SIGTERM); err != nil {
				return err
			}
			l.warmed = false
		}
	}
	if want && !l.warmed {
		l.warmed = true
		return l.warm(ctx)
	}
	return nil
}

// warm lets each broker take and give a few million records before anything is measured, ours as
// often as theirs.
func (l *lab) warm(ctx context.Context) error {
	for _, name := range []string{kafka, pageCache, kafka, durable} {
		if !l.wants(name) {
			continue
		}
		v := l.variant(name)
		n := max(300_000, l.scaled(1_000_000))
		for _, codec := range []string{"none", "lz4"} {
			if err := l.withTopic(ctx, v, 6, func(topic string) error {
				if _, err := produce(ctx, v, topic, codec, n, 124); err != nil {
					return err
				}
				if _, err := consume(ctx, v, topic, n, 124); err != nil {
					return err
				}
				_, err := syncSend(ctx, v, topic, 200, 124, max(time.Second, l.seconds(3)))
				return err
			}); err != nil {
				return fmt.Errorf("warm %s: %w", name, err)
			}
		}
	}
	return nil
}

// wants reports whether a variant is to be measured.
func (l *lab) wants(variant string) bool {
	return l.o.variants == "" || slices.Contains(strings.Split(l.o.variants, ","), variant)
}

func (l *lab) scaled(n int) int { return max(1000, int(float64(n)*l.o.scale)) }

func (l *lab) seconds(s float64) time.Duration {
	return time.Duration(max(0.5, s*l.o.scale) * float64(time.Second))
}

func (l *lab) withTopic(ctx context.Context, v variant, partitions int, use func(topic string) error) error {
	l.topicsSoFar++
	topic := fmt.Sprintf("bench-%d", l.topicsSoFar)
	if err := v.broker.makeTopic(ctx, topic, partitions, v.configs); err != nil {
		return err
	}
	err := use(topic)
	return errors.Join(err, v.broker.dropTopic(ctx, topic))
}

// measure runs a row's rounds, the order of its variants turning round with each.
func (l *lab) measure(ctx context.Context, r row) (result, error) {
	if err := l.seat(r.team); err != nil {
		return result{}, err
	}
	if err := l.running(ctx, !r.alone); err != nil {
		return result{}, err
	}
	r.variants = slices.DeleteFunc(slices.Clone(r.variants), func(name string) bool { return !l.wants(name) })
	res := result{row: r}
	for _, name := range r.variants {
		if r.prepare != nil {
			if err := r.prepare(ctx, l, l.variant(name)); err != nil {
				return res, fmt.Errorf("prepare %s: %w", name, err)
			}
		}
	}
	for i := range l.o.pairs {
		order := slices.Clone(r.variants)
		if i%2 == 1 {
			slices.Reverse(order)
		}
		got := round{}
		for _, name := range order {
			syscall.Sync() // what the one before left dirty must not be written back on this one's account
			s, err := r.run(ctx, l, l.variant(name), r.name)
			if err != nil {
				return res, fmt.Errorf("%s: %w", name, err)
			}
			got[name] = s
			fmt.Fprintf(os.Stderr, "%s %d/%d %-10s %v\n", r.name, i+1, l.o.pairs, name, s)
		}
		res.rounds = append(res.rounds, got)
	}
	for _, name := range r.variants {
		if r.tidyUp != nil {
			if err := r.tidyUp(ctx, l, l.variant(name)); err != nil {
				return res, err
			}
		}
	}
	return res, nil
}

var (
	rate     = metric{"rate", "rate", "records/s"}
	cpuBytes = metric{"cpu", "broker CPU", "s/GiB"}
	cpuCount = metric{"cpu", "broker CPU", "s/million"}
	three    = []string{kafka, pageCache, durable}
)

// rows is all that has to be shown, in its order.
func rows(o options) []row {
	var all []row
	for _, codec := range []string{"none", "lz4"} {
		for _, size := range []int{124, 1024} {
			for _, partitions := range []int{1, 6} {
				all = append(all, produceRow(codec, size, partitions))
			}
		}
	}
	all = append(all, consumeRow(124, 6_000_000), consumeRow(1024, 1_200_000), syncRow(), latencyRow(), manyPartitionsRow())
	all = append(all, groupRows()...)
	all = append(all, startRows(o)...)
	all = append(all, teamRows()...)
	all = append(all, scaleRow(3000, kafka, durable), scaleRow(10_000, durable), catchUpRow())
	return append(all, storedRows()...)
}

func produceRow(codec string, size, partitions int) row {
	n := 2_000_000
	if size > 500 {
		n = 400_000
	}
	return row{
		name:  fmt.Sprintf("produce-%s-%d-%d", codec, size, partitions),
		title: fmt.Sprintf("produce %d B, %s, %d partition(s), acks=all", size, codec, partitions), variants: three,
		metrics: []metric{rate, cpuBytes},
		bars: []bar{
			{pageCache, "rate", kafka, true, 0.95, "1.3x"},
			{durable, "rate", kafka, true, 0.8, "1.0x"},
			{pageCache, "cpu", kafka, false, 0.7, "0.8 to 2.6 s/GiB"},
		},
		run: func(ctx context.Context, l *lab, v variant, _ string) (s sample, err error) {
			err = l.withTopic(ctx, v, partitions, func(topic string) error {
				s, err = produce(ctx, v, topic, codec, l.scaled(n), size)
				return err
			})
			return s, err
		},
	}
}

func consumeRow(size, n int) row {
	name := fmt.Sprintf("consume-%d", size)
	return row{
		name: name, title: fmt.Sprintf("consume %d B from the start", size), variants: []string{kafka, pageCache},
		metrics: []metric{rate, cpuBytes},
		bars: []bar{
			{pageCache, "rate", kafka, true, 0.95, "the client is the limit"},
			{pageCache, "cpu", kafka, false, 1.1, "0.42 s/GiB"},
		},
		prepare: func(ctx context.Context, l *lab, v variant) error {
			if err := v.broker.makeTopic(ctx, name, 6, v.configs); err != nil {
				return err
			}
			if _, err := produce(ctx, v, name, "none", l.scaled(n), size); err != nil {
				return err
			}
			_, err := consume(ctx, v, name, l.scaled(n), size)
			return err
		},
		run: func(ctx context.Context, l *lab, v variant, _ string) (sample, error) {
			return consume(ctx, v, name, l.scaled(n), size)
		},
		tidyUp: func(ctx context.Context, l *lab, v variant) error { return v.broker.dropTopic(ctx, name) },
	}
}

func syncRow() row {
	return row{
		name: "sync", title: "200 senders that wait, 124 B, 6 partitions", variants: three,
		metrics: []metric{rate, cpuCount, {"p50", "ack p50", "ms"}, {"p99", "ack p99", "ms"}},
		bars: []bar{
			{pageCache, "rate", kafka, true, 1.2, "2x"},
			{pageCache, "cpu", kafka, false, 0.7, "0.35x"},
			{durable, "rate", kafka, true, 0.5, "1.0x"},
		},
		run: func(ctx context.Context, l *lab, v variant, _ string) (s sample, err error) {
			err = l.withTopic(ctx, v, 6, func(topic string) error {
				s, err = syncSend(ctx, v, topic, 200, 124, l.seconds(10))
				return err
			})
			return s, err
		},
	}
}

func latencyRow() row {
	return row{
		name: "latency", title: "1,000 records/s, 124 B, 1 partition", variants: three,
		metrics: []metric{{"ack p50", "ack p50", "ms"}, {"ack p99", "ack p99", "ms"}, {"end p50", "end to end p50", "ms"}, {"end p99", "end to end p99", "ms"}, cpuCount},
		bars: []bar{
			{pageCache, "ack p50", kafka, false, 0.7, ""},
			{pageCache, "ack p99", kafka, false, 0.7, ""},
			{pageCache, "end p50", kafka, false, 0.7, "0.25 ms"},
			{pageCache, "end p99", kafka, false, 0.7, "0.65 ms"},
			{pageCache, "cpu", kafka, false, 0.5, ""},
		},
		run: func(ctx context.Context, l *lab, v variant, _ string) (s sample, err error) {
			err = l.withTopic(ctx, v, 1, func(topic string) error {
				s, err = latency(ctx, v, topic, 1000, 124, l.seconds(15))
				return err
			})
			return s, err
		},
	}
}

// manyPartitionsRow compares our durable topics with each other: many partitions against one. Nobody consumes: franz-go's
// share of the processors would be the larger part of what it shows.
func manyPartitionsRow() row {
	const many, one = "1,000 partitions", "1 partition"
	return row{
		name: "partitions", title: "10,000 records/s in all, durable, acks=all", variants: []string{one, many},
		metrics: []metric{{"ack p50", "ack p50", "ms"}, {"ack p99", "ack p99", "ms"}, cpuCount},
		bars:    []bar{{many, "ack p50", one, false, 3, "1.5x"}, {many, "ack p99", one, false, 3, "1.5x"}},
		run: func(ctx context.Context, l *lab, v variant, _ string) (s sample, err error) {
			partitions := 1
			if v.name == many {
				partitions = 1000
			}
			err = l.withTopic(ctx, v, partitions, func(topic string) error {
				s, err = ackLatency(ctx, v, topic, partitions, 10_000, 124, 2*time.Second, l.seconds(15))
				return err
			})
			return s, err
		},
	}
}
