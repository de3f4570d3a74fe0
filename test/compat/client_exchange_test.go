//go:build compat

package compat

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"barnabas/client"
	"barnabas/test/compat/rig"
)

var exchangeTests = []clientTest{
	{name: "exchange with others, in transactions", needs: []need{transactions}, run: func(t *testing.T, p *site) { exchange(t, p, true) }, shorter: nowhere},
	{name: "exchange with others", run: func(t *testing.T, p *site) { exchange(t, p, false) }},
}

// exchangeRow is a record that everybody writes, with every codec, and everybody reads.
type exchangeRow struct {
	key, value []byte
	headers    []client.Header
}

// exchangeTable is the table of member/Exchange.java and member/exchange.py too.
func exchangeTable() []exchangeRow {
	return []exchangeRow{
		{[]byte("k"), []byte("v"), []client.Header{{Key: "a", Value: []byte("1")}, {Key: "b"}}},
		{nil, []byte("v"), nil},
		{[]byte("k"), nil, nil},
		{[]byte{}, []byte{}, nil},
		{nil, nil, nil},
		{[]byte("k"), []byte(strings.Repeat("x", 5000)), []client.Header{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}, {Key: "c", Value: []byte{}}}},
	}
}

func lastRow(codec string) exchangeRow { return exchangeRow{[]byte("last"), []byte(codec), nil} }

func (r exchangeRow) String() string {
	var headers []string
	for _, h := range r.headers {
		headers = append(headers, h.Key+"="+exchanged(h.Value))
	}
	return exchanged(r.key) + "|" + exchanged(r.value) + "|" + strings.Join(headers, ",")
}

func exchanged(b []byte) string {
	switch {
	case b == nil:
		return "-"
	case len(b) > 64:
		return fmt.Sprintf("%d*%02x", len(b), b[0])
	}
	return hex.EncodeToString(b)
}

// exchanger is a library: it writes the table into a topic, and reads so many records of topics.
type exchanger struct {
	name  string
	write func(t *testing.T, addr, topic string, transactions bool)
	read  func(t *testing.T, addr string, topics []string, count int) map[string][]string
}

// exchange has ours, franz-go, Java's and librdkafka write every kind of record with every codec, in transactions that
// are committed and others that are aborted, and each read what each has written.
func exchange(t *testing.T, p *site, inTransactions bool) {
	all := []exchanger{
		{"ours", oursWrites, oursReads}, {"franz-go", franzGoWrites, franzGoReads}, program("java", exchangeJava(t)), program("librdkafka", exchangePython(t)),
	}
	var want []string
	for _, codec := range codecs {
		for _, r := range append(exchangeTable(), lastRow(codec)) {
			want = append(want, r.String())
		}
	}
	var topics []string
	for _, e := range all {
		topic := uniqueTopic("exchange-" + e.name)
		createTopic(t, p.addr, topic, 1)
		topics = append(topics, topic)
		e.write(t, p.addr, topic, inTransactions)
	}
	for _, e := range all {
		got := e.read(t, p.addr, topics, len(want))
		for i, topic := range topics {
			equalLines(t, fmt.Sprintf("%s reads what %s wrote", e.name, all[i].name), got[topic], want)
		}
	}
}

