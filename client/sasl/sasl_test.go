package sasl_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"barnabas/client/sasl"
)

func begin(t *testing.T, m sasl.Mechanism) (sasl.Exchange, string) {
	t.Helper()
	talk, first, err := m.Begin(t.Context(), "broker")
	if err != nil {
		t.Fatalf("%s: %v", m.Name(), err)
	}
	return talk, string(first)
}

func TestPlain(t *testing.T) {
	talk, first := begin(t, sasl.Plain("alice", "päss, word"))
	if first != "\x00alice\x00päss, word" {
		t.Errorf("said %q", first)
	}
	if response, done, err := talk.Next(nil); response != nil || !done || err != nil {
		t.Errorf("%q, %v, %v", response, done, err)
	}
	talk, _ = begin(t, sasl.Plain("alice", "secret"))
	if _, done, err := talk.Next([]byte("what else?")); done || !errors.Is(err, sasl.ErrBroker) {
		t.Errorf("a broker that asks on: %v, %v", done, err)
	}
}

func TestLoginsThatCannotBe(t *testing.T) {
	for _, m := range []sasl.Mechanism{
		sasl.Plain("", "secret"), sasl.Plain("alice", ""), sasl.Plain("a\x00lice", "secret"), sasl.Plain("alice", "sec\x00ret"),
		sasl.ScramSHA256("", "secret"), sasl.ScramSHA512("alice", ""),
	} {
		if _, _, err := m.Begin(t.Context(), "broker"); !errors.Is(err, sasl.ErrRefused) {
			t.Errorf("%s: %v", m.Name(), err)
		}
	}
}

// A login is asked for anew with each proof.
func TestLoginsMayChange(t *testing.T) {
	password := "one"
	away := errors.New("the file is being written")
	var failure error
	login := func(context.Context) (sasl.Login, error) {
		return sasl.Login{User: "alice", Password: password}, failure
	}
	m := sasl.PlainFrom(login)
	_, before := begin(t, m)
	password = "two"
	if _, after := begin(t, m); before == after {
		t.Error("the password was not asked for again")
	}
	failure = away
	for _, m := range []sasl.Mechanism{m, sasl.ScramSHA256From(login), sasl.ScramSHA512From(login)} {
		if _, _, err := m.Begin(t.Context(), "broker"); !errors.Is(err, away) || errors.Is(err, sasl.ErrRefused) {
			t.Errorf("%s: %v", m.Name(), err)
		}
	}
}

