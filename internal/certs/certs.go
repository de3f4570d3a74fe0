package certs

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"barnabas/internal/config"
	"barnabas/internal/disk"
)

const (
	// lookAgain is how often a file is looked at whether it has changed, when connections are made.
	lookAgain = 5 * time.Second
	// maxFileBytes bounds a file of keys or certificates; a longer one is refused.
	maxFileBytes = 1 << 20
	// warnBefore is how long before its end a certificate is reported.
	warnBefore = 30 * 24 * time.Hour
)

// Options is what a Store is made of. All fields are required unless they say otherwise.
type Options struct {
	FS       disk.FS
	Settings config.TLS
	// Host is where other nodes reach this one; "" where that is not known.
	Host   string
	Now    func() time.Time
	Logger *slog.Logger
}

// Store keeps the key and the certificates of one listener. It is safe for concurrent use.
type Store struct {
	o  Options
	mu struct { // short: never held while files are read
		sync.Mutex
		settings config.TLS
		current  *material
		looked   time.Time
		tried    [2][]byte // what the files held when they were read last
		good     bool      // it is in use
		trouble  string    // what was wrong when they were looked at last; "": nothing
	}
}

// material is what one reading has given.
type material struct {
	settings config.TLS
	trust    string // where the authorities come from, for messages
	own      tls.Certificate
	roots    *x509.CertPool
}

// Open reads key and certificates and checks that other nodes can believe them. Errors name the file and
// what to do.
func Open(o Options) (*Store, error) {
	s := &Store{o: o}
	texts, err := s.read(o.Settings)
	if err != nil {
		return nil, err
	}
	m, err := s.load(o.Settings, texts)
	if err != nil {
		return nil, err
	}
	s.mu.settings, s.mu.current, s.mu.looked, s.mu.tried, s.mu.good = o.Settings, m, o.Now(), texts, true
	s.remind(m)
	return s, nil
}

// Use takes other settings, for the connections that are made from now on. Where they are wrong an error
// says why, and the last that were right go on.
func (s *Store) Use(settings config.TLS) error {
	s.mu.Lock()
	same := sameTLS(s.mu.settings, settings)
	s.mu.Unlock()
	if same {
		return nil
	}
	texts, err := s.read(settings)
	if err != nil {
		return err
	}
	m, err := s.load(settings, texts)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.mu.settings, s.mu.current, s.mu.looked, s.mu.tried, s.mu.good, s.mu.trouble = settings, m, s.o.Now(), texts, true, ""
	s.mu.Unlock()
	s.o.Logger.Info("connections between nodes have other certificates from now on", "expires", m.own.Leaf.NotAfter)
	s.remind(m)
	return nil
}

func sameTLS(a, b config.TLS) bool { return reflect.DeepEqual(a, b) }

// now is the newest material: files that have changed are read again. What is wrong with them is said
// once, and the last that were right go on.
func (s *Store) now() *material {
	s.mu.Lock()
	m, settings, tried, good := s.mu.current, s.mu.settings, s.mu.tried, s.mu.good
	at := s.o.Now()
	due := at.Sub(s.mu.looked) >= lookAgain || at.Before(s.mu.looked)
	if due {
		s.mu.looked = at
	}
	s.mu.Unlock()
	if !due {
		return m
	}
	texts, err := s.read(settings)
	isRead := err == nil
	unchanged := isRead && bytes.Equal(texts[0], tried[0]) && bytes.Equal(texts[1], tried[1])
	var fresh *material
	if isRead && !(unchanged && good) { // what is not valid yet will be
		fresh, err = s.load(settings, texts)
	}
	s.mu.Lock()
	before := s.mu.trouble
	told := err != nil && before != "" && (unchanged || before == err.Error())
	if s.mu.trouble = ""; err != nil {
		s.mu.trouble = err.Error()
	}
	if isRead && sameTLS(s.mu.settings, settings) {
		s.mu.tried, s.mu.good = texts, err == nil
		if fresh != nil {
			s.mu.current, m = fresh, fresh
		}
	}
	s.mu.Unlock()
	switch {
	case err != nil && !told:
		s.o.Logger.Warn("new certificates cannot be used; the old ones go on", "err", err)
	case fresh != nil:
		s.o.Logger.Info("certificates were read again", "expires", fresh.own.Leaf.NotAfter)
		s.remind(fresh)
	case err == nil && before != "":
		s.o.Logger.Info("the files of the certificates are there again, and have not changed")
	}
	return m
}

// remind warns of a certificate that ends soon.
func (s *Store) remind(m *material) {
	end := m.own.Leaf.NotAfter
	if left := end.Sub(s.o.Now()); left < warnBefore {
		s.o.Logger.Warn("this node's certificate expires soon: replace it, and the new one is read without a restart",
			"expires", end, "keystore", keystoreOf(m.settings))
	}
}

func keystoreOf(t config.TLS) string {
	if t.KeystoreFile != "" {
		return t.KeystoreFile
	}
	return "ssl.keystore.certificate.chain"
}

func truststoreOf(t config.TLS) string {
	if t.TruststoreFile != "" {
		return t.TruststoreFile
	}
	return "ssl.truststore.certificates"
}

// read returns the texts of key and chain, and of the authorities.
func (s *Store) read(t config.TLS) (texts [2][]byte, err error) {
	texts[0], texts[1] = []byte(t.Key+"\n"+t.Chain), []byte(t.Trusted)
	for i, of := range []struct{ file, key string }{{t.KeystoreFile, "ssl.keystore.location"}, {t.TruststoreFile, "ssl.truststore.location"}} {
		if of.file == "" {
			continue
		}
		if texts[i], err = disk.ReadFile(s.o.FS, of.file, maxFileBytes); err != nil {
			return [2][]byte{}, fmt.Errorf("read certificates (key %s): %w", of.key, err)
		}
	}
	return texts, nil
}

