package config

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const secureCluster = `controller.quorum.voters=1@a:9093,2@b:9093,3@c:9093
listeners=PLAINTEXT://a:9092
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:SSL
ssl.keystore.type=PEM
ssl.keystore.location=/k
ssl.truststore.type=PEM
ssl.truststore.location=/t
`

func TestInternalTLSIsReadAsItIsMeant(t *testing.T) {
	suites := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	all13 := "TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384,TLS_CHACHA20_POLY1305_SHA256"
	for more, edit := range map[string]func(*TLS){
		"":                                       func(*TLS) {},
		"ssl.enabled.protocols=TLSv1.3":          func(t *TLS) { t.MinVersion = tls.VersionTLS13 },
		"ssl.protocol=TLSv1.2":                   func(t *TLS) { t.MaxDialVersion = tls.VersionTLS12 },
		"ssl.protocol=TLS":                       func(*TLS) {},
		"ssl.endpoint.identification.algorithm=": func(t *TLS) { t.CheckHost = false },
		"ssl.endpoint.identification.algorithm=HTTPS":                           func(*TLS) {},
		"listener.name.controller.ssl.keystore.location=/own":                   func(t *TLS) { t.KeystoreFile = "/own" },
		"listener.name.other.ssl.keystore.location=/own":                        func(*TLS) {},
		"ssl.key.password=one\nlistener.name.controller.ssl.key.password=two":   func(t *TLS) { t.KeyPassword = "two" },
		"ssl.cipher.suites=" + all13:                                            func(t *TLS) { t.MinVersion = tls.VersionTLS13 },
		"ssl.cipher.suites=" + all13 + ",TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": func(t *TLS) { t.CipherSuites = suites },
		"ssl.cipher.suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": func(t *TLS) { // as in Java: no suite, no version
			t.CipherSuites, t.MaxVersion, t.MaxDialVersion = suites, tls.VersionTLS12, tls.VersionTLS12
		},
	} {
		s, warnings, err := Load(Sources{File: secureCluster + more})
		if err != nil {
			t.Errorf("%s: %v", more, err)
			continue
		}
		want := &TLS{
			KeystoreFile: "/k", TruststoreFile: "/t", CheckHost: true,
			MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13, MaxDialVersion: tls.VersionTLS13,
		}
		edit(want)
		got, err := s.InternalTLS()
		if err != nil {
			t.Errorf("%s: %v", more, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", more, diff)
		}
		if named := strings.Contains(strings.Join(warnings, " "), "ssl."); named != strings.Contains(more, "listener.name.other.") {
			t.Errorf("%s: warnings %q", more, warnings)
		}
	}
}

// What cannot be honoured is refused under the name that the user wrote, with what can be, and no secret is shown.
func TestTLSThatCannotBeHonouredIsRefused(t *testing.T) {
	for _, c := range []struct{ more, key, says string }{
		{"ssl.keystore.location=", "ssl.keystore.location", "private key and certificate chain (--keystore), since listener CONTROLLER is SSL"},
		{"ssl.truststore.location=", "ssl.truststore.location", "authority"},
		{"ssl.keystore.type=JKS", "ssl.keystore.type", "keytool -importkeystore"},
		{"listener.name.controller.ssl.keystore.type=PKCS12", "listener.name.controller.ssl.keystore.type", "openssl pkcs12"},
		{"ssl.truststore.type=JKS", "ssl.truststore.type", "keytool -list -rfc"},
		{"ssl.keystore.key=hunter2", "ssl.keystore.location", "only one of it and ssl.keystore.key"},
		{"ssl.keystore.location=\nssl.keystore.key=hunter2", "ssl.keystore.key", "only together with ssl.keystore.certificate.chain"},
		{"ssl.truststore.certificates=hunter2", "ssl.truststore.location", "only one"},
		{"ssl.enabled.protocols=TLSv1.1", "ssl.enabled.protocols", "older versions"},
		{"ssl.enabled.protocols=", "ssl.enabled.protocols", "at least one"},
		{"ssl.enabled.protocols=TLSv1.3\nssl.protocol=TLSv1.2", "ssl.protocol", "ssl.enabled.protocols"},
		{"ssl.protocol=SSL", "ssl.protocol", "TLSv1.3"},
		{"ssl.cipher.suites=TLS_AES_128_GCM_SHA256", "ssl.cipher.suites", "all suites of TLS 1.3 or none"},
		{"ssl.cipher.suites=SSL_NULL", "ssl.cipher.suites", "SSL_NULL is none"},
		{"ssl.cipher.suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\nssl.enabled.protocols=TLSv1.3", "ssl.cipher.suites", "a version that ssl.enabled.protocols has"},
		{"ssl.endpoint.identification.algorithm=ldaps", "ssl.endpoint.identification.algorithm", "https"},
		{"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT", "cluster.secret.file", "or certificates (--keystore and --truststore)"},
		{"listeners=PLAINTEXT://a:9092,CONTROLLER://:9093\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:SASL_SSL", "listener.security.protocol.map", "SSL or PLAINTEXT"},
		{"listener.security.protocol.map=PLAINTEXT:SSL,CONTROLLER:SSL", "listener.security.protocol.map", "no TLS for clients yet"},
	} {
		_, _, err := Load(Sources{File: secureCluster + c.more, FileName: "f"})
		if err == nil {
			t.Errorf("%s: taken", c.more)
			continue
		}
		if !strings.Contains(err.Error(), c.key+" = ") || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %s and %q", c.more, err, c.key, c.says)
		}
	}
}

// Where the internal listener speaks in the clear, or there is none, each key of TLS is named as idle.
func TestIdleTLSIsNamed(t *testing.T) {
	for file, idle := range map[string]bool{
		"ssl.keystore.location=/k":                         true,
		"listener.name.plaintext.ssl.keystore.location=/k": true,
		secureCluster + "ssl.client.auth=required":         false,
		secureCluster + "ssl.client.auth=none":             true,
		secureCluster + "ssl.keystore.password=x":          true,
		strings.ReplaceAll(secureCluster, "CONTROLLER:SSL", "CONTROLLER:PLAINTEXT") + "cluster.secret.file=/s": true,
	} {
		_, warnings, err := Load(Sources{File: file})
		if named := strings.Contains(strings.Join(warnings, " "), "ssl."); err != nil || named != idle {
			t.Errorf("%s: %q, %v", file, warnings, err)
		}
	}
}
