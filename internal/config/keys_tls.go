package config

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// TLS is what the nodes of a cluster need to show each other certificates.
type TLS struct {
	// KeystoreFile holds the private key and the certificate chain, in PEM. Where it is "" they are
	// the texts Key and Chain.
	KeystoreFile, Key, Chain string
	// KeyPassword is of an encrypted private key.
	KeyPassword string
	// TruststoreFile holds the certificates of the authorities that are believed, in PEM. Where it is
	// "" they are the text Trusted.
	TruststoreFile, Trusted string

	MinVersion, MaxVersion uint16   // as crypto/tls numbers them
	MaxDialVersion         uint16   // the highest that this node begins with
	CipherSuites           []uint16 // of TLS 1.2; nil: Go's choice
	// CheckHost says that a certificate must be for the host at which its node is reached.
	CheckHost bool
}

// InternalTLS is what the internal listener is to use; nil where it speaks in the clear, or there is
// none. A key that begins with listener.name. and the listener's name in small letters stands over the
// key without it, as in Kafka. An error is possible only in a Set that With has made.
func (s *Set) InternalTLS() (*TLS, error) {
	e, ok := s.InternalListener()
	if !ok || e.Protocol != "SSL" {
		return nil, nil
	}
	t, refusals := s.readTLS(e.Listener)
	if len(refusals) > 0 {
		return nil, s.invalid(refusals[0].key, refusals[0].allowed)
	}
	return &t, nil
}

// refusal is a setting that cannot be honoured. allowed says what can.
type refusal struct{ key, allowed string }

// tlsReader takes a listener's settings and collects what is wrong with them.
type tlsReader struct {
	s        *Set
	prefix   string
	refusals []refusal
}

func listenerPrefix(listener string) string {
	return "listener.name." + strings.ToLower(listener) + "."
}

// get is the value of a key for the listener, and the name under which it was found.
func (r *tlsReader) get(key string) (value any, name string) {
	k := table.must(Broker, key)
	if raw, ok := r.s.raw(r.prefix + key); ok {
		v, err := k.parse(raw)
		if err == nil {
			return v, r.prefix + key
		}
		r.refuse(r.prefix+key, k.allowedText())
	}
	v, _ := r.s.effective(key)
	return v, key
}

func (r *tlsReader) text(key string) (value, name string) {
	v, name := r.get(key)
	return orZero[string](v), name
}

func (r *tlsReader) refuse(key, allowed string) {
	r.refusals = append(r.refusals, refusal{key, allowed})
}

func (s *Set) readTLS(listener string) (TLS, []refusal) {
	r := &tlsReader{s: s, prefix: listenerPrefix(listener)}
	var t TLS
	t.KeystoreFile, _ = r.text("ssl.keystore.location")
	t.Key, _ = r.text("ssl.keystore.key")
	t.Chain, _ = r.text("ssl.keystore.certificate.chain")
	t.KeyPassword, _ = r.text("ssl.key.password")
	t.TruststoreFile, _ = r.text("ssl.truststore.location")
	t.Trusted, _ = r.text("ssl.truststore.certificates")
	r.stores(&t, listener)
	r.versions(&t)
	r.suites(&t)
	algorithm, name := r.text("ssl.endpoint.identification.algorithm")
	if t.CheckHost = algorithm != ""; t.CheckHost && !strings.EqualFold(algorithm, "https") {
		r.refuse(name, "https, or empty for no check of the host's name")
	}
	return t, r.refusals
}

const (
	keystoreToPEM   = "keytool -importkeystore -srckeystore OLD -destkeystore node.p12 -deststoretype PKCS12, and then openssl pkcs12 -in node.p12 -nodes -out node.pem"
	truststoreToPEM = "keytool -list -rfc -keystore OLD > ca.pem"
)

// stores looks whether key, certificates and authorities are there, each once and in PEM.
func (r *tlsReader) stores(t *TLS, listener string) {
	const needed = "since listener %s is SSL (docs/cli.md shows how to make one)"
	switch {
	case t.KeystoreFile == "" && t.Key == "" && t.Chain == "":
		r.refuse("ssl.keystore.location", "a PEM file with this node's private key and certificate chain (--keystore), "+fmt.Sprintf(needed, listener))
	case t.KeystoreFile != "" && (t.Key != "" || t.Chain != ""):
		r.refuse("ssl.keystore.location", "only one of it and ssl.keystore.key with ssl.keystore.certificate.chain")
	case t.KeystoreFile == "" && (t.Key == "" || t.Chain == ""):
		r.refuse("ssl.keystore.key", "only together with ssl.keystore.certificate.chain")
	}
	switch {
	case t.TruststoreFile == "" && t.Trusted == "":
		r.refuse("ssl.truststore.location", "a PEM file with the certificate of the authority that has signed those of the nodes (--truststore), "+fmt.Sprintf(needed, listener))
	case t.TruststoreFile != "" && t.Trusted != "":
		r.refuse("ssl.truststore.location", "only one of it and ssl.truststore.certificates")
	}
	for _, of := range []struct {
		key, convert string
		given        bool
	}{
		{"ssl.keystore.type", keystoreToPEM, t.KeystoreFile+t.Key+t.Chain != ""},
		{"ssl.truststore.type", truststoreToPEM, t.TruststoreFile+t.Trusted != ""},
	} {
		if kind, name := r.text(of.key); of.given && !strings.EqualFold(kind, "PEM") {
			r.refuse(name, "PEM, which is not the default: Java's formats are not read here. To convert: "+of.convert)
		}
	}
}

