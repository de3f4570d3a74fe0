package certtest

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// EncryptedKey is a private key that OpenSSL has encrypted with the password "password", in PEM.
const EncryptedKey = `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAh2s8LX+9aTlQICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEIPsNJJOddcwubAnUu8cRekEgZAs
7tiTm81dJbS5713PEkrQJBG1pvEubg9XbLKyHrSgd4rPdx5WwSGggxVirPATJwr7
YWs2IRiR/p1xJOl9pwxleKjYyonA36ltu9YfSPlJX5meuuGTxgPdAJJJOC0TgswY
CRycGhXQ7xipD77V4OnG5a86HNI+QMkrHO9Dt+BmXW12s3k4qQcYXXPO5CzYJXg=
-----END ENCRYPTED PRIVATE KEY-----
`

const decryptedKey = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgLVb47CQYImGGqeTl
9YN8I0SYPujCrEW7OWezA1INIfKhRANCAATuRMAizxf2dyZuQYGUwMvmD4Oqawvw
f6bOokfMTFcrakfhOLkmqj2MCjkkxI9qXPT6zjB9B7AQUwUdIMmKJGpz
-----END PRIVATE KEY-----
`

// DecryptedKey is what EncryptedKey holds.
func DecryptedKey() crypto.Signer {
	b, _ := pem.Decode([]byte(decryptedKey))
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		panic(fmt.Sprintf("BUG: certtest: read a key: %v", err))
	}
	return key.(crypto.Signer)
}
