// Package certs decides with which private key and certificates a node shows itself, and whom it
// believes: keys and certificates in PEM, from files or settings, checked when they are loaded, and read
// again when the files change.
//
// A certificate names a node of the cluster if an authority of the truststore has signed it, it is valid
// now, and it may be used for what its end does (a listener's for servers, a dialler's for clients); that
// of a listener must, unless the check is switched off, also be for the host at which its node is reached.
// Nothing else in it counts: every certificate of such an authority is as good as any other, as between
// Kafka's brokers without ACLs. So the authority should sign for the cluster's nodes alone.
//
// Whoever listens or dials in the cluster asks a Store for the configuration of each connection. The
// package refuses to know who asks, which protocol follows, and what a connection is for.
package certs
