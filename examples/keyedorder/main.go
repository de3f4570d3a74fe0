// Command keyedorder writes flights, keyed by the airport that they left from, and reads them back:
// flights of one airport are in one partition and so in order, whatever lies between them.
//
//	go run ./examples/keyedorder
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"

	"barnabas/client"
	"barnabas/client/admin"
)

const topic = "departures"

type flight struct {
	Origin string // the airport
	N      int    // its n-th flight
}

func main() {
	broker := flag.String("broker", "127.0.0.1:9092", "HOST:PORT to ask first")
	file := flag.String("file", "examples/flights/flights-1k.jsonl", "a flight on each line")
	flag.Parse()
	ctx := context.Background()
	c, p, k := open(*broker)
	defer c.Close()
	defer k.Close()
	if _, err := admin.New(c).CreateTopic(ctx, admin.NewTopic{Name: topic, Partitions: 12}); err != nil {
		log.Fatal(err)
	}

	data, err := os.ReadFile(*file)
	if err != nil {
		log.Fatal(err)
	}
	left := 0
	for line := range bytes.Lines(data) {
		if err := p.Send(ctx, client.ProducerRecord{Topic: topic, Key: []byte(read(line).Origin), Value: line}, nil); err != nil {
			log.Fatal(err)
		}
		left++
	}
	if err := p.Close(ctx); err != nil {
		log.Fatal(err)
	}

	if err := k.AssignTopic(ctx, topic, client.Earliest); err != nil {
		log.Fatal(err)
	}
	last := map[string]int{} // flight of each airport
	for left > 0 {
		records, err := k.Poll(ctx)
		if err != nil {
			log.Fatal(err)
		}
		for _, r := range records {
			f := read(r.Value)
			if f.N != last[f.Origin]+1 {
				log.Fatalf("%s: flight %d follows on %d", f.Origin, f.N, last[f.Origin])
			}
			last[f.Origin] = f.N
		}
		left -= len(records)
	}
	fmt.Printf("the flights of %d airports are in order, each airport's\n", len(last))
}

func read(line []byte) (f flight) {
	if err := json.Unmarshal(line, &f); err != nil {
		log.Fatalf("%s: %v", line, err)
	}
	return f
}

func open(broker string) (*client.Client, *client.Producer, *client.Consumer) {
	c, err := client.New(client.Brokers(broker))
	if err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer()
	if err != nil {
		log.Fatal(err)
	}
	k, err := c.NewConsumer()
	if err != nil {
		log.Fatal(err)
	}
	return c, p, k
}
