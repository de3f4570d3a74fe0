package typed_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"barnabas/barnabastest"
	"barnabas/client"
	"barnabas/client/typed"
)

// world is a broker with a topic of two partitions, and a producer for it.
type world struct {
	t      *testing.T
	broker *barnabastest.Broker
	c      *client.Client
	raw    *client.Producer
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, broker: barnabastest.Start(t)}
	w.broker.CreateTopic("orders", 2)
	w.c = w.broker.Client()
	var err error
	if w.raw, err = w.c.NewProducer(client.Linger(0)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.raw.Close(context.Background()) })
	return w
}

// write puts values into a partition as they are.
func (w *world) write(partition int32, values ...string) {
	w.t.Helper()
	for _, v := range values {
		r := client.ProducerRecord{Topic: "orders", Partition: client.ToPartition(partition), Value: []byte(v)}
		if _, err := w.raw.SendSync(w.t.Context(), r); err != nil {
			w.t.Fatal(err)
		}
	}
}

// group makes a member of a group that reads orders from its start.
func (w *world) group() *client.GroupConsumer {
	w.t.Helper()
	g, err := w.c.NewGroupConsumer("billing", client.AutoOffsetReset(client.Earliest), client.NoAutoCommit())
	if err == nil {
		err = g.Subscribe("orders")
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = g.Close(context.Background()) })
	return g
}

type source = typed.Consumer[typed.None, order]

func orders(from typed.Source, options ...typed.ConsumerOption) *source {
	return typed.NewConsumer(from, typed.None{}, typed.JSON[order]{}, options...)
}

