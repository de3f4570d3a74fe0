// Package client talks to Barnabas and to Apache Kafka: it sends records, reads them, and knows
// the cluster. A Client holds what is shared; producers and consumers are made from it, and
// client/admin does the rest.
//
//	c, err := client.New(client.Brokers("127.0.0.1:9092"))
//	p, err := c.NewProducer()
//	err = p.Send(ctx, client.ProducerRecord{Topic: "orders", Key: key, Value: value},
//		func(m client.RecordMetadata, err error) { … })
//
//	g, err := c.NewGroupConsumer("billing")
//	err = g.Subscribe("orders")
//	records, err := g.Poll(ctx)
//
// A Producer with TransactionalID writes to several partitions, and commits what it has read, all
// or nothing:
//
//	err := p.InitTransactions(ctx)
//	err = p.Begin()
//	err = p.Send(ctx, …)
//	err = p.SendOffsets(ctx, offsets, g.Membership())
//	err = p.Commit(ctx)
//
// A Consumer reads the partitions that it is told to; a GroupConsumer shares topics with the other
// members of a group.
//
// It decides how records become batches and batches requests, which broker gets them, and what is
// tried again; it is for programs and for the command line. It refuses to know what records mean,
// and nothing of how a broker works inside: whatever it learns comes over Kafka's protocol.
//
// Connections are made with TLS and SASL by the options TLS, TLSWith and SASL; package client/sasl has the mechanisms.
//
// The public package is what users call, the producer's five steps (see Producer) and the goroutines
// and requests of consumers. What can be decided without them is decided in client/internal:
//
//	cluster       which brokers there are, how they are reached, who leads what
//	secure        whether client and broker believe each other
//	partitioner   which partition a record goes to
//	accumulator   which batch of a partition is sent next, under which number, and how often
//	transaction   what a transactional producer may do, and how its transaction ends
//	prefetch      what a consumer has fetched, where it stands, what a broker is asked for next
//	aborted       which batches belong to aborted transactions
//	fetchsession  what a Fetch request need not say again
//	assignor      who of a group reads which partition
//	membership    what a member of a group does next
//	telemetry     what brokers are told of the client, and when
//	turns         whose commit is next
//	sharemember   the same for share groups (package client/share)
//	sharesession  what a share consumer holds, and what its sessions with brokers know
//	inside        the way from the packages below this one to a Client's connections
//	errcode       what Kafka's error codes are called, and which may pass
//
// Names and defaults are those of Kafka's settings, which each option names. Errors that a broker
// answered are found by errors.Is under Kafka's names, as in ErrTopicAlreadyExists.
package client
