package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// ACLResourceType is what kind of thing an ACL is about.
type ACLResourceType int8

// Kafka's types of resources. AnyResource is for filters alone.
const (
	AnyResource        ACLResourceType = 1
	ACLTopic           ACLResourceType = 2
	ACLGroup           ACLResourceType = 3
	ACLCluster         ACLResourceType = 4 // the one resource of this type is named ClusterName
	ACLTransactionalID ACLResourceType = 5
	ACLDelegationToken ACLResourceType = 6
	ACLUser            ACLResourceType = 7 // to create and describe tokens of
)

// ClusterName is the name of the one resource of type ACLCluster.
const ClusterName = "kafka-cluster"

var aclResourceNames = [...]string{"UNKNOWN", "ANY", "TOPIC", "GROUP", "CLUSTER", "TRANSACTIONAL_ID", "DELEGATION_TOKEN", "USER"}

// String gives Kafka's name.
func (t ACLResourceType) String() string { return nameOf(aclResourceNames[:], int8(t)) }

// PatternType is how an ACL's resource name is meant.
type PatternType int8

// Kafka's types of patterns. AnyPattern and MatchPattern are for filters alone: AnyPattern takes the name as it is
// written, whatever its pattern, MatchPattern all patterns that the named resource falls under.
const (
	AnyPattern      PatternType = 1
	MatchPattern    PatternType = 2
	LiteralPattern  PatternType = 3 // the name, or every name where it is "*"
	PrefixedPattern PatternType = 4 // all names that begin so (KIP-290)
)

var patternNames = [...]string{"UNKNOWN", "ANY", "MATCH", "LITERAL", "PREFIXED"}

// String gives Kafka's name.
func (t PatternType) String() string { return nameOf(patternNames[:], int8(t)) }

// ACLOperation is what may be done.
type ACLOperation int8

// Kafka's operations. AnyOperation is for filters alone; OperationAll stands for every one of those after it.
const (
	AnyOperation             ACLOperation = 1
	OperationAll             ACLOperation = 2
	OperationRead            ACLOperation = 3
	OperationWrite           ACLOperation = 4
	OperationCreate          ACLOperation = 5
	OperationDelete          ACLOperation = 6
	OperationAlter           ACLOperation = 7
	OperationDescribe        ACLOperation = 8
	OperationClusterAction   ACLOperation = 9
	OperationDescribeConfigs ACLOperation = 10
	OperationAlterConfigs    ACLOperation = 11
	OperationIdempotentWrite ACLOperation = 12
	OperationCreateTokens    ACLOperation = 13
	OperationDescribeTokens  ACLOperation = 14
	OperationTwoPhaseCommit  ACLOperation = 15
)

var operationNames = [...]string{
	"UNKNOWN", "ANY", "ALL", "READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE", "CLUSTER_ACTION", "DESCRIBE_CONFIGS",
	"ALTER_CONFIGS", "IDEMPOTENT_WRITE", "CREATE_TOKENS", "DESCRIBE_TOKENS", "TWO_PHASE_COMMIT",
}

// String gives Kafka's name.
func (o ACLOperation) String() string { return nameOf(operationNames[:], int8(o)) }

// operations reads a set of operations as responses carry it: a bit for each, and the lowest number where nobody asked.
func operations(bits int32) []ACLOperation {
	if bits == -1<<31 {
		return nil
	}
	out := []ACLOperation{}
	for o := range ACLOperation(31) {
		if bits&(1<<o) != 0 {
			out = append(out, o)
		}
	}
	return out
}

// ACLPermission is whether an ACL allows or denies.
type ACLPermission int8

// Kafka's permissions. AnyPermission is for filters alone. What one ACL denies no other can allow.
const (
	AnyPermission ACLPermission = 1
	Deny          ACLPermission = 2
	Allow         ACLPermission = 3
)

var permissionNames = [...]string{"UNKNOWN", "ANY", "DENY", "ALLOW"}

// String gives Kafka's name.
func (p ACLPermission) String() string { return nameOf(permissionNames[:], int8(p)) }

func nameOf(names []string, i int8) string {
	if i < 0 || int(i) >= len(names) {
		return names[0]
	}
	return names[i]
}

// ACLBinding is an ACL and the resources that it is bound to.
type ACLBinding struct {
	Resource   ACLResourceType
	Name       string        // "*": all; may be empty for ACLCluster
	Pattern    PatternType   // 0: LiteralPattern
	Principal  string        // "User:alice"; "User:*": everybody
	Host       string        // an address, or "*" or empty for any
	Operation  ACLOperation  // one, or OperationAll
	Permission ACLPermission // Allow or Deny
}

