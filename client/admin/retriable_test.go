package admin_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/barnabastest"
	"barnabas/client"
	"barnabas/client/admin"
	"barnabas/internal/faketime"
	"barnabas/internal/wire"
)

// reluctant stands before a broker and has a second one, which is as it: the first request of one kind goes to that
// one, whose answer then carries an error in place of what it says; all others go to the broker itself.
type reluctant struct {
	t              *testing.T
	broker, double *barnabastest.Broker
	wg             sync.WaitGroup

	mu       sync.Mutex
	key      int16
	code     client.Error
	depth    int // of the ErrorCodes that are set: 0 is the answer's own
	happened int
}

func (r *reluctant) dial(ctx context.Context, address string) (net.Conn, error) {
	broker, err := r.broker.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	double, err := r.double.Dial(ctx, address)
	if err != nil {
		_ = broker.Close()
		return nil, err
	}
	ours, theirs := net.Pipe()
	r.wg.Go(func() {
		defer broker.Close()
		defer double.Close()
		defer ours.Close()
		for {
			frame, err := readFrame(ours)
			if err != nil {
				return
			}
			answer, err := r.answer(broker, double, frame)
			if err != nil {
				return
			}
			if _, err := ours.Write(answer); err != nil {
				return
			}
		}
	})
	return theirs, nil
}

// readFrame reads a frame and keeps its length.
func readFrame(from io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(from, size[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, 4+binary.BigEndian.Uint32(size[:]))
	copy(frame, size[:])
	_, err := io.ReadFull(from, frame[4:])
	return frame, err
}

func (r *reluctant) answer(broker, double net.Conn, frame []byte) ([]byte, error) {
	head, err := wire.ParseRequest(frame[4:])
	if err != nil {
		r.t.Errorf("the client sent what is no request: %v", err)
		return nil, err
	}
	r.mu.Lock()
	now := head.Key == r.key && r.happened == 0
	if now {
		r.happened++
	}
	r.mu.Unlock()
	to := broker
	if now {
		to = double
	}
	if _, err := to.Write(frame); err != nil {
		return nil, err
	}
	answer, err := readFrame(to)
	if err != nil || !now {
		return answer, err
	}
	start := 8
	if wire.FlexibleResponse(head.Key, head.Version) {
		start++ // no tagged fields
	}
	resp := kmsg.RequestForKey(head.Key).ResponseKind()
	resp.SetVersion(head.Version)
	if err := resp.ReadFrom(answer[start:]); err != nil {
		r.t.Errorf("what the double answered: %v", err)
		return nil, err
	}
	if setErrorCodes(reflect.ValueOf(resp).Elem(), r.depth, int16(r.code)) == 0 {
		r.t.Errorf("%s, version %d: its answer has no errors at depth %d: %+v", kmsg.NameForKey(head.Key), head.Version, r.depth, resp)
	}
	answer = resp.AppendTo(answer[:start:start])
	binary.BigEndian.PutUint32(answer, uint32(len(answer)-4))
	return answer, nil
}

// setErrorCodes sets those at a depth below v, and gives how many there are.
func setErrorCodes(v reflect.Value, depth int, code int16) (n int) {
	if depth == 0 {
		f := v.FieldByName("ErrorCode")
		if !f.IsValid() {
			return 0
		}
		f.SetInt(int64(code))
		return 1
	}
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct {
			for j := range f.Len() {
				n += setErrorCodes(f.Index(j), depth-1, code)
			}
		}
	}
	return n
}

// errorsOf gives the call's error, or those of the items of what it gave.
func errorsOf(result any, err error) error {
	all := []error{err}
	v := reflect.ValueOf(result)
	if v.Kind() == reflect.Slice {
		for i := range v.Len() {
			if v.Index(i).Kind() == reflect.Struct {
				if e, ok := v.Index(i).FieldByName("Err").Interface().(error); ok {
					all = append(all, e)
				}
			}
		}
	}
	return errors.Join(all...)
}

