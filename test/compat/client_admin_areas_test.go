//go:build compat

package compat

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
	ours "barnabas/client/admin"
)

// adminArea is a family of our admin client's calls, and the requests that a broker has to know for it.
type adminArea struct {
	name  string
	needs []kmsg.Key
	run   func(context.Context, *testing.T, string, *ours.Admin)
	// lacking is a call of the family, which a broker without one of those requests is to refuse clearly.
	lacking func(context.Context, *ours.Admin) error
	also    []need // more than the requests
}

var adminAreas = []adminArea{
	{"ACLs", []kmsg.Key{kmsg.DescribeACLs, kmsg.CreateACLs, kmsg.DeleteACLs}, ourACLs, func(ctx context.Context, a *ours.Admin) error {
		_, err := a.DescribeACLs(ctx, ours.ACLFilter{})
		return err
	}, nil},
	{"quotas", []kmsg.Key{kmsg.DescribeClientQuotas, kmsg.AlterClientQuotas}, ourQuotas, func(ctx context.Context, a *ours.Admin) error {
		_, err := a.DescribeClientQuotas(ctx)
		return err
	}, nil},
	{"SCRAM credentials", []kmsg.Key{kmsg.DescribeUserSCRAMCredentials, kmsg.AlterUserSCRAMCredentials}, ourScram, func(ctx context.Context, a *ours.Admin) error {
		_, err := a.AlterUserScramCredentials(ctx, []ours.ScramChange{ours.DeleteScram("u", ours.ScramSHA256)})
		return err
	}, nil},
	{"delegation tokens without identity", []kmsg.Key{kmsg.CreateDelegationToken, kmsg.DescribeDelegationToken}, ourTokensRefused, func(ctx context.Context, a *ours.Admin) error {
		_, err := a.CreateDelegationToken(ctx)
		return err
	}, nil},
	{"transactions", []kmsg.Key{kmsg.ListTransactions, kmsg.DescribeTransactions, kmsg.DescribeProducers, kmsg.WriteTxnMarkers, kmsg.EndTxn}, ourTransactionsAdmin, func(ctx context.Context, a *ours.Admin) error {
		_, err := a.ListTransactions(ctx)
		return err
	}, nil},
	{"log directories", []kmsg.Key{kmsg.DescribeLogDirs, kmsg.AlterReplicaLogDirs}, ourLogDirs, func(ctx context.Context, a *ours.Admin) error {
		results, err := a.AlterReplicaLogDirs(ctx, map[ours.PartitionReplica]string{{TopicPartition: client.TopicPartition{Topic: "t"}, Node: 1}: "/"})
		if err != nil {
			return err
		}
		return results[0].Err
	}, nil},
	{"share groups", []kmsg.Key{kmsg.ShareGroupHeartbeat, kmsg.ShareGroupDescribe, kmsg.DescribeShareGroupOffsets, kmsg.AlterShareGroupOffsets, kmsg.DeleteShareGroupOffsets}, ourShareGroups, func(ctx context.Context, a *ours.Admin) error {
		groups, err := a.DescribeShareGroups(ctx, "g")
		if err != nil {
			return err
		}
		return groups[0].Err
	}, nil},
	{"streams groups", []kmsg.Key{kmsg.StreamsGroupHeartbeat, kmsg.StreamsGroupDescribe}, ourStreamsGroups, func(ctx context.Context, a *ours.Admin) error {
		groups, err := a.DescribeStreamsGroups(ctx, "g")
		if err != nil {
			return err
		}
		return groups[0].Err
	}, nil},
	{"groups of KIP-848", []kmsg.Key{kmsg.ConsumerGroupHeartbeat, kmsg.ConsumerGroupDescribe}, ourConsumerGroups, nil, []need{consumerProtocol}},
	{"members removed", []kmsg.Key{kmsg.LeaveGroup, kmsg.DescribeGroups}, ourRemovedMembers, nil, nil},
	{"topics by id", []kmsg.Key{kmsg.Metadata, kmsg.DeleteTopics}, ourTopicIDs, nil, nil},
	{"configurations of brokers", []kmsg.Key{kmsg.IncrementalAlterConfigs, kmsg.DescribeConfigs, kmsg.ListConfigResources}, ourBrokerConfigs, nil, nil},
	// Groups got configurations with KIP-848, client metrics with KIP-714.
	{"configurations of groups and metrics", []kmsg.Key{kmsg.IncrementalAlterConfigs, kmsg.DescribeConfigs, kmsg.ListConfigResources, kmsg.ConsumerGroupDescribe}, ourGroupConfigs, nil, []need{consumerProtocol}},
	{"configurations replaced", []kmsg.Key{kmsg.AlterConfigs}, ourReplacedConfigs, nil, nil},
	{"offsets by all specs", []kmsg.Key{kmsg.ListOffsets}, ourOffsetSpecs, nil, nil},
	{"elections and reassignments", []kmsg.Key{kmsg.ElectLeaders, kmsg.AlterPartitionAssignments, kmsg.ListPartitionReassignments}, ourElections, nil, nil},
	{"nodes", []kmsg.Key{kmsg.UnregisterBroker, kmsg.AddRaftVoter, kmsg.RemoveRaftVoter}, ourNodes, nil, nil},
	{"authorized operations", []kmsg.Key{kmsg.DescribeCluster, kmsg.DescribeTopicPartitions, kmsg.DescribeGroups}, ourAuthorizedOperations, nil, nil},
}

