package admin

import (
	"cmp"
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// ScramMechanism is a kind of SCRAM credentials (RFC 5802, RFC 7677).
type ScramMechanism int8

// Kafka's mechanisms.
const (
	ScramSHA256 ScramMechanism = 1
	ScramSHA512 ScramMechanism = 2
)

// String gives the mechanism's name in SASL.
func (m ScramMechanism) String() string {
	switch m {
	case ScramSHA256:
		return "SCRAM-SHA-256"
	case ScramSHA512:
		return "SCRAM-SHA-512"
	default:
		return fmt.Sprintf("SCRAM mechanism %d", int8(m))
	}
}

// salted is SCRAM's SaltedPassword, from which nobody learns the password without trying them all.
func (m ScramMechanism) salted(password string, salt []byte, iterations int32) ([]byte, error) {
	switch m {
	case ScramSHA256:
		return pbkdf2.Key(func() hash.Hash { return sha256.New() }, password, salt, int(iterations), sha256.Size)
	case ScramSHA512:
		return pbkdf2.Key(func() hash.Hash { return sha512.New() }, password, salt, int(iterations), sha512.Size)
	default:
		return nil, fmt.Errorf("%v: %w", m, client.ErrUnsupportedSASLMechanism)
	}
}

// ScramCredential is what a broker tells of a user's credential.
type ScramCredential struct {
	Mechanism  ScramMechanism
	Iterations int32
}

// UserScramCredentials are the credentials of a user.
type UserScramCredentials struct {
	User        string
	Credentials []ScramCredential // by mechanism
	Err         error             // ErrResourceNotFound: there are none; ErrDuplicateResource: asked for twice
}

// DescribeUserScramCredentials gives which credentials users have: of all users, sorted by name, where none is named,
// else in the order of the names (KIP-554). Errors: ErrClusterAuthorizationFailed.
func (a *Admin) DescribeUserScramCredentials(ctx context.Context, users ...string) ([]UserScramCredentials, error) {
	req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
	for _, user := range users {
		req.Users = append(req.Users, kmsg.DescribeUserSCRAMCredentialsRequestUser{Name: user})
	}
	var out []UserScramCredentials
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.DescribeUserSCRAMCredentialsResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		out = readScramCredentials(resp)
		return client.CodeError(resp.ErrorCode, resp.ErrorMessage)
	})
	if err != nil {
		return nil, fmt.Errorf("describe SCRAM credentials: %w", err)
	}
	if len(users) == 0 {
		return out, nil
	}
	byUser := map[string]UserScramCredentials{}
	for _, c := range out {
		byUser[c.User] = c
	}
	named := make([]UserScramCredentials, len(users))
	for i, user := range users {
		c, ok := byUser[user]
		if !ok {
			c = UserScramCredentials{User: user, Err: errLeftOut}
		}
		named[i] = c
	}
	return named, nil
}

func readScramCredentials(in *kmsg.DescribeUserSCRAMCredentialsResponse) []UserScramCredentials {
	var out []UserScramCredentials
	for i := range in.Results {
		r := &in.Results[i]
		u := UserScramCredentials{User: r.User, Err: client.CodeError(r.ErrorCode, r.ErrorMessage)}
		for _, c := range r.CredentialInfos {
			u.Credentials = append(u.Credentials, ScramCredential{ScramMechanism(c.Mechanism), c.Iterations})
		}
		slices.SortFunc(u.Credentials, func(a, b ScramCredential) int { return cmp.Compare(a.Mechanism, b.Mechanism) })
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b UserScramCredentials) int { return cmp.Compare(a.User, b.User) })
	return out
}

// ScramChange is a credential that is to be set or deleted: what SetScram and DeleteScram give.
type ScramChange struct {
	user       string
	mechanism  ScramMechanism
	remove     bool
	password   string
	iterations int32
	salt       []byte
}

// defaultScramIterations is how often a password is hashed. Brokers take 4,096 to 16,384.
const defaultScramIterations = 8192

// scramSaltBytes is the length of the salt that is drawn for each password.
const scramSaltBytes = 24

// ScramOption says how SetScram makes a credential.
type ScramOption func(*ScramChange)

// ScramIterations is how often the password is hashed: more make guessing slower and every login too. Default 8,192;
// brokers take 4,096 to 16,384.
func ScramIterations(n int32) ScramOption { return func(c *ScramChange) { c.iterations = n } }

