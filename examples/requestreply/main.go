// Command requestreply asks questions over one topic and gets the answers over another: each asker
// has a topic for its answers, and a header says which question an answer belongs to.
//
//	go run ./examples/requestreply one two three
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"

	"barnabas/client"
	"barnabas/client/admin"
)

const replyTo, question = "reply-to", "question" // headers

func main() {
	broker := flag.String("broker", "127.0.0.1:9092", "HOST:PORT to ask first")
	flag.Parse()
	c, err := client.New(client.Brokers(*broker))
	if err != nil {
		log.Fatal(err)
	}
	p, err := c.NewProducer(client.Linger(0))
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, c, p) }() // usually another program
	err = ask(ctx, c, p, flag.Args())
	stop()
	if err = errors.Join(err, <-ended, p.Close(context.Background()), c.Close()); err != nil {
		log.Fatal(err)
	}
}

// serve answers in capitals. It may be started several times: the members of the group share the questions.
func serve(ctx context.Context, c *client.Client, p *client.Producer) error {
	g, err := c.NewGroupConsumer("servers", client.AutoOffsetReset(client.Earliest))
	if err != nil {
		return err
	}
	defer func() { _ = g.Close(context.WithoutCancel(ctx)) }()
	if err := g.Subscribe("questions"); err != nil {
		return err
	}
	for {
		records, err := g.Poll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		for _, r := range records {
			answer := client.ProducerRecord{Topic: header(&r, replyTo), Value: []byte(strings.ToUpper(string(r.Value))), Headers: r.Headers}
			if err := p.Send(ctx, answer, nil); err != nil {
				log.Printf("question %s: %v", header(&r, question), err) // whoever asked has gone
			}
		}
		if err != nil {
			return err
		}
	}
}

func ask(ctx context.Context, c *client.Client, p *client.Producer, questions []string) error {
	own := fmt.Sprintf("answers-%d", os.Getpid())
	if _, err := admin.New(c).CreateTopic(ctx, admin.NewTopic{Name: own, Partitions: 1}); err != nil {
		return err
	}
	defer func() { _, _ = admin.New(c).DeleteTopics(ctx, own) }()
	k, err := c.NewConsumer()
	if err != nil {
		return err
	}
	defer k.Close()
	if err := k.AssignTopic(ctx, own, client.Earliest); err != nil {
		return err
	}
	for n, q := range questions {
		headers := []client.Header{{Key: replyTo, Value: []byte(own)}, {Key: question, Value: fmt.Append(nil, n)}}
		if err := p.Send(ctx, client.ProducerRecord{Topic: "questions", Value: []byte(q), Headers: headers}, nil); err != nil {
			return err
		}
	}
	for left := len(questions); left > 0; {
		records, err := k.Poll(ctx)
		if err != nil {
			return err
		}
		for _, r := range records {
			fmt.Printf("answer to question %s: %s\n", header(&r, question), r.Value)
			left--
		}
	}
	return nil
}

func header(r *client.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}
