package certs

import (
	"encoding/pem"
	"strings"
	"testing"
)

// encryptedKeys are one key, encrypted by OpenSSL 3.0.19 (openssl pkcs8 -topk8) with the password "password".
var encryptedKeys = map[string]string{
	"aes-256-cbc, SHA-256": `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAh2s8LX+9aTlQICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEIPsNJJOddcwubAnUu8cRekEgZAs
7tiTm81dJbS5713PEkrQJBG1pvEubg9XbLKyHrSgd4rPdx5WwSGggxVirPATJwr7
YWs2IRiR/p1xJOl9pwxleKjYyonA36ltu9YfSPlJX5meuuGTxgPdAJJJOC0TgswY
CRycGhXQ7xipD77V4OnG5a86HNI+QMkrHO9Dt+BmXW12s3k4qQcYXXPO5CzYJXg=
-----END ENCRYPTED PRIVATE KEY-----
`,
	"aes-128-cbc, SHA-1": `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHeMEkGCSqGSIb3DQEFDTA8MBsGCSqGSIb3DQEFDDAOBAgWSYGhyK6Q6wICCAAw
HQYJYIZIAWUDBAECBBApVQyJPKH4fF31jdvqlSv1BIGQvx3ecCU/tp1A4+4L9onY
HL8InS67G6kCwvX5riLt2RY9uw6Jr9fLuLxfeU+Jb/Skprs730tfOmO0qfW7fIN4
4BZyszT3QGeBlPQiZXKJAeTi/ksE4DxUfykXNfX0FEnzEYvPGZdBwAE0VOXVlrVK
WeLJ0bOX2qPWqEu2VQvU0UmDL12sZjGIsbH00sdyVmR3
-----END ENCRYPTED PRIVATE KEY-----
`,
	"aes-192-cbc, SHA-512": `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAj3Y7tEJk4zDgICJxAw
DAYIKoZIhvcNAgsFADAdBglghkgBZQMEARYEEEV1VUBG/Eq9st5acPZYlssEgZCf
4shhkiZfaVt6K0UBRwNnYlwgTGIaL/PwXfLgNzhQ8jQwgXlLBJgx+gGQCAiceSNX
woe3Il0CvCSJHKYZyXHqHYYDqRgNy/WNZdqzKS+/uv1+IQq71Y82/puoYo+jxQWf
tk7+BKU2IagiQt06xnH41Ox65f06ecdgdaQHTmci01EIQpiXo0mp8vc8kLFB3aU=
-----END ENCRYPTED PRIVATE KEY-----
`,
}

// unknownKeys are encrypted in ways that are refused.
var unknownKeys = map[string]string{
	"DES3": `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHjME4GCSqGSIb3DQEFDTBBMCkGCSqGSIb3DQEFDDAcBAglfvETVdEygQICCAAw
DAYIKoZIhvcNAgkFADAUBggqhkiG9w0DBwQI4lLMQujp1xkEgZDngDf+h/fAdkYo
Zn8JVO7EraAj6wgSxDaR7JzMQOTTwxTXb7y63gqxir6SoYZgsxnjey4F5DhdFkgv
8DlygI0CarMMlC3FunAJOijDTcKYSA8asZHCe7ErAWeAgq2EsOL7tuw7zRELCoWk
eUrJ8fAjdDevuNmcaQuUyUxaXxDYesP7Pmd1ZXx8jiCP3GXE7Go=
-----END ENCRYPTED PRIVATE KEY-----
`,
	"scrypt": `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHkME8GCSqGSIb3DQEFDTBCMCEGCSsGAQQB2kcECzAUBAhJm61KsO2bgwICQAAC
AQgCAQEwHQYJYIZIAWUDBAEqBBA+XIpqAuUWzGkCWMyg+MJVBIGQRY8ozhhf43xT
eedHJv+T91+Sd1X8FpIGfJtXlrim4yHS2qh1kBX8aazatP+v/MCmBRV0Mok7o8Zh
kBi3BLGKDyyLRbIxEAesdBbrygug3wdRNDnmc/ikKe5juiorrorgXXHI4Tg3vNjl
IwSTZCxAGM2o5hjvlGD/96LeZB2hu01/Hdec141WvW6K/yROS0gl
-----END ENCRYPTED PRIVATE KEY-----
`,
	"PKCS 12": `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGxMBwGCiqGSIb3DQEMAQMwDgQIOkITsBZtrjMCAggABIGQabKNnvD3VwjzWaE7
3V4OqxKCuAkyP5ZnXVRVdHt+QjQ8UnvXlF0+N6ASrfTe2ggZ5HN5YbuEVad5cNa2
omfC4eaXaEp5hXg3EGxtYp2SfTAoWy6AQLPsySUvqbrQwKsjS82U9VvBEwsydfgQ
5WyW39sSg5gnUp/gJQste7Oj3rCprEetz3C8AVvJRPTruZ4N
-----END ENCRYPTED PRIVATE KEY-----
`,
}

const plainKey = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgLVb47CQYImGGqeTl
9YN8I0SYPujCrEW7OWezA1INIfKhRANCAATuRMAizxf2dyZuQYGUwMvmD4Oqawvw
f6bOokfMTFcrakfhOLkmqj2MCjkkxI9qXPT6zjB9B7AQUwUdIMmKJGpz
-----END PRIVATE KEY-----
`

func TestEncryptedKeysAreRead(t *testing.T) {
	want, _ := pem.Decode([]byte(plainKey))
	for name, text := range encryptedKeys {
		b, _ := pem.Decode([]byte(text))
		if got, err := decrypt(b.Bytes, "password"); err != nil || string(got) != string(want.Bytes) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := privateKey([]byte(text), "password"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, wrong := range []string{"passwort", "Password", "1", "2", "3"} {
			if _, err := privateKey([]byte(text), wrong); err == nil || !strings.Contains(err.Error(), "ssl.key.password") {
				t.Errorf("%s, with another password: %v", name, err)
			}
		}
		if _, err := privateKey([]byte(text), ""); err == nil || !strings.Contains(err.Error(), "give its password (key ssl.key.password)") {
			t.Errorf("%s, without a password: %v", name, err)
		}
	}
	for name, text := range unknownKeys {
		if _, err := privateKey([]byte(text), "password"); err == nil || !strings.Contains(err.Error(), "openssl pkcs8 -topk8 -v2 aes-256-cbc") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
