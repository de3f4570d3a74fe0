package node_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/certs/certtest"
	"barnabas/internal/clustertest"
	"barnabas/internal/config"
)

// The certificates that the effects of TLS are looked at with.
var (
	tlsAuthority, tlsStranger = certtest.NewAuthority("ours"), certtest.NewAuthority("theirs")
	broker3                   = certtest.Node{Hosts: []string{"broker3"}}
	tlsKey, tlsChain          = tlsAuthority.Issue(broker3)
	otherKey, otherChain      = tlsAuthority.Issue(broker3)
)

const (
	aes128 = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
	aes256 = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
)

// tlsEffects are those of the keys of TLS, on the last of three nodes.
var tlsEffects = map[string]effect{
	"ssl.keystore.location":          {see: joins(nil), cases: []string{clustertest.KeystoreFile, "joins", "/nowhere.pem", "does not start: /nowhere.pem"}},
	"ssl.truststore.location":        {see: joins(nil), cases: []string{clustertest.TruststoreFile, "joins", "/strangers.pem", "does not start: /strangers.pem"}},
	"ssl.keystore.type":              {see: joins(nil), cases: []string{"PEM", "joins", "JKS", "refused: ssl.keystore.type", "PKCS12", "refused: ssl.keystore.type"}},
	"ssl.truststore.type":            {see: joins(nil), cases: []string{"PEM", "joins", "JKS", "refused: ssl.truststore.type"}},
	"ssl.keystore.key":               {see: joins(inline), cases: []string{tlsKey, "joins", strings.ReplaceAll(tlsKey, "\n", " "), "joins", otherKey, "does not start"}},
	"ssl.keystore.certificate.chain": {see: joins(inline), cases: []string{tlsChain, "joins", otherChain, "does not start"}},
	"ssl.truststore.certificates":    {see: joins(inline), cases: []string{tlsAuthority.PEM(), "joins", tlsStranger.PEM(), "does not start"}},
	"ssl.key.password":               {see: joins(encrypted), cases: []string{"password", "joins", "Password", "does not start: " + clustertest.KeystoreFile}},
	"ssl.endpoint.identification.algorithm": {see: joins(forAnotherHost), cases: []string{
		"https", "does not start: " + clustertest.KeystoreFile, "", "joins", "ldaps", "refused: ssl.endpoint.identification.algorithm",
	}},
	"ssl.enabled.protocols": {see: joins(others("ssl.enabled.protocols=TLSv1.3")), cases: []string{
		"TLSv1.3", "joins", "TLSv1.2", "stays outside", "TLSv1.2,TLSv1.3", "joins", "TLSv1.1", "refused: ssl.enabled.protocols",
	}},
	"ssl.protocol": {see: joins(others("ssl.enabled.protocols=TLSv1.3")), cases: []string{
		"TLSv1.3", "joins", "TLS", "joins", "TLSv1.2", "stays outside", "SSLv3", "refused: ssl.protocol",
	}},
	"ssl.cipher.suites": {see: joins(others("ssl.enabled.protocols=TLSv1.2", "ssl.protocol=TLSv1.2", "ssl.cipher.suites="+aes128)), cases: []string{
		aes128, "joins", aes256 + "," + aes128, "joins", aes256, "stays outside", "TLS_AES_128_GCM_SHA256", "refused: ssl.cipher.suites",
		"TLS_RSA_WITH_RC4_128_SHA", "refused: ssl.cipher.suites",
	}},
}

// setup changes the nodes before they start for the first time, and the last before it starts again.
type setup struct {
	first func(p *probe)
	again func(p *probe, last *clustertest.Node)
}

func others(settings ...string) *setup {
	return &setup{first: func(p *probe) {
		for _, n := range p.nodes[:2] {
			n.Set(settings...)
		}
	}}
}

