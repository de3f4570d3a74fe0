package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"barnabas/client/internal/assignor"
)

// GroupOption sets something of a GroupConsumer. Every ConsumerOption is one too.
type GroupOption interface {
	applyToGroup(c *groupConfig) error
}

func (o ConsumerOption) applyToGroup(c *groupConfig) error { return o(&c.consumer) }

type groupOption func(*groupConfig) error

func (o groupOption) applyToGroup(c *groupConfig) error { return o(c) }

// Assignor is a way to divide partitions among the members of a group. All members of a group must
// share at least one; the group's brokers choose the one that most members prefer.
type Assignor string

// Kafka's assignors, under the names by which members of a group agree on one.
const (
	// RangeAssignor divides topic by topic; partition n of topics with equally many partitions goes
	// to one member, which joins need. Partitions of a member's rack come first (KIP-881).
	RangeAssignor Assignor = "range"
	// RoundRobinAssignor deals the partitions of all topics out in turn.
	RoundRobinAssignor Assignor = "roundrobin"
	// StickyAssignor divides evenly and moves as little as it can (KIP-54).
	StickyAssignor Assignor = "sticky"
	// CooperativeStickyAssignor is StickyAssignor without a pause: a rebalance takes away only what
	// moves, and the rest is read on (KIP-429). It works so where it is the only one of a member's
	// assignors; listed beside others it divides the same, but everything is given up first, which
	// is how a running group changes over: first all members get both, then all of them it alone.
	CooperativeStickyAssignor Assignor = "cooperative-sticky"
)

// Rebalance is called about partitions, sorted, that a member gets or has to give up. See
// OnAssigned, OnRevoked and OnLost. ctx ends when the group will not wait any longer.
type Rebalance func(ctx context.Context, g *GroupConsumer, partitions []TopicPartition)

// Protocol is how the members of a group and its coordinator talk. Kafka: group.protocol.
type Protocol string

// The two protocols of groups.
const (
	// ClassicProtocol has a member divide the partitions, by one of the Assignors. Every broker has it.
	ClassicProtocol Protocol = "classic"
	// ConsumerProtocol has the group's coordinator divide them, so that a rebalance takes from each
	// member only what moves and stops nobody else (KIP-848). Apache Kafka has it from 4.0 on. Sessions
	// and heartbeats are as long as the brokers say (group.consumer.session.timeout.ms,
	// group.consumer.heartbeat.interval.ms). OnAssigned is called only when there is something new.
	ConsumerProtocol Protocol = "consumer"
)

// The assignors that every coordinator of the consumer protocol has.
const (
	// UniformRemoteAssignor divides evenly and moves as little as it can.
	UniformRemoteAssignor = "uniform"
	// RangeRemoteAssignor divides topic by topic, as RangeAssignor does.
	RangeRemoteAssignor = "range"
)

type groupConfig struct {
	consumer          consumerConfig
	protocol          Protocol
	remoteAssignor    string
	classicOnly       []string // settings that were set and mean nothing in the other protocol
	instanceID        string
	assignors         []assignor.Assignor
	sessionTimeout    time.Duration
	heartbeatInterval time.Duration
	maxPollInterval   time.Duration
	autoCommit        bool
	autoCommitEvery   time.Duration
	internalTopics    bool
	onAssigned        Rebalance
	onRevoked         Rebalance
	onLost            Rebalance
}

func defaultGroupConfig() groupConfig {
	return groupConfig{
		consumer:          defaultConsumerConfig(),
		protocol:          ClassicProtocol,
		assignors:         []assignor.Assignor{assignor.Range{}, assignor.CooperativeSticky{}},
		sessionTimeout:    45 * time.Second,
		heartbeatInterval: 3 * time.Second,
		maxPollInterval:   5 * time.Minute,
		autoCommit:        true,
		autoCommitEvery:   5 * time.Second,
	}
}

func (c *groupConfig) check() error {
	switch {
	case c.protocol == ConsumerProtocol && len(c.classicOnly) > 0:
		return fmt.Errorf("%s: not with group.protocol=consumer, where the brokers decide", c.classicOnly[0])
	case c.protocol == ClassicProtocol && c.remoteAssignor != "":
		return errors.New("group.remote.assignor: only with group.protocol=consumer")
	}
	if c.heartbeatInterval >= c.sessionTimeout {
		return fmt.Errorf("heartbeat.interval.ms (%v) must be less than session.timeout.ms (%v)", c.heartbeatInterval, c.sessionTimeout)
	}
	return nil
}

// GroupProtocol chooses the protocol. Default ClassicProtocol. With ConsumerProtocol the options
// Assignors, SessionTimeout and HeartbeatInterval are errors, since the brokers decide; where these
// do not have it, Poll returns ErrUnsupportedVersion. Kafka: group.protocol.
func GroupProtocol(p Protocol) GroupOption {
	return groupOption(func(c *groupConfig) error {
		if p != ClassicProtocol && p != ConsumerProtocol {
			return fmt.Errorf("group.protocol: %q is neither classic nor consumer", p)
		}
		c.protocol = p
		return nil
	})
}

// RemoteAssignor names the assignor that the group's coordinator is to use, UniformRemoteAssignor,
// RangeRemoteAssignor or one that the brokers were given. The one that most members name counts.
// Default: the coordinator chooses. Only with ConsumerProtocol. Kafka: group.remote.assignor.
func RemoteAssignor(name string) GroupOption {
	return groupOption(func(c *groupConfig) error { c.remoteAssignor = name; return nil })
}

