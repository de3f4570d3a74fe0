package admin

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// What brokers would refuse together with everything beside it is refused before; the rest is answered in its order.
func TestACLsAreAnsweredInTheirOrder(t *testing.T) {
	attempts := 0
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		r, ok := req.(*kmsg.CreateACLsRequest)
		if !ok {
			return nil
		}
		attempts++
		resp := kmsg.NewPtrCreateACLsResponse()
		for _, c := range r.Creations {
			out := kmsg.NewCreateACLsResponseResult()
			switch {
			case c.ResourceType == kmsg.ACLResourceTypeCluster && (c.ResourceName != "kafka-cluster" || c.Host != "*" || c.ResourcePatternType != kmsg.ACLResourcePatternTypeLiteral):
				t.Errorf("%+v", c)
			case attempts == 1 && c.ResourceName == "moved":
				out.ErrorCode = int16(client.ErrNotController)
			case c.Principal == "nobody":
				out.ErrorCode, out.ErrorMessage = int16(client.ErrInvalidRequest), kmsg.StringPtr("who?")
			case attempts == 2 && c.ResourceName != "moved":
				t.Errorf("asked again for %+v", c)
			}
			resp.Results = append(resp.Results, out)
		}
		return resp
	}
	serving(t, []int16{30}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		acl := func(kind ACLResourceType, name, principal string, o ACLOperation, p ACLPermission) ACLBinding {
			return ACLBinding{Resource: kind, Name: name, Principal: principal, Operation: o, Permission: p}
		}
		asked := []ACLBinding{
			acl(ACLTopic, "any", "User:u", AnyOperation, Allow), acl(ACLTopic, "moved", "User:u", OperationRead, Allow),
			acl(ACLTopic, "bad", "nobody", OperationRead, Deny), acl(ACLCluster, "", "User:u", OperationAll, Allow),
			acl(0, "zero", "User:u", OperationRead, Allow),
			{Resource: ACLTopic, Name: "match", Pattern: MatchPattern, Principal: "User:u", Operation: OperationRead, Permission: Allow},
		}
		made, err := a.CreateACLs(ctx, asked)
		if err != nil || attempts != 2 {
			t.Fatalf("%v after %d attempts", err, attempts)
		}
		for i, want := range []error{client.ErrInvalidRequest, nil, client.ErrInvalidRequest, nil, client.ErrInvalidRequest, client.ErrInvalidRequest} {
			if made[i].ACL.Principal != asked[i].Principal || !errors.Is(made[i].Err, want) {
				t.Errorf("%v: %v, expected %v", asked[i], made[i].Err, want)
			}
		}
		if made, err = a.CreateACLs(ctx, asked[:1]); err != nil || made[0].Err == nil || attempts != 2 {
			t.Errorf("%v, %v after %d attempts", made, err, attempts)
		}
	})
}

// A filter's zero fields stand for any, and each filter has what it deleted.
func TestACLFilters(t *testing.T) {
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.DescribeACLsRequest:
			if r.ResourceType != 1 || r.ResourceName != nil || r.ResourcePatternType != 1 || r.Principal != nil || r.Host != nil || r.Operation != 1 || r.PermissionType != 1 {
				t.Errorf("%+v", r)
			}
			resp := kmsg.NewPtrDescribeACLsResponse()
			for _, name := range []string{"b", "a"} {
				one := kmsg.NewDescribeACLsResponseResource()
				one.ResourceType, one.ResourceName, one.ResourcePatternType = 2, name, 4
				one.ACLs = []kmsg.DescribeACLsResponseResourceACL{{Principal: "User:z", Host: "*", Operation: 3, PermissionType: 3}, {Principal: "User:y", Host: "*", Operation: 4, PermissionType: 2}}
				resp.Resources = append(resp.Resources, one)
			}
			return resp
		case *kmsg.DeleteACLsRequest:
			resp := kmsg.NewPtrDeleteACLsResponse()
			for i, f := range r.Filters {
				out := kmsg.NewDeleteACLsResponseResult()
				for n := range i {
					m := kmsg.NewDeleteACLsResponseResultMatchingACL()
					m.ResourceName, m.ErrorCode = fmt.Sprint(9-n), int16(n)
					out.MatchingACLs = append(out.MatchingACLs, m)
				}
				if *f.Principal == "denied" {
					out.ErrorCode = int16(client.ErrClusterAuthorizationFailed)
				}
				resp.Results = append(resp.Results, out)
			}
			return resp
		}
		return nil
	}
	serving(t, []int16{29, 31}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.DescribeACLs(ctx, ACLFilter{})
		if err != nil || len(got) != 4 {
			t.Fatalf("%v, %v", got, err)
		}
		if s := fmt.Sprint(got[0]); s != `DENY User:y to WRITE PREFIXED TOPIC "a" from host *` {
			t.Error(s)
		}
		gone, err := a.DeleteACLs(ctx, ACLFilter{Principal: "a"}, ACLFilter{Principal: "denied"}, ACLFilter{Principal: "c"})
		if err != nil || len(gone[0].Deleted) != 0 || !errors.Is(gone[1].Err, client.ErrClusterAuthorizationFailed) || gone[1].Filter.Principal != "denied" {
			t.Fatalf("%+v, %v", gone, err)
		}
		if d := gone[2].Deleted; len(d) != 2 || d[0].ACL.Name != "8" || d[0].Err == nil || d[1].Err != nil {
			t.Errorf("%+v", d)
		}
	})
}

