package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
	"barnabas/client/sasl"
	"barnabas/internal/certs/certtest"
)

func mechanisms() map[string]sasl.Mechanism {
	token := func(context.Context) (sasl.Token, error) { return sasl.Token{Value: "a.b.c"}, nil }
	return map[string]sasl.Mechanism{
		"PLAIN": sasl.Plain("alice", "secret"), "OAUTHBEARER": sasl.OAuthBearer(token),
		"SCRAM-SHA-256": sasl.ScramSHA256("alice", "secret"), "SCRAM-SHA-512": sasl.ScramSHA512("alice", "secret"),
	}
}

func wrongMechanisms() map[string]sasl.Mechanism {
	token := func(context.Context) (sasl.Token, error) { return sasl.Token{Value: "x.y.z"}, nil }
	return map[string]sasl.Mechanism{
		"PLAIN": sasl.Plain("alice", "wrong"), "OAUTHBEARER": sasl.OAuthBearer(token),
		"SCRAM-SHA-256": sasl.ScramSHA256("alice", "wrong"), "SCRAM-SHA-512": sasl.ScramSHA512("bob", "secret"),
	}
}

func TestSASLOpensTheDoor(t *testing.T) {
	for name, m := range mechanisms() {
		bubble(t, 2, func(t *testing.T, f *fakeCluster) {
			f.topic("t", 2)
			g := newGuard(f, name, nil)
			g.mu.token = "a.b.c"
			c := g.client(SASL(m))
			defer c.Close()
			p, err := c.NewProducer()
			if err != nil {
				t.Fatal(err)
			}
			defer closeProducer(t, p)
			for n := range int32(2) {
				if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t", Partition: ToPartition(n)}); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

// A wrong password is an error of every call at once, under Kafka's name, and costs the account one attempt.
func TestRefusalIsToldAndNotRepeated(t *testing.T) {
	for name, m := range wrongMechanisms() {
		bubble(t, 2, func(t *testing.T, f *fakeCluster) {
			f.topic("t", 2)
			g := newGuard(f, name, nil)
			c := g.client(SASL(m), Brokers("n1:9092", "n2:9092"))
			defer c.Close()
			begun := time.Now()
			check := func(what string, err error) {
				t.Helper()
				if !errors.Is(err, ErrAuthentication) || !errors.Is(err, ErrSASLAuthenticationFailed) || retriable(err) {
					t.Errorf("%s: %s: %v", name, what, err)
				}
			}
			check("ping", c.Ping(t.Context()))
			if n := g.seen().attempts; n != 1 {
				t.Errorf("%s: %d attempts for one call", name, n)
			}
			p, err := c.NewProducer()
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.SendSync(t.Context(), ProducerRecord{Topic: "t"})
			check("send", err)
			_, err = c.Partitions(t.Context(), "t")
			check("partitions", err)
			closeProducer(t, p)
			member, err := c.NewGroupConsumer("group")
			if err != nil {
				t.Fatal(err)
			}
			if err := member.Subscribe("t"); err != nil {
				t.Error(err)
			}
			_, err = member.Poll(t.Context())
			check("poll of a group", err)
			if err := member.Close(t.Context()); err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took > 3*time.Second {
				t.Errorf("%s: told after %v", name, took)
			}
			before := g.seen().attempts
			time.Sleep(time.Hour)
			// Metadata is asked for every metadata.max.age.ms, and no more often for having failed.
			if n := g.seen().attempts; n-before > 12 || before > 5 {
				t.Errorf("%s: %d attempts, and %d more in an hour in which nobody wanted anything", name, before, n-before)
			}
		})
	}
}

// Who could be reached before and refuses us now fails what waits for it, without waiting for delivery.timeout.ms.
func TestQueuedRecordsHearOfARefusal(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		g := newGuard(f, "PLAIN", nil)
		c := g.client(SASL(sasl.Plain("alice", "secret")))
		defer c.Close()
		p, err := c.NewProducer()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
			t.Fatal(err)
		}
		g.mu.Lock()
		g.mu.users["alice"] = "another"
		g.mu.Unlock()
		g.cut()
		begun := time.Now()
		var failed []error
		for range 10 {
			err := p.Send(t.Context(), ProducerRecord{Topic: "t"}, func(_ RecordMetadata, err error) { failed = append(failed, err) })
			if err != nil {
				t.Error(err)
			}
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("told after %v", took)
		}
		for _, err := range failed {
			if !errors.Is(err, ErrAuthentication) || !errors.Is(err, ErrSASLAuthenticationFailed) {
				t.Errorf("a record failed with %v", err)
			}
		}
		synctest.Wait()
		if len(failed) != 10 {
			t.Errorf("%d callbacks", len(failed))
		}
		// The password is mended, and so is the producer.
		g.mu.Lock()
		g.mu.users["alice"] = "secret"
		g.mu.Unlock()
		time.Sleep(2 * time.Second)
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
			t.Errorf("after the password was mended: %v", err)
		}
		closeProducer(t, p)
	})
}

// Poll tells of a refusal, and each Poll lets there be one more attempt and no more.
func TestPollHearsOfARefusal(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		g := newGuard(f, "PLAIN", nil)
		c := g.client(SASL(sasl.Plain("alice", "secret")), MetadataMaxAge(24*time.Hour))
		defer c.Close()
		p, err := c.NewProducer()
		if err != nil {
			t.Fatal(err)
		}
		send := func() {
			t.Helper()
			if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
				t.Fatal(err)
			}
		}
		send()
		k, err := c.NewConsumer()
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		if err := k.AssignTopic(t.Context(), "t", Earliest); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		password := func(is string) {
			g.mu.Lock()
			g.mu.users["alice"] = is
			g.mu.Unlock()
		}
		password("another")
		g.cut()
		for range 3 {
			begun := time.Now()
			if _, err := k.Poll(t.Context()); !errors.Is(err, ErrSASLAuthenticationFailed) || time.Since(begun) > 5*time.Second {
				t.Errorf("%v after %v", err, time.Since(begun))
			}
		}
		before := g.seen().attempts
		time.Sleep(time.Hour)
		if n := g.seen().attempts - before; n > 3 {
			t.Errorf("%d attempts in an hour without a Poll", n)
		}
		password("secret")
		time.Sleep(2 * time.Second)
		send()
		for {
			records, err := k.Poll(t.Context())
			if err != nil && !errors.Is(err, ErrAuthentication) {
				t.Fatal(err)
			}
			if len(records) > 0 {
				break
			}
		}
		closeProducer(t, p)
	})
}

