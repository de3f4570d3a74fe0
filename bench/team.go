package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// teamSize is how many nodes a cluster has here, each broker and controller.
const teamSize = 3

// newTeam makes a cluster of three nodes on this machine, which is measured as one broker.
func newTeam(o options, name, dir string) (*broker, error) {
	team := &broker{name: name, dir: dir, copies: teamSize}
	port := o.ourPort
	if name == kafka {
		port = o.kafkaPort
	}
	port += 100 // clear of those that are alone
	var addrs, voters []string
	for id := 1; id <= teamSize; id++ {
		addrs = append(addrs, fmt.Sprintf("127.0.0.1:%d", port+10*id))
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", id, port+10*id+1))
	}
	team.addr = strings.Join(addrs, ",")
	for i, addr := range addrs {
		member := &broker{name: name, addr: addr, dir: filepath.Join(dir, fmt.Sprint(i+1))}
		if name == kafka {
			if err := member.prepareKafka(o, i+1, voters); err != nil {
				return nil, err
			}
		} else {
			member.command = func() *exec.Cmd {
				args := []string{
					"serve", "--node-id", fmt.Sprint(i + 1), "--voters", strings.Join(voters, ","),
					"--data", member.dir, "--listen", addr, "--set", bothHave,
				}
				if o.adminPort > 0 {
					args = append(args, "--admin", fmt.Sprintf("127.0.0.1:%d", o.adminPort+i))
				}
				return exec.Command(o.binary, args...)
			}
		}
		team.members = append(team.members, member)
	}
	return team, nil
}

// prepareKafka formats a directory for one node of a cluster with Apache Kafka's defaults.
func (b *broker) prepareKafka(o options, id int, voters []string) error {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	_, controller, _ := strings.Cut(voters[id-1], "@")
	properties := filepath.Join(b.dir, "server.properties")
	text := strings.Join([]string{
		"process.roles=broker,controller", fmt.Sprint("node.id=", id), "controller.quorum.voters=" + strings.Join(voters, ","),
		"listeners=PLAINTEXT://" + b.addr + ",CONTROLLER://" + controller, "advertised.listeners=PLAINTEXT://" + b.addr,
		"controller.listener.names=CONTROLLER", "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs=" + filepath.Join(b.dir, "data"), bothHave,
	}, "\n") + "\n"
	if err := os.WriteFile(properties, []byte(text), 0o644); err != nil {
		return err
	}
	if err := formatKafka(o, properties); err != nil {
		return err
	}
	b.command = func() *exec.Cmd { return kafkaCommand(properties) }
	return nil
}

// startTeam launches all members and waits for all.
func (b *broker) startTeam(ctx context.Context) error {
	for _, m := range b.members {
		if err := m.launch(); err != nil {
			return err
		}
	}
	for _, m := range b.members {
		if err := m.serving(ctx); err != nil {
			return err
		}
	}
	return nil
}

// endTeam sends the signal to all members at once and waits until all are gone.
func (b *broker) endTeam(signal syscall.Signal) error {
	var errs []error
	for _, m := range b.members {
		if m.cmd != nil {
			_ = m.cmd.Process.Signal(signal) // it may be gone already
		}
	}
	for _, m := range b.members {
		errs = append(errs, m.end(signal))
	}
	return errors.Join(errs...)
}

func (b *broker) isRunning() bool {
	return b.cmd != nil || len(b.members) > 0 && b.members[0].cmd != nil
}

// teamRows are measured on clusters of three nodes, with three copies of everything, two of which must be in sync.
func teamRows() []row {
	var all []row
	for _, size := range []int{124, 1024} {
		n := 2_000_000
		if size > 500 {
			n = 400_000
		}
		all = append(all, row{
			name: fmt.Sprintf("cluster-produce-%d", size), title: fmt.Sprintf("three nodes, three copies: produce %d B, 6 partitions, acks=all", size),
			variants: three, team: true, metrics: []metric{rate, cpuBytes},
			bars: []bar{
				{pageCache, "rate", kafka, true, 1.3, "3x"},
				{pageCache, "cpu", kafka, false, 0.5, "0.25x"},
				{durable, "rate", kafka, true, 0.8, "2x"},
			},
			run: func(ctx context.Context, l *lab, v variant, _ string) (s sample, err error) {
				err = l.withTopic(ctx, v, 6, func(topic string) error {
					s, err = produce(ctx, v, topic, "none", l.scaled(n), size)
					return err
				})
				return s, err
			},
		})
	}
	return append(all, row{
		name: "cluster-sync", title: "three nodes, three copies: 200 senders that wait, 124 B, 6 partitions", variants: three, team: true,
		metrics: []metric{rate, cpuCount, {"p50", "ack p50", "ms"}, {"p99", "ack p99", "ms"}},
		bars:    []bar{{pageCache, "rate", kafka, true, 2, "10x"}},
		run: func(ctx context.Context, l *lab, v variant, _ string) (s sample, err error) {
			err = l.withTopic(ctx, v, 6, func(topic string) error {
				s, err = syncSend(ctx, v, topic, 200, 124, l.seconds(10))
				return err
			})
			return s, err
		},
	}, row{
		name: "cluster-latency", title: "three nodes, three copies: 1,000 records/s, 124 B, 1 partition", variants: three, team: true,
		metrics: []metric{{"ack p50", "ack p50", "ms"}, {"ack p99", "ack p99", "ms"}, cpuCount},
		bars: []bar{
			{pageCache, "ack p50", kafka, false, 0.3, "0.05x"},
			{pageCache, "ack p99", kafka, false, 0.3, "0.05x"},
		},
		run: func(ctx context.Context, l *lab, v variant, _ string) (s sample, err error) {
			err = l.withTopic(ctx, v, 1, func(topic string) error {
				s, err = ackLatency(ctx, v, topic, 1, 1000, 124, 2*time.Second, l.seconds(15))
				return err
			})
			return s, err
		},
	})
}