func oursWrites(t *testing.T, addr, topic string, transactions bool) {
	ctx := within(t, patience)
	for _, codec := range codecs {
		k, err := client.ParseCodec(codec)
		if err != nil {
			t.Fatal(err)
		}
		options := []client.ProducerOption{client.Compression(k)}
		if transactions {
			options = append(options, client.TransactionalID(topic+codec))
		}
		p := ourOwnProducer(t, addr, options...)
		ended := func(what string, err error) {
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		send := func(rows ...exchangeRow) {
			for _, r := range rows {
				out := client.ProducerRecord{Topic: topic, Partition: client.ToPartition(0), Key: r.key, Value: r.value, Headers: r.headers}
				ended("send", p.Send(ctx, out, func(_ client.RecordMetadata, err error) {
					if err != nil {
						t.Errorf("ours: %v", err)
					}
				}))
			}
			ended("flush", p.Flush(ctx))
		}
		if !transactions {
			send(append(exchangeTable(), lastRow(codec))...)
			continue
		}
		ended("init", p.InitTransactions(ctx))
		ended("begin", p.Begin())
		send(exchangeTable()...)
		ended("commit", p.Commit(ctx))
		ended("begin", p.Begin())
		send(exchangeRow{[]byte("aborted"), []byte("aborted"), nil}, exchangeRow{[]byte("aborted"), []byte("aborted"), nil})
		ended("abort", p.Abort(ctx))
		ended("begin", p.Begin())
		send(lastRow(codec))
		ended("commit", p.Commit(ctx))
	}
}

func oursReads(t *testing.T, addr string, topics []string, count int) map[string][]string {
	got := map[string][]string{}
	for _, topic := range topics {
		for _, r := range ourRead(t, addr, topic, client.Earliest, count, client.IsolationLevel(client.ReadCommitted)) {
			got[topic] = append(got[topic], exchangeRow{r.Key, r.Value, r.Headers}.String())
		}
	}
	return got
}

func franzGoWrites(t *testing.T, addr, topic string, transactions bool) {
	ctx := within(t, patience)
	for _, codec := range codecs {
		options := []kgo.Opt{kgo.ProducerBatchCompression(kgoCodecs[codec]), kgo.DefaultProduceTopic(topic)}
		if transactions {
			options = append(options, kgo.TransactionalID(topic+codec))
		}
		cl := kgoClient(t, addr, options...)
		transact := func(how kgo.TransactionEndTry, rows ...exchangeRow) {
			if transactions {
				if err := cl.BeginTransaction(); err != nil {
					t.Fatal(err)
				}
			}
			var out []*kgo.Record
			for _, r := range rows {
				record := &kgo.Record{Key: r.key, Value: r.value}
				for _, h := range r.headers {
					record.Headers = append(record.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
				}
				out = append(out, record)
			}
			if err := cl.ProduceSync(ctx, out...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if transactions {
				if err := cl.EndTransaction(ctx, how); err != nil {
					t.Fatal(err)
				}
			}
		}
		transact(kgo.TryCommit, exchangeTable()...)
		if transactions {
			transact(kgo.TryAbort, exchangeRow{[]byte("aborted"), []byte("aborted"), nil})
		}
		transact(kgo.TryCommit, lastRow(codec))
		cl.Close()
	}
}

func franzGoReads(t *testing.T, addr string, topics []string, count int) map[string][]string {
	got := map[string][]string{}
	for _, topic := range topics {
		cl := kgoClient(t, addr, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
		for len(got[topic]) < count {
			fetches := cl.PollFetches(within(t, patience))
			if err := fetches.Err(); err != nil {
				t.Fatalf("franz-go reads %s: %v", topic, err)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				row := exchangeRow{key: r.Key, value: r.Value}
				for _, h := range r.Headers {
					row.headers = append(row.headers, client.Header{Key: h.Key, Value: h.Value})
				}
				got[topic] = append(got[topic], row.String())
			})
		}
		cl.Close()
	}
	return got
}

// program is a library in a process of its own.
func program(name string, command []string) exchanger {
	run := func(t *testing.T, each func(line string), args ...string) {
		t.Helper()
		rig.Launch(t, name, append(slices.Clone(command), args...), each).Succeeds(patience)
	}
	return exchanger{
		name,
		func(t *testing.T, addr, topic string, transactions bool) {
			run(t, func(string) {}, "write", addr, topic, fmt.Sprint(transactions))
		},
		func(t *testing.T, addr string, topics []string, count int) map[string][]string {
			var mu sync.Mutex
			got := map[string][]string{}
			run(t, func(line string) {
				mu.Lock()
				defer mu.Unlock()
				topic, record, _ := strings.Cut(line, "\t")
				got[topic] = append(got[topic], record)
			}, "read", addr, strings.Join(topics, ","), fmt.Sprint(count))
			mu.Lock()
			defer mu.Unlock()
			return got
		},
	}
}

func exchangeJava(t *testing.T) []string {
	t.Helper()
	return rig.JavaCommand(t, filepath.Join(rig.Root(), "test", "compat", "member", "Exchange.java"))
}

// exchangePython is a program in the environment of clients/confluent-python, which is built where it is not there.
func exchangePython(t *testing.T) []string {
	t.Helper()
	cache := clientsCache(t)
	if err := os.MkdirAll(filepath.Dir(cache), 0o755); err != nil {
		t.Fatal(err)
	}
	built, err := rig.Build(filepath.Join(rig.Root(), "test", "compat", "clients", "confluent-python", "build"), filepath.Join(cache, "confluent-python"))
	if err != nil {
		t.Fatal(err)
	}
	_, words, _ := strings.Cut(built[2], "exec ") // the interpreter, then the program on the library
	return []string{strings.Fields(words)[0], filepath.Join(rig.Root(), "test", "compat", "member", "exchange.py")}
}
