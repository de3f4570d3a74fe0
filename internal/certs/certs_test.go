package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"strings"
	"testing"
	"time"

	"barnabas/internal/certs/certtest"
	"barnabas/internal/config"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
)

const (
	keystore   = "/node.pem"
	truststore = "/ca.pem"
)

func write(t *testing.T, fs *disk.Mem, name, text string) {
	t.Helper()
	f, err := fs.Open(name, disk.Create)
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(text), 0)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func files() config.TLS {
	return config.TLS{
		KeystoreFile: keystore, TruststoreFile: truststore, CheckHost: true,
		MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13, MaxDialVersion: tls.VersionTLS13,
	}
}

func store(t *testing.T, key, trust string, edit func(*Options)) (*Store, *disk.Mem, error) {
	t.Helper()
	fs := disk.NewMem()
	write(t, fs, keystore, key)
	write(t, fs, truststore, trust)
	o := Options{FS: fs, Settings: files(), Host: "node1", Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
	if edit != nil {
		edit(&o)
	}
	s, err := Open(o)
	return s, fs, err
}

// What is wrong with a node's own certificates is found before it starts, with the file and what to do.
func TestMistakesAreNamedWithTheirFile(t *testing.T) {
	ca, other := certtest.NewAuthority("ours"), certtest.NewAuthority("theirs")
	good := certtest.Node{Hosts: []string{"node1", "10.0.0.1"}}
	key, chain := ca.Issue(good)
	otherKey, _ := ca.Issue(good)
	ancient := certtest.Node{Hosts: []string{"node1"}, NotAfter: time.Date(1999, 1, 2, 3, 4, 5, 0, time.UTC)}
	early := certtest.Node{Hosts: []string{"node1"}, NotBefore: time.Date(2080, 1, 2, 3, 4, 5, 0, time.UTC)}
	for name, c := range map[string]struct {
		keystore, truststore string
		want                 []string
	}{
		"none":             {"", ca.PEM(), []string{keystore, "no private key", "-----BEGIN PRIVATE KEY-----"}},
		"no certificate":   {key, ca.PEM(), []string{keystore, "no certificate"}},
		"no authority":     {key + chain, "hello", []string{truststore, "no certificate", "is it PEM?"}},
		"another key":      {otherKey + chain, ca.PEM(), []string{keystore, "belongs to none of its certificates"}},
		"expired":          {ca.Keystore(ancient), ca.PEM(), []string{keystore, "expired at 1999-01-02T03:04:05Z", "issue a new one"}},
		"not yet":          {ca.Keystore(early), ca.PEM(), []string{keystore, "from 2080-01-02T03:04:05Z", "clocks"}},
		"other authority":  {key + chain, other.PEM(), []string{keystore, "CN=ours", truststore, "ssl.truststore.location"}},
		"other host":       {ca.Keystore(certtest.Node{Hosts: []string{"node2", "10.0.0.2"}}), ca.PEM(), []string{keystore, "node2, 10.0.0.2", "not for node1", "subjectAltName"}},
		"no host":          {ca.Keystore(certtest.Node{}), ca.PEM(), []string{keystore, "no host", "subjectAltName"}},
		"not for servers":  {ca.Keystore(certtest.Node{Hosts: good.Hosts, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}), ca.PEM(), []string{keystore, "serverAuth and clientAuth"}},
		"not for clients":  {ca.Keystore(certtest.Node{Hosts: good.Hosts, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}), ca.PEM(), []string{keystore, "clients (clientAuth)"}},
		"cut off":          {key + chain[:len(chain)/2], ca.PEM(), []string{keystore, "damaged", "has no end"}},
		"an old encrypted": {"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n" + chain, ca.PEM(), []string{keystore, "openssl pkcs8"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := store(t, c.keystore, c.truststore, nil)
			if err == nil {
				t.Fatal("taken")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v does not say %q", err, want)
				}
			}
		})
	}
	if _, _, err := store(t, key+chain, ca.PEM(), func(o *Options) { o.Settings.KeystoreFile = "/elsewhere" }); err == nil ||
		!strings.Contains(err.Error(), "/elsewhere") || !strings.Contains(err.Error(), "ssl.keystore.location") {
		t.Errorf("a missing file: %v", err)
	}
	if _, _, err := store(t, ca.Keystore(certtest.Node{}), ca.PEM(), func(o *Options) { o.Settings.CheckHost = false }); err != nil {
		t.Errorf("no host, and none is asked for: %v", err)
	}
	for _, host := range good.Hosts {
		if _, _, err := store(t, ca.Keystore(good), ca.PEM(), func(o *Options) { o.Host = host }); err != nil {
			t.Errorf("host %s: %v", host, err)
		}
	}
}

