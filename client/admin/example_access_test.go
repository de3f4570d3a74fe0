package admin_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"barnabas/client"
	"barnabas/client/admin"
)

// Everything that begins with "orders-" may be read by alice, from anywhere.
func ExampleAdmin_CreateACLs() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	results, err := a.CreateACLs(ctx, []admin.ACLBinding{{
		Resource: admin.ACLTopic, Name: "orders-", Pattern: admin.PrefixedPattern,
		Principal: "User:alice", Operation: admin.OperationRead, Permission: admin.Allow,
	}})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range results {
		if errors.Is(r.Err, client.ErrSecurityDisabled) {
			fmt.Println("the brokers have no authorizer")
		}
	}
}

// What alice was ever allowed or denied is forgotten.
func ExampleAdmin_DeleteACLs() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	deleted, err := a.DeleteACLs(ctx, admin.ACLFilter{Principal: "User:alice"})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range deleted[0].Deleted {
		fmt.Println(r.ACL, r.Err)
	}
}

// alice may write 1 MiB per second and broker, whatever programs she runs.
func ExampleAdmin_AlterClientQuotas() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	_, err = a.AlterClientQuotas(ctx, []admin.QuotaChange{{
		Entity: admin.QuotaFor(admin.UserQuota, "alice"),
		Set:    map[string]float64{admin.ProducerByteRate: 1 << 20},
		Remove: []string{admin.RequestPercentage},
	}})
	if err != nil {
		log.Fatal(err)
	}
	quotas, err := a.DescribeClientQuotas(ctx, admin.MatchAnyQuota(admin.UserQuota))
	if err != nil {
		log.Fatal(err)
	}
	for _, q := range quotas {
		fmt.Println(q.Entity, q.Values)
	}
}

func ExampleQuotaEntity_And() {
	fmt.Println(admin.QuotaFor(admin.UserQuota, "alice").And(admin.DefaultQuota(admin.ClientIDQuota)))
	// Output: client-id <default>, user alice
}

func ExampleAdmin_AlterUserScramCredentials() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	results, err := a.AlterUserScramCredentials(ctx, []admin.ScramChange{
		admin.SetScram("alice", admin.ScramSHA512, "a long password"),
		admin.DeleteScram("mallory", admin.ScramSHA512),
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			log.Printf("%s: %v", r.User, r.Err)
		}
	}
}

// A job that runs for a day gets a token in place of a password.
func ExampleAdmin_CreateDelegationToken() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	token, err := a.CreateDelegationToken(ctx, admin.TokenLifetime(24*time.Hour), admin.RenewableBy(admin.UserPrincipal("scheduler")))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.ID, "is", token.Owner, "until", token.Expires)
	if _, err := a.ExpireDelegationToken(ctx, token.HMAC, 0); err != nil {
		log.Fatal(err)
	}
}

// A transaction that its coordinator has forgotten is found by its age and ended, so that readers go on.
func ExampleAdmin_AbortTransaction() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	orders := client.TopicPartition{Topic: "orders", Partition: 0}
	partitions, err := a.DescribeProducers(ctx, orders)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range partitions[0].Producers {
		if p.TransactionStart >= 0 && time.Since(p.LastTimestamp) > 24*time.Hour {
			if err := a.AbortTransaction(ctx, p.HangingTransaction(orders)); err != nil {
				log.Fatal(err)
			}
		}
	}
}

// What has been open for more than ten minutes is ended, with its producers.
func ExampleAdmin_ListTransactions() {
	c, err := client.New(client.Brokers("127.0.0.1:9092"))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, a := context.Background(), admin.New(c)

	open, err := a.ListTransactions(ctx, admin.TransactionsInStates(admin.TransactionOngoing), admin.TransactionsLongerThan(10*time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range open {
		fenced, err := a.FenceProducers(ctx, t.TransactionalID)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(t.TransactionalID, fenced[0].Err)
	}
}
