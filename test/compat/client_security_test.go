//go:build compat

package compat

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"barnabas/client"
	"barnabas/client/sasl"
	"barnabas/client/sasl/oidc"
	"barnabas/internal/certs/certtest"
	"barnabas/test/compat/rig"
)

// secured is an Apache Kafka with a listener for each way to be reached, and the keys that go with it.
type secured struct {
	dir       string
	addresses map[string]string // by listener
	authority *certtest.Authority
	idp       *identityProvider
}

// The listeners, and the protocol of each.
var securedListeners = map[string]string{
	"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", "TLS": "SSL", "MUTUAL": "SSL", "SASL": "SASL_PLAINTEXT", "BOTH": "SASL_SSL", "SHORT": "SASL_PLAINTEXT",
}

const (
	securedMechanisms = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"
	jaas              = "org.apache.kafka.common.security."
	shortSession      = 3 * time.Second // connections.max.reauth.ms of the listener SHORT
)

func startSecured(t *testing.T) *secured {
	t.Helper()
	s := &secured{dir: t.TempDir(), addresses: map[string]string{}, authority: certtest.NewAuthority("compat"), idp: startIdentityProvider(t)}
	var listeners, advertised, protocols []string
	for name, protocol := range securedListeners {
		s.addresses[name] = rig.FreeAddress(t)
		listeners = append(listeners, name+"://"+s.addresses[name])
		if name != "CONTROLLER" {
			advertised = append(advertised, name+"://"+s.addresses[name])
		}
		protocols = append(protocols, name+":"+protocol)
	}
	set := map[string]string{
		"process.roles": "broker,controller", "node.id": "1", "controller.quorum.voters": "1@" + s.addresses["CONTROLLER"],
		"controller.listener.names": "CONTROLLER", "inter.broker.listener.name": "PLAINTEXT",
		"listeners": strings.Join(listeners, ","), "advertised.listeners": strings.Join(advertised, ","),
		"listener.security.protocol.map": strings.Join(protocols, ","), "log.dirs": filepath.Join(s.dir, "data"),
		"offsets.topic.replication.factor": "1", "transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
		"group.initial.rebalance.delay.ms": "0",
		"ssl.keystore.type":                "PEM", "ssl.keystore.location": s.file(t, "broker.pem", s.keystore(t, "127.0.0.1")),
		"ssl.truststore.type": "PEM", "ssl.truststore.location": s.file(t, "ca.pem", s.authority.PEM()),
		"listener.name.mutual.ssl.client.auth":                        "required",
		"sasl.enabled.mechanisms":                                     securedMechanisms,
		"sasl.oauthbearer.jwks.endpoint.url":                          s.idp.server.URL + "/keys",
		"sasl.oauthbearer.expected.audience":                          "kafka",
		"sasl.oauthbearer.expected.issuer":                            "compat",
		"listener.name.short.scram-sha-256.connections.max.reauth.ms": fmt.Sprint(shortSession.Milliseconds()),
		"listener.name.short.plain.connections.max.reauth.ms":         fmt.Sprint(shortSession.Milliseconds()),
	}
	for _, name := range []string{"sasl", "both", "short"} {
		p := "listener.name." + name + "."
		set[p+"plain.sasl.jaas.config"] = jaas + `plain.PlainLoginModule required user_alice="secret";`
		set[p+"scram-sha-256.sasl.jaas.config"] = jaas + "scram.ScramLoginModule required;"
		set[p+"scram-sha-512.sasl.jaas.config"] = jaas + "scram.ScramLoginModule required;"
		set[p+"oauthbearer.sasl.jaas.config"] = jaas + "oauthbearer.OAuthBearerLoginModule required;"
		set[p+"oauthbearer.sasl.server.callback.handler.class"] = jaas + "oauthbearer.OAuthBearerValidatorCallbackHandler"
	}
	var text strings.Builder
	for k, v := range set {
		text.WriteString(k + "=" + v + "\n")
	}
	properties := s.file(t, "server.properties", text.String())
	// The broker asks only addresses that it was told of.
	t.Setenv("JDK_JAVA_OPTIONS", "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls="+s.idp.server.URL+"/keys")
	rig.Java(t, nil, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM1Qk", "-c", properties,
		"--add-scram", `SCRAM-SHA-256=[name=alice,password=secret]`, "--add-scram", `SCRAM-SHA-512=[name=alice,password=secret]`)
	rig.Launch(t, "kafka", rig.JavaCommand(t, "kafka.Kafka", properties), func(string) {})
	open := ourClient(t, s.addresses["PLAINTEXT"])
	rig.Eventually(t, patience, "the broker answers", func() bool { return open.Ping(t.Context()) == nil })
	return s
}

