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

// Release is one of Apache Kafka's.
type Release string

// The releases that the tests know: the one that is the judge of behaviour, and the last before it that
// many clusters still are, without what came with 4.0 (KIP-848, transaction.version 2).
const (
	Kafka431 Release = "4.3.1"
	Kafka391 Release = "3.9.1"
)

// installed says which releases are there, by what came of looking.
var installed sync.Map

// jars is the class path with a release and its tools, installed where they are absent.
func (r Release) jars(t testing.TB) string {
	t.Helper()
	installer := filepath.Join(Shared(t), "peers", "kafka")
	once, _ := installed.LoadOrStore(r, sync.OnceValue(func() error {
		_, said, err := Try(t, nil, "env", "KAFKA_VERSION="+string(r), installer, "install")
		if err != nil {
			err = fmt.Errorf("install Apache Kafka %s: %w\n%s", r, err, tail(said, 4000))
		}
		return err
	}))
	if err := once.(func() error)(); err != nil {
		t.Fatal(err)
	}
	cache := os.Getenv("PEERS_CACHE")
	if cache == "" {
		cache = filepath.Join(os.Getenv("HOME"), ".cache", "peers")
	}
	return filepath.Join(cache, "kafka-"+string(r), "lib", "*")
}

func javaArgs(t testing.TB, class string, args ...string) []string {
	t.Helper()
	return Kafka431.javaArgs(t, class, args...)
}

func (r Release) javaArgs(t testing.TB, class string, args ...string) []string {
	t.Helper()
	// Short runs: compiling less and collecting simply halves their time.
	return append([]string{
		"-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
		"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", r.jars(t), class,
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

func (r Release) command(t testing.TB, properties, classes string) *exec.Cmd {
	t.Helper()
	path := r.jars(t)
	if classes != "" {
		path += string(filepath.ListSeparator) + classes
	}
	return exec.Command("java", "-Xms512m", "-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", path, "kafka.Kafka", properties)
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
	Run(b.t, nil, "java", b.release.javaArgs(b.t, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM1Qk", "-c", properties)...)
}

// CompileJava compiles Java sources against Apache Kafka's jars, and gives the folder with the classes.
func CompileJava(t testing.TB, sources ...string) (classes string) {
	t.Helper()
	classes = t.TempDir()
	Run(t, nil, "javac", append([]string{"-nowarn", "-Xlint:none", "-d", classes, "-cp", Kafka431.jars(t)}, sources...)...)
	return classes
}

// StartKafkaWith is StartKafka with further classes, for plugins that the settings name.
func StartKafkaWith(t testing.TB, classes string, settings ...string) *Broker {
	t.Helper()
	b := newBroker(t, settings)
	b.release, b.classes = Kafka431, classes
	b.formatKafka()
	b.Restart()
	return b
}

// StartKafka starts an Apache Kafka whatever the system under test is: the judge of formats.
func StartKafka(t testing.TB, settings ...string) *Broker {
	t.Helper()
	return StartRelease(t, Kafka431, settings...)
}

// StartRelease starts a broker of a release of Apache Kafka; of "", ours.
func StartRelease(t testing.TB, r Release, settings ...string) *Broker {
	t.Helper()
	if r == "" {
		b := newBroker(t, settings)
		b.Data = filepath.Join(t.TempDir(), "data")
		b.begin()
		return b
	}
	b := newBroker(t, settings)
	b.release = r
	b.formatKafka()
	b.Restart()
	return b
}
