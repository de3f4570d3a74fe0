package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// Cluster is what DescribeCluster gives.
type Cluster struct {
	ID         string
	Controller int32 // node id of the broker to ask for the controller's work; -1: unknown
	Brokers    []BrokerDescription

	AuthorizedOperations []ACLOperation // on the cluster itself; nil without the option of that name
}

// BrokerDescription is a broker as clients reach it.
type BrokerDescription struct {
	Node   int32
	Host   string
	Port   int32
	Rack   string
	Fenced bool // registered but not in use; only with WithFencedBrokers
}

// Address is HOST:PORT.
func (b BrokerDescription) Address() string {
	return net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
}

// ClusterOption says what DescribeCluster is to tell.
type ClusterOption func(*kmsg.DescribeClusterRequest)

// WithFencedBrokers asks for brokers, too, that are registered and not in use (KIP-1073).
func WithFencedBrokers() ClusterOption {
	return func(r *kmsg.DescribeClusterRequest) { r.IncludeFencedBrokers = true }
}

// DescribeCluster gives the cluster's id and its brokers, by node id.
func (a *Admin) DescribeCluster(ctx context.Context, options ...ClusterOption) (Cluster, error) {
	req := kmsg.NewPtrDescribeClusterRequest()
	req.EndpointType = 1 // brokers
	req.IncludeClusterAuthorizedOperations = a.authorized
	for _, o := range options {
		o(req)
	}
	var out Cluster
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.DescribeClusterResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		if err := client.CodeError(resp.ErrorCode, resp.ErrorMessage); err != nil {
			return err
		}
		out = Cluster{ID: resp.ClusterID, Controller: resp.ControllerID, AuthorizedOperations: operations(resp.ClusterAuthorizedOperations)}
		for _, b := range resp.Brokers {
			out.Brokers = append(out.Brokers, BrokerDescription{b.NodeID, b.Host, b.Port, text(b.Rack), b.IsFenced})
		}
		return nil
	})
	if err != nil {
		return Cluster{}, fmt.Errorf("describe the cluster: %w", err)
	}
	slices.SortFunc(out.Brokers, func(a, b BrokerDescription) int { return cmp.Compare(a.Node, b.Node) })
	return out, nil
}

// Features are the cluster's features (KIP-584).
type Features struct {
	Supported map[string]FeatureRange // by the broker that was asked
	Finalized map[string]FeatureRange // in force
	Epoch     int64                   // goes up whenever Finalized changes; -1: unknown
}

// FeatureRange is a range of a feature's levels.
type FeatureRange struct{ Min, Max int16 }

// DescribeFeatures gives the features that some broker supports and those that are in force.
func (a *Admin) DescribeFeatures(ctx context.Context) (Features, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "barnabas-admin", "0"
	out := Features{Supported: map[string]FeatureRange{}, Finalized: map[string]FeatureRange{}, Epoch: -1}
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.ApiVersionsResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		if err := client.CodeError(resp.ErrorCode, nil); err != nil {
			return err
		}
		for _, f := range resp.SupportedFeatures {
			out.Supported[f.Name] = FeatureRange{f.MinVersion, f.MaxVersion}
		}
		for _, f := range resp.FinalizedFeatures {
			out.Finalized[f.Name] = FeatureRange{f.MinVersionLevel, f.MaxVersionLevel}
		}
		out.Epoch = resp.FinalizedFeaturesEpoch
		return nil
	})
	if err != nil {
		return Features{}, fmt.Errorf("describe features: %w", err)
	}
	return out, nil
}

// FeatureUpgrade says in which direction UpdateFeatures may go.
type FeatureUpgrade int8

// Kafka's kinds of updates.
const (
	Upgrade         FeatureUpgrade = 1
	SafeDowngrade   FeatureUpgrade = 2 // refused where something would be lost
	UnsafeDowngrade FeatureUpgrade = 3
)

// FeatureUpdate is a feature's new level; 0 takes it out of force.
type FeatureUpdate struct {
	Feature string
	Level   int16
	Kind    FeatureUpgrade
}

