// Package share reads topics as a member of a share group (KIP-932): records are handed out one by
// one, to any number of members over any number of partitions, and each is acknowledged by itself, as
// from a queue. A record is held by one member for as long as its acquisition lock lasts; when it is
// released, or the lock runs out, somebody gets it again, up to the group's limit of deliveries.
//
//	q, err := share.NewConsumer(c, "thumbnails", share.Explicit())
//	err = q.Subscribe("pictures")
//	for {
//		records, err := q.Poll(ctx)
//		for i := range records {
//			err = q.Acknowledge(share.Accept, &records[i])
//		}
//	}
//
// It stands on a client.Client. It decides when records are acquired, and what an acknowledgement
// meets that comes too late; what a group delivers, where it begins and how long locks last, the
// brokers decide: share.auto.offset.reset, share.record.lock.duration.ms, share.isolation.level and
// group.share.delivery.count.limit. It refuses to know offsets of a group, of which a member has none to
// commit.
//
// Brokers: Apache Kafka from 4.1 on (share.version 1); renewals and RecordLimit from 4.2 on. Elsewhere
// Poll returns client.ErrUnsupportedVersion. What is kept for each session and record is decided in
// client/internal/sharesession, what a member tells its group in client/internal/sharemember.
package share

import (
	"errors"
	"time"

	"barnabas/client"
	"barnabas/client/internal/sharesession"
)

// Record is a record that was acquired for this consumer. Copies of it stand for the same delivery.
type Record struct {
	client.Record

	// DeliveryCount is the how-manieth delivery this is, to whichever members: 1 the first time.
	// Kafka: deliveryCount.
	DeliveryCount int16

	// LockedUntil is until when the record is held, counted from when the broker's answer arrived.
	// Renew moves the lock's end, not this field. Zero where the broker does not say.
	LockedUntil time.Time

	held *sharesession.Held
}

// Acknowledgement is what a program says about a record. Kafka: AcknowledgeType.
type Acknowledgement int8

// The acknowledgements.
const (
	// Accept: the record is done with.
	Accept = Acknowledgement(sharesession.Accept)
	// Release: not now; it is delivered again, to whomever.
	Release = Acknowledgement(sharesession.Release)
	// Reject: never; it is not delivered again.
	Reject = Acknowledgement(sharesession.Reject)
	// Renew: it takes longer; the acquisition lock begins anew when the broker has answered (KIP-1222).
	// The record stays the program's, which has to acknowledge it finally, or to renew it again; later
	// calls of Poll neither return nor ask for it. (Java's consumer returns it from the next poll.)
	Renew = Acknowledgement(sharesession.Renew)
)

// String gives Kafka's name, as in "accept".
func (a Acknowledgement) String() string {
	switch a {
	case Accept:
		return "accept"
	case Release:
		return "release"
	case Reject:
		return "reject"
	case Renew:
		return "renew"
	}
	return "unknown"
}

// Result is what became of acknowledgements of one partition.
type Result struct {
	client.TopicPartition
	Offsets []int64 // ascending

	// Err is nil where the broker took them. Otherwise whatever was said about these records is void:
	// ErrLost; client.ErrUnsupportedVersion for Renew; or what the broker answered.
	Err error
}

var (
	// ErrLost says that a record is not held by this consumer any more: its lock has run out, the
	// session with the broker that acquired it has ended, another broker leads the partition, or the
	// consumer is closed. The reason is in the chain, for instance client.ErrInvalidRecordState,
	// client.ErrNotLeaderOrFollower or client.ErrClosed. The record is delivered again.
	ErrLost = sharesession.ErrLost

	// ErrAcknowledged answers Acknowledge for a record of which something final has been sent.
	ErrAcknowledged = sharesession.ErrAcknowledged

	// ErrUnacknowledged answers Poll of an Explicit consumer while records of the Poll before are not
	// acknowledged. Kafka: IllegalStateException.
	ErrUnacknowledged = errors.New("records of the Poll before are not acknowledged")

	// ErrImplicit answers Acknowledge of a consumer that is not Explicit. Kafka: IllegalStateException.
	ErrImplicit = errors.New("the consumer acknowledges by itself (share.acknowledgement.mode=implicit)")

	// ErrNotDelivered answers Acknowledge for a record that no Poll has returned.
	ErrNotDelivered = errors.New("the record was not returned by Poll")
)
