//go:build compat

package compat

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
	ours "barnabas/client/admin"
	"barnabas/test/compat/rig"
)

// site is where our client's tests run: brokers of one kind, which the tests of one site share one after the other.
type site struct {
	name    string
	addr    string        // of all nodes, with commas between them
	nodes   []*rig.Broker // none where they are not ours to kill
	cluster *rig.Cluster  // nil where there is one node
	kills   int           // of nodes in turn
	shorter bool          // the shorter run

	requests            map[int16]int16  // the newest version of each
	finalized, supports map[string]int16 // levels of features
}

// kill ends a node, another one each time, with SIGKILL. restart starts it again, and returns when it serves clients.
func (p *site) kill() (restart func()) {
	b := p.nodes[p.kills%len(p.nodes)]
	p.kills++
	b.Kill()
	return b.Restart
}

// bounce kills a node and starts it again.
func (p *site) bounce() { p.kill()() }

// need is something that a test asks of a site, in words that the run prints where it is not there.
type need struct {
	what string
	met  func(p *site) bool
}

// requests are those that a broker has to list.
func requests(keys ...kmsg.Key) need {
	var names []string
	for _, k := range keys {
		names = append(names, k.Name())
	}
	return need{"the requests " + strings.Join(names, ", "), func(p *site) bool {
		return !slices.ContainsFunc(keys, func(k kmsg.Key) bool { _, has := p.requests[k.Int16()]; return !has })
	}}
}

// supported is a feature that the brokers can be switched to.
func supported(feature string, level int16) need {
	return need{fmt.Sprintf("%s %d", feature, level), func(p *site) bool { return p.supports[feature] >= level }}
}

// nodes asks for so many, which are ours to kill.
func nodes(n int) need {
	return need{fmt.Sprintf("%d nodes", n), func(p *site) bool { return len(p.nodes) == n }}
}

var (
	transactions = requests(kmsg.AddPartitionsToTxn, kmsg.EndTxn, kmsg.TxnOffsetCommit)
	// consumerProtocol goes by the feature: brokers list the request also where they refuse it.
	consumerProtocol = need{"groups by the consumer protocol (group.version 1)", func(p *site) bool { return p.finalized["group.version"] > 0 }}
	killable         = need{"nodes that may be killed", func(p *site) bool { return len(p.nodes) > 0 }}
)

// clientTest is a test of our client.
type clientTest struct {
	name  string
	needs []need
	run   func(t *testing.T, p *site)
	// shorter are the sites of the shorter run; nil: the first that has what it needs.
	shorter []siteOf
}

// nowhere: a test that takes half a minute, and of which the shorter run has a relative.
var nowhere = []siteOf{}

// clientTests are all of them. They run in this order.
func clientTests() []clientTest {
	return slices.Concat(recordTests, exchangeTests, groupTests, consumerProtocolTests, transactionTests, adminTests, replicaTests, tortureTests)
}

// siteOf is how a site is made, in the order in which the shorter run prefers them.
type siteOf struct {
	name    string
	release rig.Release
	nodes   int
}

var (
	oneBarnabas   = siteOf{"Barnabas", "", 1}
	threeBarnabas = siteOf{"Barnabas of three nodes", "", 3}
	kafka431      = siteOf{"Apache Kafka 4.3.1", rig.Kafka431, 1}
	threeKafka431 = siteOf{"Apache Kafka 4.3.1 of three nodes", rig.Kafka431, 3}
	kafka391      = siteOf{"Apache Kafka 3.9.1", rig.Kafka391, 1}
)

func sites() []siteOf {
	kafkas := []siteOf{kafka431, kafka391, threeKafka431}
	if rig.System() == "kafka" {
		return kafkas
	}
	return append([]siteOf{oneBarnabas, threeBarnabas}, kafkas...)
}

// TestOurClient runs the tests of our client on Apache Kafka 4.3.1 and 3.9.1 and on our own broker, alone and in clusters of three:
// each at every site that has what it needs, or in the shorter run at the first of them. In the end it prints which
// ran where, and why not elsewhere. Sites run side by side.
//
//	BARNABAS_COMPAT_SITES=all         the longer run: make compat
//	BARNABAS_COMPAT_SITES='Barnabas;Apache Kafka 3.9.1'  everything that can run there, at these sites
//	BARNABAS_TEST_BROKERS=HOST:PORT,…  at these brokers, which are nobody's to kill
func TestOurClient(t *testing.T) {
	t.Parallel()
	m := &matrix{ran: map[string][]string{}, not: map[string][]string{}}
	asked := os.Getenv("BARNABAS_COMPAT_SITES")
	m.longer = asked != ""
	all := sites()
	if addr := os.Getenv("BARNABAS_TEST_BROKERS"); addr != "" {
		all, m.longer = []siteOf{{"the brokers at " + addr, "", 0}}, true
	} else if m.longer && asked != "all" {
		names := strings.Split(asked, ";")
		all = slices.DeleteFunc(all, func(p siteOf) bool { return !slices.Contains(names, p.name) })
	}
	if len(all) == 0 {
		t.Fatalf("BARNABAS_COMPAT_SITES=%s names none of the sites", asked)
	}
	t.Cleanup(func() { m.print(t, all) })
	for _, p := range slices.Backward(all) { // those that take longest first
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			m.at(t, p)
		})
	}
}

