package controller

import (
	"context"
	"slices"

	"barnabas/internal/metadata"
)

// electUnclean decides which partitions without a leader a broker shall lead with a replica that has lost
// its records: those whose topic allows it (unclean.leader.election.enable) and whose log directory is none
// of the broker's any more. The replica begins anew, empty, in a directory that the broker has. Where the
// topic does not allow it the partition waits: the directory, and with it the records, may come back.
func electUnclean(v *view, id int32, epoch int64) ([]metadata.Record, uncleanElections) {
	b, err := v.registered(id, epoch)
	if err != nil {
		return nil, uncleanElections{err: err}
	}
	var records []metadata.Record
	var elected uncleanElections
	placer := newPlacer(v.image, v.random)
	for t := range v.image.Topics() {
		if !v.settings.Topic(v.image.Config(metadata.TopicResource, t.Name)).Bool("unclean.leader.election.enable") {
			continue
		}
		for n, p := range t.Partitions {
			at := slices.Index(p.Replicas, id)
			if p.Leader != metadata.NoLeader || at < 0 || online(b, p) || hasLivingLeader(v.image, p) {
				continue
			}
			directories := slices.Clone(p.Directories)
			if directories[at] = placer.directories([]int32{id})[0]; directories[at] == metadata.UnassignedDirectory {
				continue // all that the broker has are cordoned
			}
			records = append(records, &metadata.PartitionChangeRecord{
				TopicId: t.ID.Bytes(), Partition: int32(n), Leader: new(id), Isr: &metadata.Nodes{Ids: []int32{id}},
				Replicas: &metadata.Nodes{Ids: p.Replicas}, Directories: &metadata.Directories{Ids: metadata.DirectoryBytes(directories)},
			})
			elected.partitions = append(elected.partitions, UncleanElection{Topic: t.Name, Partition: int32(n)})
		}
	}
	return records, elected
}

// hasLivingLeader reports whether any replica could lead without loss.
func hasLivingLeader(image *metadata.Image, p *metadata.Partition) bool {
	return slices.ContainsFunc(p.Replicas, func(r int32) bool { return leads(image, p, r) })
}

// UncleanElection is a partition whose leader has lost its records.
type UncleanElection struct {
	Topic     string
	Partition int32
}

type uncleanElections struct {
	partitions []UncleanElection
	err        error
}

// ElectUncleanLeaders lets a broker lead the partitions that it has lost, where their topics say that to
// lose records is better than to wait for them (unclean.leader.election.enable). The broker asks for it
// while every directory that it is configured with is online: what is in none of them is gone.
func (c *Controller) ElectUncleanLeaders(ctx context.Context, broker int32, epoch int64) ([]UncleanElection, error) {
	elected, err := submit(ctx, c, true, func(v *view) ([]metadata.Record, uncleanElections) {
		return electUnclean(v, broker, epoch)
	})
	if err != nil {
		return nil, err
	}
	return elected.partitions, elected.err
}
