// Package clustertest runs whole nodes in one process for tests: each over a memory disk and a
// memory network, inside a testing/synctest bubble, started, stopped, killed and cut from power by
// a seed, and spoken to by a raw client.
//
// A World decides what happens from its seed alone: every node, disk and connection draws from
// dice named after itself, and what happened is summed up in a trace hash, so that a seed that
// failed can be run again. Tests in any package call it. It knows the broker only as its users do,
// through node.Start and the wire; what must hold is for the tests to say.
package clustertest