// adminAreasTest runs each family of calls where the broker has what it needs; where it has not, the call says so, with the
// request and the broker.
func adminAreasTest(t *testing.T, p *site) {
	for _, area := range adminAreas {
		t.Run(area.name, func(t *testing.T) {
			ctx := within(t, patience)
			a := adminOf(t, p.addr)
			if lacks := slices.DeleteFunc(slices.Clone(area.needs), func(k kmsg.Key) bool { _, has := p.requests[k.Int16()]; return has }); len(lacks) > 0 {
				t.Logf("%s: %s has no %v", area.name, p.name, namesOf(lacks))
				saysWhatIsLacking(ctx, t, area, a, p.addr, lacks)
				return
			}
			if lacks := p.lacks(area.also...); lacks != "" {
				t.Logf("%s: %s has not %s", area.name, p.name, lacks)
				return
			}
			t.Logf("%s: runs on %s, which has %v", area.name, p.name, namesOf(area.needs))
			area.run(ctx, t, p.addr, a)
		})
	}
}

// kafkaForAdmin are settings under which Apache Kafka has everything that is asked here.
func kafkaForAdmin(t *testing.T) []string {
	dirs := t.TempDir()
	return []string{
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users=User:ANONYMOUS",
		"delegation.token.secret.key=secret", "log.dirs=" + filepath.Join(dirs, "a") + "," + filepath.Join(dirs, "b"),
		"group.initial.rebalance.delay.ms=0", "group.streams.initial.rebalance.delay.ms=0",
	}
}

// apisOf gives the requests that a broker lists, each with its newest version.
func apisOf(ctx context.Context, t *testing.T, addr string) map[int16]int16 {
	t.Helper()
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "barnabas-test", "0"
	has := map[int16]int16{}
	for _, k := range answerOf[*kmsg.ApiVersionsResponse](ctx, t, addr, req).ApiKeys {
		has[k.ApiKey] = k.MaxVersion
	}
	return has
}

// refusedForAge tells whether a call has failed since the broker has only older versions of a request than it needs, and
// fails the test where it has not.
func refusedForAge(ctx context.Context, t *testing.T, addr string, k kmsg.Key, least int16, err error) bool {
	t.Helper()
	if has := apisOf(ctx, t, addr)[k.Int16()]; has >= least {
		return false
	}
	if !errors.Is(err, client.ErrUnsupported) {
		t.Errorf("%s before version %d: %v", k.Name(), least, err)
	}
	t.Logf("the broker has %s, not in version %d", k.Name(), least)
	return true
}

func namesOf(keys []kmsg.Key) []string {
	var names []string
	for _, k := range keys {
		names = append(names, k.Name())
	}
	return names
}