// TLS has no code for a refusal, which ends a membership nevertheless.
func TestGroupHearsOfARefusalByTLS(t *testing.T) {
	k, later := makeKeys(t, "n1"), makeKeys(t, "n1")
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		g := newGuard(f, "", k.server)
		c := g.client(TLSWith(PEM{CA: later.ca}))
		defer c.Close()
		member, err := c.NewGroupConsumer("group")
		if err != nil {
			t.Fatal(err)
		}
		if err := member.Subscribe("t"); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if _, err := member.Poll(t.Context()); !errors.Is(err, ErrAuthentication) || time.Since(begun) > 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		if err := member.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// So do records whose partition has no leader, while nobody tells who the new one is.
func TestRecordsWithoutALeaderHearOfARefusal(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		topic := f.topic("t", 1)
		g := newGuard(f, "PLAIN", nil)
		c := g.client(SASL(sasl.Plain("alice", "secret")))
		defer c.Close()
		p, err := c.NewProducer()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		topic.partitions[0].leader = -1
		f.mu.Unlock()
		if err := c.RefreshMetadata(t.Context()); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t"}, func(_ RecordMetadata, err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		g.mu.Lock()
		g.mu.users["alice"] = "another"
		g.mu.Unlock()
		g.cut()
		begun := time.Now()
		if err := <-done; !errors.Is(err, ErrSASLAuthenticationFailed) || time.Since(begun) > 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		closeProducer(t, p)
	})
}

// Connections live on past the end of many sessions: who they are is proved again in time, nothing is sent in between
// (which the guard would take for a part of the proof), and records keep their order.
func TestTrap29ReauthenticationRacesNoRequest(t *testing.T) {
	for seed := range uint64(20) {
		bubble(t, 1, func(t *testing.T, f *fakeCluster) { reauthenticates(t, f, seed) })
	}
}