// ScramSalt is the salt to use in place of one drawn at random.
func ScramSalt(salt []byte) ScramOption { return func(c *ScramChange) { c.salt = salt } }

// SetScram gives a user a password for a mechanism, or another one. The password itself stays in this process: brokers
// get what it takes to check it.
func SetScram(user string, mechanism ScramMechanism, password string, options ...ScramOption) ScramChange {
	c := ScramChange{user: user, mechanism: mechanism, password: password, iterations: defaultScramIterations}
	for _, o := range options {
		o(&c)
	}
	return c
}

// DeleteScram takes a user's credential for a mechanism away.
func DeleteScram(user string, mechanism ScramMechanism) ScramChange {
	return ScramChange{user: user, mechanism: mechanism, remove: true}
}

// UserResult is what became of a user in a call that only changes it.
type UserResult struct {
	User string
	Err  error // ErrResourceNotFound, ErrDuplicateResource, ErrUnacceptableCredential, ErrUnsupportedSASLMechanism, …
}

// AlterUserScramCredentials sets and deletes credentials (KIP-554). The results are in the order in which the users first
// appear. Of a user's changes all are made or none, and Kafka's brokers take one for each user in a call: two that set
// something are ErrDuplicateResource.
func (a *Admin) AlterUserScramCredentials(ctx context.Context, changesOf []ScramChange) ([]UserResult, error) {
	byUser := map[string]*scramChanges{}
	var users, good []string
	for _, c := range changesOf {
		u := byUser[c.user]
		if u == nil {
			u = &scramChanges{}
			byUser[c.user], users = u, append(users, c.user)
		}
		u.add(c)
	}
	for _, user := range users {
		if byUser[user].err == nil {
			good = append(good, user)
		}
	}
	var answered []UserResult
	if len(good) > 0 {
		var err error
		if answered, err = a.alterScram(ctx, good, byUser); err != nil {
			return nil, err
		}
	}
	out := make([]UserResult, len(users))
	for i, user := range users {
		if out[i] = (UserResult{user, byUser[user].err}); out[i].Err == nil {
			out[i], answered = answered[0], answered[1:]
		}
	}
	return out, nil
}

// scramChanges are those of one user.
type scramChanges struct {
	deletions []kmsg.AlterUserSCRAMCredentialsRequestDeletion
	settings  []kmsg.AlterUserSCRAMCredentialsRequestUpsertion
	err       error
}

func (u *scramChanges) add(c ScramChange) {
	if c.remove {
		u.deletions = append(u.deletions, kmsg.AlterUserSCRAMCredentialsRequestDeletion{Name: c.user, Mechanism: int8(c.mechanism)})
		return
	}
	salt := c.salt
	if salt == nil {
		salt = make([]byte, scramSaltBytes)
		_, _ = rand.Read(salt) // never fails
	}
	if c.iterations < 1 {
		u.err = cmp.Or(u.err, fmt.Errorf("%d iterations: %w", c.iterations, client.ErrUnacceptableCredential))
		return
	}
	salted, err := c.mechanism.salted(c.password, salt, c.iterations)
	u.err = cmp.Or(u.err, err)
	u.settings = append(u.settings, kmsg.AlterUserSCRAMCredentialsRequestUpsertion{
		Name: c.user, Mechanism: int8(c.mechanism), Iterations: c.iterations, Salt: salt, SaltedPassword: salted,
	})
}

func (a *Admin) alterScram(ctx context.Context, users []string, byUser map[string]*scramChanges) ([]UserResult, error) {
	return decide(ctx, a, "alter SCRAM credentials", client.Controller, users,
		func(_ context.Context, users []string) kmsg.Request {
			req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
			for _, user := range users {
				req.Deletions = append(req.Deletions, byUser[user].deletions...)
				req.Upsertions = append(req.Upsertions, byUser[user].settings...)
			}
			return req
		},
		func(resp *kmsg.AlterUserSCRAMCredentialsResponse, give func(string, UserResult, error)) {
			for _, r := range resp.Results {
				give(r.User, UserResult{User: r.User}, client.CodeError(r.ErrorCode, r.ErrorMessage))
			}
		},
		func(user string, err error) UserResult { return UserResult{user, err} })
}
