package admin

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// QuotaType is by what a quota tells clients apart.
type QuotaType string

// Kafka's types. A user and a client id may stand together: then the quota is that user's with that client.
const (
	UserQuota     QuotaType = "user"
	ClientIDQuota QuotaType = "client-id"
	IPQuota       QuotaType = "ip"
)

// Kafka's quotas, for users and client ids unless it says otherwise.
const (
	ProducerByteRate       = "producer_byte_rate"       // bytes per second and broker
	ConsumerByteRate       = "consumer_byte_rate"       // bytes per second and broker
	RequestPercentage      = "request_percentage"       // of the time of one thread of a broker
	ControllerMutationRate = "controller_mutation_rate" // partitions created and deleted per second (KIP-599)
	ConnectionCreationRate = "connection_creation_rate" // connections per second and broker; for IPQuota alone (KIP-612)
)

// QuotaComponent is a part of whom a quota is for.
type QuotaComponent struct {
	Type    QuotaType
	Name    string
	Default bool // whoever has no quota of the type under the own name; Name is empty then
}

// String gives the component in one line, as in "user alice".
func (c QuotaComponent) String() string {
	if c.Default {
		return string(c.Type) + " <default>"
	}
	return string(c.Type) + " " + c.Name
}

// QuotaEntity is whom a quota is for: a user, a client id, both, or an address.
type QuotaEntity []QuotaComponent

// QuotaFor names an entity of one component.
func QuotaFor(t QuotaType, name string) QuotaEntity { return QuotaEntity{{Type: t, Name: name}} }

// DefaultQuota is the entity of everybody who has no quota of the type under the own name.
func DefaultQuota(t QuotaType) QuotaEntity { return QuotaEntity{{Type: t, Default: true}} }

// And is the entity of whoever is both, as a user with a client id.
func (e QuotaEntity) And(more QuotaEntity) QuotaEntity { return append(slices.Clone(e), more...) }

// String gives the components in the order of their types, as in "client-id <default>, user alice".
func (e QuotaEntity) String() string {
	var parts []string
	for _, c := range e.sorted() {
		parts = append(parts, c.String())
	}
	return strings.Join(parts, ", ")
}

func (e QuotaEntity) sorted() QuotaEntity {
	return slices.SortedFunc(slices.Values(e), func(a, b QuotaComponent) int { return cmp.Compare(a.Type, b.Type) })
}

// key tells entities apart, whatever the order of their components and the names in them.
func (e QuotaEntity) key() string {
	var key strings.Builder
	for _, c := range e.sorted() {
		fmt.Fprintf(&key, "%q %t %q;", c.Type, c.Default, c.Name)
	}
	return key.String()
}

// QuotaMatch is what a component of an entity must be to be described.
type QuotaMatch struct {
	by    QuotaType
	match kmsg.QuotasMatchType
	name  string
}

// MatchQuotaFor takes entities with that name.
func MatchQuotaFor(t QuotaType, name string) QuotaMatch {
	return QuotaMatch{t, kmsg.QuotasMatchTypeExact, name}
}

// MatchDefaultQuota takes the entities of those who have no quota of the type under the own name.
func MatchDefaultQuota(t QuotaType) QuotaMatch {
	return QuotaMatch{by: t, match: kmsg.QuotasMatchTypeDefault}
}

// MatchAnyQuota takes entities that have a component of the type.
func MatchAnyQuota(t QuotaType) QuotaMatch { return QuotaMatch{by: t, match: kmsg.QuotasMatchTypeAny} }

// ClientQuotas are the quotas of an entity.
type ClientQuotas struct {
	Entity QuotaEntity
	Values map[string]float64 // by the quota's name, such as ProducerByteRate
}

// DescribeClientQuotas gives the quotas of the entities that have a component for every match, and possibly others;
// with no match at all those of every entity. They are sorted by entity (KIP-546).
func (a *Admin) DescribeClientQuotas(ctx context.Context, matches ...QuotaMatch) ([]ClientQuotas, error) {
	return a.describeQuotas(ctx, false, matches)
}

// DescribeClientQuotasStrictly is DescribeClientQuotas without the entities that have components beside those matched.
func (a *Admin) DescribeClientQuotasStrictly(ctx context.Context, matches ...QuotaMatch) ([]ClientQuotas, error) {
	return a.describeQuotas(ctx, true, matches)
}

