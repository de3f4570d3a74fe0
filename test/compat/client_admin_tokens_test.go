//go:build compat

package compat

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"barnabas/client"
	ours "barnabas/client/admin"
	"barnabas/test/compat/rig"
)

// TestOurDelegationTokens makes tokens on Apache Kafka, over connections that prove with a certificate who asks. Our own
// broker says that it has none: TestOurAdminAreas.
func TestOurDelegationTokens(t *testing.T) {
	rig.NoLeaks(t, "barnabas/client", "barnabas/internal")
	addr, alice := kafkaWithTLS(t, "CN=alice")
	t.Logf("runs on Apache Kafka, which has CreateDelegationToken RenewDelegationToken ExpireDelegationToken DescribeDelegationToken")
	a := ours.New(ourClient(t, addr, client.Dialer(alice)))
	ctx := within(t, patience)
	bob := ours.UserPrincipal("bob")
	token, err := a.CreateDelegationToken(ctx, ours.RenewableBy(bob), ours.TokenLifetime(2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if token.Owner != ours.UserPrincipal("CN=alice") || token.Requester != token.Owner || token.ID == "" || len(token.HMAC) == 0 ||
		token.Latest.Sub(token.Issued) != 2*time.Hour || token.Expires.After(token.Latest) || time.Since(token.Issued) > patience {
		t.Errorf("%+v", token)
	}
	found := func(owners ...ours.Principal) []ours.DelegationToken {
		tokens, err := a.DescribeDelegationTokens(ctx, owners...)
		if err != nil {
			t.Fatal(err)
		}
		return tokens
	}
	got := eventually(t, func() ([]ours.DelegationToken, bool) { tokens := found(); return tokens, len(tokens) == 1 })
	if g := got[0]; g.ID != token.ID || !bytes.Equal(g.HMAC, token.HMAC) || !slices.Equal(g.Renewers, []ours.Principal{bob}) || g.Owner != token.Owner || !g.Latest.Equal(token.Latest) {
		t.Errorf("%+v, made %+v", g, token)
	}
	if mine, renewed, theirs := found(token.Owner), found(bob), found(ours.UserPrincipal("eve")); len(mine) != 1 || len(renewed) != 1 || len(theirs) != 0 {
		t.Errorf("of its owner %v, of its renewer %v, of another %v", mine, renewed, theirs)
	}
	sooner, err := a.RenewDelegationToken(ctx, token.HMAC, time.Hour)
	if err != nil || time.Until(sooner) > time.Hour || time.Until(sooner) < time.Hour-patience {
		t.Errorf("renewed until %v: %v", sooner, err)
	}
	if latest, err := a.RenewDelegationToken(ctx, token.HMAC, 0); err != nil || !latest.Equal(token.Latest) {
		t.Errorf("renewed until %v, at most %v: %v", latest, token.Latest, err)
	}
	if _, err := a.RenewDelegationToken(ctx, []byte("none"), 0); !errors.Is(err, client.ErrDelegationTokenNotFound) {
		t.Errorf("renewed one that is none: %v", err)
	}
	if soon, err := a.ExpireDelegationToken(ctx, token.HMAC, 30*time.Minute); err != nil || time.Until(soon) > 30*time.Minute {
		t.Errorf("expires %v: %v", soon, err)
	}
	if _, err := a.ExpireDelegationToken(ctx, token.HMAC, 0); err != nil {
		t.Error(err)
	}
	eventually(t, func() ([]ours.DelegationToken, bool) { tokens := found(); return tokens, len(tokens) == 0 })
}

// kafkaWithTLS starts an Apache Kafka with a listener that asks for certificates, and gives its address and a way to dial
// it as who has a certificate of that name.
func kafkaWithTLS(t *testing.T, name string) (addr string, dial func(context.Context, string) (net.Conn, error)) {
	t.Helper()
	home := t.TempDir()
	authority := issue(t, nil, "CN=authority")
	server, user := issue(t, authority, "CN=broker"), issue(t, authority, name)
	keys, trust := filepath.Join(home, "server.pem"), filepath.Join(home, "authority.pem")
	for file, text := range map[string][]byte{keys: slices.Concat(server.key, server.chain), trust: authority.chain} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plain := rig.FreeAddress(t)
	_, text, _ := net.SplitHostPort(plain)
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	addr = rig.FreeAddress(t)
	t.Setenv("KAFKA_HEAP", "512m")
	t.Setenv("KAFKA_EXTRA", strings.Join([]string{
		fmt.Sprintf("listeners=PLAINTEXT://%s,CONTROLLER://127.0.0.1:%d,SSL://%s", plain, port+1, addr),
		fmt.Sprintf("advertised.listeners=PLAINTEXT://%s,SSL://%s", plain, addr),
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL", "delegation.token.secret.key=secret",
		"ssl.client.auth=required", "ssl.keystore.type=PEM", "ssl.keystore.location=" + keys, "ssl.truststore.type=PEM", "ssl.truststore.location=" + trust,
	}, "\n"))
	script, dir := filepath.Join(rig.Shared(t), "peers", "kafka"), filepath.Join(home, "kafka")
	t.Cleanup(func() { _, _, _ = rig.Try(t, nil, script, "stop", dir) })
	rig.Run(t, nil, script, "start", dir, "1", strconv.Itoa(port))
	pair, err := tls.X509KeyPair(user.chain, user.key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.chain)
	return addr, (&tlsDialer{tls.Dialer{Config: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}}}).dial
}

type tlsDialer struct{ tls.Dialer }

func (d *tlsDialer) dial(ctx context.Context, address string) (net.Conn, error) {
	return d.DialContext(ctx, "tcp", address)
}

// certified is a key and the certificate for it, in PEM.
type certified struct {
	cert       *x509.Certificate
	private    *ecdsa.PrivateKey
	key, chain []byte
}

// issue makes a certificate, signed by an authority or, without one, by itself.
func issue(t *testing.T, by *certified, name string) *certified {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &certified{private: private}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: strings.TrimPrefix(name, "CN=")},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	parent, signer := template, private
	if by != nil {
		parent, signer = by.cert, by.private
	} else {
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &private.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	c.chain = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	c.key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	return c
}