// load makes material of what was read.
func (s *Store) load(t config.TLS, texts [2][]byte) (*material, error) {
	m := &material{settings: t, trust: truststoreOf(t), roots: x509.NewCertPool()}
	keystore := keystoreOf(t)
	key, err := privateKey(texts[0], t.KeyPassword)
	if err != nil {
		return nil, fmt.Errorf("the keystore %s cannot be used: %w", keystore, err)
	}
	chain, err := certificates(texts[0])
	if err != nil {
		return nil, fmt.Errorf("the keystore %s cannot be used: %w", keystore, err)
	}
	authorities, err := certificates(texts[1])
	if err != nil {
		return nil, fmt.Errorf("the truststore %s cannot be used: %w", m.trust, err)
	}
	for _, c := range authorities {
		m.roots.AddCert(c)
	}
	at := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return belong(key, c) })
	if at < 0 {
		return nil, fmt.Errorf("the keystore %s cannot be used: its private key belongs to none of its certificates; put the key there with which the certificate was asked for", keystore)
	}
	m.own = tls.Certificate{PrivateKey: key, Leaf: chain[at], Certificate: [][]byte{chain[at].Raw}}
	for i, c := range chain {
		if i != at {
			m.own.Certificate = append(m.own.Certificate, c.Raw)
		}
	}
	if err := s.checkOwn(m, append([]*x509.Certificate{chain[at]}, chain...)); err != nil {
		return nil, fmt.Errorf("this node's certificate in %s cannot be used: %w", keystore, err)
	}
	return m, nil
}

func belong(key crypto.Signer, c *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

// checkOwn finds out before others do whether they would believe this node, at either end.
func (s *Store) checkOwn(m *material, chain []*x509.Certificate) error {
	host := s.o.Host
	if !m.settings.CheckHost {
		host = ""
	}
	if err := m.verify(chain, host, s.o.Now(), x509.ExtKeyUsageServerAuth); err != nil {
		return err
	}
	return m.verify(chain, "", s.o.Now(), x509.ExtKeyUsageClientAuth)
}

// verify looks whether a chain, the node's own certificate first, is one to believe.
func (m *material) verify(chain []*x509.Certificate, host string, at time.Time, usage x509.ExtKeyUsage) error {
	if len(chain) == 0 {
		return errors.New("there is none")
	}
	among := x509.NewCertPool()
	for _, c := range chain[1:] {
		among.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: host, Roots: m.roots, Intermediates: among, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return m.explain(chain[0], host, at, usage, err)
	}
	return nil
}

// explain says what is wrong with a certificate and what to do about it.
func (m *material) explain(c *x509.Certificate, host string, at time.Time, usage x509.ExtKeyUsage, err error) error {
	const day = time.RFC3339
	var wrongHost x509.HostnameError
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case at.After(c.NotAfter):
		return fmt.Errorf("it has expired at %s, and it is %s: issue a new one", c.NotAfter.UTC().Format(day), at.UTC().Format(day))
	case at.Before(c.NotBefore):
		return fmt.Errorf("it is valid from %s on, and it is %s: are the clocks right?", c.NotBefore.UTC().Format(day), at.UTC().Format(day))
	case errors.As(err, &wrongHost):
		return fmt.Errorf("it is for %s and not for %s, where the node is reached: issue it with that subjectAltName (or switch the check off, with ssl.endpoint.identification.algorithm empty)",
			names(c), host)
	case errors.As(err, &unknown):
		return fmt.Errorf("it was issued by %q, and no such authority is in the truststore %s (key ssl.truststore.location)", c.Issuer.String(), m.trust)
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		end := "clients (clientAuth)"
		if usage == x509.ExtKeyUsageServerAuth {
			end = "servers (serverAuth)"
		}
		return fmt.Errorf("it may not be used by %s: issue it with the extended key usages serverAuth and clientAuth, for every node is both", end)
	}
	return err
}

// names are the hosts that a certificate is for.
func names(c *x509.Certificate) string {
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return fmt.Sprintf("no host (%q without a subjectAltName)", c.Subject.String())
	}
	return strings.Join(all, ", ")
}

// Listener configures one accepted connection: whoever dials must show a certificate.
func (s *Store) Listener() *tls.Config {
	m := s.now()
	c := s.config(m, m.settings.MaxVersion)
	c.ClientAuth = tls.RequireAnyClientCert // and looked at below, with words for what is wrong
	c.VerifyConnection = s.verifier(m, "", x509.ExtKeyUsageClientAuth)
	return c
}

// Dialler configures one connection to a host.
func (s *Store) Dialler(host string) *tls.Config {
	m := s.now()
	c := s.config(m, m.settings.MaxDialVersion)
	c.ServerName = host
	if !m.settings.CheckHost {
		host = ""
	}
	c.InsecureSkipVerify = true // looked at below, with words for what is wrong
	c.VerifyConnection = s.verifier(m, host, x509.ExtKeyUsageServerAuth)
	// Shown whatever authorities the listener names: it says best why it does not believe this one.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &m.own, nil }
	return c
}

func (s *Store) config(m *material, highest uint16) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{m.own}, MinVersion: m.settings.MinVersion, MaxVersion: highest, CipherSuites: m.settings.CipherSuites,
		Time:                   s.o.Now,
		SessionTicketsDisabled: true, // each connection is looked at anew, so that a truststore that changes counts at once
	}
}

func (s *Store) verifier(m *material, host string, usage x509.ExtKeyUsage) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		return m.verify(state.PeerCertificates, host, s.o.Now(), usage)
	}
}