// String gives the binding in one line, for people.
func (b ACLBinding) String() string {
	return fmt.Sprintf("%v %s to %v %s %s %q from host %s", b.Permission, b.Principal, b.Operation, b.Pattern, b.Resource, b.Name, b.Host)
}

func (b ACLBinding) withDefaults() ACLBinding {
	b.Pattern, b.Host = cmp.Or(b.Pattern, LiteralPattern), cmp.Or(b.Host, "*")
	if b.Resource == ACLCluster {
		b.Name = cmp.Or(b.Name, ClusterName)
	}
	return b
}

// check finds what makes no ACL: brokers refuse all that come with one that has it.
func (b ACLBinding) check() error {
	switch {
	case b.Resource <= AnyResource, b.Pattern != LiteralPattern && b.Pattern != PrefixedPattern, b.Operation <= AnyOperation, b.Permission <= AnyPermission:
		return fmt.Errorf("%v: resource, pattern, operation or permission is none: %w", b, client.ErrInvalidRequest)
	}
	return nil
}

// ACLFilter says which ACLs are meant. A field that is zero stands for any; the zero ACLFilter for all ACLs.
type ACLFilter struct {
	Resource   ACLResourceType
	Name       string
	Pattern    PatternType // 0: AnyPattern
	Principal  string
	Host       string // as the ACL has it: "*" for those that hold for any host
	Operation  ACLOperation
	Permission ACLPermission
}

func (f ACLFilter) withDefaults() ACLFilter {
	f.Resource, f.Pattern = cmp.Or(f.Resource, AnyResource), cmp.Or(f.Pattern, AnyPattern)
	f.Operation, f.Permission = cmp.Or(f.Operation, AnyOperation), cmp.Or(f.Permission, AnyPermission)
	return f
}

// nonempty is a text as requests carry it that may be missing.
func nonempty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func compareACLs(a, b ACLBinding) int {
	return cmp.Or(cmp.Compare(a.Resource, b.Resource), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Pattern, b.Pattern),
		cmp.Compare(a.Principal, b.Principal), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Operation, b.Operation),
		cmp.Compare(a.Permission, b.Permission))
}

// DescribeACLs gives the ACLs that a filter takes in, sorted by resource. Errors: ErrSecurityDisabled where the brokers
// have no authorizer, ErrClusterAuthorizationFailed.
func (a *Admin) DescribeACLs(ctx context.Context, filter ACLFilter) ([]ACLBinding, error) {
	f := filter.withDefaults()
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourceName = kmsg.ACLResourceType(f.Resource), nonempty(f.Name)
	req.ResourcePatternType = kmsg.ACLResourcePatternType(f.Pattern)
	req.Principal, req.Host = nonempty(f.Principal), nonempty(f.Host)
	req.Operation, req.PermissionType = kmsg.ACLOperation(f.Operation), kmsg.ACLPermissionType(f.Permission)
	var out []ACLBinding
	err := a.try(ctx, func(ctx context.Context) error {
		resp, err := ask[*kmsg.DescribeACLsResponse](ctx, a, client.AnyBroker, req)
		if err != nil {
			return err
		}
		out = readACLs(resp)
		return client.CodeError(resp.ErrorCode, resp.ErrorMessage)
	})
	if err != nil {
		return nil, fmt.Errorf("describe ACLs: %w", err)
	}
	return out, nil
}

func readACLs(in *kmsg.DescribeACLsResponse) []ACLBinding {
	var out []ACLBinding
	for i := range in.Resources {
		r := &in.Resources[i]
		for _, acl := range r.ACLs {
			out = append(out, ACLBinding{
				Resource: ACLResourceType(r.ResourceType), Name: r.ResourceName, Pattern: PatternType(r.ResourcePatternType),
				Principal: acl.Principal, Host: acl.Host, Operation: ACLOperation(acl.Operation), Permission: ACLPermission(acl.PermissionType),
			})
		}
	}
	slices.SortFunc(out, compareACLs)
	return out
}

// ACLResult is what became of an ACL.
type ACLResult struct {
	ACL ACLBinding // with what was left empty filled in
	Err error      // ErrInvalidRequest, ErrSecurityDisabled, ErrClusterAuthorizationFailed
}

