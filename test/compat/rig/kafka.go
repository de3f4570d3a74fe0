//go:build linux

package rig

import (
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
)

const kafkaVersion = "4.3.1"

var installed sync.Once

// jars is the class path with Apache Kafka and its tools, installed where they are absent.
func jars(t testing.TB) string {
	t.Helper()
	installed.Do(func() { Run(t, nil, filepath.Join(Shared(t), "peers", "kafka"), "install") })
	cache := os.Getenv("PEERS_CACHE")
	if cache == "" {
		cache = filepath.Join(os.Getenv("HOME"), ".cache", "peers")
	}
	return filepath.Join(cache, "kafka-"+kafkaVersion, "lib", "*")
}

func javaArgs(t testing.TB, class string, args ...string) []string {
	t.Helper()
	// Short runs: compiling less and collecting simply halves their time.
	return append([]string{
		"-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", jars(t), class,
	}, args...)
}

// JavaCommand is the command line of one of Apache Kafka's tools, for Launch.
func JavaCommand(t testing.TB, class string, args ...string) []string {
	t.Helper()
	return append([]string{"java"}, javaArgs(t, class, args...)...)
}

// Java runs one of Apache Kafka's tools, named by its class, and returns its standard output.
func Java(t testing.TB, stdin io.Reader, class string, args ...string) string {
	t.Helper()
	return Run(t, stdin, "java", javaArgs(t, class, args...)...)
}

// TryJava is Java for a tool that may fail. Tools complain on either stream, so both are one.
func TryJava(t testing.TB, stdin io.Reader, class string, args ...string) (output string, err error) {
	t.Helper()
	stdout, stderr, err := Try(t, stdin, "java", javaArgs(t, class, args...)...)
	return stdout + stderr, err
}

func kafkaCommand(t testing.TB, properties string) *exec.Cmd {
	t.Helper()
	return exec.Command("java", "-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", jars(t), "kafka.Kafka", properties)
}

// formatKafka makes the directory of a node that is alone.
func (b *Broker) formatKafka() {
	b.t.Helper()
	b.formatNode(1, fmt.Sprintf("1@127.0.0.1:%d", b.port+1), nil)
}

// formatNode writes the properties of a combined node and formats its directory.
func (b *Broker) formatNode(id int, voters string, settings map[string]string) {
	b.t.Helper()
	home := b.t.TempDir()
	b.Data = filepath.Join(home, fmt.Sprint(id))
	set := map[string]string{
		"process.roles": "broker,controller", "node.id": fmt.Sprint(id),
		"controller.quorum.voters":       voters,
		"listeners":                      fmt.Sprintf("PLAINTEXT://%s,CONTROLLER://127.0.0.1:%d", b.Addr, b.port+1),
		"advertised.listeners":           "PLAINTEXT://" + b.Addr,
		"controller.listener.names":      "CONTROLLER",
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs":                       b.Data, "offsets.topic.replication.factor": "1",
		"transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
		"share.coordinator.state.topic.replication.factor": "1", "share.coordinator.state.topic.min.isr": "1",
		"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500", // a killed broker may come back sooner
	}
	maps.Copy(set, settings)
	for _, s := range b.settings {
		k, v, _ := strings.Cut(s, "=")
		set[k] = v
	}
	var text []string
	for k, v := range set {
		text = append(text, k+"="+v+"\n")
	}
	sort.Strings(text)
	properties := b.Data + ".properties"
	if err := os.WriteFile(properties, []byte(strings.Join(text, "")), 0o600); err != nil {
		b.t.Fatal(err)
	}
	Java(b.t, nil, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM1Qk", "-c", properties)
}

// StartKafka starts an Apache Kafka whatever the system under test is: the judge of formats.
func StartKafka(t testing.TB, settings ...string) *Broker {
	t.Helper()
	b := newBroker(t, settings)
	b.kafka = true
	b.formatKafka()
	b.Restart()
	return b
}
