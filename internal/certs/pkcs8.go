package certs

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha1" //nolint:gosec // inside HMAC, the default of RFC 8018
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
)

// Encrypted private keys: PKCS #8's EncryptedPrivateKeyInfo (RFC 5958) with PBES2 and PBKDF2 (RFC 8018)
// and AES in CBC mode, which is what openssl and Java make.

type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2 struct {
	Derivation pkix.AlgorithmIdentifier
	Encryption pkix.AlgorithmIdentifier
}

type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyBytes   int                      `asn1:"optional"`
	Random     pkix.AlgorithmIdentifier `asn1:"optional"`
}

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
)

// hashes of PBKDF2, by their objects' names.
var hashes = map[string]func() hash.Hash{
	"":                   sha1.New,
	"1.2.840.113549.2.7": sha1.New, "1.2.840.113549.2.9": sha256.New, "1.2.840.113549.2.10": sha512.New384, "1.2.840.113549.2.11": sha512.New,
}

// aesKeyBytes are the lengths of the keys of AES in CBC mode.
var aesKeyBytes = map[string]int{
	"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, "2.16.840.1.101.3.4.1.42": 32,
}

// mostIterations bounds the work that a file can ask for, a few seconds of it; openssl asks for 2,048.
const mostIterations = 10_000_000

var errWrongPassword = errors.New("its private key cannot be decrypted: the password is wrong (key ssl.key.password)")

// decrypt opens an encrypted private key.
func decrypt(der []byte, password string) ([]byte, error) {
	var key encryptedKey
	var scheme pbes2
	var params pbkdf2Params
	if rest, err := asn1.Unmarshal(der, &key); err != nil || len(rest) > 0 {
		return nil, errors.New("its encrypted private key is damaged")
	}
	if !key.Algorithm.Algorithm.Equal(oidPBES2) {
		return nil, unknownCipher(key.Algorithm)
	}
	if err := unmarshal(key.Algorithm, &scheme); err != nil {
		return nil, err
	}
	if !scheme.Derivation.Algorithm.Equal(oidPBKDF2) {
		return nil, unknownCipher(scheme.Derivation)
	}
	if err := unmarshal(scheme.Derivation, &params); err != nil {
		return nil, err
	}
	digest, keyBytes := hashes[params.Random.Algorithm.String()], aesKeyBytes[scheme.Encryption.Algorithm.String()]
	if digest == nil {
		return nil, unknownCipher(params.Random)
	}
	if keyBytes == 0 {
		return nil, unknownCipher(scheme.Encryption)
	}
	var iv []byte
	if err := unmarshal(scheme.Encryption, &iv); err != nil {
		return nil, err
	}
	if len(iv) != aes.BlockSize || len(key.Data) == 0 || len(key.Data)%aes.BlockSize != 0 || params.Iterations < 1 || params.Iterations > mostIterations {
		return nil, errors.New("its encrypted private key is damaged")
	}
	secret, err := pbkdf2.Key(digest, password, params.Salt, params.Iterations, keyBytes)
	if err != nil {
		return nil, fmt.Errorf("its private key cannot be decrypted: %w", err)
	}
	return unblock(secret, iv, key.Data)
}

// unblock undoes AES-CBC and the padding of PKCS #7.
func unblock(secret, iv, data []byte) ([]byte, error) {
	b, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("its private key cannot be decrypted: %w", err)
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(b, iv).CryptBlocks(plain, data)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > aes.BlockSize {
		return nil, errWrongPassword
	}
	for _, p := range plain[len(plain)-pad:] {
		if int(p) != pad {
			return nil, errWrongPassword
		}
	}
	return plain[:len(plain)-pad], nil
}

func unmarshal(a pkix.AlgorithmIdentifier, into any) error {
	if rest, err := asn1.Unmarshal(a.Parameters.FullBytes, into); err != nil || len(rest) > 0 {
		return errors.New("its encrypted private key is damaged")
	}
	return nil
}

func unknownCipher(a pkix.AlgorithmIdentifier) error {
	return fmt.Errorf("its private key is encrypted in a way that is not known here (%s): encrypt it anew with openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW",
		a.Algorithm)
}
