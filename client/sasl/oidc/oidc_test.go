package oidc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"barnabas/client/sasl"
	"barnabas/client/sasl/oidc"
	"barnabas/internal/faketime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// idp is an identity provider without a network: token n is the n-th that it gave.
type idp struct {
	mu     sync.Mutex
	asked  int
	status int // 0: 200
	body   string
	err    error
	delay  time.Duration
	life   time.Duration
}

func (p *idp) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(p.delay)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	if p.err != nil {
		return nil, p.err
	}
	status, body := p.status, p.body
	if status == 0 {
		status = http.StatusOK
	}
	if body == "" {
		body = fmt.Sprintf(`{"access_token":"token%d","token_type":"Bearer","expires_in":%d}`, p.asked, int(p.life.Seconds()))
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}

func source(t *testing.T, p *idp) sasl.TokenFunc {
	t.Helper()
	f, err := oidc.ClientCredentials(oidc.Config{
		TokenEndpoint: "https://id/token", ClientID: "orders", ClientSecret: "secret", HTTPClient: &http.Client{Transport: p},
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// What goes over the wire, with the default HTTP client.
func TestRequest(t *testing.T) {
	for _, inBody := range []bool{false, true} {
		var form url.Values
		var user, password string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, password, _ = r.BasicAuth()
			if err := r.ParseForm(); err != nil {
				t.Error(err)
			}
			form = r.PostForm
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"access_token":"a.b.c","token_type":"Bearer","expires_in":3600}`)
		}))
		token, err := oidc.ClientCredentials(oidc.Config{
			TokenEndpoint: server.URL, ClientID: "orders", ClientSecret: "s e", Scopes: []string{"kafka", "read"},
			Parameters: url.Values{"audience": {"cluster"}}, SecretInBody: inBody, Extensions: map[string]string{"pool": "x"},
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := token(t.Context())
		server.Close()
		if err != nil || got.Value != "a.b.c" || got.Extensions["pool"] != "x" {
			t.Errorf("%+v, %v", got, err)
		}
		if form.Get("grant_type") != "client_credentials" || form.Get("scope") != "kafka read" || form.Get("audience") != "cluster" {
			t.Errorf("asked for %v", form)
		}
		if inBody && (form.Get("client_id") != "orders" || form.Get("client_secret") != "s e" || user != "") {
			t.Errorf("in the body: %v, user %q", form, user)
		}
		if !inBody && (user != "orders" || password != "s+e" || form.Get("client_secret") != "") {
			t.Errorf("in the header: %q %q, %v", user, password, form)
		}
	}
}

// A token is kept for four fifths of its life, whoever asks.
func TestTokensAreKeptAndReplacedInTime(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		p := &idp{life: 1000 * time.Second, delay: time.Second}
		token := source(t, p)
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() {
				if got, err := token(t.Context()); err != nil || got.Value != "token1" {
					t.Errorf("%v, %v", got, err)
				}
			})
		}
		callers.Wait()
		time.Sleep(798 * time.Second)
		if got, err := token(t.Context()); err != nil || got.Value != "token1" {
			t.Errorf("before four fifths: %v, %v", got, err)
		}
		time.Sleep(3 * time.Second)
		if got, err := token(t.Context()); err != nil || got.Value != "token2" || p.asked != 2 {
			t.Errorf("after four fifths: %v, %v, asked %d times", got, err, p.asked)
		}
	})
}

func TestProviderThatIsAway(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		away := errors.New("no route")
		p := &idp{life: 1000 * time.Second}
		token := source(t, p)
		if _, err := token(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.err = away
		time.Sleep(900 * time.Second)
		if got, err := token(t.Context()); err != nil || got.Value != "token1" {
			t.Errorf("while the old one holds: %v, %v", got, err)
		}
		time.Sleep(101 * time.Second)
		if _, err := token(t.Context()); !errors.Is(err, away) || errors.Is(err, sasl.ErrRefused) {
			t.Errorf("after its end: %v", err)
		}
		p.err = nil
		if got, err := token(t.Context()); err != nil || got.Value == "token1" {
			t.Errorf("when the provider is back: %v, %v", got, err)
		}
	})
}

func TestAnswersOfProviders(t *testing.T) {
	for _, c := range []struct {
		status  int
		body    string
		refused bool
	}{
		{401, `{"error":"invalid_client","error_description":"unknown client"}`, true},
		{400, `{"error":"invalid_scope"}`, true},
		{200, `{"error":"invalid_client"}`, true},
		{403, "go away", true},
		{500, "oops", false},
		{503, `{"error":"temporarily_unavailable"}`, false},
		{429, `{"error":"slow_down"}`, false},
		{200, "not JSON", false},
		{200, `{"token_type":"Bearer"}`, false},
	} {
		_, err := source(t, &idp{status: c.status, body: c.body})(t.Context())
		if err == nil || errors.Is(err, sasl.ErrRefused) != c.refused {
			t.Errorf("%d %s: %v", c.status, c.body, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the secret is in %q", err)
		}
	}
}

// A token without an end is asked for each time, and a caller that gives up does not hold up the others.
func TestEndlessTokensAndImpatience(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		p := &idp{delay: 10 * time.Second}
		token := source(t, p)
		go func() { _, _ = token(t.Context()) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := token(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("impatient: %v", err)
		}
		for range 2 {
			if _, err := token(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if p.asked != 3 {
			t.Errorf("asked %d times", p.asked)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []oidc.Config{
		{},
		{TokenEndpoint: "https://id/token"},
		{TokenEndpoint: "id/token", ClientID: "x"},
		{TokenEndpoint: "ftp://id/token", ClientID: "x"},
		{TokenEndpoint: "https://id\x7f/", ClientID: "x"},
		{TokenEndpoint: "https://id/", ClientID: "x", RefreshFactor: 0.2},
		{TokenEndpoint: "https://id/", ClientID: "x", RefreshFactor: 2},
	} {
		if _, err := oidc.ClientCredentials(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}
