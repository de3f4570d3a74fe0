package barnabastest_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"barnabas/barnabastest"
	"barnabas/client"
	"barnabas/internal/faketime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func values(records []client.Record) (out []string) {
	for _, r := range records {
		out = append(out, string(r.Value))
	}
	return out
}

// inBothTimes runs a test in real time and in a bubble.
func inBothTimes(t *testing.T, test func(t *testing.T)) {
	t.Run("real time", test)
	t.Run("fake time", func(t *testing.T) { faketime.Test(t, test) })
}

func TestRecordsComeBack(t *testing.T) {
	inBothTimes(t, func(t *testing.T) {
		broker := barnabastest.Start(t)
		broker.CreateTopic("orders", 1, "retention.ms", "1000000")
		broker.Produce("orders", "a", "b", "c")
		if got := values(broker.Records("orders", 3)); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("read %v", got)
		}
	})
}

// What was acknowledged outlives every way to end a broker.
func TestAcknowledgedRecordsSurvive(t *testing.T) {
	inBothTimes(t, func(t *testing.T) {
		broker := barnabastest.Start(t)
		broker.CreateTopic("orders", 1)
		var want []string
		for i, end := range []func(){broker.Stop, broker.Kill, func() { broker.CutPower(1) }, func() { broker.CutPower(2) }, func() {}} {
			value := fmt.Sprintf("record %d", i)
			broker.Produce("orders", value)
			want = append(want, value)
			end()
			broker.Restart()
			if got := values(broker.Records("orders", len(want))); !slices.Equal(got, want) {
				t.Errorf("after end %d: read %v", i, got)
			}
		}
	})
}

func TestGroupReadsOn(t *testing.T) {
	inBothTimes(t, func(t *testing.T) {
		broker := barnabastest.Start(t)
		broker.CreateTopic("orders", 2)
		broker.Produce("orders", "a", "b", "c", "d")
		c := broker.Client()
		read := 0
		for range 2 {
			g, err := c.NewGroupConsumer("billing", client.AutoOffsetReset(client.Earliest), client.MaxPollRecords(1))
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Subscribe("orders"); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				records, err := g.Poll(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				read += len(records)
			}
			if err := g.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if read != 4 {
			t.Errorf("the group has read %d records of 4", read)
		}
	})
}

// Half an hour of retention passes at once where time is fake.
func TestRetentionInFakeTime(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		broker := barnabastest.Start(t, barnabastest.Setting("log.retention.check.interval.ms", "60000"))
		broker.CreateTopic("orders", 1, "retention.ms", "1800000", "segment.ms", "300000")
		broker.Produce("orders", "old")
		time.Sleep(10 * time.Minute)
		broker.Produce("orders", "younger")
		time.Sleep(25 * time.Minute)
		if got := values(broker.Records("orders", 1)); !slices.Equal(got, []string{"younger"}) {
			t.Errorf("read %v", got)
		}
	})
}

// Programs of other people dial by themselves.
func TestOtherClients(t *testing.T) {
	for name, c := range map[string]struct {
		start []barnabastest.Option
		dial  bool
	}{"through Dial": {nil, true}, "over TCP": {[]barnabastest.Option{barnabastest.OverTCP()}, false}} {
		t.Run(name, func(t *testing.T) {
			broker := barnabastest.Start(t, c.start...)
			broker.CreateTopic("orders", 1)
			options := []kgo.Opt{kgo.SeedBrokers(broker.Addr()), kgo.DefaultProduceTopic("orders"), kgo.ConsumeTopics("orders")}
			if c.dial {
				options = append(options, kgo.Dialer(func(ctx context.Context, _, address string) (net.Conn, error) {
					return broker.Dial(ctx, address)
				}))
			}
			other, err := kgo.NewClient(options...)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			if err := other.ProduceSync(t.Context(), kgo.StringRecord("hello")).FirstErr(); err != nil {
				t.Fatal(err)
			}
			fetches := other.PollFetches(t.Context())
			if err := fetches.Err(); err != nil || fetches.NumRecords() != 1 {
				t.Errorf("%d records, %v", fetches.NumRecords(), err)
			}
		})
	}
}

// Two tests with a broker each do not know of each other.
func TestBrokersAreApart(t *testing.T) {
	a, b := barnabastest.Start(t), barnabastest.Start(t)
	a.CreateTopic("orders", 1)
	b.CreateTopic("orders", 1)
	a.Produce("orders", "of a")
	b.Produce("orders", "of b")
	if got := string(b.Records("orders", 1)[0].Value); got != "of b" {
		t.Errorf("read %q", got)
	}
}

// BenchmarkStart is what a test pays for a broker, from Start to its end.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		broker := barnabastest.Start(b)
		broker.CreateTopic("orders", 1)
		broker.Stop()
	}
}
