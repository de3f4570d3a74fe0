package admin

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// Membership names a member of a group: by its instance id where it is a static member (KIP-345), else by its id.
type Membership struct {
	ID         string
	InstanceID string
}

// MemberResult is what became of a member.
type MemberResult struct {
	Member Membership
	Err    error // ErrUnknownMemberID, ErrFencedInstanceID
}

// RemoveOption says how RemoveMembersFromGroup goes about it.
type RemoveOption func(*string)

// Because tells the coordinator's log why members are removed (KIP-800).
func Because(reason string) RemoveOption { return func(r *string) { *r = reason } }

// leaveGroupOfMany is the version of LeaveGroup that brought several members, and static ones.
const leaveGroupOfMany int16 = 3

// RemoveMembersFromGroup takes members out of a group of the classic protocol, and static members out of one of KIP-848's;
// what they had goes to the others. A member that still lives joins again. The results are in the order of the members
// (KIP-345). Errors: ErrGroupAuthorizationFailed, ErrUnsupported where the broker removes none but the caller.
func (a *Admin) RemoveMembersFromGroup(ctx context.Context, group string, members []Membership, options ...RemoveOption) ([]MemberResult, error) {
	reason := "removed by an administrator"
	for _, o := range options {
		o(&reason)
	}
	results, err := perCoordinator(ctx, a, "remove members from group "+group, []string{group}, nil,
		func(context.Context, []string) kmsg.Request {
			req := kmsg.NewPtrLeaveGroupRequest()
			req.Group = group
			for _, m := range members {
				in := kmsg.NewLeaveGroupRequestMember()
				in.MemberID, in.InstanceID, in.Reason = m.ID, nonempty(m.InstanceID), &reason
				req.Members = append(req.Members, in)
			}
			return req
		},
		func(resp *kmsg.LeaveGroupResponse, give func(string, removal, error)) {
			r := removal{errs: map[Membership]error{}, err: client.CodeError(resp.ErrorCode, nil)}
			if resp.Version < leaveGroupOfMany { // a member without an id was asked for, and there is none
				r.err = tooOld(resp, leaveGroupOfMany, "list of members")
			}
			for _, m := range resp.Members {
				r.errs[Membership{m.MemberID, text(m.InstanceID)}] = client.CodeError(m.ErrorCode, nil)
			}
			give(group, r, r.err)
		},
		func(_ string, err error) removal { return removal{err: err} })
	if err == nil && results[0].err != nil {
		err = fmt.Errorf("remove members from group %s: %w", group, results[0].err)
	}
	if err != nil {
		return nil, err
	}
	out := make([]MemberResult, len(members))
	for i, m := range members {
		err, answered := results[0].errs[m]
		if !answered {
			err = errLeftOut
		}
		out[i] = MemberResult{m, err}
	}
	return out, nil
}

// removal is what a coordinator said of all members, or why it said nothing.
type removal struct {
	errs map[Membership]error
	err  error
}