var (
	inline = &setup{again: func(_ *probe, last *clustertest.Node) {
		last.Set("ssl.keystore.location", "ssl.truststore.location",
			"ssl.keystore.key="+tlsKey, "ssl.keystore.certificate.chain="+tlsChain, "ssl.truststore.certificates="+tlsAuthority.PEM())
	}}
	encrypted = &setup{again: func(_ *probe, last *clustertest.Node) {
		_, chain := tlsAuthority.Issue(certtest.Node{Hosts: broker3.Hosts, Key: certtest.DecryptedKey()})
		last.SetFile(clustertest.KeystoreFile, certtest.EncryptedKey+chain)
	}}
	forAnotherHost = &setup{
		first: func(p *probe) {
			for _, n := range p.nodes[:2] {
				if p.value != "ldaps" {
					n.Set(p.key + "=" + p.value)
				}
			}
		},
		again: func(_ *probe, last *clustertest.Node) {
			last.SetFile(clustertest.KeystoreFile, tlsAuthority.Keystore(certtest.Node{Hosts: []string{"broker4"}}))
		},
	}
)

// joins starts three nodes with certificates, and then the last of them anew with the setting.
func joins(s *setup) func(p *probe) string {
	return func(p *probe) string {
		p.nodes = p.Cluster(3)
		p.Certify(tlsAuthority, p.nodes...)
		last := p.nodes[2]
		if s != nil && s.first != nil {
			s.first(p)
		}
		p.StartAll(p.nodes...)
		if err := last.Stop(); err != nil {
			p.Fatalf("stop: %v", err)
		}
		last.SetFile("/strangers.pem", tlsStranger.PEM())
		if s != nil && s.again != nil {
			s.again(p, last)
		}
		last.Set(p.key + "=" + p.value)
		ctx, cancel := p.within(20 * time.Second)
		defer cancel()
		return p.fate(last.Start(ctx))
	}
}

// fate is what became of a node that was started.
func (p *probe) fate(err error) string {
	var invalid *config.InvalidError
	switch {
	case err == nil:
		return "joins"
	case errors.As(err, &invalid):
		return "refused: " + invalid.Key
	case errors.Is(err, context.DeadlineExceeded):
		return "stays outside"
	}
	for _, file := range []string{"/nowhere.pem", "/strangers.pem", clustertest.KeystoreFile} {
		if strings.Contains(err.Error(), file) {
			return "does not start: " + file
		}
	}
	return "does not start"
}

// What stands under the listener's own name stands over what is for all; set by AlterConfigs it counts at once, and what
// cannot be used is said and left.
func TestSettingsOfTheInternalListenerAlone(t *testing.T) {
	clustertest.Run(t, 1, func(w *clustertest.World) {
		p := &probe{World: w, nodes: w.Cluster(3)}
		w.Certify(tlsAuthority, p.nodes...)
		for _, n := range p.nodes {
			n.Set("ssl.keystore.location=/of/clients.jks", "ssl.keystore.type=JKS", "listener.name.controller.ssl.keystore.type=PEM",
				"listener.name.controller.ssl.keystore.location="+clustertest.KeystoreFile)
		}
		w.StartAll(p.nodes...)
		p.at(1)
		third := p.nodes[2]
		third.SetFile("/new.pem", tlsAuthority.Keystore(certtest.Node{Hosts: []string{"broker3"}, NotAfter: time.Now().Add(10 * time.Minute)}))
		for _, c := range []struct{ value, logs string }{{"/nowhere.pem", "the old ones go on"}, {"/new.pem", "have other certificates from now on"}} {
			if err := p.c.Alter(p.Context(), kmsg.ConfigResourceTypeBroker, "3", "listener.name.controller.ssl.keystore.location", &c.value); err != nil {
				w.Fatalf("alter: %v", err)
			}
			w.Eventually(c.logs, 5*time.Second, func() bool { return strings.Contains(third.Log(), c.logs) })
		}
		time.Sleep(15 * time.Minute) // what was made before goes on; what is made now is not believed any more
		w.Net.Isolate(third.Name)
		time.Sleep(10 * time.Second)
		w.Net.Rejoin(third.Name)
		w.Eventually("the certificate that was set has expired", time.Minute, func() bool {
			return strings.Contains(p.nodes[0].Log(), "it has expired at") || strings.Contains(p.nodes[1].Log(), "it has expired at")
		})
	})
}
