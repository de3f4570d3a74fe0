package controller

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
	"barnabas/internal/peer"
)

// What brokers ask the controller on another node.
const (
	// kindRequest is a request of Kafka's: key and version (2 bytes each) and its body. Of the answer see
	// answerHead.
	kindRequest peer.Kind = 16
	// kindOrder is one of the methods for the cluster's own nodes, as JSON.
	kindOrder peer.Kind = 17
)

const (
	// answerHeadBytes: a byte that says whether this node is the controller, and the offset of its image
	// with what the answer is about (8 bytes). The body of the response follows.
	answerHeadBytes = 1 + 8
	askedController = 1
	askedTooMuch    = 2 // it is, and has no memory for the request now
	// maxAtWork is what LimitMemory sets where it is not called.
	maxAtWork = 128 << 20
	// crowdedPause is how long who has asked too much waits before it sends the request again, plus up to as much.
	crowdedPause = 100 * time.Millisecond
	// retryPause is how long a request waits before it looks for the controller again, plus up to as much.
	retryPause = 10 * time.Millisecond
	// ordersPatience bounds the requests of this cluster's own nodes that bring no time of their own.
	ordersPatience = 30 * time.Second
)

// Peers is how other nodes are asked; *peer.Peers is one.
type Peers interface {
	Call(ctx context.Context, to int32, kind peer.Kind, body []byte) ([]byte, error)
	Handle(kind peer.Kind, h peer.Handler)
}

// Router takes requests to whichever node is the controller, this one or another, and waits for one where
// there is none. What another node has decided is part of the local image when the answer comes. It is a
// metadata.Publisher, the last in the line, and is told of leadership. Its methods are safe for concurrent
// use, and named and answered as the Controller's.
type Router struct {
	local  *Controller
	nodeID int32
	peers  Peers // nil: this node alone

	atWork     atomic.Int64 // bytes of other nodes' requests that are being decided here
	mostAtWork int64        // see LimitMemory

	mu struct { // short
		sync.Mutex
		leader  int32
		offset  int64
		changed chan struct{} // closed and replaced when one of them changes
		random  *rand.Rand
	}
}

// NewRouter returns a Router that knows of no controller yet. peers may be nil.
func NewRouter(nodeID int32, peers Peers, seed uint64) *Router {
	r := &Router{nodeID: nodeID, peers: peers, mostAtWork: maxAtWork}
	r.mu.leader, r.mu.offset, r.mu.changed = -1, -1, make(chan struct{})
	r.mu.random = rand.New(rand.NewPCG(seed, uint64(nodeID)))
	return r
}

// LimitMemory bounds the bytes of other nodes' requests that are decided here at a time, 128 MiB if it is not called. Past it they
// have to ask again. It is called before Use.
func (r *Router) LimitMemory(bytes int64) { r.mostAtWork = bytes }

// Use sets this node's own controller, before anything is asked, and answers other nodes with it.
func (r *Router) Use(local *Controller) {
	r.local = local
	if r.peers == nil {
		return
	}
	r.peers.Handle(kindRequest, peer.Answer(r.serveRequest))
	r.peers.Handle(kindOrder, peer.Answer(r.serveOrder))
}

// Leadership is told who leads the quorum.
func (r *Router) Leadership(l metadata.Leadership) { r.note(func() { r.mu.leader = l.Leader }) }

// Publish implements metadata.Publisher.
func (r *Router) Publish(_ context.Context, _ *metadata.Delta, img *metadata.Image) {
	r.note(func() { r.mu.offset = img.Offset() })
}

func (r *Router) note(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	close(r.mu.changed)
	r.mu.changed = make(chan struct{})
}

// look returns the controller's node, -1 where none is known.
func (r *Router) look() (leader int32, changed <-chan struct{}, pause time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pause = retryPause + time.Duration(r.mu.random.Int64N(int64(retryPause)))
	return r.mu.leader, r.mu.changed, pause
}

// seen waits until the local image has everything up to an offset.
func (r *Router) seen(ctx context.Context, offset int64) error {
	for {
		r.mu.Lock()
		at, changed := r.mu.offset, r.mu.changed
		r.mu.Unlock()
		if at >= offset {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for metadata up to offset %d, %d is here: %w", offset, at, context.Cause(ctx))
		}
	}
}

