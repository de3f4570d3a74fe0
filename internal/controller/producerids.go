package controller

import (
	"context"
	"fmt"
	"math"

	"barnabas/internal/metadata"
)

// producerIDBlock is how many producer ids a broker gets at once, as in Kafka.
const producerIDBlock = 1000

// ProducerIDs is a block of producer ids that belong to one broker: First and the Count-1 after it.
type ProducerIDs struct {
	First int64
	Count int32
}

type blockOrError struct {
	block ProducerIDs
	err   error
}

func allocateProducerIDs(v *view, broker int32, epoch int64) ([]metadata.Record, blockOrError) {
	if _, err := v.registered(broker, epoch); err != nil {
		return nil, blockOrError{err: err}
	}
	first := v.image.NextProducerID()
	if first > math.MaxInt64-producerIDBlock {
		return nil, blockOrError{err: ErrProducerIDsExhausted}
	}
	record := &metadata.ProducerIDsRecord{Broker: broker, BrokerEpoch: epoch, Next: first + producerIDBlock}
	return []metadata.Record{record}, blockOrError{block: ProducerIDs{first, producerIDBlock}}
}

// registered finds the registration that a broker means when it speaks.
func (v *view) registered(id int32, epoch int64) (*metadata.Broker, error) {
	b, ok := v.image.Broker(id)
	switch {
	case !ok:
		return nil, fmt.Errorf("broker %d: %w", id, ErrUnknownBroker)
	case b.Epoch != epoch:
		return nil, fmt.Errorf("broker %d in epoch %d, which is %d now: %w", id, epoch, b.Epoch, ErrStaleBrokerEpoch)
	}
	return b, nil
}

// ProducerIDAllocator gives out the producer ids of one broker, one by one, and asks for another
// block when it has none left. What is left of a block is forgotten when the process ends. It is
// safe for concurrent use.
type ProducerIDAllocator struct {
	fetch func(context.Context) (ProducerIDs, error)
	// left holds the ids not given out. Who takes them puts them back; meanwhile others wait, so
	// that a fetch happens once for all of them and under no lock.
	left chan ProducerIDs
}

// NewProducerIDAllocator returns an allocator that gets its blocks from fetch.
func NewProducerIDAllocator(fetch func(context.Context) (ProducerIDs, error)) *ProducerIDAllocator {
	a := &ProducerIDAllocator{fetch: fetch, left: make(chan ProducerIDs, 1)}
	a.left <- ProducerIDs{}
	return a
}

// Next returns an id that nobody has got before. It waits for a block for as long as ctx allows;
// after an error the next call tries again.
func (a *ProducerIDAllocator) Next(ctx context.Context) (int64, error) {
	var ids ProducerIDs
	select {
	case ids = <-a.left:
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for a producer id: %w", context.Cause(ctx))
	}
	defer func() { a.left <- ids }()
	if ids.Count == 0 {
		block, err := a.fetch(ctx)
		if err != nil {
			return 0, fmt.Errorf("get a block of producer ids: %w", err)
		}
		ids = block
	}
	id := ids.First
	ids.First++
	ids.Count--
	return id, nil
}