func (a *Admin) describeQuotas(ctx context.Context, strict bool, matches []QuotaMatch) ([]ClientQuotas, error) {
	req := kmsg.NewPtrDescribeClientQuotasRequest()
	req.Strict = strict
	for _, m := range matches {
		c := kmsg.NewDescribeClientQuotasRequestComponent()
		c.EntityType, c.MatchType = string(m.by), m.match
		if m.match == kmsg.QuotasMatchTypeExact {
			c.Match = &m.name
		}
		req.Components = append(req.Components, c)
	}
	var out []ClientQuotas
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.DescribeClientQuotasResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		out = readQuotas(resp)
		return client.CodeError(resp.ErrorCode, resp.ErrorMessage)
	})
	if err != nil {
		return nil, fmt.Errorf("describe client quotas: %w", err)
	}
	return out, nil
}

func readQuotas(in *kmsg.DescribeClientQuotasResponse) []ClientQuotas {
	var out []ClientQuotas
	for i := range in.Entries {
		q := ClientQuotas{Values: map[string]float64{}}
		for _, c := range in.Entries[i].Entity {
			q.Entity = append(q.Entity, QuotaComponent{QuotaType(c.Type), text(c.Name), c.Name == nil})
		}
		q.Entity = q.Entity.sorted()
		for _, v := range in.Entries[i].Values {
			q.Values[v.Key] = v.Value
		}
		out = append(out, q)
	}
	slices.SortFunc(out, func(a, b ClientQuotas) int { return cmp.Compare(a.Entity.key(), b.Entity.key()) })
	return out
}

// QuotaChange is what is to change of an entity's quotas. Quotas that it does not name stay.
type QuotaChange struct {
	Entity QuotaEntity
	Set    map[string]float64 // by the quota's name, such as ProducerByteRate
	Remove []string
}

// QuotaResult is what became of a QuotaChange.
type QuotaResult struct {
	Entity QuotaEntity
	Err    error // ErrInvalidRequest: a quota or an entity that the broker does not know
}

// AlterClientQuotas changes quotas: of each entity all that is asked for, or nothing. The results are in the order of
// the changes; an entity is to be named once.
func (a *Admin) AlterClientQuotas(ctx context.Context, changesOf []QuotaChange, options ...ChangeOption) ([]QuotaResult, error) {
	byKey := map[string]QuotaChange{}
	var keys []string
	for _, c := range changesOf {
		byKey[c.Entity.key()] = c
		keys = append(keys, c.Entity.key())
	}
	return decide(ctx, a, "alter client quotas", client.AnyBroker, keys,
		func(_ context.Context, keys []string) kmsg.Request {
			req := kmsg.NewPtrAlterClientQuotasRequest()
			req.ValidateOnly = changes(options).validateOnly
			for _, key := range keys {
				req.Entries = append(req.Entries, quotaRequest(byKey[key]))
			}
			return req
		},
		func(resp *kmsg.AlterClientQuotasResponse, give func(string, QuotaResult, error)) {
			for i := range resp.Entries {
				var e QuotaEntity
				for _, c := range resp.Entries[i].Entity {
					e = append(e, QuotaComponent{QuotaType(c.Type), text(c.Name), c.Name == nil})
				}
				give(e.key(), QuotaResult{Entity: byKey[e.key()].Entity}, client.CodeError(resp.Entries[i].ErrorCode, resp.Entries[i].ErrorMessage))
			}
		},
		func(key string, err error) QuotaResult { return QuotaResult{byKey[key].Entity, err} })
}

func quotaRequest(c QuotaChange) kmsg.AlterClientQuotasRequestEntry {
	out := kmsg.NewAlterClientQuotasRequestEntry()
	for _, part := range c.Entity {
		in := kmsg.NewAlterClientQuotasRequestEntryEntity()
		in.Type = string(part.Type)
		if !part.Default {
			in.Name = &part.Name
		}
		out.Entity = append(out.Entity, in)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Set)) {
		out.Ops = append(out.Ops, kmsg.AlterClientQuotasRequestEntryOp{Key: name, Value: c.Set[name]})
	}
	for _, name := range c.Remove {
		out.Ops = append(out.Ops, kmsg.AlterClientQuotasRequestEntryOp{Key: name, Remove: true})
	}
	return out
}