func reauthenticates(t *testing.T, f *fakeCluster, seed uint64) {
	topic := f.topic("t", 2)
	g := newGuard(f, "SCRAM-SHA-256", nil)
	g.mu.lifetime = 2 * time.Second
	dice := rand.New(rand.NewPCG(seed, 29))
	var mu sync.Mutex
	pause := func(most time.Duration) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(dice.Int64N(int64(most)))
	}
	// Answers that take their time have others queue behind them, short of what would outlast a session.
	f.script(func(int32, kmsg.Request) interference { return interference{delay: pause(10 * time.Millisecond)} })
	c := g.client(SASL(sasl.ScramSHA256("alice", "secret")))
	defer c.Close()
	p, err := c.NewProducer(Linger(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	var senders sync.WaitGroup
	const each = 500
	for n := range int32(2) {
		senders.Go(func() {
			for i := range each {
				r := ProducerRecord{Topic: "t", Partition: ToPartition(n), Value: fmt.Appendf(nil, "%d", i)}
				if err := p.Send(t.Context(), r, func(_ RecordMetadata, err error) {
					if err != nil {
						t.Errorf("seed %d: partition %d record %d: %v", seed, n, i, err)
					}
				}); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				time.Sleep(pause(40 * time.Millisecond))
			}
		})
	}
	// A consumer, whose fetches wait at the broker.
	k, err := c.NewConsumer()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if err := k.Assign(map[TopicPartition]Position{{"t", 0}: Earliest, {"t", 1}: Earliest}); err != nil {
		t.Fatal(err)
	}
	senders.Go(func() {
		for read := 0; read < 2*each; {
			records, err := k.Poll(t.Context())
			if err != nil {
				t.Errorf("seed %d: %v", seed, err)
				return
			}
			read += len(records)
		}
	})
	// Many callers on the client's own connection.
	for range 5 {
		senders.Go(func() {
			for range 50 {
				if _, err := c.Partitions(t.Context(), "t"); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				time.Sleep(pause(400 * time.Millisecond))
			}
		})
	}
	senders.Wait()
	closeProducer(t, p)
	seen := g.seen()
	if len(seen.wrong) > 0 {
		t.Errorf("seed %d: %q", seed, seen.wrong)
	}
	if seen.renewals < 8 {
		t.Errorf("seed %d: %d renewals in about ten seconds of sessions of two", seed, seen.renewals)
	}
	if seen.dials > 4 {
		t.Errorf("seed %d: %d connections, so some did not live on", seed, seen.dials)
	}
	for n, part := range topic.partitions {
		if part.next != each {
			t.Errorf("seed %d: partition %d has %d records, sent were %d", seed, n, part.next, each)
		}
	}
}

// slowProof takes a second between its two messages; slowRequest has been let in and takes its time to leave.
type (
	slowProof   struct{ sasl.Mechanism }
	slowRequest struct {
		*kmsg.MetadataRequest
		takes time.Duration
	}
)

func (s slowProof) Begin(ctx context.Context, host string) (sasl.Exchange, []byte, error) {
	time.Sleep(time.Second)
	return s.Mechanism.Begin(ctx, host)
}

func (s slowRequest) MaxVersion() int16 {
	time.Sleep(s.takes)
	return s.MetadataRequest.MaxVersion()
}

// A request that was let in before a session neared its end, and is not on its way yet, leaves before the proof begins.
func TestTrap29RequestThatWasLetInLeavesBeforeTheProof(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		g := newGuard(f, "PLAIN", nil)
		g.mu.lifetime = 20 * time.Second
		c := g.client(SASL(slowProof{sasl.Plain("alice", "secret")}))
		defer c.Close()
		if err := c.RefreshMetadata(t.Context()); err != nil { // the connection for requests to a broker comes next
			t.Fatal(err)
		}
		ask := func(takes time.Duration) {
			if _, err := c.Request(t.Context(), ToBroker(1), slowRequest{kmsg.NewPtrMetadataRequest(), takes}); err != nil {
				t.Error(err)
			}
		}
		ask(0) // the session lasts for 20 seconds from here, and is renewed after 17 to 19
		time.Sleep(16500 * time.Millisecond)
		var slow sync.WaitGroup
		slow.Go(func() { ask(2800 * time.Millisecond) })
		time.Sleep(2600 * time.Millisecond)
		ask(0)
		slow.Wait()
		if seen := g.seen(); seen.renewals < 1 || len(seen.wrong) > 0 || seen.dials != 2 {
			t.Errorf("%+v", seen)
		}
	})
}

