// Package peer carries what the nodes of one cluster say to each other: it listens on the internal
// listener, dials the others, and moves numbered frames between them.
//
// It decides who may speak. Either end proves that it knows the cluster's secret, by HMAC-SHA256 over
// all that both have said, fresh random numbers among it, before anything else is looked at; ends of
// different clusters part, and without a secret only this machine is spoken to. The proof keeps
// strangers out; it hides nothing, and does not protect what follows from somebody who can rewrite
// the bytes under way. Certificates do both: then all is under TLS, each end has to show one that the
// other believes before anything is looked at, and no secret is needed; where there is one it is proved as well.
//
// The quorum, controllers and replicas call it: a message is a Kind and bytes. It refuses to know what
// they mean, who leads, and which nodes there should be beyond the addresses that it is given.
//
// Whoever has something to say dials: requests and one-way messages go from the dialling end to the
// listening one, and answers come back, each with the number of its request, in any order. A node keeps
// one connection to each other for the control of the cluster, and one more for its data, so that a
// heartbeat never stands behind a long copy. A connection that breaks is told at once to who observes;
// another is made, with growing pauses.
//
// After the handshake frames are those of package wire. A request's key is KindKey plus its Kind, its
// version 0. An answer's body begins with a status byte; see answer.go.
//
// Kinds are declared beside their owners:
//
//	 0        peer itself: are you there?
//	 1 to 15  quorum
//	16 to 31  controller and the nodes' lives
//	32 to 47  replication (these travel on the data connection)
package peer
