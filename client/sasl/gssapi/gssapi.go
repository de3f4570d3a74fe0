// Package gssapi is the mechanism GSSAPI of package sasl: Kerberos 5, by the library gokrb5.
//
//	m, err := gssapi.New(gssapi.Config{User: "orders", Realm: "EXAMPLE.COM", KeytabFile: "orders.keytab"})
//	defer m.Close()
//	c, err := client.New(client.Brokers("broker.example.com:9093"), client.TLS(nil), client.SASL(m))
//
// It decides which ticket a broker is shown and whether the broker could read it. It refuses to know Kerberos beyond that,
// which is the library's, and connections. It is a module of its own, so that only those who use it download the library:
// require barnabas/client/sasl/gssapi beside barnabas.
package gssapi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	krb "github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/credentials"
	wrap "github.com/jcmturner/gokrb5/v8/gssapi"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/krberror"
	"github.com/jcmturner/gokrb5/v8/spnego"
	"github.com/jcmturner/gokrb5/v8/types"

	"barnabas/client/sasl"
)

// Config says who the client is. Exactly one of Password, KeytabFile and CacheFile is needed.
type Config struct {
	// Service is the first part of the brokers' principals, as in kafka/HOST@REALM. HOST is the host that the broker gives as
	// its address. Default "kafka". Kafka: sasl.kerberos.service.name.
	Service string

	// ConfigFile is Kerberos' own configuration, with realms and their KDCs. Default: the environment's KRB5_CONFIG, else
	// /etc/krb5.conf.
	ConfigFile string

	// User and Realm are the client's principal, but for CacheFile, which holds it. An empty Realm is ConfigFile's default.
	User, Realm string

	// Password is the user's.
	Password string

	// KeytabFile holds the user's keys. Kafka: keyTab in sasl.jaas.config.
	KeytabFile string

	// CacheFile holds tickets that kinit or a program of its kind keeps fresh; it is read for each
	// connection. Kafka: useTicketCache in sasl.jaas.config.
	CacheFile string
}

const (
	defaultService    = "kafka"
	defaultConfigFile = "/etc/krb5.conf"
)

// Mechanism is GSSAPI with the tickets of one principal. It is safe for concurrent use, for any number of
// clients. Close it after them.
type Mechanism struct {
	cfg  Config
	krb5 *config.Config
	keys *keytab.Keytab // with KeytabFile
	wg   sync.WaitGroup // exchanges with a KDC, some of which nobody waits for any more

	mu struct { // never held while asking
		sync.Mutex
		closed bool
		login  *krb.Client // nil before the first login, and with CacheFile
	}
}

// New reads the files that are named. It does not ask a KDC yet.
func New(cfg Config) (*Mechanism, error) {
	if cfg.Service == "" {
		cfg.Service = defaultService
	}
	if cfg.ConfigFile == "" {
		if cfg.ConfigFile = os.Getenv("KRB5_CONFIG"); cfg.ConfigFile == "" {
			cfg.ConfigFile = defaultConfigFile
		}
	}
	ways := 0
	for _, way := range []string{cfg.Password, cfg.KeytabFile, cfg.CacheFile} {
		if way != "" {
			ways++
		}
	}
	if ways != 1 {
		return nil, errors.New("GSSAPI: one of Password, KeytabFile and CacheFile is needed, and no more")
	}
	if cfg.CacheFile == "" && cfg.User == "" {
		return nil, errors.New("GSSAPI: the user is empty")
	}
	m := &Mechanism{cfg: cfg}
	var err error
	if m.krb5, err = config.Load(cfg.ConfigFile); err != nil {
		return nil, fmt.Errorf("GSSAPI: read %s: %w", cfg.ConfigFile, err)
	}
	if m.cfg.Realm == "" {
		m.cfg.Realm = m.krb5.LibDefaults.DefaultRealm
	}
	if cfg.KeytabFile != "" {
		if m.keys, err = keytab.Load(cfg.KeytabFile); err != nil {
			return nil, fmt.Errorf("GSSAPI: read the keytab %s: %w", cfg.KeytabFile, err)
		}
	}
	return m, nil
}

// Close ends what keeps the tickets fresh, and waits for what is being asked of a KDC.
func (m *Mechanism) Close() {
	m.mu.Lock()
	m.mu.closed = true
	login := m.mu.login
	m.mu.login = nil
	m.mu.Unlock()
	m.wg.Wait()
	if login != nil {
		login.Destroy()
	}
}

// Name is GSSAPI.
func (*Mechanism) Name() string { return "GSSAPI" }

// errClosed is the answer to whoever comes after Close.
var errClosed = errors.New("GSSAPI: closed")

// Begin gets a ticket for the broker at host and shows it. The library takes no context: when ctx ends first, what it is at goes on
// until Close, and its result is kept for the next attempt.
func (m *Mechanism) Begin(ctx context.Context, host string) (sasl.Exchange, []byte, error) {
	type started struct {
		e     *exchange
		first []byte
		err   error
	}
	result := make(chan started, 1)
	m.mu.Lock()
	if m.mu.closed {
		m.mu.Unlock()
		return nil, nil, errClosed
	}
	m.wg.Go(func() {
		e, first, err := m.show(host)
		result <- started{e, first, err}
	})
	m.mu.Unlock()
	select {
	case s := <-result:
		if s.err != nil {
			return nil, nil, fmt.Errorf("GSSAPI: %w", judge(s.err))
		}
		return s.e, s.first, nil
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("GSSAPI: get a ticket for %s/%s: %w", m.cfg.Service, host, context.Cause(ctx))
	}
}

