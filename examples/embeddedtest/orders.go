// Package embeddedtest shows how a program is tested against a broker that lives inside the test:
// the same code as the real one, in memory, there in milliseconds. See orders_test.go.
package embeddedtest

import (
	"context"
	"fmt"
	"strconv"

	"barnabas/client"
)

// Bill adds up the cents that each customer's orders came to, until ctx ends, and then hands over
// the sums. A customer is a record's key, and the cents are its value.
func Bill(ctx context.Context, c *client.Client, topic string) (map[string]int, error) {
	g, err := c.NewGroupConsumer("billing", client.AutoOffsetReset(client.Earliest))
	if err != nil {
		return nil, err
	}
	defer func() { _ = g.Close(context.WithoutCancel(ctx)) }() // commits what was read
	if err := g.Subscribe(topic); err != nil {
		return nil, err
	}
	sums := map[string]int{}
	for {
		records, err := g.Poll(ctx)
		if ctx.Err() != nil {
			return sums, nil
		}
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			cents, err := strconv.Atoi(string(r.Value))
			if err != nil {
				return nil, fmt.Errorf("%v at offset %d: %w", r.TopicPartition(), r.Offset, err)
			}
			sums[string(r.Key)] += cents
		}
	}
}
