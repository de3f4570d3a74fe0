package secure

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/youmark/pkcs8"
)

// PEM names certificates and keys in PEM, as Kafka's settings do with ssl.truststore.type=PEM and
// ssl.keystore.type=PEM. Each may be a file or a text, and only one of the two. Files are read again
// for the next connection once they have changed.
type PEM struct {
	// CAFile or CA holds the certificates of the authorities that may vouch for brokers. Default: those
	// that the operating system trusts. Kafka: ssl.truststore.location, ssl.truststore.certificates.
	CAFile, CA string

	// CertificateFile or Certificate holds the client's own certificate, followed by those between it and an authority's,
	// for brokers with ssl.client.auth. Default: none. Kafka: ssl.keystore.location,
	// ssl.keystore.certificate.chain.
	CertificateFile, Certificate string

	// KeyFile or Key holds the private key of the certificate, in PKCS #8, PKCS #1 or SEC 1. Default:
	// it is looked for where the certificate is, which is Kafka's way. Kafka: ssl.keystore.location, ssl.keystore.key.
	KeyFile, Key string

	// KeyPassword opens a private key that is encrypted (PKCS #8). Kafka: ssl.key.password.
	KeyPassword string

	// AnyHost takes a broker's certificate whatever host it was made for. An authority must have vouched for it
	// nevertheless. Kafka: ssl.endpoint.identification.algorithm, "https" by default, "" for true.
	AnyHost bool
}

// Handshaker checks what is named and makes connections with it.
func (p PEM) Handshaker() (*Handshaker, error) {
	for _, pair := range [][4]string{
		{"ssl.truststore.location", p.CAFile, "ssl.truststore.certificates", p.CA},
		{"ssl.keystore.location", p.CertificateFile, "ssl.keystore.certificate.chain", p.Certificate},
		{"ssl.keystore.location", p.KeyFile, "ssl.keystore.key", p.Key},
	} {
		if pair[1] != "" && pair[3] != "" {
			return nil, fmt.Errorf("%s and %s exclude each other", pair[0], pair[2])
		}
	}
	l := &loader{pem: p}
	if _, err := l.config(); err != nil {
		return nil, err
	}
	return &Handshaker{Config: l.config}, nil
}

// loader keeps what was made of the files until they change.
type loader struct {
	pem PEM

	mu     sync.Mutex
	made   *tls.Config
	stamps [3]stamp
}

// stamp tells a file from what it was before.
type stamp struct {
	at    time.Time
	bytes int64
}

func (l *loader) config() (*tls.Config, error) {
	var now [3]stamp
	for i, name := range []string{l.pem.CAFile, l.pem.CertificateFile, l.pem.KeyFile} {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		now[i] = stamp{info.ModTime(), info.Size()}
	}
	l.mu.Lock()
	made, stamps := l.made, l.stamps
	l.mu.Unlock()
	if made != nil && stamps == now {
		return made, nil
	}
	made, err := l.pem.read()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made, l.stamps = made, now
	return made, nil
}

func (p PEM) read() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	ca, err := either("ssl.truststore.location", p.CAFile, p.CA)
	if err != nil {
		return nil, err
	}
	if ca != nil {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s: no certificate in PEM is in it", named(p.CAFile, "ssl.truststore.certificates"))
		}
	}
	if err := p.readOwn(cfg); err != nil {
		return nil, err
	}
	if p.AnyHost {
		cfg.InsecureSkipVerify = true //nolint:gosec // verifyChain does all of it but the name
		cfg.VerifyConnection = verifyChain(cfg.RootCAs)
	}
	return cfg, nil
}

// readOwn reads the client's certificate and key, where it has some.
func (p PEM) readOwn(cfg *tls.Config) error {
	chain, err := either("ssl.keystore.location", p.CertificateFile, p.Certificate)
	if err != nil {
		return err
	}
	key, err := either("ssl.keystore.location", p.KeyFile, p.Key)
	if err != nil {
		return err
	}
	switch {
	case chain == nil && key == nil:
		return nil
	case chain == nil:
		return errors.New("there is a private key, but no certificate (ssl.keystore.certificate.chain)")
	case key == nil:
		key = chain
	}
	own := tls.Certificate{}
	for rest := chain; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type == "CERTIFICATE" {
			own.Certificate = append(own.Certificate, b.Bytes)
		}
	}
	from := named(p.CertificateFile, "ssl.keystore.certificate.chain")
	if len(own.Certificate) == 0 {
		return fmt.Errorf("%s: no certificate in PEM is in it", from)
	}
	if own.Leaf, err = x509.ParseCertificate(own.Certificate[0]); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	signer, err := readKey(key, p.KeyPassword)
	if err != nil {
		return fmt.Errorf("%s: %w", named(p.KeyFile, named(p.CertificateFile, "ssl.keystore.key")), err)
	}
	if public, ok := own.Leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(signer.Public()) {
		return fmt.Errorf("%s: the private key is not that of the first certificate", from)
	}
	own.PrivateKey = signer
	cfg.Certificates = []tls.Certificate{own}
	return nil
}

// readKey gives the first private key of a text.
func readKey(text []byte, password string) (crypto.Signer, error) {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			return nil, errors.New("no private key in PEM is in it (ssl.keystore.key)")
		}
		var key any
		var err error
		switch b.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			if password == "" {
				return nil, errors.New("the private key is encrypted, and there is no password (ssl.key.password)")
			}
			if key, err = pkcs8.ParsePKCS8PrivateKey(b.Bytes, []byte(password)); err != nil {
				return nil, fmt.Errorf("the private key cannot be decrypted, perhaps the password is wrong (ssl.key.password): %w", err)
			}
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(b.Bytes)
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the private key cannot be read: %w", err)
		}
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
		return nil, fmt.Errorf("a private key of type %T does not sign", key)
	}
}

// verifyChain checks that an authority has vouched for a certificate, for whichever host.
func verifyChain(roots *x509.CertPool) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		between := x509.NewCertPool()
		for _, c := range s.PeerCertificates[1:] {
			between.AddCert(c)
		}
		if _, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
		}
		return nil
	}
}

// either reads a file, or takes the text; nil where there is neither.
func either(fileKey, file, text string) ([]byte, error) {
	switch {
	case file != "":
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fileKey, err)
		}
		return b, nil
	case text != "":
		return []byte(text), nil
	}
	return nil, nil
}

// named gives the name of a file, or of the setting that stands in its place.
func named(file, setting string) string {
	if file != "" {
		return file
	}
	return setting
}