// adminCall is a call that succeeds once, on a broker with the topic "t" of two partitions with records and the group "g".
type adminCall struct {
	name  string
	key   int16
	depth int
	// carries are the retriable errors that items of the answer can have; nil: all, since whose answer it is may change.
	carries []client.Error
	// told are those of them that are an answer and not a failure: the call says them at once.
	told []client.Error
	call func(ctx context.Context, a *admin.Admin) error
}

var (
	first   = client.TopicPartition{Topic: "t"}
	second  = client.TopicPartition{Topic: "t", Partition: 1}
	unknown = []client.Error{client.ErrUnknownTopicOrPartition}

	// What the controller refuses is decided once; that it took too long is told, since it may nevertheless have happened.
	controllers = []client.Error{client.ErrNotController, client.ErrThrottlingQuotaExceeded, client.ErrRequestTimedOut, client.ErrUnknownTopicOrPartition}
	decided     = []client.Error{client.ErrRequestTimedOut, client.ErrUnknownTopicOrPartition}
)

var adminCalls = []adminCall{
	{"CreateTopics", 19, 1, controllers, decided, func(ctx context.Context, a *admin.Admin) error {
		_, err := a.CreateTopic(ctx, admin.NewTopic{Name: "new", Partitions: 1})
		return err
	}},
	{"DeleteTopics", 20, 1, controllers, decided, func(ctx context.Context, a *admin.Admin) error { return errorsOf(a.DeleteTopics(ctx, "t")) }},
	{"CreatePartitions", 37, 1, controllers, decided, func(ctx context.Context, a *admin.Admin) error {
		return errorsOf(a.CreatePartitions(ctx, []admin.MorePartitions{{Topic: "t", Total: 3}}))
	}},
	{"DescribeConfigs", 32, 1, unknown, unknown, func(ctx context.Context, a *admin.Admin) error {
		return errorsOf(a.DescribeConfigs(ctx, []admin.Resource{admin.Topic("t")}))
	}},
	{"IncrementalAlterConfigs", 44, 1, []client.Error{client.ErrNotController, client.ErrUnknownTopicOrPartition}, unknown, func(ctx context.Context, a *admin.Admin) error {
		return errorsOf(a.AlterConfigs(ctx, []admin.ConfigChange{{Resource: admin.Topic("t"), Set: map[string]string{"retention.ms": "1000"}}}))
	}},
	{"DescribeCluster", 60, 0, nil, nil, func(ctx context.Context, a *admin.Admin) error { _, err := a.DescribeCluster(ctx); return err }},
	{"DescribeTopicPartitions", 75, 1, unknown, unknown, func(ctx context.Context, a *admin.Admin) error { return errorsOf(a.DescribeTopics(ctx, "t")) }},
	{"ListOffsets", 2, 2, nil, nil, func(ctx context.Context, a *admin.Admin) error {
		return errorsOf(a.ListOffsets(ctx, map[client.TopicPartition]admin.OffsetSpec{first: admin.Latest, second: admin.Latest}, client.ReadUncommitted))
	}},
	{"DeleteRecords", 21, 2, nil, nil, func(ctx context.Context, a *admin.Admin) error {
		return errorsOf(a.DeleteRecords(ctx, map[client.TopicPartition]int64{first: admin.ToHighWatermark}))
	}},
	{"DescribeProducers", 61, 2, nil, nil, func(ctx context.Context, a *admin.Admin) error { return errorsOf(a.DescribeProducers(ctx, first)) }},
	{"ListGroups", 16, 0, nil, nil, func(ctx context.Context, a *admin.Admin) error { _, err := a.ListGroups(ctx); return err }},
	{"FindCoordinator", 10, 1, nil, nil, func(ctx context.Context, a *admin.Admin) error { return errorsOf(a.DescribeGroups(ctx, "g")) }},
	{"DescribeGroups", 15, 1, nil, nil, func(ctx context.Context, a *admin.Admin) error { return errorsOf(a.DescribeGroups(ctx, "g")) }},
	{"OffsetFetch", 9, 1, nil, nil, func(ctx context.Context, a *admin.Admin) error { return errorsOf(a.GroupOffsets(ctx, []string{"g"})) }},
	{"OffsetCommit", 8, 2, nil, unknown, func(ctx context.Context, a *admin.Admin) error {
		return errorsOf(a.AlterGroupOffsets(ctx, "g", map[client.TopicPartition]client.OffsetAndMetadata{first: {Offset: 0}}))
	}},
	{"OffsetDelete", 47, 0, nil, nil, func(ctx context.Context, a *admin.Admin) error {
		return errorsOf(a.DeleteGroupOffsets(ctx, "g", second))
	}},
	{"DeleteGroups", 42, 1, nil, nil, func(ctx context.Context, a *admin.Admin) error { return errorsOf(a.DeleteGroups(ctx, "g")) }},
	{"DescribeLogDirs", 35, 1, []client.Error{client.ErrKafkaStorageError}, []client.Error{client.ErrKafkaStorageError}, func(ctx context.Context, a *admin.Admin) error { return errorsOf(a.DescribeLogDirs(ctx)) }},
	{"ElectLeaders", 43, 0, nil, nil, func(ctx context.Context, a *admin.Admin) error {
		_, err := a.ElectLeaders(ctx, admin.Preferred)
		return err
	}},
	{"ListPartitionReassignments", 46, 0, nil, nil, func(ctx context.Context, a *admin.Admin) error {
		_, err := a.ListPartitionReassignments(ctx)
		return err
	}},
	{"DescribeQuorum", 55, 0, nil, nil, func(ctx context.Context, a *admin.Admin) error { _, err := a.DescribeQuorum(ctx); return err }},
}

