// Package certtest makes authorities and certificates for tests. Only tests may import it. It decides on
// nothing but forms: who is believed is for package certs to say.
package certtest

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// Authority signs certificates.
type Authority struct {
	key    crypto.Signer
	cert   *x509.Certificate
	serial int64
}

// long holds in a bubble, where it is the year 2000, and today.
var long = [2]time.Time{time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC)}

// NewAuthority makes an authority. It panics where no random numbers are to be had.
func NewAuthority(name string) *Authority {
	a := &Authority{key: newKey(), serial: 1}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: long[0], NotAfter: long[1],
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = sign(template, template, a.key.Public(), a.key)
	return a
}

// PEM is the authority's own certificate.
func (a *Authority) PEM() string { return encode("CERTIFICATE", a.cert.Raw) }

// Node is what a certificate says. The zero value is a good one for no host.
type Node struct {
	Hosts               []string // names and IP addresses
	Usages              []x509.ExtKeyUsage
	NotBefore, NotAfter time.Time
	Key                 crypto.Signer // nil: a new Ed25519 key
}

// Issue makes a certificate, and returns its key in PKCS #8 and it, both in PEM.
func (a *Authority) Issue(n Node) (key, chain string) {
	a.serial++
	if n.Key == nil {
		n.Key = newKey()
	}
	if n.Usages == nil {
		n.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	if n.NotBefore.IsZero() {
		n.NotBefore = long[0]
	}
	if n.NotAfter.IsZero() {
		n.NotAfter = long[1]
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: "a node"}, NotBefore: n.NotBefore, NotAfter: n.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: n.Usages,
	}
	for _, host := range n.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(n.Key)
	if err != nil {
		panic(fmt.Sprintf("BUG: certtest: encode a key: %v", err))
	}
	return encode("PRIVATE KEY", der), encode("CERTIFICATE", sign(template, a.cert, n.Key.Public(), a.key).Raw)
}

// Keystore is key and certificate in one text.
func (a *Authority) Keystore(n Node) string {
	key, chain := a.Issue(n)
	return key + chain
}

func newKey() crypto.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(fmt.Sprintf("BUG: certtest: make a key: %v", err))
	}
	return key
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		panic(fmt.Sprintf("BUG: certtest: sign: %v", err))
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		panic(fmt.Sprintf("BUG: certtest: read what was signed: %v", err))
	}
	return c
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