// UpdateFeatures changes which features are in force. From Kafka 4.0 on either all are changed or
// none, and the error says which was refused.
func (a *Admin) UpdateFeatures(ctx context.Context, updates []FeatureUpdate, options ...ChangeOption) error {
	req := kmsg.NewPtrUpdateFeaturesRequest()
	req.ValidateOnly = changes(options).validateOnly
	for _, u := range updates {
		req.FeatureUpdates = append(req.FeatureUpdates, kmsg.UpdateFeaturesRequestFeatureUpdate{
			Feature: u.Feature, MaxVersionLevel: u.Level, UpgradeType: int8(u.Kind), AllowDowngrade: u.Kind != Upgrade,
		})
	}
	err := a.try(ctx, func(ctx context.Context) error {
		req.TimeoutMillis = millis(ctx)
		resp, err := askController[*kmsg.UpdateFeaturesResponse](ctx, a, req)
		if err != nil {
			return err
		}
		if err := client.CodeError(resp.ErrorCode, resp.ErrorMessage); err != nil {
			return err
		}
		var errs []error
		for _, r := range resp.Results {
			if err := client.CodeError(r.ErrorCode, r.ErrorMessage); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", r.Feature, err))
			}
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("update features: %w", err)
	}
	return nil
}

// Quorum is the state of the metadata quorum.
type Quorum struct {
	Leader        int32
	LeaderEpoch   int32
	HighWatermark int64
	Voters        []QuorumReplica
	Observers     []QuorumReplica
	Endpoints     map[int32][]QuorumEndpoint // by node; empty where the broker does not say
}

// QuorumReplica is a node that has the metadata log.
type QuorumReplica struct {
	Node         int32
	Directory    client.UUID // zero where the broker does not say
	LogEnd       int64       // -1: unknown
	LastFetch    time.Time   // zero: unknown
	LastCaughtUp time.Time   // zero: unknown
}

// QuorumEndpoint is a listener of a node for the quorum.
type QuorumEndpoint struct {
	Listener string
	Host     string
	Port     uint16
}

// quorumTopic is the one partition that the quorum has.
const quorumTopic = "__cluster_metadata"

// DescribeQuorum gives the state of the metadata quorum. Kafka: describeMetadataQuorum.
func (a *Admin) DescribeQuorum(ctx context.Context) (Quorum, error) {
	req := kmsg.NewPtrDescribeQuorumRequest()
	req.Topics = []kmsg.DescribeQuorumRequestTopic{{
		Topic: quorumTopic, Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{Partition: 0}},
	}}
	var out Quorum
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.DescribeQuorumResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		if err := client.CodeError(resp.ErrorCode, resp.ErrorMessage); err != nil {
			return err
		}
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return errLeftOut
		}
		p := &resp.Topics[0].Partitions[0]
		out = Quorum{
			Leader: p.LeaderID, LeaderEpoch: p.LeaderEpoch, HighWatermark: p.HighWatermark,
			Voters: readQuorum(p.CurrentVoters), Observers: readQuorum(p.Observers),
			Endpoints: map[int32][]QuorumEndpoint{},
		}
		for _, n := range resp.Nodes {
			for _, l := range n.Listeners {
				out.Endpoints[n.NodeID] = append(out.Endpoints[n.NodeID], QuorumEndpoint{l.Name, l.Host, l.Port})
			}
		}
		return client.CodeError(p.ErrorCode, p.ErrorMessage)
	})
	if err != nil {
		return Quorum{}, fmt.Errorf("describe the quorum: %w", err)
	}
	return out, nil
}

func readQuorum(in []kmsg.DescribeQuorumResponseTopicPartitionReplicaState) []QuorumReplica {
	at := func(ms int64) time.Time {
		if ms < 0 {
			return time.Time{}
		}
		return time.UnixMilli(ms)
	}
	out := make([]QuorumReplica, len(in))
	for i, r := range in {
		out[i] = QuorumReplica{r.ReplicaID, r.ReplicaDirectoryID, r.LogEndOffset, at(r.LastFetchTimestamp), at(r.LastCaughtUpTimestamp)}
	}
	return out
}