// clientBroker is the broker of a test of our client that is not among these: BARNABAS_TEST_BROKERS, or one that is started.
func clientBroker(t *testing.T) string {
	t.Helper()
	if addr := os.Getenv("BARNABAS_TEST_BROKERS"); addr != "" {
		return addr
	}
	return rig.Start(t).Addr
}

// matrix is which tests ran where.
type matrix struct {
	longer bool

	mu  sync.Mutex
	ran map[string][]string // sites by test
	not map[string][]string // and why not
}

func (m *matrix) note(of map[string][]string, test, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	of[test] = append(of[test], text)
}

// at runs what is to run at a site.
func (m *matrix) at(t *testing.T, of siteOf) {
	var p *site // made when a test comes that needs it
	for _, test := range clientTests() {
		if !m.longer && !test.inShorterRun(of) {
			m.note(m.not, test.name, of.name+" (in the longer run)")
			continue
		}
		if p == nil {
			p = of.start(t)
			p.shorter = !m.longer
		}
		if lacks := p.lacks(test.needs...); lacks != "" {
			m.note(m.not, test.name, of.name+" (has not "+lacks+")")
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			m.note(m.ran, test.name, of.name)
			rig.NoLeaks(t, "barnabas/client", "barnabas/internal")
			test.run(t, p)
		})
	}
}

func (m *matrix) print(t *testing.T, all []siteOf) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t.Logf("our client's tests at %d sites:", len(all))
	for _, test := range clientTests() {
		t.Logf("%s: ran on %s; not on %s", test.name, list(m.ran[test.name]), list(m.not[test.name]))
	}
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func (p *site) lacks(needs ...need) string {
	for _, n := range needs {
		if !n.met(p) {
			return n.what
		}
	}
	return ""
}

// inShorterRun tells whether a site is where a test runs in the shorter run, by what is known of sites before they are there.
func (test clientTest) inShorterRun(of siteOf) bool {
	if test.shorter != nil {
		return slices.Contains(test.shorter, of)
	}
	for _, p := range sites() {
		if p.expected().lacks(test.needs...) == "" {
			return p == of
		}
	}
	return false
}

// expected is what a site has, as far as the choice of sites for the shorter run goes.
func (of siteOf) expected() *site {
	p := &site{nodes: make([]*rig.Broker, of.nodes), requests: map[int16]int16{}, finalized: map[string]int16{}, supports: map[string]int16{}}
	if of.release == "" {
		return p
	}
	for _, k := range []kmsg.Key{kmsg.AddPartitionsToTxn, kmsg.EndTxn, kmsg.TxnOffsetCommit} {
		p.requests[k.Int16()] = 0
	}
	if of.release == rig.Kafka431 {
		p.finalized["group.version"], p.supports["transaction.version"] = 1, 2
	}
	return p
}

// start starts the brokers of a site, which end with t, and asks them what they have.
func (of siteOf) start(t *testing.T) *site {
	t.Helper()
	p := &site{name: of.name}
	switch of.nodes {
	case 0:
		p.addr = os.Getenv("BARNABAS_TEST_BROKERS")
	case 1:
		b := rig.StartRelease(t, of.release, of.settings(t)...)
		p.addr, p.nodes = b.Addr, []*rig.Broker{b}
	default:
		c := rig.StartClusterOf(t, of.release, of.nodes, of.settings(t)...)
		p.addr, p.nodes, p.cluster = c.Addresses(), c.Brokers, c
	}
	c, err := client.New(client.Brokers(strings.Split(p.addr, ",")...))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := within(t, patience)
	features := eventually(t, func() (ours.Features, bool) { f, err := ours.New(c).DescribeFeatures(ctx); return f, err == nil })
	p.finalized, p.supports = map[string]int16{}, map[string]int16{}
	for name, levels := range features.Finalized {
		p.finalized[name] = levels.Max
	}
	for name, levels := range features.Supported {
		p.supports[name] = levels.Max
	}
	p.requests = apisOf(ctx, t, p.addr)
	return p
}

// settings are those under which brokers have everything that is asked here, and do not keep anybody waiting.
func (of siteOf) settings(t *testing.T) []string {
	set := []string{"group.initial.rebalance.delay.ms=0"}
	if of.nodes > 1 {
		set = append(set, "broker.rack=rack-{node}", "replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector")
	}
	if of.release == "" {
		return set
	}
	set = append(set, "transaction.abort.timed.out.transaction.cleanup.interval.ms=500",
		"broker.session.timeout.ms=6000", "broker.heartbeat.interval.ms=500", // it is killed, and may come back sooner so
		"offsets.topic.num.partitions=5", "transaction.state.log.num.partitions=5")
	if of.nodes == 1 {
		set = append(set, kafkaForAdmin(t)...)
	}
	if of.release == rig.Kafka431 {
		set = append(set, "group.consumer.min.session.timeout.ms=1000", "group.consumer.session.timeout.ms=6000",
			"group.consumer.min.heartbeat.interval.ms=100", "group.consumer.heartbeat.interval.ms=500")
	}
	return set
}
