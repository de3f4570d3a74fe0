// Package api answers Kafka's requests: a file per API (or per several that are alike), one table of versions (versions.go) and
// one table of error codes (errors.go).
//
// It decides what a request means: who may ask, which partitions it concerns, what Kafka answers
// at each version, and how long a reply may wait. server calls Handler.Handle with a parsed
// header and the body's bytes; the handler does at once what must happen in the order of the
// requests (appends), and returns a wire.Reply that does the rest.
//
// It refuses to know connections and frames (server), how records are stored or become committed
// (replica, commitlog), and how metadata changes (controller decides; api reads images). Requests
// and responses are kmsg structs except where every record passes: Produce's and Fetch's responses
// are written by hand, with kmsg as the oracle of their tests.
package api
