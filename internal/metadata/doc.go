// Package metadata holds what the cluster knows about itself: brokers, topics, partitions,
// configs, features and producer ids, as an immutable Image that changes only by replaying
// committed records.
//
// It decides what a record does to an image (Builder.Replay is the only mutator) and how records
// look on disk (Encode, Decode). It does not decide which records are written: that is the
// controller's business, and getting them committed is the quorum's. Everybody else receives
// images through a Publisher and reads them without locks.
package metadata

//go:generate protoc --go_out=. --go_opt=paths=source_relative records.proto