func TestACLNamesAreKafkas(t *testing.T) {
	for got, want := range map[fmt.Stringer]string{
		ACLTransactionalID: "TRANSACTIONAL_ID", ACLUser: "USER", MatchPattern: "MATCH", PrefixedPattern: "PREFIXED", OperationTwoPhaseCommit: "TWO_PHASE_COMMIT",
		OperationDescribeConfigs: "DESCRIBE_CONFIGS", Deny: "DENY", ACLOperation(99): "UNKNOWN", ACLPermission(-1): "UNKNOWN",
		ScramSHA512: "SCRAM-SHA-512", UserPrincipal("a"): "User:a",
	} {
		if got.String() != want {
			t.Errorf("%v, expected %s", got, want)
		}
	}
	// The codec's numbers, which are Kafka's, have the same names.
	for o := range ACLOperation(15) {
		if s := kmsg.ACLOperation(o).String(); s != o.String() {
			t.Errorf("%d is %s and %s", o, o, s)
		}
	}
}

// Entities are told apart by their components, in whatever order a broker gives them.
func TestQuotasAreAnsweredByEntity(t *testing.T) {
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		r, ok := req.(*kmsg.AlterClientQuotasRequest)
		if !ok {
			return nil
		}
		resp := kmsg.NewPtrAlterClientQuotasResponse()
		for i, e := range slices.Backward(r.Entries) {
			out := kmsg.NewAlterClientQuotasResponseEntry()
			for _, c := range slices.Backward(e.Entity) {
				out.Entity = append(out.Entity, kmsg.AlterClientQuotasResponseEntryEntity{Type: c.Type, Name: c.Name})
			}
			if i == 1 {
				out.ErrorCode = int16(client.ErrInvalidRequest)
			}
			if i == 0 && (len(e.Ops) != 2 || e.Ops[0].Key != "x" || e.Ops[0].Value != 5 || e.Ops[0].Remove || e.Ops[1].Key != "y" || !e.Ops[1].Remove) {
				t.Errorf("%+v", e.Ops)
			}
			resp.Entries = append(resp.Entries, out)
		}
		return resp
	}
	serving(t, []int16{49}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		entities := []QuotaEntity{
			QuotaFor(UserQuota, "u").And(DefaultQuota(ClientIDQuota)), QuotaFor(UserQuota, "u").And(QuotaFor(ClientIDQuota, "")),
			QuotaFor(UserQuota, "<default>"), DefaultQuota(UserQuota),
		}
		var asked []QuotaChange
		for _, e := range entities {
			asked = append(asked, QuotaChange{Entity: e, Set: map[string]float64{"x": 5}, Remove: []string{"y"}})
		}
		got, err := a.AlterClientQuotas(ctx, asked)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range got {
			if !reflect.DeepEqual(r.Entity, entities[i]) || (r.Err != nil) != (i == 1) {
				t.Errorf("%d: %v, %v", i, r.Entity, r.Err)
			}
		}
	})
}

