package controller

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/metadata"
)

// Feature is a range of levels of a feature that this program supports.
type Feature struct {
	Name     string
	Min, Max int16
}

// metadataVersion is the level of metadata.version that Kafka 4.3 calls 4.3-IV0. There is no lower
// one here: older Kafkas' formats of metadata were never ours.
const metadataVersion = 30

// KRaftVersion is the feature whose level 1 says that the voters of the metadata quorum may be changed (KIP-853). Voters have
// directory ids here from the first, so a new cluster begins with it, as one of Kafka's with initial controllers does;
// what was formed before the feature was there is at 0 until UpdateFeatures lifts it.
const KRaftVersion = "kraft.version"

// SupportedFeatures are those whose promise holds, for brokers' registrations and for ApiVersions. A
// new cluster begins with the highest level of each.
func SupportedFeatures() []Feature {
	return []Feature{{KRaftVersion, 0, 1}, {"metadata.version", metadataVersion, metadataVersion}}
}

// Upgrade types of UpdateFeatures.
const (
	upgrade         = 1
	safeDowngrade   = 2
	unsafeDowngrade = 3
)

// lastVersionWithResults is the version of UpdateFeatures up to which success is answered feature by
// feature.
const lastVersionWithResults = 1

// formCluster begins a cluster.
func formCluster(id string, features []Feature) []metadata.Record {
	records := []metadata.Record{&metadata.ClusterRecord{Id: id}}
	for _, f := range features {
		records = append(records, &metadata.FeatureRecord{Name: f.Name, Level: int32(f.Max)})
	}
	return records
}

// updateFeatures decides UpdateFeatures: all of it or nothing.
func updateFeatures(v *view, req *kmsg.UpdateFeaturesRequest) ([]metadata.Record, *kmsg.UpdateFeaturesResponse) {
	resp := kmsg.NewPtrUpdateFeaturesResponse()
	resp.Version = req.Version
	levels := make(map[string]int16) // as the updates so far leave them
	var records []metadata.Record
	for _, u := range req.FeatureUpdates {
		if why := v.checkFeature(u, upgradeType(req.Version, u)); why != nil {
			return nil, refuseFeatures(req, why)
		}
		level, again := levels[u.Feature]
		if !again {
			level = v.image.Feature(u.Feature)
		}
		if !again && req.Version <= lastVersionWithResults {
			result := kmsg.NewUpdateFeaturesResponseResult()
			result.Feature = u.Feature
			resp.Results = append(resp.Results, result)
		}
		if level != u.MaxVersionLevel {
			records = append(records, &metadata.FeatureRecord{Name: u.Feature, Level: int32(u.MaxVersionLevel)})
		}
		levels[u.Feature] = u.MaxVersionLevel
	}
	if req.ValidateOnly {
		return nil, resp
	}
	return records, resp
}

// upgradeType: version 0 had a flag instead.
func upgradeType(version int16, u kmsg.UpdateFeaturesRequestFeatureUpdate) int8 {
	switch {
	case version > 0:
		return u.UpgradeType
	case u.AllowDowngrade:
		return safeDowngrade
	}
	return upgrade
}

func refuseFeatures(req *kmsg.UpdateFeaturesRequest, why *refusal) *kmsg.UpdateFeaturesResponse {
	resp := kmsg.NewPtrUpdateFeaturesResponse()
	resp.Version = req.Version
	resp.ErrorCode, resp.ErrorMessage = why.fields()
	return resp
}

func (v *view) checkFeature(u kmsg.UpdateFeaturesRequestFeatureUpdate, kind int8) *refusal {
	level, current := u.MaxVersionLevel, v.image.Feature(u.Feature)
	reason := v.unsupported(u.Feature, level)
	switch {
	case kind < upgrade || kind > unsafeDowngrade:
		reason = fmt.Sprintf("there is no upgrade type %d", kind)
	case reason != "":
	case level < current && u.Feature == KRaftVersion:
		reason = fmt.Sprintf("it is %d now, and never goes back, however it is asked for", current)
	case level < current && kind == upgrade:
		reason = fmt.Sprintf("it is %d now, and a downgrade has to be asked for as one", current)
	case level > current && kind != upgrade:
		reason = fmt.Sprintf("it is %d now, so this is no downgrade", current)
	}
	if reason == "" {
		return nil
	}
	return refuse(kerr.InvalidUpdateVersion, "feature %.60q cannot be set to level %d: %s", u.Feature, level, reason)
}

// unsupported says who does not know a level of a feature, or "".
func (v *view) unsupported(name string, level int16) string {
	at := slices.IndexFunc(v.features, func(f Feature) bool { return f.Name == name })
	if at < 0 {
		return "this node does not know it"
	}
	if f := v.features[at]; level < f.Min || level > f.Max {
		return fmt.Sprintf("this node supports %d to %d", f.Min, f.Max)
	}
	for _, b := range v.image.Brokers() {
		if low, high := rangeOf(b.Features, name); level < low || level > high {
			return fmt.Sprintf("broker %d supports %d to %d", b.ID, low, high)
		}
	}
	return ""
}

// rangeOf is the range of levels that a broker supports; not knowing a feature is to support level 0.
func rangeOf(features []metadata.FeatureRange, name string) (low, high int16) {
	for _, f := range features {
		if f.Name == name {
			return f.Min, f.Max
		}
	}
	return 0, 0
}
