package controller

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
	"barnabas/internal/peer"
)

// TestOrdersOutliveAControllerThatStops: what another node has asked of a controller that stops meanwhile is not refused for that
// node's end: there will be another controller, which can be asked.
func TestOrdersOutliveAControllerThatStops(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l := start(t, testOptions(t, 1))
		synctest.Wait()
		l.commit(1)
		r := NewRouter(1, nil, 1)
		r.Use(c)
		joins := registration(2)
		body, err := json.Marshal(order{Register: &joins})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			synctest.Wait()
			if l.pending() != 1 {
				t.Errorf("%d entries wait to be committed", l.pending())
			}
			c.Close()
		}()
		answer, err := r.serveOrder(context.Background(), peer.Node{ID: 2}, body)
		if _, _, done := opened(answer); err != nil || done {
			t.Fatalf("answered %q, %v", answer, err)
		}
	})
}

// noPeers is a cluster in which no other node answers.
type noPeers struct{}

func (noPeers) Call(ctx context.Context, _ int32, _ peer.Kind, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (noPeers) Handle(peer.Kind, peer.Handler) {}

func creation(name string, timeout time.Duration) *kmsg.CreateTopicsRequest {
	q := kmsg.NewPtrCreateTopicsRequest()
	q.Version, q.TimeoutMillis = 7, int32(timeout.Milliseconds())
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 1, 1
	q.Topics = append(q.Topics, topic)
	return q
}

// TestRequestsOutliveAControllerThatResigns: a client's request that was under way when the controller lost its office is asked
// again of the next one, as long as the request's own time lasts, and the client is not told to ask elsewhere. What the
// resigned one had proposed may have been committed: then it is there already.
func TestRequestsOutliveAControllerThatResigns(t *testing.T) {
	for kept, want := range []int16{0, kerr.TopicAlreadyExists.Code} {
		faketime.Test(t, func(t *testing.T) {
			c, l := start(t, testOptions(t, 1))
			synctest.Wait()
			l.commit(1)
			l.mu.auto = true
			if _, err := c.RegisterBroker(t.Context(), registration(1)); err != nil {
				t.Fatal(err)
			}
			l.mu.auto = false
			r := NewRouter(1, noPeers{}, 1)
			r.Use(c)
			r.Leadership(metadata.Leadership{Leader: 1})
			go func() {
				synctest.Wait()
				if l.pending() != 1 {
					t.Errorf("%d entries wait to be committed", l.pending())
				}
				r.Leadership(metadata.Leadership{Leader: 2})
				l.lose(kept)
				time.Sleep(3 * time.Second)
				l.mu.auto = true
				l.lead(0)
				r.Leadership(metadata.Leadership{Leader: 1})
			}()
			answer, err := r.CreateTopics(context.Background(), creation("orders", 10*time.Second))
			if err != nil || answer.Topics[0].ErrorCode != want {
				t.Errorf("%d kept: answered %v, %v", kept, answer, err)
			}
		})
	}
}

// TestRequestsEndWithTheirTime: where there is no controller until a request's time is over, that is what its answer says.
func TestRequestsEndWithTheirTime(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l := start(t, testOptions(t, 1))
		synctest.Wait()
		l.commit(1)
		l.mu.auto = true
		if _, err := c.RegisterBroker(t.Context(), registration(1)); err != nil {
			t.Fatal(err)
		}
		l.mu.auto = false
		r := NewRouter(1, noPeers{}, 1)
		r.Use(c)
		r.Leadership(metadata.Leadership{Leader: 1})
		go func() {
			synctest.Wait()
			r.Leadership(metadata.Leadership{Leader: -1})
			l.lose(0)
		}()
		began := time.Now()
		answer, err := r.CreateTopics(context.Background(), creation("orders", 2*time.Second))
		if took := time.Since(began); err != nil || answer.Topics[0].ErrorCode != kerr.RequestTimedOut.Code || took < 2*time.Second {
			t.Errorf("answered %v, %v after %v", answer, err, took)
		}
	})
}

// TestForwardedRequestsAreAskedAgain: the node that has forwarded a request hears that this one is no controller, not an answer for
// its client that says so.
func TestForwardedRequestsAreAskedAgain(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, l := start(t, testOptions(t, 1))
		synctest.Wait()
		l.commit(1)
		l.mu.auto = true
		if _, err := c.RegisterBroker(t.Context(), registration(1)); err != nil {
			t.Fatal(err)
		}
		l.mu.auto = false
		r := NewRouter(1, noPeers{}, 1)
		r.Use(c)
		q := creation("orders", 10*time.Second)
		body := binary.BigEndian.AppendUint16(nil, uint16(q.Key()))
		body = q.AppendTo(binary.BigEndian.AppendUint16(body, uint16(q.Version)))
		go func() {
			synctest.Wait()
			l.lose(0)
		}()
		answer, err := r.serveRequest(context.Background(), peer.Node{ID: 2}, body)
		if _, _, done := opened(answer); err != nil || done {
			t.Fatalf("answered %q, %v", answer, err)
		}
		l.lead(0)
		synctest.Wait()
		defaults, err := json.Marshal(order{AutoCreate: []string{"orders"}, Defaults: topicDefaultsOf(c.options.Config)})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			synctest.Wait()
			l.lose(0)
		}()
		answer, err = r.serveOrder(context.Background(), peer.Node{ID: 2}, defaults)
		if _, _, done := opened(answer); err != nil || done {
			t.Fatalf("answered %q, %v", answer, err)
		}
	})
}

// TestWhoWasSentAway: every response that a controller gives in the place of another's is known for that.
func TestWhoWasSentAway(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		c, _ := start(t, testOptions(t, 1))
		synctest.Wait()
		c.Leadership(metadata.Leadership{Epoch: 9, Leader: 2})
		r := NewRouter(1, noPeers{}, 1)
		r.Use(c)
		for key := range int16(100) {
			req := kmsg.RequestForKey(key)
			if req == nil {
				continue
			}
			req.SetVersion(req.MaxVersion())
			fill(req)
			response, err := r.decide(context.Background(), req)
			if err == nil && !sentAway(response) {
				t.Errorf("%s: %+v", kmsg.NameForKey(key), response)
			}
		}
	})
}

// fill gives a request a part, where answers have no other place for a code, and time.
func fill(req kmsg.Request) {
	switch q := req.(type) {
	case *kmsg.CreateTopicsRequest:
		*q = *creation("orders", time.Second)
	case *kmsg.DeleteTopicsRequest:
		q.TimeoutMillis, q.Topics = 1000, append(q.Topics, kmsg.NewDeleteTopicsRequestTopic())
	case *kmsg.CreatePartitionsRequest:
		q.TimeoutMillis, q.Topics = 1000, append(q.Topics, kmsg.NewCreatePartitionsRequestTopic())
	case *kmsg.AlterConfigsRequest:
		q.Resources = append(q.Resources, kmsg.NewAlterConfigsRequestResource())
	case *kmsg.IncrementalAlterConfigsRequest:
		q.Resources = append(q.Resources, kmsg.NewIncrementalAlterConfigsRequestResource())
	case *kmsg.UpdateFeaturesRequest:
		q.TimeoutMillis = 1000
	case *kmsg.ElectLeadersRequest:
		q.TimeoutMillis = 1000
	case *kmsg.AlterPartitionAssignmentsRequest:
		q.TimeoutMillis = 1000
	}
}