// show makes the first message: the ticket, and that we know its key (RFC 4121, section 4.1).
func (m *Mechanism) show(host string) (*exchange, []byte, error) {
	c, err := m.principal()
	if err != nil {
		return nil, nil, err
	}
	service := m.cfg.Service + "/" + host
	ticket, key, err := c.GetServiceTicket(service)
	if err != nil {
		return nil, nil, fmt.Errorf("get a ticket for %s: %w", service, err)
	}
	token, err := spnego.NewKRB5TokenAPREQ(c, ticket, key, []int{wrap.ContextFlagInteg}, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("show the ticket for %s: %w", service, err)
	}
	first, err := token.Marshal()
	if err != nil {
		return nil, nil, fmt.Errorf("show the ticket for %s: %w", service, err)
	}
	return &exchange{key: key}, first, nil
}

// principal gives who gets tickets, logging in the first time. The library keeps that login fresh.
func (m *Mechanism) principal() (*krb.Client, error) {
	if m.cfg.CacheFile != "" {
		cache, err := credentials.LoadCCache(m.cfg.CacheFile)
		if err != nil {
			return nil, fmt.Errorf("read the tickets in %s: %w", m.cfg.CacheFile, err)
		}
		return krb.NewFromCCache(cache, m.krb5, krb.DisablePAFXFAST(true))
	}
	m.mu.Lock()
	c := m.mu.login
	m.mu.Unlock()
	if c != nil {
		return c, nil
	}
	if m.keys != nil {
		c = krb.NewWithKeytab(m.cfg.User, m.cfg.Realm, m.keys, m.krb5, krb.DisablePAFXFAST(true))
	} else {
		c = krb.NewWithPassword(m.cfg.User, m.cfg.Realm, m.cfg.Password, m.krb5, krb.DisablePAFXFAST(true))
	}
	if err := c.Login(); err != nil {
		return nil, fmt.Errorf("log in as %s@%s: %w", m.cfg.User, m.cfg.Realm, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed || m.mu.login != nil { // somebody was quicker
		c.Destroy()
		if m.mu.closed {
			return nil, errClosed
		}
		return m.mu.login, nil
	}
	m.mu.login = c
	return c, nil
}

// judge marks what a KDC refuses, and what cannot be decrypted for a wrong password.
func judge(err error) error {
	var k krberror.Krberror
	if errors.As(err, &k) && (k.RootCause == krberror.KDCError || k.RootCause == krberror.DecryptingError || k.RootCause == krberror.ConfigError) {
		return fmt.Errorf("%w: %w", sasl.ErrRefused, err)
	}
	return err
}

// exchange is what follows the ticket (RFC 4752): the broker offers what may protect the connection, and the client takes
// nothing, as Kafka wants; TLS protects. That the offer is signed with the ticket's key proves the broker.
type exchange struct {
	key   types.EncryptionKey
	taken bool
}

// layers of protection: a bit each in the first byte of offer and choice, before the largest message, of three bytes.
const (
	noLayer    = 1
	offerBytes = 4
)

// Next answers the offer, and then ends.
func (e *exchange) Next(challenge []byte) ([]byte, bool, error) {
	if e.taken {
		return nil, true, nil
	}
	if len(challenge) == 0 {
		return []byte{}, false, nil // the broker has nothing to say yet
	}
	offer, err := open(challenge, e.key)
	if err != nil {
		return nil, false, fmt.Errorf("GSSAPI: %w: %w", sasl.ErrBroker, err)
	}
	if len(offer) < offerBytes || offer[0]&noLayer == 0 {
		return nil, false, fmt.Errorf("GSSAPI: the broker wants what Kafka's connections have not (%x): %w", offer, sasl.ErrBroker)
	}
	choice, err := wrap.NewInitiatorWrapToken([]byte{noLayer, 0, 0, 0}, e.key)
	if err != nil {
		return nil, false, fmt.Errorf("GSSAPI: sign the choice: %w", err)
	}
	response, err := choice.Marshal()
	if err != nil {
		return nil, false, fmt.Errorf("GSSAPI: sign the choice: %w", err)
	}
	e.taken = true
	return response, false, nil
}

// open gives what a signed token of the broker's says (RFC 4121, section 4.2.6.2).
func open(b []byte, key types.EncryptionKey) ([]byte, error) {
	if len(b) > wrap.HdrLen {
		b = unrotate(b)
	}
	var token wrap.WrapToken
	if err := token.Unmarshal(b, true); err != nil {
		return nil, err
	}
	if _, err := token.Verify(key, keyusage.GSSAPI_ACCEPTOR_SEAL); err != nil {
		return nil, err
	}
	return token.Payload, nil
}

// unrotate undoes the rotation that a token says its signature and text were put through, which the library does not know.
func unrotate(b []byte) []byte {
	const at = 6 // of the count, two bytes
	body := b[wrap.HdrLen:]
	by := int(binary.BigEndian.Uint16(b[at:])) % len(body)
	out := append([]byte(nil), b[:wrap.HdrLen]...)
	out = append(out, body[by:]...)
	return append(out, body[:by]...)
}