// Every retriable error that an answer can carry is answered once to every call, and then the truth: the call succeeds, or it
// tells the error where that is an answer.
func TestEveryRetriableErrorOfEveryCallOnce(t *testing.T) {
	for _, c := range adminCalls {
		t.Run(c.name, func(t *testing.T) {
			if c.carries == nil { // what it changes can be made again, so that two brokers do for all errors
				faketime.Test(t, func(t *testing.T) {
					r := newReluctant(t)
					for code := client.Error(1); code <= client.ErrShareSessionLimitReached; code++ {
						if code.Retriable() {
							r.refuseOnce(t, c, code)
						}
					}
				})
				return
			}
			for _, code := range c.carries {
				t.Run(code.Name(), func(t *testing.T) {
					faketime.Test(t, func(t *testing.T) { newReluctant(t).refuseOnce(t, c, code) })
				})
			}
		})
	}
}

func newReluctant(t *testing.T) *reluctant {
	r := &reluctant{t: t, broker: barnabastest.Start(t), double: barnabastest.Start(t)}
	for _, b := range []*barnabastest.Broker{r.broker, r.double} {
		b.CreateTopic("t", 2)
		b.Produce("t", "a", "b", "c", "d")
	}
	return r
}

// refuseOnce makes a call whose first request is answered with an error.
func (r *reluctant) refuseOnce(t *testing.T, c adminCall, code client.Error) {
	t.Helper()
	for _, b := range []*barnabastest.Broker{r.broker, r.double} {
		offsets := map[client.TopicPartition]client.OffsetAndMetadata{first: {Offset: 1}, second: {Offset: 1}}
		if _, err := admin.New(b.Client()).AlterGroupOffsets(t.Context(), "g", offsets); err != nil {
			t.Fatal(err)
		}
	}
	r.mu.Lock()
	r.key, r.code, r.depth, r.happened = c.key, code, c.depth, 0
	r.mu.Unlock()
	cl, err := client.New(client.Brokers(r.broker.Addr()), client.Dialer(r.dial))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err = c.call(t.Context(), admin.New(cl))
	if told := slices.Contains(c.told, code); told != errors.Is(err, code) || !told && err != nil {
		t.Errorf("%v: it gives %v", code, err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("%v: it took %v", code, took)
	}
	cl.Close()
	r.wg.Wait()
	if r.happened == 0 {
		t.Errorf("%v: no such request was made, so that nothing is shown", code)
	}
}