// route finds the controller and asks it. local is called if that is this node, at once where it is alone;
// remote asks another, and says false where that one is not the controller. Without a controller in time
// local answers, which then says so.
func (r *Router) route(ctx context.Context, local func() error, remote func(ctx context.Context, node int32) (bool, error)) error {
	for ctx.Err() == nil {
		leader, changed, pause := r.look()
		switch {
		case r.peers == nil:
			return local()
		case leader == r.nodeID && r.local.Active():
			if err := local(); !errors.Is(err, ErrNotController) {
				return err
			}
		case leader >= 0 && leader != r.nodeID:
			done, err := r.askWhile(ctx, changed, leader, remote)
			if done {
				return err
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return local()
}

// askWhile asks a node as long as it is the leader that we know. done is false where another has to be
// asked: that one was not the controller, or there is no connection to it any more. As from a Kafka
// broker, a request that was under way then is sent again.
func (r *Router) askWhile(ctx context.Context, changed <-chan struct{}, leader int32, remote func(context.Context, int32) (bool, error)) (done bool, err error) {
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	watching := make(chan struct{})
	go func() { // ends with this call
		defer close(watching)
		for asking.Err() == nil {
			select {
			case <-changed:
			case <-asking.Done():
				return
			}
			var now int32
			if now, changed, _ = r.look(); now != leader {
				cancel()
			}
		}
	}()
	done, err = remote(asking, leader)
	cancel()
	<-watching
	var refused *peer.RemoteError
	// What the other node says of the request itself it will say again.
	return done || errors.As(err, &refused), err
}

// ask takes a request of Kafka's to the controller, for which there are so many milliseconds.
func ask[Q kmsg.Request, R kmsg.Response](ctx context.Context, r *Router, millis int32, req Q, local func(context.Context, Q) (R, error)) (R, error) {
	ctx, cancel := within(ctx, millis)
	defer cancel()
	var response R
	whole := ctx // the asking ends when that node leads no more; an answer that has come is waited for all the same
	err := r.route(ctx, func() (err error) {
		if response, err = local(ctx, req); err == nil && sentAway(response) {
			return ErrNotController
		}
		return err
	}, func(ctx context.Context, node int32) (bool, error) {
		body := binary.BigEndian.AppendUint16(nil, uint16(req.Key()))
		body = binary.BigEndian.AppendUint16(body, uint16(req.GetVersion()))
		answer, err := r.peers.Call(ctx, node, kindRequest, req.AppendTo(body))
		if err != nil {
			return false, err
		}
		offset, rest, done := opened(answer)
		if !done {
			r.standAside(ctx, answer)
			return false, nil
		}
		_ = r.seen(whole, offset)
		decoded := req.ResponseKind()
		decoded.SetVersion(req.GetVersion())
		if err := decoded.ReadFrom(rest); err != nil {
			return true, &peer.RemoteError{Message: fmt.Sprintf("answer of node %d to %s: %v", node, kmsg.NameForKey(req.Key()), err)}
		}
		response = decoded.(R)
		return true, nil
	})
	if errors.Is(err, ErrNotController) { // to the end of the time, and the response says so
		err = nil
	}
	return response, err
}

// standAside waits before a request is sent again that the controller had no memory for.
func (r *Router) standAside(ctx context.Context, answer []byte) {
	if len(answer) == 0 || answer[0] != askedTooMuch {
		return
	}
	r.mu.Lock()
	pause := crowdedPause + time.Duration(r.mu.random.Int64N(int64(crowdedPause)))
	r.mu.Unlock()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// opened takes an answer apart: the offset that it is about, and the rest. done is false where who answered is not the
// controller. Who asked waits until the local image has that offset; where it does not get there in time the answer
// stands all the same, for the change is made.
func opened(answer []byte) (offset int64, rest []byte, done bool) {
	if len(answer) < answerHeadBytes || answer[0] != askedController {
		return 0, nil, false
	}
	return int64(binary.BigEndian.Uint64(answer[1:])), answer[answerHeadBytes:], true
}

// serveRequest answers another node's request of Kafka's.
func (r *Router) serveRequest(ctx context.Context, _ peer.Node, body []byte) ([]byte, error) {
	if !r.local.Active() {
		return []byte{0}, nil
	}
	if !r.claim(int64(len(body))) {
		return []byte{askedTooMuch}, nil
	}
	defer r.atWork.Add(-int64(len(body)))
	if len(body) < 4 {
		return nil, errors.New("a request without key and version")
	}
	key, version := int16(binary.BigEndian.Uint16(body)), int16(binary.BigEndian.Uint16(body[2:]))
	req := kmsg.RequestForKey(key)
	if req == nil {
		return nil, fmt.Errorf("there is no request with key %d", key)
	}
	req.SetVersion(version)
	if err := decodeRequest(req, body[4:]); err != nil {
		return nil, err
	}
	response, err := r.decide(ctx, req)
	if err != nil {
		return nil, err
	}
	if sentAway(response) {
		return []byte{0}, nil
	}
	return response.AppendTo(r.head()), nil
}

// claim takes memory for a request of another node's, unless too much is at work. One alone is always taken.
func (r *Router) claim(bytes int64) bool {
	if at := r.atWork.Add(bytes); at > bytes && at > r.mostAtWork {
		r.atWork.Add(-bytes)
		return false
	}
	return true
}

// decodeRequest reads what another node has sent. A panic of the decoder is that node's mistake.
func decodeRequest(req kmsg.Request, body []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decode %s version %d: %v", kmsg.NameForKey(req.Key()), req.GetVersion(), p)
		}
	}()
	if err := req.ReadFrom(body); err != nil {
		return fmt.Errorf("decode %s version %d: %w", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	return nil
}

func (r *Router) decide(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	switch q := req.(type) {
	case *kmsg.CreateTopicsRequest:
		return r.local.CreateTopics(ctx, q)
	case *kmsg.DeleteTopicsRequest:
		return r.local.DeleteTopics(ctx, q)
	case *kmsg.CreatePartitionsRequest:
		return r.local.CreatePartitions(ctx, q)
	case *kmsg.AlterConfigsRequest:
		return r.local.AlterConfigs(ctx, q)
	case *kmsg.IncrementalAlterConfigsRequest:
		return r.local.IncrementalAlterConfigs(ctx, q)
	case *kmsg.UpdateFeaturesRequest:
		return r.local.UpdateFeatures(ctx, q)
	case *kmsg.UnregisterBrokerRequest:
		return r.local.UnregisterBroker(ctx, q)
	case *kmsg.ElectLeadersRequest:
		return r.local.ElectLeaders(ctx, q)
	case *kmsg.AlterPartitionAssignmentsRequest:
		return r.local.AlterPartitionReassignments(ctx, q)
	case *kmsg.ListPartitionReassignmentsRequest:
		return r.local.ListPartitionReassignments(ctx, q)
	}
	return nil, fmt.Errorf("the controller does not answer %s", kmsg.NameForKey(req.Key()))
}

func (r *Router) head() []byte {
	return binary.BigEndian.AppendUint64([]byte{askedController}, uint64(r.local.Image().Offset()))
}

// AutoCreateTopics makes topics because somebody uses them on this node.
func (r *Router) AutoCreateTopics(ctx context.Context, names []string) (*kmsg.CreateTopicsResponse, error) {
	var response *kmsg.CreateTopicsResponse
	err := r.order(ctx, &order{AutoCreate: names, Defaults: topicDefaultsOf(r.local.options.Config)}, func(ctx context.Context) (err error) {
		if response, err = r.local.AutoCreateTopics(ctx, names); err == nil && sentAway(response) {
			return ErrNotController
		}
		return err
	}, func(a *orderAnswer) error {
		response = kmsg.NewPtrCreateTopicsResponse()
		response.Version = response.MaxVersion()
		return response.ReadFrom(a.Response)
	})
	if errors.Is(err, ErrNotController) && response != nil {
		err = nil
	}
	return response, err
}

// AllocateProducerIDs gives a block of producer ids to a broker.
func (r *Router) AllocateProducerIDs(ctx context.Context, broker int32, epoch int64) (ids ProducerIDs, err error) {
	err = r.order(ctx, &order{Broker: broker, Epoch: epoch, ProducerIDs: true}, func(ctx context.Context) (err error) {
		ids, err = r.local.AllocateProducerIDs(ctx, broker, epoch)
		return err
	}, func(a *orderAnswer) error { ids = a.IDs; return nil })
	return ids, err
}

// RegisterBroker makes a broker one of the cluster and returns its epoch.
func (r *Router) RegisterBroker(ctx context.Context, one Registration) (epoch int64, err error) {
	err = r.order(ctx, &order{Register: &one}, func(ctx context.Context) (err error) {
		epoch, err = r.local.RegisterBroker(ctx, one)
		return err
	}, func(a *orderAnswer) error { epoch = a.Epoch; return nil })
	return epoch, err
}

// Heartbeat takes a broker's word that it is alive to the controller.
func (r *Router) Heartbeat(ctx context.Context, h metadata.Heartbeat) (alive metadata.HeartbeatAnswer, err error) {
	err = r.order(ctx, &order{Heartbeat: &h}, func(ctx context.Context) (err error) {
		alive, err = r.local.Heartbeat(ctx, h)
		return err
	}, func(a *orderAnswer) error {
		if a.Alive == nil {
			return errors.New("no answer to a heartbeat")
		}
		alive = *a.Alive
		return nil
	})
	return alive, err
}

// Alter puts proposals of this node's broker, registered in epoch, to the controller: see Controller.AlterISR.
func (r *Router) Alter(ctx context.Context, epoch int64, proposals []metadata.ISRProposal) (outcomes []metadata.ISROutcome, err error) {
	if len(proposals) == 0 {
		return nil, nil
	}
	err = r.order(ctx, &order{Broker: r.nodeID, Epoch: epoch, AlterISR: proposals}, func(ctx context.Context) (err error) {
		outcomes, err = r.local.AlterISR(ctx, r.nodeID, epoch, proposals)
		return err
	}, func(a *orderAnswer) error { outcomes = a.Outcomes; return nil })
	return outcomes, err
}

// AssignDirectories says where this node's broker, registered in epoch, keeps replicas: see Controller.AssignDirectories.
func (r *Router) AssignDirectories(ctx context.Context, epoch int64, places []metadata.ReplicaDirectory) error {
	if len(places) == 0 {
		return nil
	}
	return r.order(ctx, &order{Broker: r.nodeID, Epoch: epoch, Places: places}, func(ctx context.Context) error {
		return r.local.AssignDirectories(ctx, r.nodeID, epoch, places)
	}, func(*orderAnswer) error { return nil })
}

// UpdateDirectories says which log directories of a broker are online, and which take no new replicas.
func (r *Router) UpdateDirectories(ctx context.Context, broker int32, epoch int64, online, cordoned []metadata.UUID) error {
	o := &order{Broker: broker, Epoch: epoch, Directories: &directories{online, cordoned}}
	return r.order(ctx, o, func(ctx context.Context) error {
		return r.local.UpdateDirectories(ctx, broker, epoch, online, cordoned)
	}, func(*orderAnswer) error { return nil })
}

// Sync returns when the local image, which the replicas have been told of, has everything that was committed before the call.
// Errors: ErrTimedOut after ordersPatience, ctx's.
func (r *Router) Sync(ctx context.Context) error {
	var behind error
	err := r.order(ctx, &order{}, r.local.Sync, func(a *orderAnswer) error { behind = a.behind; return nil })
	return cmp.Or(err, behind)
}

// order takes a request of the cluster's own nodes to the controller.
func (r *Router) order(ctx context.Context, o *order, local func(context.Context) error, take func(*orderAnswer) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, ordersPatience, ErrTimedOut)
	defer cancel()
	whole := ctx // as in ask
	return r.route(ctx, func() error { return local(ctx) }, func(ctx context.Context, node int32) (bool, error) {
		o := *o
		if deadline, limited := ctx.Deadline(); limited { // who is asked need not work for somebody who has gone
			o.PatienceMs = max(time.Until(deadline).Milliseconds(), 1)
		}
		body, err := json.Marshal(o)
		if err != nil {
			panic(fmt.Sprintf("BUG: encode an order: %v", err))
		}
		answer, err := r.peers.Call(ctx, node, kindOrder, body)
		if err != nil {
			return false, err
		}
		offset, rest, done := opened(answer)
		if !done {
			return false, nil
		}
		var a orderAnswer
		if err = json.Unmarshal(rest, &a); err == nil && !o.quick(&a) {
			a.behind = r.seen(whole, offset)
		}
		if err == nil && a.Code != "" {
			return true, a.failure()
		}
		if err == nil {
			err = take(&a)
		}
		if err != nil {
			err = &peer.RemoteError{Message: fmt.Sprintf("answer of node %d: %v", node, err)}
		}
		return true, err
	})
}

// What clients ask of the controller, wherever it is. Each is answered as by the Controller's method of its name.

// alterMillis is alterTimeout for ask.
const alterMillis = int32(alterTimeout / time.Millisecond)

// CreateTopics makes topics.
func (r *Router) CreateTopics(ctx context.Context, req *kmsg.CreateTopicsRequest) (*kmsg.CreateTopicsResponse, error) {
	return ask(ctx, r, req.TimeoutMillis, req, r.local.CreateTopics)
}

// DeleteTopics deletes topics with their configs.
func (r *Router) DeleteTopics(ctx context.Context, req *kmsg.DeleteTopicsRequest) (*kmsg.DeleteTopicsResponse, error) {
	return ask(ctx, r, req.TimeoutMillis, req, r.local.DeleteTopics)
}

// CreatePartitions adds partitions to topics.
func (r *Router) CreatePartitions(ctx context.Context, req *kmsg.CreatePartitionsRequest) (*kmsg.CreatePartitionsResponse, error) {
	return ask(ctx, r, req.TimeoutMillis, req, r.local.CreatePartitions)
}

// AlterConfigs replaces all configs that resources have set.
func (r *Router) AlterConfigs(ctx context.Context, req *kmsg.AlterConfigsRequest) (*kmsg.AlterConfigsResponse, error) {
	return ask(ctx, r, alterMillis, req, r.local.AlterConfigs)
}

// IncrementalAlterConfigs changes single configs of resources.
func (r *Router) IncrementalAlterConfigs(ctx context.Context, req *kmsg.IncrementalAlterConfigsRequest) (*kmsg.IncrementalAlterConfigsResponse, error) {
	return ask(ctx, r, alterMillis, req, r.local.IncrementalAlterConfigs)
}

// UpdateFeatures sets finalised levels of features.
func (r *Router) UpdateFeatures(ctx context.Context, req *kmsg.UpdateFeaturesRequest) (*kmsg.UpdateFeaturesResponse, error) {
	return ask(ctx, r, req.TimeoutMillis, req, r.local.UpdateFeatures)
}

// UnregisterBroker removes a broker for good.
func (r *Router) UnregisterBroker(ctx context.Context, req *kmsg.UnregisterBrokerRequest) (*kmsg.UnregisterBrokerResponse, error) {
	return ask(ctx, r, alterMillis, req, r.local.UnregisterBroker)
}

// ElectLeaders gives partitions their preferred leaders, or those without a leader any.
func (r *Router) ElectLeaders(ctx context.Context, req *kmsg.ElectLeadersRequest) (*kmsg.ElectLeadersResponse, error) {
	return ask(ctx, r, req.TimeoutMillis, req, r.local.ElectLeaders)
}

// AlterPartitionReassignments moves partitions to other brokers, or stops that.
func (r *Router) AlterPartitionReassignments(ctx context.Context, req *kmsg.AlterPartitionAssignmentsRequest) (*kmsg.AlterPartitionAssignmentsResponse, error) {
	return ask(ctx, r, req.TimeoutMillis, req, r.local.AlterPartitionReassignments)
}

// ListPartitionReassignments lists what is being moved, as the controller knows it: whoever has just moved something by
// another broker finds it in the list.
func (r *Router) ListPartitionReassignments(ctx context.Context, req *kmsg.ListPartitionReassignmentsRequest) (*kmsg.ListPartitionReassignmentsResponse, error) {
	return ask(ctx, r, alterMillis, req, r.local.ListPartitionReassignments) // nothing is changed: as in Kafka, the request's own bound is not looked at
}