// InstanceID makes the member a static one (KIP-345): when it comes back under the same id within
// SessionTimeout it gets its partitions back without a rebalance, so Close does not leave the
// group. Two consumers with one id: with ClassicProtocol they fence each other off, and the older
// one's Poll returns ErrFencedInstanceID; with ConsumerProtocol the later one's returns
// ErrUnreleasedInstanceID, also when the earlier one was killed and its session lasts.
// Default: none. Kafka: group.instance.id.
func InstanceID(id string) GroupOption {
	return groupOption(func(c *groupConfig) error {
		if id == "" {
			return errors.New("group.instance.id is empty")
		}
		c.instanceID = id
		return nil
	})
}

// Assignors are the assignors that this member can work with, the preferred first. Default
// RangeAssignor, CooperativeStickyAssignor. Kafka: partition.assignment.strategy.
func Assignors(list ...Assignor) GroupOption {
	return groupOption(func(c *groupConfig) error {
		c.assignors = nil
		c.classicOnly = append(c.classicOnly, "partition.assignment.strategy")
		for _, name := range list {
			a := assignor.ByName(string(name))
			if a == nil {
				return fmt.Errorf("partition.assignment.strategy: %q is none of range, roundrobin, sticky, cooperative-sticky", name)
			}
			c.assignors = append(c.assignors, a)
		}
		if len(c.assignors) == 0 {
			return errors.New("partition.assignment.strategy: at least one assignor is needed")
		}
		return nil
	})
}

// SessionTimeout is after how long without a heartbeat the group takes the member for dead and
// gives its partitions to others. Brokers bound it (group.min.session.timeout.ms, 6 seconds by
// default, and group.max.session.timeout.ms). Default 45 seconds. Kafka: session.timeout.ms.
func SessionTimeout(d time.Duration) GroupOption {
	return classicDuration("session.timeout.ms", d, func(c *groupConfig) *time.Duration { return &c.sessionTimeout })
}

// HeartbeatInterval is how often the member tells the group that it lives, whether the program
// polls or not. Less than SessionTimeout, best a third of it or less. Default 3 seconds.
// Kafka: heartbeat.interval.ms.
func HeartbeatInterval(d time.Duration) GroupOption {
	return classicDuration("heartbeat.interval.ms", d, func(c *groupConfig) *time.Duration { return &c.heartbeatInterval })
}

// MaxPollInterval is how long a program may stay away from Poll before its member gives its
// partitions up and leaves; the next Poll joins again. It is also how long a rebalance waits for
// the member. Default 5 minutes. Kafka: max.poll.interval.ms.
func MaxPollInterval(d time.Duration) GroupOption {
	return groupDuration("max.poll.interval.ms", d, func(c *groupConfig) *time.Duration { return &c.maxPollInterval })
}

// AutoCommit commits what Poll has returned, once every so often, when partitions are given up and
// in Close. A record counts as done with when the next Poll is called. Default: on, every
// 5 seconds. Kafka: enable.auto.commit and auto.commit.interval.ms.
func AutoCommit(every time.Duration) GroupOption {
	return groupOption(func(c *groupConfig) error {
		if every <= 0 {
			return fmt.Errorf("auto.commit.interval.ms: %v is not above 0; NoAutoCommit switches it off", every)
		}
		c.autoCommit, c.autoCommitEvery = true, every
		return nil
	})
}

// NoAutoCommit leaves committing to the program. Kafka: enable.auto.commit=false.
func NoAutoCommit() GroupOption {
	return groupOption(func(c *groupConfig) error { c.autoCommit = false; return nil })
}

// InternalTopics lets SubscribeMatching find topics such as __consumer_offsets. Default: it does
// not; with ConsumerProtocol the coordinator matches, and finds them in any case. Kafka: exclude.internal.topics=false.
func InternalTopics() GroupOption {
	return groupOption(func(c *groupConfig) error { c.internalTopics = true; return nil })
}

// OnAssigned is called after every rebalance with the partitions that were added, perhaps none.
// They are read from where the group has committed, unless f seeks. Poll and Close call it, on
// their own goroutine; f must call neither. Kafka: onPartitionsAssigned.
func OnAssigned(f Rebalance) GroupOption {
	return groupOption(func(c *groupConfig) error { c.onAssigned = f; return nil })
}

// OnRevoked is called with partitions that are to be given up. Until f returns nobody else gets
// them, so f can finish its work on their records and commit; heartbeats go on meanwhile, for at
// most MaxPollInterval. With AutoCommit what Poll returned has been committed before f. Poll and
// Close call it, on their own goroutine; f must call neither. Kafka: onPartitionsRevoked.
func OnRevoked(f Rebalance) GroupOption {
	return groupOption(func(c *groupConfig) error { c.onRevoked = f; return nil })
}

// OnLost is called with partitions that are this member's no longer, without a chance to commit:
// the group took it for dead, or the program stayed away from Poll for too long. Others may have
// them already. Default: what OnRevoked was given. Kafka: onPartitionsLost.
func OnLost(f Rebalance) GroupOption {
	return groupOption(func(c *groupConfig) error { c.onLost = f; return nil })
}

func classicDuration(key string, d time.Duration, field func(*groupConfig) *time.Duration) GroupOption {
	return groupOption(func(c *groupConfig) error {
		c.classicOnly = append(c.classicOnly, key)
		return groupDuration(key, d, field).applyToGroup(c)
	})
}

func groupDuration(key string, d time.Duration, field func(*groupConfig) *time.Duration) GroupOption {
	return groupOption(func(c *groupConfig) error {
		if d < time.Millisecond || d > math.MaxInt32*time.Millisecond {
			return fmt.Errorf("%s: %v is not between 1ms and %v", key, d, math.MaxInt32*time.Millisecond)
		}
		*field(c) = d
		return nil
	})
}