// readIDs polls until it has read so many orders, and fails with any error.
func (w *world) readIDs(c *source, n int) (ids []int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for len(ids) < n {
		records, err := c.Poll(ctx)
		if err != nil {
			w.t.Fatalf("after %v: %v", ids, err)
		}
		for _, r := range records {
			ids = append(ids, r.Value.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// readPoison polls until a record is refused.
func (w *world) readPoison(c *source) (before []int, bad *typed.PoisonError) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for {
		records, err := c.Poll(ctx)
		for _, r := range records {
			before = append(before, r.Value.ID)
		}
		if errors.As(err, &bad) {
			return before, bad
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func TestTypedRecordsComeBack(t *testing.T) {
	w := newWorld(t)
	p := typed.NewProducer(w.raw, typed.String{}, typed.JSON[order]{})
	at := time.UnixMilli(1_700_000_000_000)
	where, err := p.SendSync(t.Context(), typed.ProducerRecord[string, order]{
		Topic: "orders", Partition: client.ToPartition(1), Key: "k", Value: order{1, 2.5}, Timestamp: at,
		Headers: []client.Header{{Key: "trace", Value: []byte("x")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	if err := p.Send(t.Context(), typed.ProducerRecord[string, order]{Topic: "orders", Partition: client.ToPartition(1), Key: "k", Value: order{2, 0}},
		func(_ client.RecordMetadata, err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c := typed.NewConsumer(w.group(), typed.String{}, typed.JSON[order]{})
	records, err := c.Poll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := records[0]
	if r.Key != "k" || r.Value != (order{1, 2.5}) || r.Offset != where.Offset || r.Partition != 1 || !r.Timestamp.Equal(at) ||
		string(r.Headers[0].Value) != "x" || string(r.Record.Value) != `{"ID":1,"Total":2.5}` {
		t.Errorf("read %+v", r)
	}
}

func TestWhatCannotBeWrittenIsNamed(t *testing.T) {
	w := newWorld(t)
	because := errors.New("because")
	bad := typed.Of(func(int) ([]byte, error) { return nil, because }, nil)
	var unwritten *typed.SerializationError
	err := typed.NewProducer(w.raw, bad, typed.None{}).Send(t.Context(), typed.ProducerRecord[int, typed.None]{Topic: "orders"}, nil)
	if !errors.As(err, &unwritten) || !errors.Is(err, because) || unwritten.Part != typed.Key || unwritten.Topic != "orders" {
		t.Errorf("the key: %v", err)
	}
	_, err = typed.NewProducer(w.raw, typed.None{}, bad).SendSync(t.Context(), typed.ProducerRecord[typed.None, int]{Topic: "orders"})
	if !errors.As(err, &unwritten) || unwritten.Part != typed.Value || !strings.Contains(err.Error(), `value of a record for topic "orders"`) {
		t.Errorf("the value: %v", err)
	}
}

// A record that cannot be read stops its partition, and nothing passes it unless the program says
// so: not a commit, not the other partition's records, not the next member.
func TestPoisonStopsItsPartition(t *testing.T) {
	w := newWorld(t)
	w.write(0, `{"ID":1}`, `{"ID":2}`, `poison`, `{"ID":4}`)
	g := w.group()
	c := orders(g)
	before, bad := w.readPoison(c)
	if !slices.Equal(before, []int{1, 2}) || bad.Record.Offset != 2 || bad.Part != typed.Value || string(bad.Record.Value) != "poison" {
		t.Fatalf("read %v, then %v", before, bad)
	}
	if text := bad.Error(); !strings.HasPrefix(text, "orders-0 at offset 2: the value cannot be read: ") {
		t.Errorf("the error is %q", text)
	}
	w.write(1, `{"ID":10}`, `{"ID":11}`)
	if got := w.readIDs(c, 2); !slices.Equal(got, []int{10, 11}) {
		t.Errorf("of the other partition %v", got)
	}
	if err := g.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	tp := bad.Record.TopicPartition()
	committed, err := g.Committed(t.Context(), tp)
	if err != nil || committed[tp].Offset != 2 {
		t.Errorf("committed %v, %v", committed, err)
	}
	g.Resume(tp)
	if before, again := w.readPoison(c); len(before) > 0 || again.Record.Offset != 2 {
		t.Errorf("tried again: %v, then %v", before, again)
	}
	if err := c.Skip(bad); err != nil {
		t.Fatal(err)
	}
	if got := w.readIDs(c, 1); !slices.Equal(got, []int{4}) {
		t.Errorf("behind it %v", got)
	}
}

func TestPoisonIsPassedOver(t *testing.T) {
	w := newWorld(t)
	w.write(0, `poison`, `{"ID":1}`, `poison`, `poison`, `{"ID":4}`, `poison`)
	var offsets []int64
	c := orders(w.group(), typed.OnPoison(func(_ context.Context, bad *typed.PoisonError) error {
		offsets = append(offsets, bad.Record.Offset)
		return nil
	}))
	if got := w.readIDs(c, 2); !slices.Equal(got, []int{1, 4}) {
		t.Errorf("read %v", got)
	}
	w.write(0, `{"ID":6}`)
	if got := w.readIDs(c, 1); !slices.Equal(got, []int{6}) || !slices.Equal(offsets, []int64{0, 2, 3, 5}) {
		t.Errorf("read %v, passed over %v", got, offsets)
	}
}

func TestPoisonGoesToTheDeadLetters(t *testing.T) {
	w := newWorld(t)
	w.broker.CreateTopic("dead", 1)
	w.write(1, `{"ID":1}`, `poison`, `{"ID":3}`)
	c := orders(w.group(), typed.OnPoison(typed.DeadLetters(w.raw, "dead")))
	if got := w.readIDs(c, 2); !slices.Equal(got, []int{1, 3}) {
		t.Errorf("read %v", got)
	}
	dead := w.broker.Records("dead", 1)[0]
	var headers []string
	for _, h := range dead.Headers {
		headers = append(headers, fmt.Sprintf("%s=%s", h.Key, h.Value))
	}
	want := []string{
		"__connect.errors.topic=orders", "__connect.errors.partition=1", "__connect.errors.offset=1", "__connect.errors.stage=VALUE_CONVERTER",
		"__connect.errors.exception.message=invalid character 'p' looking for beginning of value",
	}
	if string(dead.Value) != "poison" || dead.Key != nil || !slices.Equal(headers, want) {
		t.Errorf("the dead letter is %q with %q", dead.Value, headers)
	}
}

// A dead letter that cannot be written does not count as dealt with.
func TestPoisonWithoutDeadLettersStops(t *testing.T) {
	w := newWorld(t)
	w.write(0, `poison`)
	full, err := w.c.NewProducer(client.MaxRequestSize(100))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close(context.Background()) }()
	g := w.group()
	c := orders(g, typed.OnPoison(typed.DeadLetters(full, "dead")))
	_, err = c.Poll(t.Context())
	var bad *typed.PoisonError
	if !errors.Is(err, client.ErrRecordTooLarge) || !errors.As(err, &bad) {
		t.Errorf("error %v", err)
	}
	if at, known := g.Position(client.TopicPartition{Topic: "orders"}); !known || at != 0 {
		t.Errorf("the position is %d, %v", at, known)
	}
}

// A Poll that ends while it deserialises has found no poison: the records come again.
func TestAnEndedPollIsNoPoison(t *testing.T) {
	w := newWorld(t)
	w.write(0, `{"ID":1}`, `{"ID":2}`, `{"ID":3}`)
	ctx, cancel := context.WithCancelCause(t.Context())
	asked := errors.New("asked to end")
	slow := typed.NewConsumer(w.group(), typed.None{}, registry{func(ctx context.Context, id int) error {
		if id == 2 {
			cancel(asked)
		}
		return ctx.Err()
	}}, typed.OnPoison(func(_ context.Context, bad *typed.PoisonError) error { t.Errorf("poison: %v", bad); return bad }))
	if records, err := slow.Poll(ctx); err != nil || len(records) != 1 || records[0].Value.ID != 1 {
		t.Fatalf("read %v, %v", records, err)
	}
	if _, err := slow.Poll(ctx); !errors.Is(err, asked) {
		t.Errorf("error %v", err)
	}
	if got := w.readIDs(slow, 2); !slices.Equal(got, []int{2, 3}) {
		t.Errorf("then read %v", got)
	}
}

// registry deserialises with the help of something that takes a while.
type registry struct {
	ask func(ctx context.Context, id int) error
}

func (r registry) Deserialize(ctx context.Context, topic string, data []byte) (order, error) {
	v, err := typed.JSON[order]{}.Deserialize(ctx, topic, data)
	if err == nil {
		err = r.ask(ctx, v.ID)
	}
	return v, err
}

// A partition that went to another member between Poll and Skip is that member's business.
func TestSkipOfAPartitionThatIsGone(t *testing.T) {
	w := newWorld(t)
	w.write(0, `poison`)
	g := w.group()
	c := orders(g)
	_, bad := w.readPoison(c)
	if err := g.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Skip(bad); err != nil {
		t.Errorf("Skip: %v", err)
	}
}
