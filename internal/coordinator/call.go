package coordinator

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/coordinator/group"
	"barnabas/internal/replica"
)

// Call is one request on its way to a partition and back. It has taken effect, or will, whether
// anybody waits for it or not.
type Call struct {
	from    group.Client
	request kmsg.Request
	bytes   int64
	wait    time.Duration // for the commit of what the answer tells of

	partition *partition // nil where the request was refused at once
	token     group.Token

	done chan struct{} // closed when what follows is known
	// Written before done is closed.
	answer group.Reply
	needs  int64 // an answer that tells of records holds once everything below this offset is committed
	err    error
}

// refused is a call that was not let in.
func refused(err error) *Call {
	c := &Call{err: err, done: make(chan struct{})}
	close(c.done)
	return c
}

// complete lets a call's answer go. Only the partition's goroutine does.
func (c *Call) complete(answer group.Reply, needs int64, err error) {
	c.answer, c.needs, c.err = answer, needs, err
	c.request = nil // the shard has copied what it keeps
	close(c.done)
}

const (
	// longestTopic is how long a topic's name may be.
	longestTopic = 249
	// commitOverhead is more than a committed offset takes beside names and note.
	commitOverhead = 128
	// otherRecords is more than the records usually take that follow from a request other than a commit.
	otherRecords = 16 << 10
)

// mostRecordBytes is about as much as the records can take that follow from the request.
func (c *Call) mostRecordBytes() int {
	size := int(c.bytes)
	q, commits := c.request.(*kmsg.OffsetCommitRequest)
	if !commits {
		return size + otherRecords
	}
	for i := range q.Topics {
		name := len(q.Topics[i].Topic)
		if name == 0 { // named by its id
			name = longestTopic
		}
		size += len(q.Topics[i].Partitions) * (len(q.Group) + name + commitOverhead)
	}
	return size
}

// Ready reports whether Await will not wait.
func (c *Call) Ready() bool {
	select {
	case <-c.done:
		return c.err != nil || !c.answer.Committed || c.partition.replica.Committed(c.needs, c.partition.epoch)
	default:
		return false
	}
}

// Await waits for the answer, however long a group takes for it (a JoinGroup waits for the other
// members), and then until what it tells of is committed; where that fails the answer says so. When
// ctx ends first, nobody waits any more, and the shard is told.
// Errors: ErrNotCoordinator, ErrLoading, ErrBusy: there is no answer; and ctx's.
func (c *Call) Await(ctx context.Context) (kmsg.Response, error) {
	select {
	case <-c.done:
	default:
		select {
		case <-c.done:
		case <-ctx.Done():
			c.partition.forget(c)
			return nil, fmt.Errorf("wait for the coordinator %v: %w", c.partition, ctx.Err())
		}
	}
	if c.err != nil {
		return nil, c.err
	}
	if !c.answer.Committed {
		return c.answer.Response, nil
	}
	// That there is nothing yet is told of records too: a log that is empty here may have some at the next coordinator.
	err := c.awaitCommitted(ctx)
	switch {
	case err == nil:
		return c.answer.Response, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("wait for the coordinator %v: %w", c.partition, ctx.Err())
	}
	return c.answer.Refused(failureCode(err)).Response, nil
}

// awaitCommitted waits for offsets.commit.timeout.ms at most. After an error the records may yet be committed.
func (c *Call) awaitCommitted(ctx context.Context) error {
	p := c.partition
	if !p.replica.Committed(c.needs, p.epoch) {
		limited, cancel := context.WithTimeout(ctx, c.wait)
		err := p.replica.AwaitCommitted(limited, c.needs, p.epoch)
		cancel()
		if err != nil {
			return err
		}
	}
	// Who does not lead any more may have read what another coordinator has changed since.
	if epoch, err := p.replica.LeaderEpoch(-1); err != nil || epoch != p.epoch {
		return fmt.Errorf("%v was lost while the answer waited: %w", p, replica.ErrNotLeader)
	}
	if p.replica.InDoubt() {
		return fmt.Errorf("%v while the answer waited: %w", p, replica.ErrCutOff)
	}
	return nil
}