// Requests that wait for room on the connection when a session nears its end were let in before: they leave before the
// proof begins.
func TestTrap29RequestsThatWaitForRoomLeaveBeforeTheProof(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		g := newGuard(f, "PLAIN", nil)
		g.mu.lifetime = 20 * time.Second
		f.script(func(int32, kmsg.Request) interference { return interference{delay: 5 * time.Millisecond} })
		c := g.client(SASL(sasl.Plain("alice", "secret")))
		defer c.Close()
		if err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		end := time.Now().Add(45 * time.Second)
		var callers sync.WaitGroup
		for range cluster.MaxInFlight + 40 {
			callers.Go(func() {
				for time.Now().Before(end) {
					if _, err := c.Partitions(t.Context(), "t"); err != nil {
						t.Error(err)
					}
				}
			})
		}
		callers.Wait()
		if seen := g.seen(); seen.renewals < 2 || len(seen.wrong) > 0 || seen.dials > 2 {
			t.Errorf("%+v", seen)
		}
	})
}

// A session that cannot be gone on with costs the connection and no more.
func TestRefusedRenewalIsANewConnection(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		g := newGuard(f, "PLAIN", nil)
		g.mu.lifetime, g.mu.refuse = 10*time.Second, 3
		c := g.client(SASL(sasl.Plain("alice", "secret")))
		defer c.Close()
		for range 100 {
			if _, err := c.Partitions(t.Context(), "t"); err != nil && !errors.Is(err, ErrNetwork) {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		if seen := g.seen(); seen.toRefuse != 0 || seen.renewals < 3 || len(seen.wrong) > 0 {
			t.Errorf("%+v", seen)
		}
	})
}

// An idle connection is not authenticated for nothing; the request after a long silence comes first to it.
func TestIdleSessionsAreLeftAlone(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		g := newGuard(f, "PLAIN", nil)
		g.mu.lifetime = 10 * time.Second
		c := g.client(SASL(sasl.Plain("alice", "secret")), MetadataMaxAge(time.Hour))
		defer c.Close()
		for range 3 {
			if err := c.Ping(t.Context()); err != nil {
				t.Error(err)
			}
			time.Sleep(5 * time.Minute)
		}
		if seen := g.seen(); seen.renewals != 2 || len(seen.wrong) > 0 || seen.dials != 1 {
			t.Errorf("%+v", seen)
		}
	})
}

// A session may be shorter than what a broker wants between two renewals, as where a token is near its end: requests
// wait rather than lose their connection.
func TestSessionsShorterThanTheWaitBetweenRenewals(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		g := newGuard(f, "PLAIN", nil)
		g.mu.lifetime = 300 * time.Millisecond
		c := g.client(SASL(sasl.Plain("alice", "secret")))
		defer c.Close()
		for range 200 {
			if err := c.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		if seen := g.seen(); seen.renewals < 8 || len(seen.wrong) > 0 || seen.dials != 1 {
			t.Errorf("%+v", seen)
		}
	})
}

// A token that cannot be had now is tried again; one that is refused to us is not.
func TestTokensThatCannotBeHad(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		g := newGuard(f, "OAUTHBEARER", nil)
		g.mu.token = "good"
		calls := 0
		token := func(context.Context) (sasl.Token, error) {
			if calls++; calls < 4 {
				return sasl.Token{}, errors.New("the provider is away")
			}
			return sasl.Token{Value: "good"}, nil
		}
		c := g.client(SASL(sasl.OAuthBearer(token)))
		defer c.Close()
		p, err := c.NewProducer()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil || calls < 4 {
			t.Errorf("after %d calls: %v", calls, err)
		}
		closeProducer(t, p)
		never := g.client(SASL(sasl.OAuthBearer(func(context.Context) (sasl.Token, error) {
			return sasl.Token{}, fmt.Errorf("invalid_client: %w", sasl.ErrRefused)
		})))
		defer never.Close()
		if err := never.Ping(t.Context()); !errors.Is(err, ErrAuthentication) || !errors.Is(err, sasl.ErrRefused) {
			t.Errorf("refused by the provider: %v", err)
		}
	})
}

func TestMechanismThatTheBrokerDoesNotTake(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		g := newGuard(f, "SCRAM-SHA-512", nil)
		c := g.client(SASL(sasl.Plain("alice", "secret")))
		defer c.Close()
		err := c.Ping(t.Context())
		if !errors.Is(err, ErrUnsupportedSASLMechanism) || !errors.Is(err, ErrAuthentication) || !strings.Contains(err.Error(), "SCRAM-SHA-512") {
			t.Errorf("%v", err)
		}
	})
}