func (s *secured) file(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// keystore is a key that Apache Kafka can read from PEM, and its certificate.
func (s *secured) keystore(t *testing.T, hosts ...string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s.authority.Keystore(certtest.Node{Hosts: hosts, Key: key})
}

// identityProvider gives tokens to the program "orders", as OIDC providers do, and keys to brokers.
type identityProvider struct {
	server *httptest.Server
	key    *rsa.PrivateKey
	life   time.Duration // of tokens; their end counts whole seconds, so it is told to be a second less
	given  atomic.Int32
}

func startIdentityProvider(t *testing.T) *identityProvider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &identityProvider{key: key, life: time.Hour}
	mux := http.NewServeMux()
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes()),
		}}})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if id, secret, _ := r.BasicAuth(); id != "orders" || secret != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"invalid_client"}`))
			return
		}
		p.given.Add(1)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"access_token": p.token(t, key, "kafka"), "token_type": "Bearer", "expires_in": int(p.life.Seconds()) - 1, "scope": r.FormValue("scope"),
		})
	})
	p.server = httptest.NewServer(mux)
	t.Cleanup(p.server.Close)
	return p
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// token is a JWT.
func (p *identityProvider) token(t *testing.T, key *rsa.PrivateKey, audience string) string {
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss": "compat", "aud": audience, "sub": "orders", "iat": now.Unix(), "exp": now.Add(p.life).Unix(), "scope": "kafka",
	})
	if err != nil {
		t.Error(err)
	}
	text := encode([]byte(`{"alg":"RS256","typ":"JWT","kid":"1"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Error(err)
	}
	return text + "." + encode(signature)
}

