// Package controller decides every change of the cluster's metadata: topics and their partitions,
// configs, features, producer ids, brokers.
//
// Decisions are pure: what the cluster is now and a request go in, records and a response come out
// (a file per feature). The runtime around them is one goroutine. It takes requests in order,
// decides each on the speculative image (the committed one plus what has been proposed since),
// proposes the records and replays them into that image at once; the answer is given when the
// records are committed and published. A response without records waits for what it has seen to be
// committed. Lost leadership discards the speculative image and all who wait.
//
// The api package calls the methods named after Kafka's requests; the quorum calls Apply, Restore,
// Leadership and Snapshot. How records become durable, what a connection is and who may ask are
// not known here. Error codes appear by kerr's names, in answers only.
package controller