// keys are an authority, what it issued for a broker and for a client, and their files.
type keys struct {
	authority      *certtest.Authority
	server         *tls.Config
	ca, own, other string // PEM: an authority, a client's key and certificate, another client's
}

func makeKeys(t *testing.T, hosts ...string) keys {
	t.Helper()
	k := keys{authority: certtest.NewAuthority("test")}
	k.ca = k.authority.PEM()
	k.own = k.authority.Keystore(certtest.Node{})
	k.other = certtest.NewAuthority("someone else").Keystore(certtest.Node{})
	key, chain := k.authority.Issue(certtest.Node{Hosts: hosts})
	pair, err := tls.X509KeyPair([]byte(chain), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(k.ca))
	k.server = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, MinVersion: tls.VersionTLS12}
	return k
}

// requiring is a broker's ssl.client.auth=required.
func (k keys) requiring(version uint16) *tls.Config {
	c := k.server.Clone()
	c.ClientAuth, c.MaxVersion = tls.RequireAndVerifyClientCert, version
	return c
}

func TestTLS(t *testing.T) {
	k := makeKeys(t, "n1")
	elsewhere := makeKeys(t, "elsewhere")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(k.ca))
	for _, c := range []struct {
		name   string
		server *tls.Config
		option Option
		want   error
		text   string
	}{
		{"trusted", k.server, TLS(&tls.Config{RootCAs: pool}), nil, ""},
		{"trusted by PEM", k.server, TLSWith(PEM{CA: k.ca}), nil, ""},
		{"nobody's", k.server, TLS(nil), ErrAuthentication, "ssl.truststore.location"},
		{"another host's", elsewhere.server, TLSWith(PEM{CA: elsewhere.ca}), ErrAuthentication, "ssl.endpoint.identification.algorithm"},
		{"any host", elsewhere.server, TLSWith(PEM{CA: elsewhere.ca, AnyHost: true}), nil, ""},
		{"any host, but nobody's", elsewhere.server, TLSWith(PEM{CA: k.ca, AnyHost: true}), ErrAuthentication, "ssl.truststore.location"},
		{"both ends, 1.3", k.requiring(tls.VersionTLS13), TLSWith(PEM{CA: k.ca, Certificate: k.own}), nil, ""},
		{"both ends, 1.2", k.requiring(tls.VersionTLS12), TLSWith(PEM{CA: k.ca, Certificate: k.own}), nil, ""},
		{"no certificate, 1.3", k.requiring(tls.VersionTLS13), TLSWith(PEM{CA: k.ca}), ErrAuthentication, "ssl.keystore.location"},
		{"no certificate, 1.2", k.requiring(tls.VersionTLS12), TLSWith(PEM{CA: k.ca}), ErrAuthentication, "ssl.keystore.location"},
		{"another's certificate, 1.3", k.requiring(tls.VersionTLS13), TLSWith(PEM{CA: k.ca, Certificate: k.other}), ErrAuthentication, "ssl.keystore.location"},
		{"another's certificate, 1.2", k.requiring(tls.VersionTLS12), TLSWith(PEM{CA: k.ca, Certificate: k.other}), ErrAuthentication, "ssl.keystore.location"},
	} {
		bubble(t, 1, func(t *testing.T, f *fakeCluster) {
			f.topic("t", 1)
			cl := newGuard(f, "", c.server).client(c.option)
			defer cl.Close()
			err := cl.Ping(t.Context())
			if !errors.Is(err, c.want) || c.want != nil && (!strings.Contains(err.Error(), c.text) || retriable(err)) {
				t.Errorf("%s: %v", c.name, err)
			}
			if c.want != nil {
				return
			}
			p, err := cl.NewProducer()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t"}); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			closeProducer(t, p)
		})
	}
}

func TestTLSAndSASL(t *testing.T) {
	k := makeKeys(t, "n1")
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		g := newGuard(f, "SCRAM-SHA-512", k.server)
		g.mu.lifetime = 10 * time.Second
		c := g.client(TLSWith(PEM{CA: k.ca}), SASL(sasl.ScramSHA512("alice", "secret")))
		defer c.Close()
		for range 60 {
			if err := c.Ping(t.Context()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		if seen := g.seen(); seen.renewals < 4 || len(seen.wrong) > 0 || seen.dials != 1 {
			t.Errorf("%+v", seen)
		}
	})
}