// A value that a properties file has over several lines arrives on one; chains come in any order; keys in three forms.
func TestFormsThatAreTaken(t *testing.T) {
	ca := certtest.NewAuthority("ca")
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	key, chain := ca.Issue(certtest.Node{Hosts: []string{"node1"}, Key: ec})
	sec1 := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	parameters := "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
	for name, text := range map[string]string{
		"PKCS 8": key + chain, "SEC 1": parameters + sec1 + chain, "authority first": key + ca.PEM() + chain,
		"one line": strings.ReplaceAll(key+chain, "\n", " "), "no line": strings.ReplaceAll(key+chain, "\n", ""), "Windows": strings.ReplaceAll(chain+key, "\n", "\r\n"),
	} {
		s, _, err := store(t, text, ca.PEM(), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := s.Listener().Certificates[0]; !ec.PublicKey.Equal(got.Leaf.PublicKey) || !bytes.Equal(got.Certificate[0], got.Leaf.Raw) {
			t.Errorf("%s: shows %v", name, got.Leaf.Subject)
		}
	}
}

// Files are read again when they change; what is wrong with the new ones is said once, and the old ones go on.
func TestChangedFilesAreReadAgain(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		ca := certtest.NewAuthority("ca")
		var log bytes.Buffer
		node := certtest.Node{Hosts: []string{"node1"}, NotAfter: time.Now().Add(40 * 24 * time.Hour)}
		s, fs, err := store(t, ca.Keystore(node), ca.PEM(), func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		if err != nil {
			t.Fatal(err)
		}
		shown := func() string { return string(s.Dialler("node1").Certificates[0].Certificate[0]) }
		first := shown()
		write(t, fs, keystore, "nonsense")
		for range 10 {
			time.Sleep(lookAgain)
			if shown() != first {
				t.Fatal("a broken file took the place of a good one")
			}
		}
		if n := strings.Count(log.String(), "new certificates cannot be used"); n != 1 || !strings.Contains(log.String(), keystore) {
			t.Fatalf("reported %d times: %s", n, log.String())
		}
		write(t, fs, keystore, ca.Keystore(node))
		time.Sleep(lookAgain)
		second := shown()
		if second == first {
			t.Fatal("a new certificate is not shown")
		}
		if strings.Contains(log.String(), "expires soon") {
			t.Fatalf("%s", log.String())
		}
		node.NotAfter = time.Now().Add(20 * 24 * time.Hour)
		write(t, fs, keystore, ca.Keystore(node))
		time.Sleep(lookAgain)
		if shown() == second || !strings.Contains(log.String(), "expires soon") {
			t.Fatalf("%s", log.String())
		}
	})
}

// TestFilesThatAreGoneForAWhileAreNotNews: that a file cannot be read is said each time that this begins, and when it can be again; as
// nothing has changed, no certificates are read. What is not valid yet is used once it is.
func TestFilesThatAreGoneForAWhileAreNotNews(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		ca := certtest.NewAuthority("ca")
		var log bytes.Buffer
		node := certtest.Node{Hosts: []string{"node1"}, NotAfter: time.Now().Add(400 * 24 * time.Hour)}
		text := ca.Keystore(node)
		s, fs, err := store(t, text, ca.PEM(), func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		if err != nil {
			t.Fatal(err)
		}
		shown := func() string { return string(s.Dialler("node1").Certificates[0].Certificate[0]) }
		first := shown()
		for round := 1; round <= 2; round++ {
			if err := fs.Remove(keystore); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				time.Sleep(lookAgain)
				shown()
			}
			write(t, fs, keystore, text)
			for range 3 {
				time.Sleep(lookAgain)
				shown()
			}
			for line, want := range map[string]int{"cannot be used; the old": round, "are there again": round, "were read again": 0} {
				if n := strings.Count(log.String(), line); n != want {
					t.Fatalf("round %d: %q is said %d times, want %d:\n%s", round, line, n, want, log.String())
				}
			}
		}
		node.NotBefore = time.Now().Add(6 * lookAgain)
		write(t, fs, keystore, ca.Keystore(node))
		for range 3 {
			time.Sleep(lookAgain)
			if shown() != first {
				t.Fatal("a certificate that is not valid yet is shown")
			}
		}
		time.Sleep(6 * lookAgain)
		if shown() == first || strings.Count(log.String(), "cannot be used; the old") != 3 {
			t.Fatalf("%s", log.String())
		}
	})
}

func TestOtherSettingsAreUsedIfTheyAreRight(t *testing.T) {
	ca := certtest.NewAuthority("ca")
	s, fs, err := store(t, ca.Keystore(certtest.Node{Hosts: []string{"node1"}}), ca.PEM(), nil)
	if err != nil {
		t.Fatal(err)
	}
	other := files()
	other.KeystoreFile, other.MaxVersion = "/other.pem", tls.VersionTLS12
	if err := s.Use(other); err == nil || s.Listener().MaxVersion != tls.VersionTLS13 {
		t.Fatalf("a file that is not there: %v", err)
	}
	write(t, fs, "/other.pem", ca.Keystore(certtest.Node{Hosts: []string{"node1"}}))
	if err := s.Use(other); err != nil || s.Listener().MaxVersion != tls.VersionTLS12 {
		t.Fatalf("%v", err)
	}
}

func FuzzKeystore(f *testing.F) {
	ca := certtest.NewAuthority("ca")
	f.Add(ca.Keystore(certtest.Node{Hosts: []string{"node1"}}), "")
	f.Add(strings.ReplaceAll(encryptedKeys["aes-256-cbc, SHA-256"], "\n", " "), "password")
	f.Add("-----BEGIN -----", "")
	f.Fuzz(func(t *testing.T, text, password string) {
		if key, err := privateKey([]byte(text), password); err == nil && key == nil {
			t.Fatal("no key and no error")
		}
		if all, err := certificates([]byte(text)); (err == nil) == (len(all) == 0) {
			t.Fatalf("%d certificates, %v", len(all), err)
		}
	})
}