var tlsVersions = map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}

func (r *tlsReader) versions(t *TLS) {
	v, name := r.get("ssl.enabled.protocols")
	for _, p := range orZero[[]string](v) {
		version, ok := tlsVersions[p]
		if !ok {
			r.refuse(name, "TLSv1.3 and TLSv1.2; older versions can be broken")
			continue
		}
		t.MaxVersion = max(t.MaxVersion, version)
		if t.MinVersion == 0 || version < t.MinVersion {
			t.MinVersion = version
		}
	}
	if t.MaxVersion == 0 {
		r.refuse(name, "at least one of TLSv1.3 and TLSv1.2")
	}
	first, name := r.text("ssl.protocol")
	version, ok := tlsVersions[first]
	switch {
	case first == "TLS":
		version = t.MaxVersion
	case !ok:
		r.refuse(name, "TLSv1.3, TLSv1.2, or TLS for the highest that is enabled")
	case version < t.MinVersion:
		r.refuse(name, "a version that ssl.enabled.protocols has")
	}
	t.MaxDialVersion = min(version, t.MaxVersion)
}

// suites takes the names of cipher suites. Those of TLS 1.3 cannot be chosen among in Go: all or none.
func (r *tlsReader) suites(t *TLS) {
	v, name := r.get("ssl.cipher.suites")
	wanted := orZero[[]string](v)
	if len(wanted) == 0 {
		return
	}
	of13, chosen13, known := 0, 0, []string{}
	for _, suite := range tls.CipherSuites() {
		is13 := slices.Contains(suite.SupportedVersions, tls.VersionTLS13)
		known = append(known, suite.Name)
		if is13 {
			of13++
		}
		switch chosen := slices.Contains(wanted, suite.Name); {
		case chosen && is13:
			chosen13++
		case chosen:
			t.CipherSuites = append(t.CipherSuites, suite.ID)
		}
	}
	for _, w := range wanted {
		if !slices.Contains(known, w) {
			r.refuse(name, "suites of "+strings.Join(known, ", ")+"; "+w+" is none")
		}
	}
	if chosen13 == 0 { // as in Java, where a version without a suite cannot be spoken
		t.MaxVersion = min(t.MaxVersion, tls.VersionTLS12)
		t.MaxDialVersion = min(t.MaxDialVersion, tls.VersionTLS12)
	} else if chosen13 < of13 && t.MaxVersion == tls.VersionTLS13 {
		r.refuse(name, "all suites of TLS 1.3 or none: Go always offers TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384 and TLS_CHACHA20_POLY1305_SHA256 with it")
	}
	if len(t.CipherSuites) == 0 {
		t.MinVersion = max(t.MinVersion, tls.VersionTLS13)
	}
	if t.MinVersion > t.MaxVersion {
		r.refuse(name, "suites of a version that ssl.enabled.protocols has")
	} else if t.MinVersion > t.MaxDialVersion {
		r.refuse(name, "suites of the version that ssl.protocol names")
	}
}

// checkTLS refuses what the internal listener cannot honour.
func checkTLS(s *Set) (errs []error) {
	e, ok := s.InternalListener()
	if !ok || e.Protocol != "SSL" {
		return nil
	}
	_, refusals := s.readTLS(e.Listener)
	for _, r := range refusals {
		errs = append(errs, s.invalid(r.key, r.allowed))
	}
	return errs
}

// invalid refuses the value of a key, which may be a listener's own.
func (s *Set) invalid(key, allowed string) *InvalidError {
	e := &InvalidError{Key: key, Allowed: allowed, Origin: s.static[key].origin}
	if v, ok := s.values[key]; ok {
		e.Value = text(v)
	} else if raw, ok := s.raw(key); ok {
		e.Value = raw
	}
	if keyOf(key).Sensitive {
		e.Value = "[hidden]"
	}
	return e
}

