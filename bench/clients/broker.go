package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"barnabas/client"
	"barnabas/client/admin"
)

const (
	readyWithin = time.Minute
	stopWithin  = time.Minute
)

// broker is what both clients talk to.
type broker struct {
	addr   string
	topics map[string]string // settings of every topic
	c      *client.Client
	cmd    *exec.Cmd // nil where it runs already
	dir    string
}

func openBroker(ctx context.Context, o options) (*broker, error) {
	b := &broker{addr: o.brokers}
	if b.addr == "" {
		if err := b.start(ctx, o); err != nil {
			return nil, err
		}
	}
	var err error
	if b.c, err = client.New(client.Brokers(strings.Split(b.addr, ",")...)); err == nil {
		err = b.c.Ping(ctx)
	}
	if err != nil {
		b.close()
	}
	return b, err
}

// start starts our broker and waits for its line that begins with "ready".
func (b *broker) start(ctx context.Context, o options) (err error) {
	if b.dir, err = os.MkdirTemp(o.dir, "barnabas-clients"); err != nil {
		return err
	}
	b.addr = fmt.Sprintf("127.0.0.1:%d", o.port)
	if !o.durable {
		b.topics = map[string]string{"flush.before.ack": "false"}
	}
	b.cmd = exec.Command(o.binary, "serve", "--data", filepath.Join(b.dir, "data"), "--listen", b.addr)
	b.cmd.Stderr = os.Stderr
	out, err := b.cmd.StdoutPipe()
	if err == nil {
		err = b.cmd.Start()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", o.binary, err), os.RemoveAll(b.dir))
	}
	ready := make(chan bool, 1)
	go func() { // ends with the process
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "ready") {
				ready <- true
			}
		}
		ready <- false
	}()
	select {
	case ok := <-ready:
		if ok {
			return nil
		}
		err = errors.New("the broker has ended")
	case <-time.After(readyWithin):
		err = fmt.Errorf("the broker is not ready after %v", readyWithin)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	b.close()
	return err
}

func (b *broker) close() {
	if b.c != nil {
		b.c.Close()
	}
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(stopWithin, func() { _ = b.cmd.Process.Kill() })
	_ = b.cmd.Wait()
	kill.Stop()
	_ = os.RemoveAll(b.dir)
}

func (b *broker) createTopic(ctx context.Context, name string, partitions int) error {
	_, err := admin.New(b.c).CreateTopic(ctx, admin.NewTopic{Name: name, Partitions: int32(partitions), ReplicationFactor: 1, Configs: b.topics})
	return err
}

func (b *broker) deleteTopic(ctx context.Context, name string) error {
	deleted, err := admin.New(b.c).DeleteTopics(ctx, name)
	if err != nil {
		return err
	}
	return deleted[0].Err
}
