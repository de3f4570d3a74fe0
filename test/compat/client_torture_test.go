//go:build compat

package compat

import (
	"bytes"
	"flag"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"barnabas/client"
	"barnabas/test/compat/rig"
	"barnabas/test/faults"
	"barnabas/test/torture"
)

var tortureTests = []clientTest{
	{name: "through kills", needs: []need{killable}, run: throughKills, shorter: []siteOf{threeBarnabas, threeKafka431}},
	{name: "through faults", run: throughFaults, shorter: []siteOf{oneBarnabas, kafka431}},
}

// tortureAt is a torture at a place, with all that its brokers have.
func tortureAt(t *testing.T, p *site, lasts time.Duration) torture.Options {
	o := torture.Options{
		Brokers: strings.Split(p.addr, ","), Topic: uniqueTopic("torture"), Partitions: 3, Replicas: int16(max(len(p.nodes), 1)), MinInSync: max(len(p.nodes)-1, 1),
		Writers: 3, Lasts: lasts, Settle: patience, Groups: []client.Protocol{client.ClassicProtocol}, Copy: p.lacks(transactions) == "", Seed: rig.Seed(t),
	}
	if p.lacks(consumerProtocol) == "" {
		o.Groups = append(o.Groups, client.ConsumerProtocol)
	}
	return o
}

// tortured runs a torture and wants nothing to have gone wrong.
func tortured(t *testing.T, o torture.Options) {
	t.Helper()
	var said lastLines
	o.Logger = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the clients said last:\n%s", said.String())
		}
	})
	counts, err := torture.Run(within(t, o.Lasts+2*patience), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(counts)
	if wrongs := counts.Wrongs(); len(wrongs) > 0 {
		t.Errorf("%s: %s", o.Topic, strings.Join(wrongs, ", "))
	}
	if o.Copy && counts.Transactions == 0 {
		t.Error("no transaction was committed")
	}
}

// throughKills kills the nodes with -9 in turn while producers, copiers and groups are at work: nothing is lost, doubled,
// reordered, or seen and gone.
func throughKills(t *testing.T, p *site) {
	o := tortureAt(t, p, max(peace, *tortureLasts))
	end := time.Now().Add(*tortureLasts)
	o.Until = p.killInTurn(t, func(kills int) bool {
		if *tortureLasts > 0 {
			return time.Now().Before(end)
		}
		return kills == 0 || kills < len(p.nodes) && !p.shorter
	})
	tortured(t, o)
}

// tortureLasts is for how long nodes are killed, one every ten seconds: make torture. Otherwise each is killed once, in
// the shorter run one of them.
var tortureLasts = flag.Duration("torture", 0, "for how long nodes are killed")

const (
	peace     = 3 * time.Second // between the return of one node and the next kill: something is to get done
	killEvery = 10 * time.Second
)

// killInTurn kills and restarts node after node while more says so, and closes the channel some peace later.
func (p *site) killInTurn(t *testing.T, more func(kills int) bool) <-chan struct{} {
	over := make(chan struct{})
	var killed time.Time
	rest := func() {
		wait := peace
		if *tortureLasts > 0 && !killed.IsZero() {
			wait = max(wait, time.Until(killed.Add(killEvery)))
		}
		select {
		case <-time.After(wait):
		case <-t.Context().Done():
		}
	}
	var killing sync.WaitGroup
	killing.Go(func() {
		defer close(over)
		for kills := 0; ; kills++ {
			rest()
			if t.Context().Err() != nil || !more(kills) {
				return
			}
			killed = time.Now()
			t.Logf("kill %d", kills+1)
			p.bounce()
			if p.cluster != nil {
				awaitWhole(t, p.cluster) // or the next kill would take the last replica in sync away
			}
		}
	})
	t.Cleanup(killing.Wait)
	return over
}

// throughFaults has the same go through a proxy that delays, throttles and cuts connections, refuses new ones and lets what
// was written to old ones come late. Below transaction.version 2 nothing comes late: an end of a transaction that did would end the
// next one, which is that protocol's flaw (KIP-890, trap 16), whoever the client is.
func throughFaults(t *testing.T, p *site) {
	o := tortureAt(t, p, 8*time.Second)
	plan := faults.Plan{Delay: 4 * time.Millisecond, Lives: time.Second, Refusals: 8, Trickles: 6, Rate: 60_000, Late: 300 * time.Millisecond}
	if o.Copy && p.finalized["transaction.version"] < 2 {
		plan.Late = 0
	}
	network := faults.New(o.Seed, plan)
	defer network.Close()
	o.Client, o.Heal = []client.Option{client.Dialer(network.Dial)}, network.Heal
	tortured(t, o)
	t.Log(network.Counts())
}

// lastLines keeps the end of what is written to it.
type lastLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const keptBytes = 256 << 10

func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > keptBytes {
		l.buf.Next(keptBytes / 2)
	}
	return l.buf.Write(p)
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