// TestScramPasswordsAreHashed: the example of RFC 7677, section 3. Of the salted password only the proof is known there.
func TestScramPasswordsAreHashed(t *testing.T) {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	salted, err := ScramSHA256.salted("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	said := "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096," +
		"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	key := mac(salted, "Client Key")
	stored := sha256.Sum256(key)
	proof := mac(stored[:], said)
	for i := range proof {
		proof[i] ^= key[i]
	}
	if got := base64.StdEncoding.EncodeToString(proof); got != "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=" {
		t.Errorf("proof %s", got)
	}
}

// Users are answered in the order in which they appear, whoever is refused before.
func TestScramChanges(t *testing.T) {
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.AlterUserSCRAMCredentialsRequest:
			if len(r.Deletions) != 1 || len(r.Upsertions) != 1 {
				t.Fatalf("%+v", r)
			}
			if u := r.Upsertions[0]; u.Iterations != 8192 || len(u.Salt) != 24 || len(u.SaltedPassword) != 64 || bytes.Contains(u.SaltedPassword, []byte("secret")) {
				t.Errorf("%+v", u)
			}
			resp := kmsg.NewPtrAlterUserSCRAMCredentialsResponse()
			for _, r := range []struct {
				user string
				code client.Error
			}{{"gone", client.ErrResourceNotFound}, {"set", 0}} {
				resp.Results = append(resp.Results, kmsg.AlterUserSCRAMCredentialsResponseResult{User: r.user, ErrorCode: int16(r.code)})
			}
			return resp
		case *kmsg.DescribeUserSCRAMCredentialsRequest:
			resp := kmsg.NewPtrDescribeUserSCRAMCredentialsResponse()
			u := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
			u.User = "set"
			u.CredentialInfos = []kmsg.DescribeUserSCRAMCredentialsResponseResultCredentialInfo{{Mechanism: 2, Iterations: 5}, {Mechanism: 1, Iterations: 4}}
			resp.Results = append(resp.Results, u)
			return resp
		}
		return nil
	}
	serving(t, []int16{50, 51}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.AlterUserScramCredentials(ctx, []ScramChange{
			SetScram("odd", 7, "secret"), SetScram("set", ScramSHA512, "secret"), SetScram("none", ScramSHA256, "secret", ScramIterations(0)), DeleteScram("gone", ScramSHA256),
		})
		if err != nil || len(got) != 4 {
			t.Fatalf("%v, %v", got, err)
		}
		for i, want := range []UserResult{{"odd", client.ErrUnsupportedSASLMechanism}, {"set", nil}, {"none", client.ErrUnacceptableCredential}, {"gone", client.ErrResourceNotFound}} {
			if got[i].User != want.User || !errors.Is(got[i].Err, want.Err) {
				t.Errorf("%v, expected %v", got[i], want)
			}
		}
		users, err := a.DescribeUserScramCredentials(ctx, "none", "set")
		if err != nil || !errors.Is(users[0].Err, errLeftOut) || users[1].Credentials[0] != (ScramCredential{ScramSHA256, 4}) {
			t.Errorf("%v, %v", users, err)
		}
	})
}

func TestDelegationTokens(t *testing.T) {
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.CreateDelegationTokenRequest:
			resp := kmsg.NewPtrCreateDelegationTokenResponse()
			if r.MaxLifetimeMillis == -1 && r.OwnerPrincipalName == nil {
				resp.ErrorCode = int16(client.ErrDelegationTokenAuthDisabled)
				return resp
			}
			resp.PrincipalType, resp.PrincipalName = *r.OwnerPrincipalType, *r.OwnerPrincipalName
			resp.IssueTimestamp, resp.MaxTimestamp, resp.TokenID = 5000, 5000+r.MaxLifetimeMillis, r.Renewers[0].PrincipalName
			return resp
		case *kmsg.RenewDelegationTokenRequest:
			return &kmsg.RenewDelegationTokenResponse{ExpiryTimestamp: r.RenewTimeMillis + 10}
		case *kmsg.ExpireDelegationTokenRequest:
			return &kmsg.ExpireDelegationTokenResponse{ExpiryTimestamp: r.ExpiryPeriodMillis + 20}
		}
		return nil
	}
	serving(t, []int16{38, 39, 40}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		if _, err := a.CreateDelegationToken(ctx); !errors.Is(err, client.ErrDelegationTokenAuthDisabled) {
			t.Error(err)
		}
		token, err := a.CreateDelegationToken(ctx, OwnedBy(UserPrincipal("o")), RenewableBy(UserPrincipal("r")), TokenLifetime(time.Second))
		if err != nil || token.ID != "r" || token.Owner != UserPrincipal("o") || token.Latest.Sub(token.Issued) != time.Second {
			t.Errorf("%+v, %v", token, err)
		}
		for period, ms := range map[time.Duration]int64{0: -1, -5: -1, time.Microsecond: 1, time.Minute: 60_000} {
			if until, err := a.RenewDelegationToken(ctx, nil, period); err != nil || until.UnixMilli() != ms+10 {
				t.Errorf("renewed by %v: %d, %v", period, until.UnixMilli(), err)
			}
			if until, err := a.ExpireDelegationToken(ctx, nil, period); err != nil || until.UnixMilli() != ms+20 {
				t.Errorf("expires in %v: %d, %v", period, until.UnixMilli(), err)
			}
		}
	})
}
