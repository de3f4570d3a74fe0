package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"barnabas/internal/metadata"
	"barnabas/internal/peer"
	"barnabas/internal/quorum"
)

// order is what a node of the cluster asks of the controller on another: one of the fields says what.
// Without any it asks for nothing but the newest offset.
type order struct {
	PatienceMs  int64         `json:"patienceMs,omitempty"` // for which the answer is waited for; 0: ordersPatience
	Broker      int32         `json:"broker,omitempty"`
	Epoch       int64         `json:"epoch,omitempty"`
	Register    *Registration `json:"register,omitempty"`
	Directories *directories  `json:"directories,omitempty"`
	ProducerIDs bool          `json:"producerIds,omitempty"`
	AutoCreate  []string      `json:"autoCreate,omitempty"`
	Defaults    topicDefaults `json:"defaults,omitzero"` // of the broker that AutoCreate comes from

	Heartbeat *metadata.Heartbeat         `json:"heartbeat,omitempty"`
	AlterISR  []metadata.ISRProposal      `json:"alterIsr,omitempty"` // of Broker, registered in Epoch
	Places    []metadata.ReplicaDirectory `json:"places,omitempty"`
}

// of is the broker that an order is about, which is who sends it; any where it does not matter.
func (o *order) of(any int32) int32 {
	switch {
	case o.Register != nil:
		return o.Register.ID
	case o.Heartbeat != nil:
		return o.Heartbeat.Broker
	case o.Directories != nil, o.ProducerIDs, len(o.AlterISR) > 0, len(o.Places) > 0:
		return o.Broker
	}
	return any
}

// quick: the answer is of use before the local image has what it is about.
func (o *order) quick(a *orderAnswer) bool {
	return o.Heartbeat != nil && a.Code == "" && a.Alive != nil && !a.Alive.MayShutDown
}

type directories struct {
	Online   []metadata.UUID `json:"online"`
	Cordoned []metadata.UUID `json:"cordoned"`
}

// orderAnswer is the answer; with a Code it is an error's.
type orderAnswer struct {
	Code     string      `json:"code,omitempty"`
	Message  string      `json:"message,omitempty"`
	Epoch    int64       `json:"epoch,omitempty"`
	IDs      ProducerIDs `json:"ids"`
	Response []byte      `json:"response,omitempty"` // of Kafka's, at its newest version

	Alive    *metadata.HeartbeatAnswer `json:"alive,omitempty"`
	Outcomes []metadata.ISROutcome     `json:"outcomes,omitempty"`

	behind error // why the local image has not all that the answer is about; what was asked for took effect
}

// codes are the errors that travel, so that a caller far away can decide as one on this node.
var codes = map[string]error{
	"not controller": ErrNotController, "timed out": ErrTimedOut, "closed": ErrClosed, "unknown broker": ErrUnknownBroker,
	"stale broker epoch": ErrStaleBrokerEpoch, "invalid registration": ErrInvalidRegistration, "duplicate broker": ErrDuplicateBroker, "no producer ids": ErrProducerIDsExhausted,
	"no space": quorum.ErrNoSpace, "busy": quorum.ErrBusy, "too large": quorum.ErrTooLarge,
}

const otherFailure = "other"

func failed(err error) *orderAnswer {
	a := &orderAnswer{Code: otherFailure, Message: err.Error()}
	for code, is := range codes {
		if errors.Is(err, is) {
			a.Code = code
			break
		}
	}
	return a
}

// failure is the error that an answer stands for.
func (a *orderAnswer) failure() error {
	if is, known := codes[a.Code]; known {
		return fmt.Errorf("the controller: %s: %w", a.Message, is)
	}
	return &peer.RemoteError{Message: a.Message}
}

// serveOrder answers another node's order.
func (r *Router) serveOrder(ctx context.Context, from peer.Node, body []byte) ([]byte, error) {
	if !r.local.Active() {
		return []byte{0}, nil
	}
	var o order
	if err := json.Unmarshal(body, &o); err != nil {
		return nil, fmt.Errorf("an order of another node: %w", err)
	}
	if o.of(from.ID) != from.ID {
		return nil, fmt.Errorf("node %d speaks for broker %d", from.ID, o.of(from.ID))
	}
	patience := ordersPatience
	if o.PatienceMs > 0 {
		patience = min(patience, time.Duration(o.PatienceMs)*time.Millisecond)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, ErrTimedOut)
	defer cancel()
	a, err := r.carryOut(ctx, &o)
	switch {
	case errors.Is(err, ErrNotController), errors.Is(err, ErrClosed): // this node's end is none of the one that asks
		return []byte{0}, nil // whoever is it now can be asked: all of these may be asked twice
	case err != nil:
		a = failed(err)
	}
	text, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("answer an order of another node: %w", err)
	}
	return append(r.head(), text...), nil
}

func (r *Router) carryOut(ctx context.Context, o *order) (*orderAnswer, error) {
	a := &orderAnswer{}
	var err error
	switch {
	case o.Register != nil:
		o.Register.Fenced = true // who is elsewhere may not know yet what is known here
		a.Epoch, err = r.local.RegisterBroker(ctx, *o.Register)
	case o.Heartbeat != nil:
		var alive metadata.HeartbeatAnswer
		alive, err = r.local.Heartbeat(ctx, *o.Heartbeat)
		a.Alive = &alive
	case len(o.AlterISR) > 0:
		a.Outcomes, err = r.local.AlterISR(ctx, o.Broker, o.Epoch, o.AlterISR)
	case o.Directories != nil:
		err = r.local.UpdateDirectories(ctx, o.Broker, o.Epoch, o.Directories.Online, o.Directories.Cordoned)
	case o.ProducerIDs:
		a.IDs, err = r.local.AllocateProducerIDs(ctx, o.Broker, o.Epoch)
	case len(o.Places) > 0:
		err = r.local.AssignDirectories(ctx, o.Broker, o.Epoch, o.Places)
	case len(o.AutoCreate) > 0:
		res, createErr := r.local.autoCreate(ctx, o.AutoCreate, o.Defaults)
		if err = createErr; err == nil && sentAway(res) {
			err = ErrNotController
		} else if err == nil {
			res.Version = res.MaxVersion()
			a.Response = res.AppendTo(nil)
		}
	default:
		err = r.local.Sync(ctx)
	}
	return a, err
}

// Sync waits until everything that this controller has decided is committed, and the others have said since that it
// is the controller: without that another may have been elected, and have decided more.
func (c *Controller) Sync(ctx context.Context) error {
	epoch, err := submit(ctx, c, false, func(v *view) ([]metadata.Record, int32) { return nil, v.epoch })
	if err != nil {
		return err
	}
	err = c.log.Confirm(ctx, epoch)
	if errors.Is(err, quorum.ErrNotLeader) || errors.Is(err, quorum.ErrClosed) {
		return ErrNotController
	}
	return err
}
