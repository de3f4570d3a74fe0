package gssapi

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/jcmturner/gokrb5/v8/crypto"
	wrap "github.com/jcmturner/gokrb5/v8/gssapi"
	"github.com/jcmturner/gokrb5/v8/iana/etypeID"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/types"

	"barnabas/client/sasl"
)

func testKey(t testing.TB) types.EncryptionKey {
	t.Helper()
	key, _, err := crypto.GetKeyFromPassword("secret", types.PrincipalName{NameString: []string{"x"}}, "TEST", etypeID.AES256_CTS_HMAC_SHA1_96, nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// offer is what a broker that holds the key says, rotated as some implementations do.
func offer(t testing.TB, key types.EncryptionKey, payload []byte, rotate int) []byte {
	t.Helper()
	e, err := crypto.GetEtype(key.KeyType)
	if err != nil {
		t.Fatal(err)
	}
	token := wrap.WrapToken{Flags: 1, EC: uint16(e.GetHMACBitLength() / 8), Payload: payload}
	if err := token.SetCheckSum(key, keyusage.GSSAPI_ACCEPTOR_SEAL); err != nil {
		t.Fatal(err)
	}
	token.RRC = uint16(rotate)
	b, err := token.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	body := b[wrap.HdrLen:]
	at := len(body) - rotate
	return append(append(bytes.Clone(b[:wrap.HdrLen]), body[at:]...), body[:at]...)
}

func TestOfferIsAnswered(t *testing.T) {
	key := testKey(t)
	for _, rotate := range []int{0, 3, 12} {
		e := &exchange{key: key}
		response, done, err := e.Next(offer(t, key, []byte{7, 0, 0xff, 0xff}, rotate))
		if done || err != nil {
			t.Fatalf("rotated by %d: %v, %v", rotate, done, err)
		}
		var token wrap.WrapToken
		if err := token.Unmarshal(response, false); err != nil {
			t.Fatal(err)
		}
		if ok, err := token.Verify(key, keyusage.GSSAPI_INITIATOR_SEAL); !ok || !bytes.Equal(token.Payload, []byte{1, 0, 0, 0}) {
			t.Errorf("answered %x, %v", token.Payload, err)
		}
		if _, done, err := e.Next(nil); !done || err != nil {
			t.Errorf("at the end: %v, %v", done, err)
		}
	}
}

// Whoever has not the ticket's key is not the broker.
func TestOffersThatAreNotTheBrokers(t *testing.T) {
	key := testKey(t)
	other := testKey(t)
	other.KeyValue = bytes.Repeat([]byte{1}, len(key.KeyValue))
	good := offer(t, key, []byte{7, 0, 0xff, 0xff}, 0)
	changed := bytes.Clone(good)
	changed[wrap.HdrLen]++
	for name, b := range map[string][]byte{
		"another key": offer(t, other, []byte{7, 0, 0xff, 0xff}, 0), "changed": changed, "short": good[:10], "header alone": good[:wrap.HdrLen],
		"nothing that Kafka has": offer(t, key, []byte{6, 0, 0xff, 0xff}, 0), "no size": offer(t, key, []byte{1}, 0), "not a token": []byte("r=x,s=y,i=4096"),
	} {
		if _, done, err := (&exchange{key: key}).Next(b); done || !errors.Is(err, sasl.ErrBroker) {
			t.Errorf("%s: %v, %v", name, done, err)
		}
	}
}

func FuzzOffer(f *testing.F) {
	key := testKey(f)
	f.Add(offer(f, key, []byte{7, 0, 0xff, 0xff}, 0))
	f.Add(offer(f, key, []byte{7, 0, 0xff, 0xff}, 5))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		e := &exchange{key: key}
		if _, done, err := e.Next(b); done && err == nil {
			t.Error("done before the choice was sent")
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "krb5.conf")
	if err := os.WriteFile(conf, []byte("[libdefaults]\n default_realm = TEST\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{
		"nothing": {ConfigFile: conf, User: "x"}, "two ways": {ConfigFile: conf, User: "x", Password: "y", KeytabFile: "z"},
		"no user": {ConfigFile: conf, Password: "y"}, "no file": {ConfigFile: conf + "x", User: "x", Password: "y"},
		"no keytab": {ConfigFile: conf, User: "x", KeytabFile: conf + "y"},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	m, err := New(Config{ConfigFile: conf, User: "x", Password: "y"})
	if err != nil {
		t.Fatal(err)
	}
	// There is no KDC for the realm.
	if _, _, err := m.Begin(t.Context(), "broker"); err == nil {
		t.Error("a ticket from nowhere")
	}
	m.Close()
	if _, _, err := m.Begin(context.Background(), "broker"); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}
