package api

import (
	"context"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
	"barnabas/internal/quorum"
)

// ChangeVoters implements Quorum for tests: the directory's first byte says what comes of it.
func (l *instantLog) ChangeVoters(_ context.Context, c quorum.VoterChange) error {
	errs := map[byte]error{
		2: quorum.ErrDuplicateVoter, 3: quorum.ErrVoterNotFound, 4: quorum.ErrLastVoter, 5: quorum.ErrTooManyVoters, 6: quorum.ErrFixedVoters,
		7: fmt.Errorf("%w: %w", quorum.ErrNotInTime, context.DeadlineExceeded), 8: quorum.ErrClosed,
	}
	if c.Do != quorum.RemoveVoter && c.Listeners[0].Name != "CONTROLLER" {
		return fmt.Errorf("the first of %v is not for other nodes", c.Listeners)
	}
	return errs[c.Directory[0]]
}

func TestRequestsToChangeTheVotersAreCheckedAndRefusedAsByKafka(t *testing.T) {
	s := newStack(t)
	listeners := []kmsg.AddRaftVoterRequestListener{{Name: "PLAINTEXT", Host: "h", Port: 9092}, {Name: "CONTROLLER", Host: "h", Port: 9093}}
	for name, c := range map[string]struct {
		cluster   *string
		directory byte
		id        int32
		listeners []kmsg.AddRaftVoterRequestListener
		want      *kerr.Error
	}{
		"good":               {directory: 1, listeners: listeners},
		"of this cluster":    {cluster: kmsg.StringPtr("test-cluster"), directory: 1, listeners: listeners},
		"of another cluster": {cluster: kmsg.StringPtr("other"), directory: 1, listeners: listeners, want: kerr.InconsistentClusterID},
		"no directory":       {listeners: listeners, want: kerr.InvalidRequest},
		"negative":           {directory: 1, id: -1, listeners: listeners, want: kerr.InvalidRequest},
		"duplicate":          {directory: 2, listeners: listeners, want: kerr.DuplicateVoter},
		"not found":          {directory: 3, listeners: listeners, want: kerr.VoterNotFound},
		"the last":           {directory: 4, listeners: listeners, want: kerr.InvalidRequest},
		"too many":           {directory: 5, listeners: listeners, want: kerr.InvalidRequest},
		"alone":              {directory: 6, listeners: listeners, want: kerr.UnsupportedVersion},
		"late":               {directory: 7, listeners: listeners, want: kerr.RequestTimedOut},
		"stopping":           {directory: 8, listeners: listeners, want: kerr.NotController},
	} {
		want := int16(0)
		if c.want != nil {
			want = c.want.Code
		}
		add := kmsg.NewPtrAddRaftVoterRequest()
		add.Version, add.ClusterID, add.VoterID, add.VoterDirectoryID, add.Listeners = 1, c.cluster, c.id, [16]byte{c.directory}, c.listeners
		if got := ask[*kmsg.AddRaftVoterResponse](s, add); got.ErrorCode != want || (got.ErrorMessage == nil) != (want == 0) {
			t.Errorf("add, %s: %+v, want %v", name, got, c.want)
		}
		remove := kmsg.NewPtrRemoveRaftVoterRequest()
		remove.ClusterID, remove.VoterID, remove.VoterDirectoryID = c.cluster, c.id, [16]byte{c.directory}
		if got := ask[*kmsg.RemoveRaftVoterResponse](s, remove); got.ErrorCode != want {
			t.Errorf("remove, %s: %+v, want %v", name, got, c.want)
		}
		update := kmsg.NewPtrUpdateRaftVoterRequest()
		update.ClusterID, update.VoterID, update.VoterDirectoryID = c.cluster, c.id, [16]byte{c.directory}
		for _, l := range c.listeners {
			update.Listeners = append(update.Listeners, kmsg.UpdateRaftVoterRequestListener(l))
		}
		if got := ask[*kmsg.UpdateRaftVoterResponse](s, update); got.ErrorCode != want || got.CurrentLeader.LeaderID != 1 {
			t.Errorf("update, %s: %+v, want %v", name, got, c.want)
		}
	}
	for name, l := range map[string][]kmsg.AddRaftVoterRequestListener{
		"none": nil, "without a port": {{Name: "CONTROLLER", Host: "h"}}, "without a host": {{Name: "CONTROLLER", Port: 1}},
		"too many": make([]kmsg.AddRaftVoterRequestListener, mostVoterListeners+1),
	} {
		add := kmsg.NewPtrAddRaftVoterRequest()
		add.Version, add.VoterDirectoryID, add.Listeners = 1, [16]byte{1}, l
		if got := ask[*kmsg.AddRaftVoterResponse](s, add); got.ErrorCode != kerr.InvalidRequest.Code {
			t.Errorf("listeners, %s: %+v", name, got)
		}
	}
}

// TestVotersStayWhileKRaftVersionIsZero: as in Kafka, whose voters are fixed then but for where they are reached.
func TestVotersStayWhileKRaftVersionIsZero(t *testing.T) {
	faketime.Test(t, votersStayWhileKRaftVersionIsZero)
}

func votersStayWhileKRaftVersionIsZero(t *testing.T) {
	s := newStack(t)
	s.commit(&metadata.FeatureRecord{Name: "kraft.version"})
	listener := kmsg.AddRaftVoterRequestListener{Name: "CONTROLLER", Host: "h", Port: 9093}
	add := kmsg.NewPtrAddRaftVoterRequest()
	add.Version, add.VoterDirectoryID, add.Listeners = 1, [16]byte{1}, []kmsg.AddRaftVoterRequestListener{listener}
	remove := kmsg.NewPtrRemoveRaftVoterRequest()
	remove.VoterDirectoryID = [16]byte{1}
	expect := func(want int16) {
		t.Helper()
		if got := ask[*kmsg.AddRaftVoterResponse](s, add); got.ErrorCode != want {
			t.Errorf("add: %+v", got)
		}
		if got := ask[*kmsg.RemoveRaftVoterResponse](s, remove); got.ErrorCode != want {
			t.Errorf("remove: %+v", got)
		}
	}
	expect(kerr.UnsupportedVersion.Code)
	update := kmsg.NewPtrUpdateRaftVoterRequest()
	update.VoterDirectoryID, update.Listeners = [16]byte{1}, []kmsg.UpdateRaftVoterRequestListener{kmsg.UpdateRaftVoterRequestListener(listener)}
	if got := ask[*kmsg.UpdateRaftVoterResponse](s, update); got.ErrorCode != 0 {
		t.Errorf("update: %+v", got)
	}
	lift := kmsg.NewPtrUpdateFeaturesRequest()
	lift.Version = 2
	lift.FeatureUpdates = []kmsg.UpdateFeaturesRequestFeatureUpdate{{Feature: "kraft.version", MaxVersionLevel: 1, UpgradeType: 1}}
	if got := ask[*kmsg.UpdateFeaturesResponse](s, lift); got.ErrorCode != 0 {
		t.Fatalf("%+v", got)
	}
	expect(0)
}