func scramServer(t testing.TB, hash scram.HashGeneratorFcn, user, password string, iterations int) *scram.ServerConversation {
	t.Helper()
	client, err := hash.NewClientUnprepped(user, password, "")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "pepper", Iters: iterations})
	if err != nil {
		t.Fatal(err)
	}
	server, err := hash.NewServer(func(name string) (scram.StoredCredentials, error) {
		if name != user {
			return scram.StoredCredentials{}, errors.New("nobody")
		}
		return stored, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return server.NewConversation()
}

func TestScram(t *testing.T) {
	for _, c := range []struct{ user, password string }{
		{"alice", "secret"}, {"a,b=c", "x,y=z"}, {"Zoë", "ﬁ ligature, kept as it is"}, // names escape, passwords are not prepared
	} {
		for name, hash := range map[string]scram.HashGeneratorFcn{"SCRAM-SHA-256": scram.SHA256, "SCRAM-SHA-512": scram.SHA512} {
			m := sasl.ScramSHA256(c.user, c.password)
			if name == "SCRAM-SHA-512" {
				m = sasl.ScramSHA512(c.user, c.password)
			}
			if m.Name() != name {
				t.Errorf("%s is called %s", name, m.Name())
			}
			server := scramServer(t, hash, c.user, c.password, 4096)
			talk, first := begin(t, m)
			challenge, err := server.Step(first)
			if err != nil {
				t.Fatal(err)
			}
			proof, done, err := talk.Next([]byte(challenge))
			if done || err != nil {
				t.Fatalf("%s %q: %v, %v", name, c.user, done, err)
			}
			verdict, err := server.Step(string(proof))
			if err != nil || !server.Valid() {
				t.Fatalf("%s %q: the server does not believe it: %v", name, c.user, err)
			}
			if response, done, err := talk.Next([]byte(verdict)); response != nil || !done || err != nil {
				t.Errorf("%s %q: %q, %v, %v", name, c.user, response, done, err)
			}
		}
	}
}

// A broker that does not know the password, or asks for too little or too much, is not believed.
func TestScramBrokersThatAreNot(t *testing.T) {
	for name, answers := range map[string]func(first string) []string{
		"few iterations":    func(f string) []string { return []string{"r=" + nonce(f) + "x,s=cGVwcGVy,i=4095"} },
		"many iterations":   func(f string) []string { return []string{"r=" + nonce(f) + "x,s=cGVwcGVy,i=2000000000"} },
		"another nonce":     func(string) []string { return []string{"r=abc,s=cGVwcGVy,i=4096"} },
		"wrong signature":   func(f string) []string { return []string{"r=" + nonce(f) + "x,s=cGVwcGVy,i=4096", "v=" + "AAAA"} },
		"empty signature":   func(f string) []string { return []string{"r=" + nonce(f) + "x,s=cGVwcGVy,i=4096", "v="} },
		"error":             func(f string) []string { return []string{"r=" + nonce(f) + "x,s=cGVwcGVy,i=4096", "e=unknown-user"} },
		"nothing":           func(string) []string { return []string{""} },
		"mandatory unknown": func(f string) []string { return []string{"m=ext,r=" + nonce(f) + "x,s=cGVwcGVy,i=4096"} },
	} {
		talk, first := begin(t, sasl.ScramSHA256("alice", "secret"))
		var done bool
		var err error
		for _, a := range answers(first) {
			if _, done, err = talk.Next([]byte(a)); err != nil {
				break
			}
		}
		if done || !errors.Is(err, sasl.ErrBroker) {
			t.Errorf("%s: %v, %v", name, done, err)
		}
	}
}

func nonce(first string) string {
	_, n, _ := strings.Cut(first, "r=")
	return n
}

func TestOAuthBearer(t *testing.T) {
	token := sasl.Token{Value: "a.b.c", Extensions: map[string]string{"traceId": "123", "logicalCluster": "lkc-1"}}
	m := sasl.OAuthBearer(func(context.Context) (sasl.Token, error) { return token, nil })
	talk, first := begin(t, m)
	if want := "n,,\x01auth=Bearer a.b.c\x01logicalCluster=lkc-1\x01traceId=123\x01\x01"; first != want {
		t.Errorf("said %q, expected %q", first, want)
	}
	if response, done, err := talk.Next(nil); response != nil || !done || err != nil {
		t.Errorf("%q, %v, %v", response, done, err)
	}
	// A refusal is answered, and then believed even if the broker does not end the exchange.
	talk, _ = begin(t, m)
	if response, done, err := talk.Next([]byte(`{"status":"invalid_token"}`)); string(response) != "\x01" || done || err != nil {
		t.Errorf("%q, %v, %v", response, done, err)
	}
	if _, done, err := talk.Next(nil); done || !errors.Is(err, sasl.ErrRefused) || !strings.Contains(err.Error(), "invalid_token") {
		t.Errorf("%v, %v", done, err)
	}
	extension := func(name, value string) sasl.Token {
		return sasl.Token{Value: "a", Extensions: map[string]string{name: value}}
	}
	for _, wrong := range []sasl.Token{
		{},
		{Value: "a b"},
		{Value: "a\x01auth=Bearer b"},
		{Value: "ä"},
		extension("auth", "x"),
		extension("a1", "x"),
		extension("", "x"),
		extension("a", ""),
		extension("a", "x\x01b=y"),
	} {
		token = wrong
		if _, _, err := m.Begin(t.Context(), "broker"); !errors.Is(err, sasl.ErrRefused) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

// Whatever a broker answers, an exchange neither panics nor runs on, and SCRAM takes nobody for the broker who
// does not know the password.
func FuzzAnswersOfABroker(f *testing.F) {
	f.Add("r=x,s=cGVwcGVy,i=4096", "v=AAAA")
	f.Add("r=NONCEx,s=cGVwcGVy,i=4096", "v=AAAA")
	f.Add("r=NONCEx,s=cGVwcGVy,i=99999999999", "e=other-error")
	f.Add(`{"status":"invalid_token"}`, "")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, first, second string) {
		if len(first)+len(second) > 1<<12 || strings.Contains(first, "i=") && !strings.Contains(first, "i=4096") {
			return // the work that a larger number asks for is bounded, but not small
		}
		token := func(context.Context) (sasl.Token, error) { return sasl.Token{Value: "a"}, nil }
		for _, m := range []sasl.Mechanism{sasl.Plain("alice", "secret"), sasl.OAuthBearer(token), sasl.ScramSHA256("alice", "secret")} {
			talk, said := begin(t, m)
			done := false
			var err error
			for _, answer := range []string{first, second} {
				answer = strings.ReplaceAll(answer, "NONCE", nonce(said))
				if _, done, err = talk.Next([]byte(answer)); err != nil || done {
					break
				}
			}
			if done && err != nil || done && m.Name() == "SCRAM-SHA-256" {
				t.Errorf("%s takes %q, %q for a broker: %v", m.Name(), first, second, err)
			}
		}
	})
}