// CreateACLs makes ACLs; one that is there already stays. The results are in the order of the ACLs.
func (a *Admin) CreateACLs(ctx context.Context, acls []ACLBinding) ([]ACLResult, error) {
	out := make([]ACLResult, len(acls))
	var good []ACLBinding
	for i, b := range acls {
		out[i].ACL = b.withDefaults()
		if out[i].Err = out[i].ACL.check(); out[i].Err == nil {
			good = append(good, out[i].ACL)
		}
	}
	if len(good) == 0 {
		return out, nil
	}
	results, err := a.createACLs(ctx, good)
	if err != nil {
		return nil, err
	}
	for i := range out {
		if out[i].Err == nil {
			out[i], results = results[0], results[1:]
		}
	}
	return out, nil
}

func (a *Admin) createACLs(ctx context.Context, acls []ACLBinding) ([]ACLResult, error) {
	var asked []ACLBinding // of the request under way: the answer has only their order
	return decide(ctx, a, "create ACLs", client.AnyBroker, acls,
		func(_ context.Context, of []ACLBinding) kmsg.Request {
			asked = of
			req := kmsg.NewPtrCreateACLsRequest()
			for _, b := range of {
				req.Creations = append(req.Creations, kmsg.CreateACLsRequestCreation{
					ResourceType: kmsg.ACLResourceType(b.Resource), ResourceName: b.Name,
					ResourcePatternType: kmsg.ACLResourcePatternType(b.Pattern), Principal: b.Principal, Host: b.Host,
					Operation: kmsg.ACLOperation(b.Operation), PermissionType: kmsg.ACLPermissionType(b.Permission),
				})
			}
			return req
		},
		func(resp *kmsg.CreateACLsResponse, give func(ACLBinding, ACLResult, error)) {
			for i := range min(len(resp.Results), len(asked)) {
				give(asked[i], ACLResult{ACL: asked[i]}, client.CodeError(resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage))
			}
		},
		func(b ACLBinding, err error) ACLResult { return ACLResult{b, err} })
}

// DeletedACLs is what a filter has deleted.
type DeletedACLs struct {
	Filter  ACLFilter
	Deleted []ACLResult // sorted by resource
	Err     error       // ErrSecurityDisabled, ErrClusterAuthorizationFailed
}

// DeleteACLs deletes the ACLs that filters take in. The results are in the order of the filters. The zero ACLFilter
// deletes all ACLs that there are.
func (a *Admin) DeleteACLs(ctx context.Context, filters ...ACLFilter) ([]DeletedACLs, error) {
	var asked []ACLFilter // of the request under way: the answer has only their order
	return decide(ctx, a, "delete ACLs", client.AnyBroker, filters,
		func(_ context.Context, of []ACLFilter) kmsg.Request {
			asked = of
			req := kmsg.NewPtrDeleteACLsRequest()
			for _, f := range of {
				f = f.withDefaults()
				req.Filters = append(req.Filters, kmsg.DeleteACLsRequestFilter{
					ResourceType: kmsg.ACLResourceType(f.Resource), ResourceName: nonempty(f.Name),
					ResourcePatternType: kmsg.ACLResourcePatternType(f.Pattern), Principal: nonempty(f.Principal), Host: nonempty(f.Host),
					Operation: kmsg.ACLOperation(f.Operation), PermissionType: kmsg.ACLPermissionType(f.Permission),
				})
			}
			return req
		},
		func(resp *kmsg.DeleteACLsResponse, give func(ACLFilter, DeletedACLs, error)) {
			for i := range min(len(resp.Results), len(asked)) {
				r := &resp.Results[i]
				give(asked[i], DeletedACLs{Filter: asked[i], Deleted: readDeletedACLs(r)}, client.CodeError(r.ErrorCode, r.ErrorMessage))
			}
		},
		func(f ACLFilter, err error) DeletedACLs { return DeletedACLs{Filter: f, Err: err} })
}

func readDeletedACLs(in *kmsg.DeleteACLsResponseResult) []ACLResult {
	var out []ACLResult
	for i := range in.MatchingACLs {
		m := &in.MatchingACLs[i]
		out = append(out, ACLResult{
			ACL: ACLBinding{
				Resource: ACLResourceType(m.ResourceType), Name: m.ResourceName, Pattern: PatternType(m.ResourcePatternType),
				Principal: m.Principal, Host: m.Host, Operation: ACLOperation(m.Operation), Permission: ACLPermission(m.PermissionType),
			},
			Err: client.CodeError(m.ErrorCode, m.ErrorMessage),
		})
	}
	slices.SortFunc(out, func(a, b ACLResult) int { return compareACLs(a.ACL, b.ACL) })
	return out
}
