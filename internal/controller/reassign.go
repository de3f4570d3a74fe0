package controller

import (
	"slices"

	"barnabas/internal/metadata"
)

// finishReassignment ends a reassignment once every replica that it adds is in sync: those that it removes go,
// and with them, perhaps, the leader. A new leader epoch tells the ones that stay.
func finishReassignment(r *revision) {
	if len(r.next.Adding)+len(r.next.Removing) == 0 {
		return
	}
	for _, id := range r.next.Adding {
		if !slices.Contains(r.next.ISR, id) {
			return
		}
	}
	stay := without(r.next.ISR, r.next.Removing...)
	if len(stay) == 0 {
		return
	}
	replicas, directories := []int32{}, []metadata.UUID{}
	for i, id := range r.next.Replicas {
		if !slices.Contains(r.next.Removing, id) {
			replicas, directories = append(replicas, id), append(directories, r.next.Directories[i])
		}
	}
	r.next.Replicas, r.next.Directories, r.next.ISR = replicas, directories, stay
	r.next.Adding, r.next.Removing = nil, nil
	r.minISR, _ = metadata.EffectiveMinISR(r.configured, len(replicas))
	r.again = true
}
