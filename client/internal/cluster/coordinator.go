package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/errcode"
)

// CoordinatorKind says for what a broker is the coordinator; the numbers are those of the protocol.
type CoordinatorKind int8

// The kinds of coordinators.
const (
	GroupCoordinator       CoordinatorKind = 0
	TransactionCoordinator CoordinatorKind = 1
)

// firstFindCoordinatorOfMany is the version of FindCoordinator from which it asks for several.
const firstFindCoordinatorOfMany = 4

// FindCoordinator asks any broker which one coordinates a group or a transactional id. The broker
// found can be reached by its number from then on.
func (c *Cluster) FindCoordinator(ctx context.Context, kind CoordinatorKind, key string) (int32, error) {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorType = int8(kind)
	req.CoordinatorKey, req.CoordinatorKeys = key, []string{key}
	resp, err := c.RequestAny(ctx, req)
	if err != nil {
		return -1, err
	}
	answer := resp.(*kmsg.FindCoordinatorResponse)
	found := kmsg.FindCoordinatorResponseCoordinator{
		NodeID: answer.NodeID, Host: answer.Host, Port: answer.Port, ErrorCode: answer.ErrorCode, ErrorMessage: answer.ErrorMessage,
	}
	if answer.Version >= firstFindCoordinatorOfMany {
		if len(answer.Coordinators) != 1 {
			return -1, fmt.Errorf("%w: the answer names %d coordinators", errcode.CoordinatorNotAvailable, len(answer.Coordinators))
		}
		found = answer.Coordinators[0]
	}
	if err := errcode.Of(found.ErrorCode, found.ErrorMessage); err != nil {
		return -1, err
	}
	c.Metadata.AddBroker(Broker{ID: found.NodeID, Address: JoinHostPort(found.Host, found.Port)})
	return found.NodeID, nil
}

// LostCoordinator tells whether an error means that another broker is to be asked.
func LostCoordinator(err error) bool {
	var code errcode.Error
	if !errors.As(err, &code) {
		return true
	}
	switch code {
	case errcode.NotCoordinator, errcode.CoordinatorNotAvailable, errcode.Network:
		return true
	}
	return false
}

// Coordinators asks coordinators and remembers which brokers they are, over links of its own: an
// answer that takes long, to a Produce with acks=all or to a Fetch, holds up nothing here. It is
// safe for concurrent use. Close it.
type Coordinators struct {
	c     *Cluster
	links *Links

	mu    sync.Mutex // never held while asking
	nodes map[coordinated]int32
}

type coordinated struct {
	kind CoordinatorKind
	key  string
}

// NewCoordinators knows no coordinator yet. meter may be nil.
func NewCoordinators(c *Cluster, meter Meter) *Coordinators {
	return &Coordinators{c: c, links: NewLinks(c, meter), nodes: map[coordinated]int32{}}
}

// Close ends the connections.
func (cs *Coordinators) Close() { cs.links.Close() }

// concurrentTransactionsBackoff is the first wait for the end of the transaction before, doubled up
// to retry.backoff.ms: it is often still being written, which takes no long wait.
const concurrentTransactionsBackoff = 10 * time.Millisecond

// Ask sends a request to a coordinator, in a version of at most limit (-1: no limit), again and
// again while that may help and ctx lasts. check finds the error inside an answer.
func (cs *Coordinators) Ask(ctx context.Context, kind CoordinatorKind, key string, req kmsg.Request, limit int16, check func(kmsg.Response) error) (kmsg.Response, error) {
	of := coordinated{kind, key}
	for failures := 1; ; failures++ {
		resp, err := cs.askOnce(ctx, of, req, limit)
		if err == nil {
			if err = check(resp); err == nil {
				return resp, nil
			}
		}
		if errors.Is(err, ErrClosed) {
			return nil, err
		}
		if LostCoordinator(err) {
			cs.mu.Lock()
			delete(cs.nodes, of)
			cs.mu.Unlock()
		}
		if ctx.Err() == nil && !errcode.Retriable(err) && !errors.Is(err, ErrNoBrokers) && !errors.Is(err, ErrUnknownBroker) {
			return nil, err
		}
		wait := cs.c.cfg.RetryBackoff.After(failures, cs.c.Random)
		if errors.Is(err, errcode.ConcurrentTransactions) {
			wait = min(wait, concurrentTransactionsBackoff<<min(failures-1, 5))
		}
		if ended := Sleep(ctx, wait); ended != nil {
			return nil, fmt.Errorf("%w; the last attempt: %w", ended, err)
		}
	}
}

func (cs *Coordinators) askOnce(ctx context.Context, of coordinated, req kmsg.Request, limit int16) (kmsg.Response, error) {
	cs.mu.Lock()
	node, known := cs.nodes[of]
	cs.mu.Unlock()
	if !known {
		var err error
		if node, err = cs.c.FindCoordinator(ctx, of.kind, of.key); err != nil {
			return nil, err
		}
		cs.mu.Lock()
		cs.nodes[of] = node
		cs.mu.Unlock()
	}
	l, err := cs.links.Node(node)
	if err != nil {
		return nil, err
	}
	conn, err := l.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return conn.Ask(ctx, req, limit)
}
