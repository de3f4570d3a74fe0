package api

import (
	"context"
	"regexp"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
)

// ApiVersions, key 18, versions 0 to 4. Version 3 names the client's software (KIP-511) and the
// features of cluster and broker (KIP-584), 4 lets a feature's lowest level be 0.

// softwareName is what KIP-511 allows in the name and the version of a client's software.
var softwareName = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

// servedKeys lists what versions.go serves, in its order.
func servedKeys() []kmsg.ApiVersionsResponseApiKey {
	keys := make([]kmsg.ApiVersionsResponseApiKey, len(routes))
	for i, r := range routes {
		keys[i] = kmsg.ApiVersionsResponseApiKey{ApiKey: r.key.Int16(), MinVersion: r.min, MaxVersion: r.max}
	}
	return keys
}

func (h *Handler) apiVersions(_ context.Context, c *call) (wire.Reply, bool, error) {
	q, err := decoded(c, kmsg.NewPtrApiVersionsRequest())
	if err != nil {
		return nil, false, err
	}
	if q.Version >= 3 {
		if !softwareName.MatchString(q.ClientSoftwareName) || !softwareName.MatchString(q.ClientSoftwareVersion) {
			res := kmsg.NewPtrApiVersionsResponse()
			res.Version, res.ErrorCode = q.Version, kerr.InvalidRequest.Code
			return replyWith(res), true, nil
		}
		c.peer.SoftwareName, c.peer.SoftwareVersion = q.ClientSoftwareName, q.ClientSoftwareVersion
	}
	return func(_ context.Context, out *wire.Out) error {
		out.Append(h.describeVersions(q.Version).AppendTo)
		return nil
	}, true, nil
}

func (h *Handler) describeVersions(version int16) *kmsg.ApiVersionsResponse {
	res := kmsg.NewPtrApiVersionsResponse()
	res.Version, res.ApiKeys = version, h.served
	image := h.o.Images.Image()
	if own, ok := image.Broker(h.o.NodeID); ok {
		for _, f := range own.Features {
			s := kmsg.NewApiVersionsResponseSupportedFeature()
			s.Name, s.MinVersion, s.MaxVersion = f.Name, f.Min, f.Max
			if version < 4 && s.MinVersion == 0 {
				// Clients that speak no more than version 3 reject a lowest level of 0 (KAFKA-17011).
				continue
			}
			res.SupportedFeatures = append(res.SupportedFeatures, s)
		}
	}
	res.FinalizedFeaturesEpoch = image.Offset()
	for name, level := range image.Features() {
		f := kmsg.NewApiVersionsResponseFinalizedFeature()
		f.Name, f.MinVersionLevel, f.MaxVersionLevel = name, level, level
		res.FinalizedFeatures = append(res.FinalizedFeatures, f)
	}
	return res
}

// apiVersionsUnsupported answers an ApiVersions request of a version that is not known here, in the
// one version that every client reads: it may ask again as key 18's row says.
func (c *call) apiVersionsUnsupported() (wire.Reply, bool, error) {
	res := kmsg.NewPtrApiVersionsResponse()
	res.Version, res.ErrorCode = 0, kerr.UnsupportedVersion.Code
	for _, k := range c.h.served {
		if k.ApiKey == kmsg.ApiVersions.Int16() {
			res.ApiKeys = append(res.ApiKeys, k)
		}
	}
	return replyWith(res), true, nil
}

// replyWith is a reply that is known already.
func replyWith(res kmsg.Response) wire.Reply {
	return func(_ context.Context, out *wire.Out) error {
		out.Append(res.AppendTo)
		return nil
	}
}