func saysWhatIsLacking(ctx context.Context, t *testing.T, area adminArea, a *ours.Admin, addr string, lacks []kmsg.Key) {
	t.Helper()
	if area.lacking == nil {
		return
	}
	err := area.lacking(ctx, a)
	named := func(k kmsg.Key) bool { return err != nil && strings.Contains(err.Error(), k.Name()) }
	if !errors.Is(err, client.ErrUnsupported) || !slices.ContainsFunc(lacks, named) || !strings.Contains(err.Error(), addr) {
		t.Errorf("the error names neither request nor broker: %v", err)
	}
}

func ourACLs(ctx context.Context, t *testing.T, _ string, a *ours.Admin) {
	who := "User:" + uniqueTopic("alice")
	made, err := a.CreateACLs(ctx, []ours.ACLBinding{
		{Resource: ours.ACLTopic, Name: "acl-orders", Principal: who, Operation: ours.OperationRead, Permission: ours.Allow},
		{Resource: ours.ACLTopic, Name: "acl-", Pattern: ours.PrefixedPattern, Principal: who, Host: "10.0.0.1", Operation: ours.OperationWrite, Permission: ours.Deny},
		{Resource: ours.ACLCluster, Principal: who, Operation: ours.OperationIdempotentWrite, Permission: ours.Allow},
		{Resource: ours.ACLTopic, Name: "acl-orders", Principal: who, Operation: ours.AnyOperation, Permission: ours.Allow},
		{Resource: ours.ACLCluster, Name: "another-cluster", Principal: who, Operation: ours.OperationAlter, Permission: ours.Allow},
	})
	if err != nil || made[0].Err != nil || made[1].Err != nil || made[2].Err != nil || made[2].ACL.Name != ours.ClusterName || made[2].ACL.Host != "*" {
		t.Fatalf("made %v, %v", made, err)
	}
	if !errors.Is(made[3].Err, client.ErrInvalidRequest) || !errors.Is(made[4].Err, client.ErrInvalidRequest) {
		t.Errorf("an operation that none is: %v; a cluster that none is: %v", made[3].Err, made[4].Err)
	}
	count := func(f ours.ACLFilter) int {
		f.Principal = who
		acls, err := a.DescribeACLs(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		return len(acls)
	}
	eventually(t, func() (int, bool) { n := count(ours.ACLFilter{}); return n, n == 3 })
	for what, c := range map[string]struct {
		filter ours.ACLFilter
		n      int
	}{
		"of topics":    {ours.ACLFilter{Resource: ours.ACLTopic}, 2},
		"by name":      {ours.ACLFilter{Resource: ours.ACLTopic, Name: "acl-orders"}, 1},
		"that hold":    {ours.ACLFilter{Resource: ours.ACLTopic, Name: "acl-orders", Pattern: ours.MatchPattern}, 2},
		"by prefix":    {ours.ACLFilter{Name: "acl-", Pattern: ours.PrefixedPattern}, 1},
		"that deny":    {ours.ACLFilter{Permission: ours.Deny}, 1},
		"by operation": {ours.ACLFilter{Operation: ours.OperationIdempotentWrite}, 1},
		"by host":      {ours.ACLFilter{Host: "*"}, 2},
	} {
		if n := count(c.filter); n != c.n {
			t.Errorf("%s: %d, expected %d", what, n, c.n)
		}
	}
	gone, err := a.DeleteACLs(ctx, ours.ACLFilter{Principal: who, Resource: ours.ACLTopic}, ours.ACLFilter{Principal: who + "-none"}, ours.ACLFilter{Principal: who, Resource: ours.ACLCluster})
	if err != nil || len(gone[0].Deleted) != 2 || len(gone[1].Deleted) != 0 || len(gone[2].Deleted) != 1 || gone[0].Err != nil || gone[0].Deleted[0].Err != nil {
		t.Fatalf("deleted %+v, %v", gone, err)
	}
	if gone[0].Deleted[0].ACL != (ours.ACLBinding{
		Resource: ours.ACLTopic, Name: "acl-", Pattern: ours.PrefixedPattern, Principal: who, Host: "10.0.0.1", Operation: ours.OperationWrite, Permission: ours.Deny,
	}) {
		t.Errorf("deleted %v", gone[0].Deleted[0].ACL)
	}
	eventually(t, func() (int, bool) { n := count(ours.ACLFilter{}); return n, n == 0 })
}

func ourQuotas(ctx context.Context, t *testing.T, _ string, a *ours.Admin) {
	user := uniqueTopic("quota user")
	alice, both := ours.QuotaFor(ours.UserQuota, user), ours.QuotaFor(ours.UserQuota, user).And(ours.DefaultQuota(ours.ClientIDQuota))
	results, err := a.AlterClientQuotas(ctx, []ours.QuotaChange{
		{Entity: alice, Set: map[string]float64{ours.ProducerByteRate: 1000, ours.RequestPercentage: 20}},
		{Entity: both, Set: map[string]float64{ours.ConsumerByteRate: 2000}},
		{Entity: ours.QuotaFor(ours.IPQuota, "10.1.2.3"), Set: map[string]float64{ours.ConnectionCreationRate: 7}},
		{Entity: ours.DefaultQuota(ours.UserQuota), Set: map[string]float64{"no_such_quota": 1}},
	})
	if err != nil || results[0].Err != nil || results[1].Err != nil || results[2].Err != nil || !errors.Is(results[3].Err, client.ErrInvalidRequest) {
		t.Fatalf("%v, %v", results, err)
	}
	got := eventually(t, func() ([]ours.ClientQuotas, bool) {
		q, err := a.DescribeClientQuotas(ctx, ours.MatchQuotaFor(ours.UserQuota, user))
		return q, err == nil && len(q) == 2
	})
	if got[0].Entity.String() != both.String() || got[0].Values[ours.ConsumerByteRate] != 2000 ||
		got[1].Entity.String() != alice.String() || got[1].Values[ours.ProducerByteRate] != 1000 || got[1].Values[ours.RequestPercentage] != 20 {
		t.Errorf("%v", got)
	}
	for what, c := range map[string]struct {
		strictly bool
		match    []ours.QuotaMatch
		n        int
	}{
		"strictly":         {true, []ours.QuotaMatch{ours.MatchQuotaFor(ours.UserQuota, user)}, 1},
		"with the default": {true, []ours.QuotaMatch{ours.MatchAnyQuota(ours.UserQuota), ours.MatchDefaultQuota(ours.ClientIDQuota)}, 1},
		"of addresses":     {true, []ours.QuotaMatch{ours.MatchAnyQuota(ours.IPQuota)}, 1},
		"all":              {false, nil, 3},
	} {
		describe := a.DescribeClientQuotas
		if c.strictly {
			describe = a.DescribeClientQuotasStrictly
		}
		if q, err := describe(ctx, c.match...); err != nil || len(q) != c.n {
			t.Errorf("%s: %v, %v", what, q, err)
		}
	}
	checked, err := a.AlterClientQuotas(ctx, []ours.QuotaChange{{Entity: alice, Remove: []string{ours.ProducerByteRate}}}, ours.ValidateOnly())
	if err != nil || checked[0].Err != nil {
		t.Errorf("checked: %v, %v", checked, err)
	}
	if _, err := a.AlterClientQuotas(ctx, []ours.QuotaChange{
		{Entity: alice, Remove: []string{ours.ProducerByteRate, ours.RequestPercentage}},
		{Entity: both, Remove: []string{ours.ConsumerByteRate}},
		{Entity: ours.QuotaFor(ours.IPQuota, "10.1.2.3"), Remove: []string{ours.ConnectionCreationRate}},
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() ([]ours.ClientQuotas, bool) {
		q, err := a.DescribeClientQuotas(ctx)
		return q, err == nil && len(q) == 0
	})
}

func ourScram(ctx context.Context, t *testing.T, _ string, a *ours.Admin) {
	bob, eve := uniqueTopic("bob"), uniqueTopic("eve")
	results, err := a.AlterUserScramCredentials(ctx, []ours.ScramChange{
		ours.SetScram(bob, ours.ScramSHA256, "secret"), ours.DeleteScram(eve, ours.ScramSHA512),
		ours.SetScram("weak", ours.ScramSHA256, "secret", ours.ScramIterations(10)),
		ours.SetScram("odd", ours.ScramMechanism(9), "secret"),
	})
	if err != nil || len(results) != 4 || results[0].User != bob || results[0].Err != nil || !errors.Is(results[1].Err, client.ErrResourceNotFound) ||
		!errors.Is(results[2].Err, client.ErrUnacceptableCredential) || !errors.Is(results[3].Err, client.ErrUnsupportedSASLMechanism) {
		t.Fatalf("%v, %v", results, err)
	}
	if results, err = a.AlterUserScramCredentials(ctx, []ours.ScramChange{
		ours.SetScram(bob, ours.ScramSHA512, "secret", ours.ScramIterations(4096)), ours.SetScram(eve, ours.ScramSHA256, "s"), ours.SetScram(eve, ours.ScramSHA512, "s"),
	}); err != nil || results[0].Err != nil || !errors.Is(results[1].Err, client.ErrDuplicateResource) {
		t.Fatalf("%v, %v", results, err)
	}
	got := eventually(t, func() ([]ours.UserScramCredentials, bool) {
		u, err := a.DescribeUserScramCredentials(ctx, eve, bob)
		return u, err == nil && len(u[1].Credentials) == 2
	})
	want := []ours.ScramCredential{{Mechanism: ours.ScramSHA256, Iterations: 8192}, {Mechanism: ours.ScramSHA512, Iterations: 4096}}
	if got[0].User != eve || !errors.Is(got[0].Err, client.ErrResourceNotFound) || !slices.Equal(got[1].Credentials, want) {
		t.Errorf("%v", got)
	}
	all, err := a.DescribeUserScramCredentials(ctx)
	if err != nil || !slices.ContainsFunc(all, func(u ours.UserScramCredentials) bool { return u.User == bob && slices.Equal(u.Credentials, want) }) {
		t.Errorf("all: %v, %v", all, err)
	}
	if results, err = a.AlterUserScramCredentials(ctx, []ours.ScramChange{ours.DeleteScram(bob, ours.ScramSHA256)}); err != nil || results[0].Err != nil {
		t.Errorf("%v, %v", results, err)
	}
	eventually(t, func() ([]ours.UserScramCredentials, bool) {
		u, err := a.DescribeUserScramCredentials(ctx, bob)
		return u, err == nil && len(u[0].Credentials) == 1
	})
}

func ourTokensRefused(ctx context.Context, t *testing.T, _ string, a *ours.Admin) {
	if _, err := a.CreateDelegationToken(ctx, ours.RenewableBy(ours.UserPrincipal("bob"))); !errors.Is(err, client.ErrDelegationTokenRequestNotAllowed) {
		t.Errorf("created: %v", err)
	}
	if _, err := a.DescribeDelegationTokens(ctx); !errors.Is(err, client.ErrDelegationTokenRequestNotAllowed) {
		t.Errorf("described: %v", err)
	}
}

// madeTopic makes a topic and waits for its leaders.
func madeTopic(ctx context.Context, t *testing.T, a *ours.Admin, name string, partitions int32) (string, ours.CreatedTopic) {
	t.Helper()
	name = uniqueTopic(name)
	made, err := a.CreateTopic(ctx, ours.NewTopic{Name: name, Partitions: partitions})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() ([]ours.TopicDescription, bool) {
		d, err := a.DescribeTopics(ctx, name)
		led := func(p ours.PartitionDescription) bool { return p.Leader >= 0 }
		return d, err == nil && len(d[0].Partitions) == int(partitions) && slices.ContainsFunc(d[0].Partitions, led)
	})
	return name, made
}

func ourLogDirs(ctx context.Context, t *testing.T, _ string, a *ours.Admin) {
	name, _ := madeTopic(ctx, t, a, "our-dirs", 1)
	tp := client.TopicPartition{Topic: name}
	where := func() (node int32, path, other string) {
		dirs, err := a.DescribeLogDirs(ctx)
		if err != nil || len(dirs) != 2 {
			t.Fatalf("%+v, %v", dirs, err)
		}
		for i, d := range dirs {
			if slices.ContainsFunc(d.Replicas, func(r ours.LogDirReplica) bool { return r.TopicPartition == tp && !r.Future }) {
				return d.Node, d.Path, dirs[1-i].Path
			}
		}
		return -1, "", ""
	}
	node, other := int32(-1), ""
	eventually(t, func() (path string, found bool) { node, path, other = where(); return path, node >= 0 })
	here, none := ours.PartitionReplica{TopicPartition: tp, Node: node}, ours.PartitionReplica{TopicPartition: client.TopicPartition{Topic: name, Partition: 7}, Node: node}
	results, err := a.AlterReplicaLogDirs(ctx, map[ours.PartitionReplica]string{here: other, none: other, {TopicPartition: tp, Node: 4711}: other})
	if err != nil || len(results) != 3 || results[0].Err != nil || !errors.Is(results[1].Err, client.ErrUnknownBroker) || !errors.Is(results[2].Err, client.ErrUnknownTopicOrPartition) {
		t.Fatalf("%v, %v", results, err)
	}
	eventually(t, func() (string, bool) { _, path, _ := where(); return path, path == other })
	if results, err = a.AlterReplicaLogDirs(ctx, map[ours.PartitionReplica]string{here: "/no/such/directory"}); err != nil || !errors.Is(results[0].Err, client.ErrLogDirNotFound) {
		t.Errorf("to nowhere: %v, %v", results, err)
	}
}

func ourTopicIDs(ctx context.Context, t *testing.T, _ string, a *ours.Admin) {
	name, made := madeTopic(ctx, t, a, "our-ids", 2)
	unknown := client.UUID{1, 2, 3}
	got, err := a.DescribeTopicsByID(ctx, unknown, made.ID)
	if err != nil || !errors.Is(got[0].Err, client.ErrUnknownTopicID) || got[1].Name != name || len(got[1].Partitions) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	gone, err := a.DeleteTopicsByID(ctx, made.ID, unknown)
	if err != nil || gone[0].Err != nil || gone[0].ID != made.ID || !errors.Is(gone[1].Err, client.ErrUnknownTopicID) {
		t.Errorf("%+v, %v", gone, err)
	}
	eventually(t, func() ([]ours.TopicDescription, bool) {
		d, err := a.DescribeTopicsByID(ctx, made.ID)
		return d, err == nil && errors.Is(d[0].Err, client.ErrUnknownTopicID)
	})
}

func ourBrokerConfigs(ctx context.Context, t *testing.T, addr string, a *ours.Admin) {
	cluster, err := a.DescribeCluster(ctx)
	if err != nil {
		t.Fatal(err)
	}
	node := cluster.Brokers[0].Node
	ourConfigKind(ctx, t, addr, a, ours.Broker(node), "log.cleaner.backoff.ms", "14000", ours.DynamicBrokerConfig)
	ourConfigKind(ctx, t, addr, a, ours.AllBrokers(), "log.retention.bytes", "123456789", ours.DynamicDefaultBrokerConfig)
	d, err := a.DescribeConfigs(ctx, []ours.Resource{ours.BrokerLogger(node)})
	if err != nil || d[0].Err != nil && !errors.Is(d[0].Err, client.ErrInvalidRequest) { // without loggers that could be told apart
		t.Fatalf("%+v, %v", d, err)
	}
	t.Logf("loggers: %d, %v", len(d[0].Entries), d[0].Err)
}

func ourGroupConfigs(ctx context.Context, t *testing.T, addr string, a *ours.Admin) {
	ourConfigKind(ctx, t, addr, a, ours.Group(uniqueTopic("our-group")), "consumer.session.timeout.ms", "50000", ours.GroupConfig)
	ourConfigKind(ctx, t, addr, a, ours.ClientMetrics(uniqueTopic("our-metrics")), "interval.ms", "60000", ours.ClientMetricsConfig)
}

// ourConfigKind sets, describes, lists and deletes a setting of a resource.
func ourConfigKind(ctx context.Context, t *testing.T, addr string, a *ours.Admin, r ours.Resource, name, value string, source ours.ConfigSource) {
	t.Helper()
	results, err := a.AlterConfigs(ctx, []ours.ConfigChange{{Resource: r, Set: map[string]string{name: value}}})
	if err != nil || results[0].Err != nil {
		t.Fatalf("%v, %v", results, err)
	}
	eventually(t, func() (ours.ConfigDescription, bool) {
		d, err := a.DescribeConfigs(ctx, []ours.Resource{r}, ours.Only(name))
		return d[0], err == nil && len(d[0].Entries) == 1 && d[0].Entries[0].Value == value && d[0].Entries[0].Source == source
	})
	if listed, err := a.ListConfigResources(ctx, r.Type); refusedForAge(ctx, t, addr, kmsg.ListConfigResources, 1, err) {
	} else if err != nil || r != ours.AllBrokers() && !slices.Contains(listed, r) {
		t.Errorf("listed: %v, %v", listed, err)
	}
	if results, err = a.AlterConfigs(ctx, []ours.ConfigChange{{Resource: r, Delete: []string{name}}}); err != nil || results[0].Err != nil {
		t.Errorf("%v, %v", results, err)
	}
}

func ourReplacedConfigs(ctx context.Context, t *testing.T, _ string, a *ours.Admin) {
	name, _ := madeTopic(ctx, t, a, "our-replaced", 1)
	topic, none := ours.Topic(name), ours.Topic(name+"-none")
	value := func(key string) string {
		d, err := a.DescribeConfigs(ctx, []ours.Resource{topic}, ours.Only(key))
		if err != nil || len(d[0].Entries) != 1 {
			t.Fatalf("%+v, %v", d, err)
		}
		if d[0].Entries[0].Source != ours.DynamicTopicConfig {
			return ""
		}
		return d[0].Entries[0].Value
	}
	for _, set := range []map[string]string{{"retention.ms": "1234", "segment.bytes": "2000000"}, {"retention.ms": "777"}} {
		results, err := a.ReplaceConfigs(ctx, map[ours.Resource]map[string]string{topic: set, none: set})
		if err != nil || results[0].Resource != topic || results[0].Err != nil || !errors.Is(results[1].Err, client.ErrUnknownTopicOrPartition) {
			t.Fatalf("%v, %v", results, err)
		}
		eventually(t, func() (string, bool) { v := value("retention.ms"); return v, v == set["retention.ms"] })
		if v := value("segment.bytes"); v != set["segment.bytes"] {
			t.Errorf("segment.bytes is %q, expected %q", v, set["segment.bytes"])
		}
	}
}

func ourOffsetSpecs(ctx context.Context, t *testing.T, addr string, a *ours.Admin) {
	name, _ := madeTopic(ctx, t, a, "our-specs", 1)
	p := ourOwnProducer(t, addr, client.BatchSize(0))
	at := yesterday
	for _, seconds := range []int{0, 20, 10} {
		if _, err := p.SendSync(ctx, client.ProducerRecord{Topic: name, Value: []byte("v"), Timestamp: at.Add(time.Duration(seconds) * time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	tp := client.TopicPartition{Topic: name}
	for what, c := range map[string]struct {
		spec   ours.OffsetSpec
		offset int64
	}{
		"earliest": {ours.Earliest, 0}, "latest": {ours.Latest, 3}, "largest timestamp": {ours.MaxTimestamp, 1},
		"at a time": {ours.AtTime(at.Add(time.Second)), 1}, "after all": {ours.AtTime(at.Add(time.Minute)), -1},
		"earliest on this disk": {ours.EarliestLocal, 0}, "latest in tiered storage": {ours.LatestTiered, -1},
	} {
		l, err := a.ListOffsets(ctx, map[client.TopicPartition]ours.OffsetSpec{tp: c.spec}, client.ReadCommitted)
		if err != nil || l[0].Err != nil || l[0].Offset != c.offset {
			t.Errorf("%s: %+v, %v, expected %d", what, l, err, c.offset)
		}
	}
	l, err := a.ListOffsets(ctx, map[client.TopicPartition]ours.OffsetSpec{tp: ours.EarliestPendingUpload}, client.ReadCommitted)
	t.Logf("earliest to be uploaded: %+v, %v", l, err)
}

func ourElections(ctx context.Context, t *testing.T, _ string, a *ours.Admin) {
	name, _ := madeTopic(ctx, t, a, "our-elections", 2)
	first, second, none := client.TopicPartition{Topic: name}, client.TopicPartition{Topic: name, Partition: 1}, client.TopicPartition{Topic: name, Partition: 9}
	elected, err := a.ElectLeaders(ctx, ours.Preferred, first, none)
	if err != nil || !errors.Is(elected[0].Err, client.ErrElectionNotNeeded) || !errors.Is(elected[1].Err, client.ErrUnknownTopicOrPartition) {
		t.Errorf("elected: %v, %v", elected, err)
	}
	if elected, err = a.ElectLeaders(ctx, ours.Preferred); err != nil || len(elected) != 0 {
		t.Errorf("elected everywhere: %v, %v", elected, err)
	}
	moved, err := a.AlterPartitionReassignments(ctx, map[client.TopicPartition][]int32{first: nil, second: {4711}, none: {1}})
	if err != nil || !errors.Is(moved[0].Err, client.ErrNoReassignmentInProgress) || !errors.Is(moved[1].Err, client.ErrInvalidReplicaAssignment) ||
		!errors.Is(moved[2].Err, client.ErrUnknownTopicOrPartition) {
		t.Errorf("moved: %v, %v", moved, err)
	}
	if moves, err := a.ListPartitionReassignments(ctx); err != nil || len(moves) != 0 {
		t.Errorf("under way: %v, %v", moves, err)
	}
}

func ourNodes(ctx context.Context, t *testing.T, _ string, a *ours.Admin) {
	if err := a.UnregisterBroker(ctx, 4711); !errors.Is(err, client.ErrBrokerIDNotRegistered) {
		t.Errorf("unregistered a stranger: %v", err)
	}
	quorum, err := a.DescribeQuorum(ctx)
	if err != nil || len(quorum.Voters) != 1 {
		t.Fatalf("%+v, %v", quorum, err)
	}
	voter := ours.RaftVoter{Node: 4711, Directory: client.UUID{1}}
	if err := a.RemoveRaftVoter(ctx, voter); err == nil {
		t.Error("a voter that is none was removed")
	} else {
		t.Logf("removed: %v", err)
	}
	if err := a.AddRaftVoter(ctx, voter, ours.QuorumEndpoint{Listener: "CONTROLLER", Host: "127.0.0.1", Port: 1}); err == nil {
		t.Error("a voter that nobody reaches was added")
	} else {
		t.Logf("added: %v", err)
	}
}

func ourAuthorizedOperations(ctx context.Context, t *testing.T, addr string, a *ours.Admin) {
	name, _ := madeTopic(ctx, t, a, "our-authorized", 1)
	group := uniqueTopic("our-authorized")
	if _, err := a.AlterGroupOffsets(ctx, group, map[client.TopicPartition]client.OffsetAndMetadata{{Topic: name}: {Offset: 0}}); err != nil {
		t.Fatal(err)
	}
	asking := ours.New(ourClient(t, addr), ours.AuthorizedOperations())
	for _, c := range []struct {
		a    *ours.Admin
		asks bool
	}{{a, false}, {asking, true}} {
		cluster, err := c.a.DescribeCluster(ctx)
		if err != nil {
			t.Fatal(err)
		}
		topics, err := c.a.DescribeTopics(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		byID, err := c.a.DescribeTopicsByID(ctx, topics[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		groups, err := c.a.DescribeGroups(ctx, group)
		if err != nil {
			t.Fatal(err)
		}
		for what, got := range map[string]struct {
			operations []ours.ACLOperation
			one        ours.ACLOperation
		}{
			"cluster": {cluster.AuthorizedOperations, ours.OperationCreate}, "topic": {topics[0].AuthorizedOperations, ours.OperationWrite},
			"topic by id": {byID[0].AuthorizedOperations, ours.OperationWrite}, "group": {groups[0].AuthorizedOperations, ours.OperationRead},
		} {
			if (got.operations != nil) != c.asks || slices.Contains(got.operations, got.one) != c.asks {
				t.Errorf("%s, asked %v: %v", what, c.asks, got.operations)
			}
		}
	}
}