// tlsInUse tells which of the names that were set the internal listener reads, and of those that it could
// read, why it does not.
func (s *Set) tlsInUse() (inUse map[string]bool, reason string) {
	inUse = map[string]bool{}
	e, ok := s.InternalListener()
	if !ok || e.Protocol != "SSL" {
		return inUse, onlyBetweenNodes
	}
	prefix := listenerPrefix(e.Listener)
	for name := range maps.Keys(s.static) {
		k := table.broker[strings.TrimPrefix(name, prefix)]
		if k == nil || k.Area != tlsArea {
			continue
		}
		raw, _ := s.raw(name)
		inUse[name] = k.Status == Effective || k.Name == "ssl.client.auth" && trim(raw) == "required"
	}
	return inUse, onlyBetweenNodes
}

// tlsKeys are the settings of TLS. What is effective is so for the internal listener: that of clients
// speaks in the clear.
var tlsKeys = []row{
	{"ssl.protocol", String, "TLSv1.3", anything, Medium, PerBroker, effective,
		"The version of TLS that a node begins with: TLSv1.3, TLSv1.2, or TLS for the highest that is enabled."},
	{"ssl.enabled.protocols", List, "TLSv1.2,TLSv1.3", set, Medium, PerBroker, effective,
		"The versions of TLS that are taken. Nodes that both have TLSv1.3 speak it."},
	{"ssl.cipher.suites", List, "", set, Medium, PerBroker, effective,
		"The cipher suites that are taken; empty: Go's choice. Of TLS 1.3 all or none can be named."},
	{"ssl.client.auth", String, "none", oneOf("required", "requested", "none"), Medium, PerBroker, no(alwaysMutual),
		"Whether clients must show a certificate."},
	{"ssl.endpoint.identification.algorithm", String, "https", anything, Low, PerBroker, effective,
		"How the name in a certificate is checked: https, it must be for the host at which its node is reached; empty: not at all."},
	{"ssl.key.password", Password, null, anything, Medium, PerBroker, effective,
		"The password of the private key, where that is encrypted (PKCS #8, PBES2 with AES)."},
	{"ssl.keymanager.algorithm", String, "SunX509", anything, Medium, PerBroker, no(javaTLS),
		"The Java factory of key managers."},
	{"ssl.keystore.location", String, null, anything, Medium, PerBroker, effective,
		"The file of the node's private key and certificate chain. It is read again when it changes."},
	{"ssl.keystore.password", Password, null, anything, Medium, PerBroker, no(noStorePassword),
		"The password of that file."},
	{"ssl.keystore.type", String, "JKS", anything, Medium, PerBroker, effective,
		"The format of that file and of ssl.keystore.key; only PEM is read."},
	{"ssl.keystore.key", Password, null, anything, Medium, PerBroker, effective,
		"The private key itself, in PEM."},
	{"ssl.keystore.certificate.chain", Password, null, anything, Medium, PerBroker, effective,
		"The certificate chain itself, in PEM, the node's own first."},
	{"ssl.truststore.location", String, null, anything, Medium, PerBroker, effective,
		"The file of the certificates of authorities that are believed: who has one of theirs is taken for a node of the cluster. It is read again when it changes."},
	{"ssl.truststore.password", Password, null, anything, Medium, PerBroker, no(noStorePassword),
		"The password of that file."},
	{"ssl.truststore.type", String, "JKS", anything, Medium, PerBroker, effective,
		"The format of that file and of ssl.truststore.certificates; only PEM is read."},
	{"ssl.truststore.certificates", Password, null, anything, Medium, PerBroker, effective,
		"The trusted certificates themselves, in PEM."},
	{"ssl.trustmanager.algorithm", String, "PKIX", anything, Medium, PerBroker, no(javaTLS),
		"The Java factory of trust managers."},
	{"ssl.provider", String, null, anything, Medium, PerBroker, no(javaTLS),
		"The Java provider of TLS."},
	{"ssl.secure.random.implementation", String, null, anything, Low, PerBroker, no(javaTLS),
		"The Java source of random numbers."},
	{"ssl.engine.factory.class", Class, null, anything, Low, PerBroker, no(javaClass),
		"A class that makes TLS engines."},
	{"ssl.principal.mapping.rules", String, "DEFAULT", anything, Low, ReadOnly, no(noTLS),
		"How a certificate's name becomes a user's name."},
	{"ssl.allow.dn.changes", Bool, "false", anything, Low, ReadOnly, no(noTLS),
		"Whether a new certificate may carry another distinguished name."},
	{"ssl.allow.san.changes", Bool, "false", anything, Low, ReadOnly, no(noTLS),
		"Whether a new certificate may carry other alternative names."},
	{"security.providers", String, null, anything, Low, ReadOnly, no(javaClass),
		"Classes that provide security algorithms."},
}
