package cluster

import (
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// apiVersions is what a broker said in its ApiVersions response.
type apiVersions struct {
	ranges map[int16]versionRange
}

type versionRange struct{ least, most int16 }

// Newest is up to which version this client was written, for the requests whose content it builds
// itself. kmsg may know newer ones, whose new fields would then go out unset.
var Newest = map[int16]int16{
	0:  13, // Produce: topic ids
	1:  17, // Fetch: topic ids; 18 is for replicas
	2:  10, // ListOffsets
	3:  13, // Metadata: REBOOTSTRAP_REQUIRED
	8:  10, // OffsetCommit: topic ids
	9:  10, // OffsetFetch: topic ids
	10: 6,  // FindCoordinator
	11: 9,  // JoinGroup
	12: 4,  // Heartbeat
	13: 5,  // LeaveGroup
	14: 5,  // SyncGroup
	18: 4,  // ApiVersions
	22: 5,  // InitProducerId; 6 is not stable
	23: 4,  // OffsetForLeaderEpoch
	24: 3,  // AddPartitionsToTxn: from 4 on between brokers
	25: 4,  // AddOffsetsToTxn
	26: 5,  // EndTxn: the next epoch
	28: 5,  // TxnOffsetCommit: implies AddOffsetsToTxn
	68: 1,  // ConsumerGroupHeartbeat: patterns
	76: 1,  // ShareGroupHeartbeat
	78: 2,  // ShareFetch: acquire mode, renewals
	79: 2,  // ShareAcknowledge: renewals
}

// choose gives the newest version of the request that both ends know, at most limit (-1: no limit).
func (v *apiVersions) choose(req kmsg.Request, limit int16) (int16, error) {
	ours := req.MaxVersion()
	if n, ok := Newest[req.Key()]; ok {
		ours = min(ours, n)
	}
	if limit >= 0 {
		ours = min(ours, limit)
	}
	r, ok := v.ranges[req.Key()]
	if !ok {
		return 0, fmt.Errorf("%w: %s", ErrUnsupported, kmsg.NameForKey(req.Key()))
	}
	if version := min(ours, r.most); version >= r.least {
		return version, nil
	}
	return 0, fmt.Errorf("%w: it speaks %s versions %d to %d, we at most %d",
		ErrUnsupported, kmsg.NameForKey(req.Key()), r.least, r.most, ours)
}

// features are the finalised levels of a cluster's features (KIP-584). Brokers learn of a change one
// after another: the highest epoch counts.
type features struct {
	mu     sync.Mutex
	epoch  int64
	levels map[string]int16
}

func (f *features) take(answer *kmsg.ApiVersionsResponse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if answer.FinalizedFeaturesEpoch < f.epoch || answer.FinalizedFeaturesEpoch < 0 {
		return
	}
	f.epoch = answer.FinalizedFeaturesEpoch
	f.levels = make(map[string]int16, len(answer.FinalizedFeatures))
	for _, l := range answer.FinalizedFeatures {
		f.levels[l.Name] = l.MaxVersionLevel
	}
}

// Feature gives the finalised level of a feature, as the brokers connected to so far have told; 0
// where they have not.
func (c *Cluster) Feature(name string) int16 {
	c.features.mu.Lock()
	defer c.features.mu.Unlock()
	return c.features.levels[name]
}

const apiVersionsKey = 18

// minimalVersions is what may be asked of a broker that has not said anything yet.
var minimalVersions = apiVersions{ranges: map[int16]versionRange{apiVersionsKey: {0, 4}}}

// softwareVersion is what brokers are told in ApiVersions (KIP-511), beside the software's name.
const (
	softwareName    = "barnabas-client"
	softwareVersion = "0.1.0"
)
