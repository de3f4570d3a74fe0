package node

import (
	"context"
	"slices"

	"barnabas/internal/lifecycle"
	"barnabas/internal/metadata"
	"barnabas/internal/replica"
)

// newPlaces keeps the controller told in which directories this broker's replicas lie.
func (n *Node) newPlaces() {
	n.places = lifecycle.NewPlaces(lifecycle.PlacesOptions{
		Assign: func(ctx context.Context, epoch int64, places []metadata.ReplicaDirectory) error {
			return n.router.AssignDirectories(ctx, epoch, places)
		},
		Epoch: n.broker.Load().Epoch, Misplaced: n.misplaced, Jitter: n.dice.below, Logger: n.log,
	})
}

// placesFollower looks, when partitions have changed, whether their replicas lie where the metadata says. It stands behind the
// replicas in the line of publishers, so that those are open.
type placesFollower struct{ n *Node }

// Publish implements metadata.Publisher.
func (f placesFollower) Publish(_ context.Context, d *metadata.Delta, img *metadata.Image) {
	f.n.placed.Store(img)
	if slices.Contains(d.Brokers, f.n.nodeID) {
		f.n.places.Look()
		return
	}
	for _, change := range d.Topics {
		if change.New == nil {
			continue
		}
		for _, number := range change.Partitions {
			p, err := f.n.replicas.Partition(change.New.Name, number)
			if err != nil {
				continue
			}
			if _, elsewhere := f.n.placeOf(p, img); elsewhere {
				f.n.places.Look()
				return
			}
		}
	}
}

// misplaced lists the replicas that lie elsewhere than the metadata says: the image that they have followed, since with a newer
// one a replica that is about to move would be told of where it was.
func (n *Node) misplaced() (all []metadata.ReplicaDirectory) {
	img := n.placed.Load()
	if img == nil {
		return nil
	}
	for _, p := range n.replicas.Partitions() {
		if place, elsewhere := n.placeOf(p, img); elsewhere {
			all = append(all, place)
		}
	}
	return all
}

// placeOf is where a replica lies, which may have failed since; elsewhere: that is not where the metadata has it.
func (n *Node) placeOf(p *replica.Partition, img *metadata.Image) (place metadata.ReplicaDirectory, elsewhere bool) {
	topic, known := img.TopicByID(p.TopicID())
	number := p.ID().Partition
	if !known || int(number) >= len(topic.Partitions) {
		return place, false
	}
	state := topic.Partitions[number]
	at := slices.Index(state.Replicas, n.nodeID)
	if at < 0 || at >= len(state.Directories) {
		return place, false
	}
	place = metadata.ReplicaDirectory{Topic: topic.ID, Partition: number, Directory: p.Log().Dir().ID()}
	return place, place.Directory != state.Directories[at]
}
