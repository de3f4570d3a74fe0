package api

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/wire"
)

// CreateTopics (key 19), DeleteTopics (20), AlterConfigs (33), CreatePartitions (37), ElectLeaders (43,
// KIP-183 and KIP-460), IncrementalAlterConfigs (44), AlterPartitionReassignments (45, KIP-455, version 1
// KIP-860), ListPartitionReassignments (46), UpdateFeatures (57) and UnregisterBroker (64) are wholly the controller's
// to decide: it checks names, counts, values and levels, answers for every part of a request, and bounds the wait
// by the request's own timeout.

// decided makes a route's handler of a method of Controller. The answer is awaited in the
// connection's writer, so requests that follow on the connection are read meanwhile.
func decided[T any, Q message[T], R kmsg.Response](ask func(Controller, context.Context, Q) (R, error)) func(context.Context, *call) (wire.Reply, bool, error) {
	return waiting(func(ctx context.Context, c *call, q Q) (kmsg.Response, error) {
		return ask(c.h.o.Controller, ctx, q)
	})
}
