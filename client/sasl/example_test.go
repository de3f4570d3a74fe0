package sasl_test

import (
	"context"
	"log"
	"os"
	"strings"

	"barnabas/client"
	"barnabas/client/sasl"
	"barnabas/client/sasl/oidc"
)

// security.protocol=SASL_SSL with SCRAM, where an authority of one's own vouches for the brokers.
func Example() {
	c, err := client.New(
		client.Brokers("broker1.example.com:9093", "broker2.example.com:9093"),
		client.TLSWith(client.PEM{CAFile: "/etc/kafka/ca.pem"}),
		client.SASL(sasl.ScramSHA512("orders", os.Getenv("KAFKA_PASSWORD"))),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
}

// A password that is changed while the program runs is read whenever it is needed.
func ExamplePlainFrom() {
	login := func(context.Context) (sasl.Login, error) {
		password, err := os.ReadFile("/run/secrets/kafka-password")
		return sasl.Login{User: "orders", Password: strings.TrimSpace(string(password))}, err
	}
	c, err := client.New(client.TLS(nil), client.SASL(sasl.PlainFrom(login)))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
}

// OIDC client credentials.
func ExampleOAuthBearer() {
	token, err := oidc.ClientCredentials(oidc.Config{
		TokenEndpoint: "https://id.example.com/oauth2/token",
		ClientID:      "orders", ClientSecret: os.Getenv("CLIENT_SECRET"), Scopes: []string{"kafka"},
	})
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.New(client.Brokers("broker.example.com:9093"), client.TLS(nil), client.SASL(sasl.OAuthBearer(token)))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
}
