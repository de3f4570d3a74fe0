package embeddedtest_test

import (
	"context"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/barnabastest"
	"barnabas/client"
	"barnabas/examples/embeddedtest"
)

// In a bubble of testing/synctest time is fake: the hour passes at once, and the broker is killed
// in the middle of it.
func TestBillOutlivesTheBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := barnabastest.Start(t)
		broker.CreateTopic("orders", 3)
		c := broker.Client()
		order(t, c, "Klamm", "1250")

		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		sums := make(chan map[string]int, 1)
		go func() {
			got, err := embeddedtest.Bill(ctx, c, "orders")
			if err != nil {
				t.Error(err)
			}
			sums <- got
		}()

		time.Sleep(10 * time.Minute)
		broker.Kill()
		broker.Restart()
		order(t, c, "Frieda", "300")
		order(t, c, "Klamm", "50")

		want := map[string]int{"Klamm": 1300, "Frieda": 300}
		if got := <-sums; !maps.Equal(got, want) {
			t.Errorf("billed %v, expected %v", got, want)
		}
	})
}

func order(t *testing.T, c *client.Client, customer, cents string) {
	t.Helper()
	p, err := c.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.SendSync(t.Context(), client.ProducerRecord{Topic: "orders", Key: []byte(customer), Value: []byte(cents)}); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
