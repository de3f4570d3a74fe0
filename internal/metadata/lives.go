package metadata

import "errors"

// What brokers and the controller say to each other about the lives of brokers. Both ends are of this
// program; the types are here because neither package may know the other.

// What a broker can decide on when the controller does not take what it says of itself.
var (
	// ErrUnknownBroker means that no broker is registered under the id.
	ErrUnknownBroker = errors.New("the broker is not registered")
	// ErrStaleBrokerEpoch means that the broker has registered again since.
	ErrStaleBrokerEpoch = errors.New("the broker epoch is stale")
	// ErrInvalidRegistration means that a broker must not join as it is.
	ErrInvalidRegistration = errors.New("the broker cannot register")
	// ErrDuplicateBroker means that another process is registered under the id and was heard of within its
	// session. If that one is gone its session ends soon; asking again is right.
	ErrDuplicateBroker = errors.New("another broker with this id is alive")
)

// Registration is what a broker says of itself when it starts, or begins anew because the cluster has forgotten it.
type Registration struct {
	ID          int32
	Incarnation UUID // of this run of the process
	Listeners   []Listener
	Rack        *string
	Directories []UUID // log directories that are online
	Cordoned    []UUID // of Directories: those that take no new replicas
	Features    []FeatureRange

	// Fenced: the broker takes no part before a heartbeat has said that it knows of its registration. Only a
	// broker in the controller's own process may leave it out, for it has the metadata that the controller has;
	// that saves a lone broker a commit at its start.
	Fenced bool
	// Complete: every log directory that the broker is configured with is online, so what is in none of them
	// is gone.
	Complete bool
	// CleanEpoch is the broker epoch of the process before, if that one ended in peace and nothing has touched its
	// directories since; 0 or less otherwise. In topics that are not durable a broker keeps its eligibility only so.
	CleanEpoch int64
}

// Heartbeat is what a broker says of itself again and again.
type Heartbeat struct {
	Broker         int32
	Epoch          int64 // of its registration
	MetadataOffset int64 // of the image that everything in the broker has been told of; -1: of none
	// WantFence: it cannot serve, or not yet.
	WantFence bool
	// WantShutDown: it is about to stop, and would rather lead nothing then.
	WantShutDown bool
	// Directories are its log directories that are online, and Cordoned those of them that take no new replicas. Without
	// any directory the registration's stay as they are.
	Directories []UUID
	Cordoned    []UUID
	// Complete is as in a Registration.
	Complete bool
}

// HeartbeatAnswer is what the controller says to that, from what is committed: an effect of the heartbeat itself
// shows in the metadata, and in the next answer.
type HeartbeatAnswer struct {
	Fenced bool
	// MayShutDown: the broker has said that it wants to, leads nothing any more that another could lead, and is away in the
	// committed metadata.
	MayShutDown bool
}

// ReplicaDirectory is where a broker keeps a replica of its own (KIP-858).
type ReplicaDirectory struct {
	Topic     UUID
	Partition int32
	Directory UUID // one of the broker's; LostDirectory: one that has failed
}
