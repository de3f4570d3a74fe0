package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// Principal is who somebody is to a broker.
type Principal struct {
	Type string // "User", unless the brokers have a builder of principals of their own
	Name string
}

// UserPrincipal is the principal of a user.
func UserPrincipal(name string) Principal { return Principal{"User", name} }

// String gives TYPE:NAME, as in "User:alice".
func (p Principal) String() string { return p.Type + ":" + p.Name }

// DelegationToken is a secret by which somebody is believed to be its owner for a while (KIP-48): with SCRAM, ID is the
// user and HMAC in base64 the password.
type DelegationToken struct {
	ID        string
	HMAC      []byte // the secret
	Owner     Principal
	Requester Principal   // who made it; zero where the broker does not say (KIP-373)
	Renewers  []Principal // who may renew it beside the owner; not in the answer of CreateDelegationToken
	Issued    time.Time
	Expires   time.Time // unless it is renewed before
	Latest    time.Time // no renewal goes beyond
}

// TokenOption says what CreateDelegationToken is to make.
type TokenOption func(*kmsg.CreateDelegationTokenRequest)

// OwnedBy makes the token somebody else's than the caller's (KIP-373).
func OwnedBy(owner Principal) TokenOption {
	return func(r *kmsg.CreateDelegationTokenRequest) {
		r.OwnerPrincipalType, r.OwnerPrincipalName = &owner.Type, &owner.Name
	}
}

// RenewableBy names who may renew the token beside its owner.
func RenewableBy(renewers ...Principal) TokenOption {
	return func(r *kmsg.CreateDelegationTokenRequest) {
		for _, p := range renewers {
			r.Renewers = append(r.Renewers, kmsg.CreateDelegationTokenRequestRenewer{PrincipalType: p.Type, PrincipalName: p.Name})
		}
	}
}

// TokenLifetime is until when the token can be renewed. Default, and at most, the brokers'
// delegation.token.max.lifetime.ms.
func TokenLifetime(d time.Duration) TokenOption {
	return func(r *kmsg.CreateDelegationTokenRequest) { r.MaxLifetimeMillis = d.Milliseconds() }
}

// CreateDelegationToken makes a token. Errors: ErrDelegationTokenAuthDisabled where brokers have no
// delegation.token.secret.key, ErrDelegationTokenRequestNotAllowed over a connection that proves nobody's identity,
// ErrDelegationTokenAuthorizationFailed, ErrInvalidPrincipalType.
func (a *Admin) CreateDelegationToken(ctx context.Context, options ...TokenOption) (DelegationToken, error) {
	req := kmsg.NewPtrCreateDelegationTokenRequest()
	req.MaxLifetimeMillis = -1
	for _, o := range options {
		o(req)
	}
	var out DelegationToken
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.CreateDelegationTokenResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		out = DelegationToken{
			ID: resp.TokenID, HMAC: resp.HMAC, Owner: Principal{resp.PrincipalType, resp.PrincipalName},
			Requester: Principal{resp.TokenRequesterPrincipalType, resp.TokenRequesterPrincipalName},
			Issued:    time.UnixMilli(resp.IssueTimestamp), Expires: time.UnixMilli(resp.ExpiryTimestamp), Latest: time.UnixMilli(resp.MaxTimestamp),
		}
		return client.CodeError(resp.ErrorCode, nil)
	})
	if err != nil {
		return DelegationToken{}, fmt.Errorf("create a delegation token: %w", err)
	}
	return out, nil
}

// RenewDelegationToken lets the token of that secret live for longer: for a period from now, or, where it is 0, for the
// brokers' delegation.token.expiry.time.ms; never beyond its Latest. It gives when the token expires. Errors:
// ErrDelegationTokenNotFound, ErrDelegationTokenExpired, ErrDelegationTokenOwnerMismatch.
func (a *Admin) RenewDelegationToken(ctx context.Context, hmac []byte, period time.Duration) (time.Time, error) {
	req := kmsg.NewPtrRenewDelegationTokenRequest()
	req.HMAC, req.RenewTimeMillis = hmac, -1
	if period > 0 {
		req.RenewTimeMillis = max(period.Milliseconds(), 1)
	}
	var expires time.Time
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.RenewDelegationTokenResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		expires = time.UnixMilli(resp.ExpiryTimestamp)
		return client.CodeError(resp.ErrorCode, nil)
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("renew a delegation token: %w", err)
	}
	return expires, nil
}

// ExpireDelegationToken lets the token of that secret expire when a period from now is over, or, where it is 0, at once:
// then the token is deleted. It gives when the token expires. Errors: as for RenewDelegationToken.
func (a *Admin) ExpireDelegationToken(ctx context.Context, hmac []byte, period time.Duration) (time.Time, error) {
	req := kmsg.NewPtrExpireDelegationTokenRequest()
	req.HMAC, req.ExpiryPeriodMillis = hmac, -1
	if period > 0 {
		req.ExpiryPeriodMillis = max(period.Milliseconds(), 1)
	}
	var expires time.Time
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.ExpireDelegationTokenResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		expires = time.UnixMilli(resp.ExpiryTimestamp)
		return client.CodeError(resp.ErrorCode, nil)
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("expire a delegation token: %w", err)
	}
	return expires, nil
}

// DescribeDelegationTokens gives the tokens that somebody owns or may renew, all where nobody is named, as far as the
// caller may see them, sorted by owner and id. Errors: ErrDelegationTokenAuthDisabled, ErrDelegationTokenRequestNotAllowed.
func (a *Admin) DescribeDelegationTokens(ctx context.Context, of ...Principal) ([]DelegationToken, error) {
	req := kmsg.NewPtrDescribeDelegationTokenRequest()
	for _, p := range of {
		req.Owners = append(req.Owners, kmsg.DescribeDelegationTokenRequestOwner{PrincipalType: p.Type, PrincipalName: p.Name})
	}
	var out []DelegationToken
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.DescribeDelegationTokenResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		out = readTokens(resp)
		return client.CodeError(resp.ErrorCode, nil)
	})
	if err != nil {
		return nil, fmt.Errorf("describe delegation tokens: %w", err)
	}
	return out, nil
}

func readTokens(in *kmsg.DescribeDelegationTokenResponse) []DelegationToken {
	var out []DelegationToken
	for i := range in.TokenDetails {
		d := &in.TokenDetails[i]
		t := DelegationToken{
			ID: d.TokenID, HMAC: d.HMAC, Owner: Principal{d.PrincipalType, d.PrincipalName},
			Requester: Principal{d.TokenRequesterPrincipalType, d.TokenRequesterPrincipalName},
			Issued:    time.UnixMilli(d.IssueTimestamp), Expires: time.UnixMilli(d.ExpiryTimestamp), Latest: time.UnixMilli(d.MaxTimestamp),
		}
		for _, r := range d.Renewers {
			t.Renewers = append(t.Renewers, Principal{r.PrincipalType, r.PrincipalName})
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b DelegationToken) int {
		return cmp.Or(cmp.Compare(a.Owner.Type, b.Owner.Type), cmp.Compare(a.Owner.Name, b.Owner.Name), cmp.Compare(a.ID, b.ID))
	})
	return out
}
