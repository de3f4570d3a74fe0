package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// block is one part of a PEM text.
type block struct {
	kind      string // CERTIFICATE, PRIVATE KEY ...
	bytes     []byte
	encrypted bool // in OpenSSL's old way, with headers before the data
}

const (
	beginMark = "-----BEGIN "
	endMark   = "-----END "
	dashes    = "-----"
)

// blocks finds the parts of a PEM text. Unlike encoding/pem it takes them on one line too, with blanks in the
// place of line ends: that is what becomes of a value that is written over several lines of a properties file.
func blocks(text []byte) ([]block, error) {
	var all []block
	for {
		_, rest, found := bytes.Cut(text, []byte(beginMark))
		if !found {
			return all, nil
		}
		kind, rest, found := bytes.Cut(rest, []byte(dashes))
		if !found || len(kind) > 64 {
			return nil, errors.New("it is damaged: a line begins with -----BEGIN and does not end with -----")
		}
		body, rest, found := bytes.Cut(rest, []byte(endMark+string(kind)+dashes))
		if !found {
			return nil, fmt.Errorf("it is damaged: -----BEGIN %s----- has no end", kind)
		}
		b := block{kind: string(kind)}
		if b.encrypted = bytes.Contains(body, []byte("ENCRYPTED")) && bytes.Contains(body, []byte(":")); !b.encrypted {
			var err error
			if b.bytes, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(body)), "")); err != nil {
				return nil, fmt.Errorf("it is damaged: what follows -----BEGIN %s----- is not base64", kind)
			}
		}
		all = append(all, b)
		text = rest
	}
}

// certificates are those of a text, in its order.
func certificates(text []byte) ([]*x509.Certificate, error) {
	parts, err := blocks(text)
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for _, b := range parts {
		if b.kind != "CERTIFICATE" && b.kind != "X509 CERTIFICATE" && b.kind != "TRUSTED CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.bytes)
		if err != nil {
			return nil, fmt.Errorf("its certificate number %d cannot be read: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("it has no certificate (-----BEGIN CERTIFICATE-----); is it PEM?")
	}
	return all, nil
}

// privateKey is that of a text.
func privateKey(text []byte, password string) (crypto.Signer, error) {
	parts, err := blocks(text)
	if err != nil {
		return nil, err
	}
	for _, b := range parts {
		if !strings.HasSuffix(b.kind, "PRIVATE KEY") {
			continue
		}
		key, err := b.privateKey(password)
		if err != nil {
			return nil, err
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("its private key, a %T, cannot sign", key)
		}
		return signer, nil
	}
	return nil, errors.New("it has no private key (-----BEGIN PRIVATE KEY-----); put the key and the certificates into one file")
}

const asPKCS8 = "convert it with openssl pkcs8 -topk8 -in OLD -out NEW"

func (b *block) privateKey(password string) (any, error) {
	if b.encrypted {
		return nil, errors.New("its private key is encrypted in OpenSSL's old way: " + asPKCS8)
	}
	der := b.bytes
	var err error
	if b.kind == "ENCRYPTED PRIVATE KEY" {
		if password == "" {
			return nil, errors.New("its private key is encrypted: give its password (key ssl.key.password)")
		}
		if der, err = decrypt(der, password); err != nil {
			return nil, err
		}
	}
	var key any
	switch b.kind {
	case "PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(der)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(der)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(der)
	default:
		return nil, fmt.Errorf("its private key is in the form %s: %s", b.kind, asPKCS8)
	}
	if err != nil && b.kind == "ENCRYPTED PRIVATE KEY" {
		return nil, errWrongPassword
	}
	if err != nil {
		return nil, fmt.Errorf("its private key cannot be read: %w", err)
	}
	return key, nil
}