// Whoever has the wrong security.protocol is told so.
func TestWrongSecurityProtocolIsTold(t *testing.T) {
	k := makeKeys(t, "n1")
	plain := sasl.Plain("alice", "secret")
	for _, c := range []struct {
		name      string
		mechanism string
		server    *tls.Config
		options   []Option
		want      string
	}{
		{"plain client, TLS port", "", k.server, nil, "TLS at this port"},
		{"SASL client, TLS port", "PLAIN", k.server, []Option{SASL(plain)}, "TLS at this port"},
		{"TLS client, plain port", "", nil, []Option{TLSWith(PEM{CA: k.ca})}, "no TLS at this port"},
		{"client without SASL, SASL port", "PLAIN", nil, nil, "wants SASL at this port"},
		{"client without SASL, SASL_SSL port", "PLAIN", k.server, []Option{TLSWith(PEM{CA: k.ca})}, "wants SASL at this port"},
		{"SASL client, plain port", "", nil, []Option{SASL(plain)}, "wants no SASL at this port"},
	} {
		bubble(t, 1, func(t *testing.T, f *fakeCluster) {
			cl := newGuard(f, c.mechanism, c.server).client(c.options...)
			defer cl.Close()
			if err := cl.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "security.protocol") {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
}

// Certificates that are renewed on disk are used from the next connection on.
func TestCertificatesAreReadAgain(t *testing.T) {
	k, later := makeKeys(t, "n1"), makeKeys(t, "n1")
	dir := t.TempDir()
	write := func(name, text string, at time.Time) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
		return file
	}
	epoch := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	p := PEM{CAFile: write("ca.pem", k.ca, epoch), CertificateFile: write("own.pem", k.own, epoch)}
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		g := newGuard(f, "", k.requiring(0))
		c := g.client(TLSWith(p))
		defer c.Close()
		if err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.mu.Lock()
		g.tls = later.requiring(0)
		g.mu.Unlock()
		g.cut()
		time.Sleep(time.Second)
		if err := c.Ping(t.Context()); !errors.Is(err, ErrAuthentication) {
			t.Errorf("the broker's certificate is another authority's: %v", err)
		}
		write("ca.pem", later.ca, epoch.Add(time.Hour))
		write("own.pem", later.own, epoch.Add(time.Hour))
		time.Sleep(time.Second)
		if err := c.Ping(t.Context()); err != nil {
			t.Errorf("after the files were renewed: %v", err)
		}
	})
}

func TestSecurityOptionsAreChecked(t *testing.T) {
	k := makeKeys(t, "n1")
	key, chain := k.authority.Issue(certtest.Node{})
	otherKey, _ := k.authority.Issue(certtest.Node{})
	_, decrypted := k.authority.Issue(certtest.Node{Key: certtest.DecryptedKey()})
	for _, c := range []struct {
		name   string
		option Option
		want   string // "": it is right
	}{
		{"key apart", TLSWith(PEM{CA: k.ca, Certificate: chain, Key: key}), ""},
		{"encrypted key", TLSWith(PEM{Certificate: decrypted, Key: certtest.EncryptedKey, KeyPassword: "password"}), ""},
		{"encrypted key, with its certificate", TLSWith(PEM{Certificate: certtest.EncryptedKey + decrypted, KeyPassword: "password"}), ""},
		{"wrong password", TLSWith(PEM{Certificate: decrypted, Key: certtest.EncryptedKey, KeyPassword: "wrong"}), "ssl.key.password"},
		{"no password", TLSWith(PEM{Certificate: decrypted, Key: certtest.EncryptedKey}), "ssl.key.password"},
		{"another's key", TLSWith(PEM{Certificate: chain, Key: otherKey}), "not that of"},
		{"no key", TLSWith(PEM{Certificate: chain}), "ssl.keystore.key"},
		{"no certificate", TLSWith(PEM{Key: key}), "ssl.keystore.certificate.chain"},
		{"certificate is a key", TLSWith(PEM{Certificate: key}), "no certificate"},
		{"no authority", TLSWith(PEM{CA: "none"}), "ssl.truststore.certificates"},
		{"absent file", TLSWith(PEM{CAFile: "/nowhere/ca.pem"}), "/nowhere/ca.pem"},
		{"file and text", TLSWith(PEM{CAFile: "x", CA: "y"}), "exclude"},
		{"nil mechanism", SASL(nil), "sasl.mechanism"},
	} {
		cl, err := New(c.option)
		if cl != nil {
			cl.Close()
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
