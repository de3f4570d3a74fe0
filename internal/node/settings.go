package node

import (
	"context"

	"barnabas/internal/metadata"
)

// settingsFollower puts dynamic settings of the broker into force that no replica reads. It stands
// behind the replicas in the line of publishers, so that it finds their settings renewed.
type settingsFollower struct{ n *Node }

// Publish implements metadata.Publisher.
func (f settingsFollower) Publish(_ context.Context, d *metadata.Delta, _ *metadata.Image) {
	if len(d.Configs) > 0 {
		f.n.applySettings()
	}
}

// applySettings is called by the publisher, and once more when all is built.
func (n *Node) applySettings() {
	now := n.replicas.Settings()
	for _, d := range n.dirs.data {
		d.SetProducerIDExpiration(now.Millis("producer.id.expiration.ms"))
	}
	if c := n.dirs.cleaner; c != nil {
		c.Reconfigure(cleanerOptions(n.o, now))
	}
	if s := n.server.Load(); s != nil {
		s.SetConnectionLimits(n.o.connectionLimits(now))
	}
	n.applyCertificates(now)
	n.speakUp()
}