func (p *identityProvider) mechanism(t *testing.T, secret string) sasl.Mechanism {
	t.Helper()
	token, err := oidc.ClientCredentials(oidc.Config{
		TokenEndpoint: p.server.URL + "/token", ClientID: "orders", ClientSecret: secret, Scopes: []string{"kafka"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return sasl.OAuthBearer(token)
}

// TestOurClientIsLetIn has our client at every kind of listener of an Apache Kafka, with what opens it and with
// what does not.
func TestOurClientIsLetIn(t *testing.T) {
	rig.NoLeaks(t, "barnabas/client", "barnabas/internal")
	s := startSecured(t)
	ca := client.PEM{CA: s.authority.PEM()}
	mutual := client.PEM{CA: ca.CA, Certificate: s.keystore(t)}
	for name, c := range map[string]struct {
		listener string
		options  []client.Option
	}{
		"TLS":                        {"TLS", []client.Option{client.TLSWith(ca)}},
		"mTLS":                       {"MUTUAL", []client.Option{client.TLSWith(mutual)}},
		"PLAIN":                      {"SASL", []client.Option{client.SASL(sasl.Plain("alice", "secret"))}},
		"SCRAM-SHA-256":              {"SASL", []client.Option{client.SASL(sasl.ScramSHA256("alice", "secret"))}},
		"SCRAM-SHA-512":              {"SASL", []client.Option{client.SASL(sasl.ScramSHA512("alice", "secret"))}},
		"OAUTHBEARER":                {"SASL", []client.Option{client.SASL(s.idp.mechanism(t, "secret"))}},
		"TLS and PLAIN":              {"BOTH", []client.Option{client.TLSWith(ca), client.SASL(sasl.Plain("alice", "secret"))}},
		"TLS and SCRAM-SHA-512":      {"BOTH", []client.Option{client.TLSWith(ca), client.SASL(sasl.ScramSHA512("alice", "secret"))}},
		"TLS and OAUTHBEARER":        {"BOTH", []client.Option{client.TLSWith(ca), client.SASL(s.idp.mechanism(t, "secret"))}},
		"a session of three seconds": {"SHORT", []client.Option{client.SASL(sasl.ScramSHA256("alice", "secret"))}},
	} {
		t.Run(name, func(t *testing.T) { s.goesThrough(t, c.listener, c.options...) })
	}
	t.Run("refused", s.refusals)
	t.Run("wrong protocol", s.wrongProtocols)
	t.Run("reauthenticates SCRAM", func(t *testing.T) {
		s.livesOn(t, "SHORT", client.SASL(sasl.ScramSHA256("alice", "secret")))
	})
	t.Run("reauthenticates PLAIN", func(t *testing.T) {
		s.livesOn(t, "SHORT", client.SASL(sasl.Plain("alice", "secret")))
	})
	t.Run("reauthenticates before tokens end", func(t *testing.T) {
		before := s.idp.given.Load()
		s.idp.life = 6 * time.Second
		s.livesOn(t, "BOTH", client.TLSWith(ca), client.SASL(s.idp.mechanism(t, "secret")))
		if given := s.idp.given.Load() - before; given < 2 {
			t.Errorf("%d tokens were asked for", given)
		}
	})
}

// goesThrough produces and consumes, alone and in a group.
func (s *secured) goesThrough(t *testing.T, listener string, options ...client.Option) {
	ctx := within(t, patience)
	topic := uniqueTopic("secured")
	createTopic(t, s.addresses["PLAINTEXT"], topic, 2)
	c := ourClient(t, s.addresses[listener], options...)
	p, err := c.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	const records = 100
	for i := range records {
		r := client.ProducerRecord{Topic: topic, Partition: client.ToPartition(int32(i % 2)), Value: fmt.Appendf(nil, "%d", i)}
		if err := p.Send(ctx, r, func(_ client.RecordMetadata, err error) {
			if err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
	k, err := c.NewConsumer()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if err := k.AssignTopic(ctx, topic, client.Earliest); err != nil {
		t.Fatal(err)
	}
	g, err := c.NewGroupConsumer(topic, client.AutoOffsetReset(client.Earliest))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	if err := g.Subscribe(topic); err != nil {
		t.Fatal(err)
	}
	for what, poll := range map[string]func(context.Context) ([]client.Record, error){"consumer": k.Poll, "group": g.Poll} {
		for read := 0; read < records; {
			got, err := poll(ctx)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			read += len(got)
		}
	}
}

func (s *secured) refusals(t *testing.T) {
	someone := certtest.NewAuthority("someone else")
	ca := client.PEM{CA: s.authority.PEM()}
	stranger := rsaKey(t)
	token := func(audience string, key *rsa.PrivateKey) sasl.Mechanism {
		return sasl.OAuthBearer(func(context.Context) (sasl.Token, error) {
			return sasl.Token{Value: s.idp.token(t, key, audience)}, nil
		})
	}
	for name, c := range map[string]struct {
		listener string
		want     error
		options  []client.Option
	}{
		"PLAIN password":         {"SASL", client.ErrSASLAuthenticationFailed, []client.Option{client.SASL(sasl.Plain("alice", "wrong"))}},
		"PLAIN user":             {"BOTH", client.ErrSASLAuthenticationFailed, []client.Option{client.TLSWith(ca), client.SASL(sasl.Plain("bob", "secret"))}},
		"SCRAM-SHA-256 password": {"SASL", client.ErrSASLAuthenticationFailed, []client.Option{client.SASL(sasl.ScramSHA256("alice", "wrong"))}},
		"SCRAM-SHA-512 user":     {"SASL", client.ErrSASLAuthenticationFailed, []client.Option{client.SASL(sasl.ScramSHA512("bob", "secret"))}},
		"token's audience":       {"SASL", client.ErrSASLAuthenticationFailed, []client.Option{client.SASL(token("others", s.idp.key))}},
		"token's signature":      {"SASL", client.ErrSASLAuthenticationFailed, []client.Option{client.SASL(token("kafka", stranger))}},
		"client's secret":        {"SASL", sasl.ErrRefused, []client.Option{client.SASL(s.idp.mechanism(t, "wrong"))}},
		"mechanism":              {"SASL", client.ErrUnsupportedSASLMechanism, []client.Option{client.SASL(otherName{sasl.Plain("alice", "secret")})}},
		"SASL at a plain port":   {"PLAINTEXT", client.ErrIllegalSASLState, []client.Option{client.SASL(sasl.Plain("alice", "secret"))}},
		"broker's authority":     {"TLS", client.ErrAuthentication, []client.Option{client.TLSWith(client.PEM{CA: someone.PEM()})}},
		"no certificate":         {"MUTUAL", client.ErrAuthentication, []client.Option{client.TLSWith(ca)}},
		"client's authority":     {"MUTUAL", client.ErrAuthentication, []client.Option{client.TLSWith(client.PEM{CA: ca.CA, Certificate: someone.Keystore(certtest.Node{})})}},
	} {
		t.Run(name, func(t *testing.T) {
			cl := ourClient(t, s.addresses[c.listener], c.options...)
			ctx := within(t, patience)
			p := ourProducerOf(t, cl)
			_, sent := p.SendSync(ctx, client.ProducerRecord{Topic: "any"})
			for what, err := range map[string]error{"ping": cl.Ping(ctx), "send": sent} {
				if !errors.Is(err, client.ErrAuthentication) || !errors.Is(err, c.want) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if err := p.Close(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// otherName is a mechanism that no broker knows.
type otherName struct{ sasl.Mechanism }

func (otherName) Name() string { return "OTHER" }

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// wrongProtocols asks each kind of port for what it is not.
func (s *secured) wrongProtocols(t *testing.T) {
	ca := client.PEM{CA: s.authority.PEM()}
	for name, c := range map[string]struct {
		listener, want string
		options        []client.Option
	}{
		"plain at a TLS port":        {"TLS", "TLS at this port", nil},
		"plain at a SASL_SSL port":   {"BOTH", "TLS at this port", []client.Option{client.SASL(sasl.Plain("alice", "secret"))}},
		"TLS at a plain port":        {"PLAINTEXT", "no TLS at this port", []client.Option{client.TLSWith(ca)}},
		"no SASL at a SASL port":     {"SASL", "wants SASL at this port", nil},
		"no SASL at a SASL_SSL port": {"BOTH", "wants SASL at this port", []client.Option{client.TLSWith(ca)}},
		"SASL at a port without":     {"TLS", "wants no SASL at this port", []client.Option{client.TLSWith(ca), client.SASL(sasl.Plain("alice", "secret"))}},
	} {
		t.Run(name, func(t *testing.T) {
			err := ourClient(t, s.addresses[c.listener], c.options...).Ping(within(t, patience))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

// livesOn sends and reads for several sessions over connections that live on: the broker would end one that is not authenticated
// anew in time, or in between of whose authentication something else comes (trap 29).
func (s *secured) livesOn(t *testing.T, listener string, options ...client.Option) {
	ctx := within(t, patience)
	topic := uniqueTopic("lives-on")
	createTopic(t, s.addresses["PLAINTEXT"], topic, 1)
	var dials atomic.Int32
	options = append(options, client.Dialer(func(ctx context.Context, address string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}))
	c := ourClient(t, s.addresses[listener], options...)
	p := ourProducerOf(t, c, client.Linger(time.Millisecond))
	if _, err := p.SendSync(ctx, client.ProducerRecord{Topic: topic}); err != nil {
		t.Fatal(err)
	}
	if err := c.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	k, err := c.NewConsumer()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if err := k.AssignTopic(ctx, topic, client.Earliest); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Poll(ctx); err != nil {
		t.Fatal(err)
	}
	before := dials.Load()
	var sent int64 = 1
	failed := make(chan error, 1)
	for end := time.Now().Add(5 * shortSession); time.Now().Before(end); sent += 100 {
		for range 100 {
			err := p.Send(ctx, client.ProducerRecord{Topic: topic, Value: []byte("x")}, func(_ client.RecordMetadata, err error) {
				if err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Ping(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Poll(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		t.Errorf("a record failed: %v", err)
	default:
	}
	if now := dials.Load(); now != before {
		t.Errorf("%d connections at the start, %d more later", before, now-before)
	}
	ends, err := admin(t, s.addresses["PLAINTEXT"]).ListEndOffsets(ctx, topic)
	if err != nil || ends[topic][0].Offset != sent {
		t.Errorf("%d records were sent; %v, %v", sent, ends, err)
	}
}
