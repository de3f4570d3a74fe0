// Package oidc gets the tokens of sasl.OAuthBearer from an identity provider: OAuth 2.0's client credentials, as
// OIDC providers offer them for programs (RFC 6749, section 4.4; KIP-768).
//
//	token, err := oidc.ClientCredentials(oidc.Config{
//		TokenEndpoint: "https://id.example.com/oauth2/token", ClientID: "orders", ClientSecret: secret, Scopes: []string{"kafka"},
//	})
//	c, err := client.New(client.Brokers("broker:9093"), client.TLS(nil), client.SASL(sasl.OAuthBearer(token)))
//
// It decides when a token is used again and when a new one is asked for. It refuses to know what is in a token, which is
// for brokers to check, and how it reaches them. It is a package of its own because it brings HTTP along.
package oidc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"barnabas/client/sasl"
)

// Config says where tokens come from and for whom.
type Config struct {
	// TokenEndpoint is where tokens are asked for, with https, or with http for tests. Kafka:
	// sasl.oauthbearer.token.endpoint.url.
	TokenEndpoint string

	// ClientID and ClientSecret are those of the program at the provider. Kafka:
	// sasl.oauthbearer.client.credentials.client.id and .client.secret.
	ClientID, ClientSecret string

	// Scopes are asked for, where there are any. Kafka: sasl.oauthbearer.scope.
	Scopes []string

	// Parameters go into the request beside these, for providers that want more, for instance an audience.
	Parameters url.Values

	// SecretInBody sends ClientID and ClientSecret in the request's body and not, as is the rule, in its Authorization
	// header.
	SecretInBody bool

	// Extensions go to the broker with every token. Kafka: extension_* in sasl.jaas.config.
	Extensions map[string]string

	// RefreshFactor is after which part of a token's life a new one is asked for, when one is needed. Default
	// 0.8, at least 0.5, at most 1. Above 0.85 a broker that ends sessions with the token may be shown the old token
	// again. Kafka: sasl.login.refresh.window.factor.
	RefreshFactor float64

	// HTTPClient sends the requests. Default: one that gives up after 10 seconds and keeps no connection. Kafka:
	// sasl.login.connect.timeout.ms, sasl.login.read.timeout.ms.
	HTTPClient *http.Client

	// Logger is told when no new token could be had while the old one still holds. Default: nothing is logged.
	Logger *slog.Logger
}

// requestTimeout bounds one request for a token.
const requestTimeout = 10 * time.Second

const defaultRefreshFactor = 0.8

func (c *Config) check() error {
	u, err := url.Parse(c.TokenEndpoint)
	switch {
	case err != nil:
		return fmt.Errorf("sasl.oauthbearer.token.endpoint.url: %w", err)
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return fmt.Errorf("sasl.oauthbearer.token.endpoint.url: %q is not https://HOST/PATH", c.TokenEndpoint)
	case c.ClientID == "":
		return errors.New("sasl.oauthbearer.client.credentials.client.id is empty")
	case c.RefreshFactor != 0 && (c.RefreshFactor < 0.5 || c.RefreshFactor > 1):
		return fmt.Errorf("sasl.login.refresh.window.factor: %v is not between 0.5 and 1", c.RefreshFactor)
	}
	return nil
}

// ClientCredentials gives what sasl.OAuthBearer needs. It asks for nothing yet, and fails only on a wrong
// Config. A token is kept and shown to all brokers until RefreshFactor of its life has passed; while the provider is
// away, until it ends. A provider that answers with a 4xx other than 408 and 429 has refused the client (sasl.ErrRefused).
func ClientCredentials(cfg Config) (sasl.TokenFunc, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("OAUTHBEARER: %w", err)
	}
	if cfg.RefreshFactor == 0 {
		cfg.RefreshFactor = defaultRefreshFactor
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.HTTPClient == nil {
		// No connection outlives its request: there is nobody who would close it.
		cfg.HTTPClient = &http.Client{Timeout: requestTimeout, Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true,
			DialContext: (&net.Dialer{Timeout: requestTimeout}).DialContext,
		}}
	}
	p := &provider{
		cfg:    cfg,
		asking: make(chan struct{}, 1),
		source: clientcredentials.Config{
			ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret, TokenURL: cfg.TokenEndpoint,
			Scopes: slices.Clone(cfg.Scopes), EndpointParams: maps.Clone(cfg.Parameters), AuthStyle: oauth2.AuthStyleInHeader,
		},
	}
	if cfg.SecretInBody {
		p.source.AuthStyle = oauth2.AuthStyleInParams
	}
	p.cfg.Extensions = maps.Clone(cfg.Extensions)
	return p.token, nil
}

// provider keeps the latest token.
type provider struct {
	cfg    Config
	source clientcredentials.Config
	asking chan struct{} // one slot, taken while a token is asked for

	mu struct { // never held while asking
		sync.Mutex
		token   string
		refresh time.Time // from when on a new one is wanted
		ends    time.Time
	}
}

// known gives the token that is kept, if it need not be replaced yet, or (late) if it still holds.
func (p *provider) known(now time.Time, late bool) (sasl.Token, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	until := p.mu.refresh
	if late {
		until = p.mu.ends
	}
	return sasl.Token{Value: p.mu.token, Extensions: p.cfg.Extensions}, now.Before(until)
}

// token gives the token to show now. Of several callers one asks, and the others wait for what it gets.
func (p *provider) token(ctx context.Context) (sasl.Token, error) {
	if t, ok := p.known(time.Now(), false); ok {
		return t, nil
	}
	select {
	case p.asking <- struct{}{}:
		defer func() { <-p.asking }()
	case <-ctx.Done():
		return sasl.Token{}, fmt.Errorf("wait for a token: %w", context.Cause(ctx))
	}
	if t, ok := p.known(time.Now(), false); ok {
		return t, nil
	}
	err := p.ask(ctx)
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		return sasl.Token{Value: p.mu.token, Extensions: p.cfg.Extensions}, nil
	}
	if t, ok := p.known(time.Now(), true); ok && !errors.Is(err, sasl.ErrRefused) {
		p.cfg.Logger.Warn("no new token could be had, the old one still holds", "endpoint", p.cfg.TokenEndpoint, "error", err)
		return t, nil
	}
	return sasl.Token{}, err
}

// ask gets a token. One that does not say how long it holds is used once.
func (p *provider) ask(ctx context.Context) error {
	asked := time.Now()
	got, err := p.source.Token(context.WithValue(ctx, oauth2.HTTPClient, p.cfg.HTTPClient))
	if err != nil {
		return fmt.Errorf("%s: %w", p.cfg.TokenEndpoint, judge(err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.token, p.mu.refresh, p.mu.ends = got.AccessToken, time.Time{}, time.Time{}
	if !got.Expiry.IsZero() {
		life := got.Expiry.Sub(asked)
		p.mu.refresh = asked.Add(time.Duration(float64(life) * p.cfg.RefreshFactor))
		p.mu.ends = asked.Add(life)
	}
	return nil
}

// judge marks the answers that asking again does not mend.
func judge(err error) error {
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) || answer.Response == nil {
		return err
	}
	switch status := answer.Response.StatusCode; {
	case status == http.StatusRequestTimeout || status == http.StatusTooManyRequests:
		return err
	case status < http.StatusInternalServerError: // a refusal, also where it came with status 200
		return fmt.Errorf("%w: %w", sasl.ErrRefused, err)
	default:
		return err
	}
}
