package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func mustLoad(t *testing.T, src Sources) *Set {
	t.Helper()
	s, _, err := Load(src)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDefaultsLoadWithoutWarning(t *testing.T) {
	s, warnings, err := Load(Sources{})
	if err != nil || len(warnings) != 0 {
		t.Fatalf("%v %v", warnings, err)
	}
	if got, want := s.Listeners(), []Endpoint{{"PLAINTEXT", "PLAINTEXT", "127.0.0.1", 9092}}; !slices.Equal(got, want) {
		t.Errorf("listeners %v, want %v", got, want)
	}
	if got := s.LogDirs(); !slices.Equal(got, []string{"./barnabas-data"}) {
		t.Errorf("log dirs %v", got)
	}
	if s.MetadataLogDir() != "./barnabas-data" || !s.Bool("log.flush.before.ack") || s.Int("node.id") != 1 {
		t.Error("defaults of the first start are not as documented")
	}
}

// TestStrongerSourceWins sets every subset of the sources and looks which one is in effect.
func TestStrongerSourceWins(t *testing.T) {
	for subset := range 16 {
		var src Sources
		want := "168"
		if subset&1 != 0 {
			src.File, want = "log.retention.hours=1\nlog.retention.hours=2\n", "2"
		}
		if subset&2 != 0 {
			src.Env, want = []string{"BARNABAS_LOG_RETENTION_HOURS=3"}, "3"
		}
		if subset&4 != 0 {
			src.Flags, want = append(src.Flags, Setting{Key: "log.retention.hours", Value: "4"}), "4"
		}
		if subset&8 != 0 {
			src.Flags, want = append(src.Flags, Setting{Key: "log.retention.hours", Value: "5"}), "5"
		}
		s := mustLoad(t, src)
		if got := fmt.Sprint(s.Int("log.retention.hours")); got != want {
			t.Errorf("sources %04b: %s, want %s", subset, got, want)
		}
		if got := fmt.Sprint(s.Millis("log.retention.ms").Hours()); got != want {
			t.Errorf("sources %04b: log.retention.ms is %s hours, want %s", subset, got, want)
		}
	}
}

func TestWrongValuesAreRefusedWithTheirPlace(t *testing.T) {
	for _, c := range []struct {
		name string
		src  Sources
		want InvalidError
	}{
		{"file", Sources{File: "# first\nnum.partitions = \\\n  none\n\nlog.retention.ms=0\n", FileName: "a.properties"}, InvalidError{"num.partitions", "none", "whole number of 32 bits, at least 1", "a.properties:2"}},
		{"second line", Sources{File: "# first\r\n\r\n! second\r\n  # third\r\nlog.retention.ms=0\r\n", FileName: "a.properties"}, InvalidError{"log.retention.ms", "0", "at least 1, or -1", "a.properties:5"}},
		{"environment", Sources{Env: []string{"BARNABAS_COMPRESSION_TYPE=zip"}}, InvalidError{"compression.type", "zip", "gzip", "environment BARNABAS_COMPRESSION_TYPE"}},
		{"flag", Sources{Flags: []Setting{{"listeners", "127.0.0.1:9092", "--listen"}}}, InvalidError{"listeners", "127.0.0.1:9092", "NAME://HOST:PORT", "--listen"}},
		{"set", Sources{Flags: []Setting{{Key: "log.cleaner.min.cleanable.ratio", Value: "1.5"}}}, InvalidError{"log.cleaner.min.cleanable.ratio", "1.5", "from 0 to 1", "--set"}},
		{"overridden", Sources{File: "num.partitions=0", FileName: "a", Flags: []Setting{{Key: "num.partitions", Value: "1"}}}, InvalidError{"num.partitions", "0", "at least 1", "a:1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := Load(c.src)
			var got *InvalidError
			if !errors.As(err, &got) {
				t.Fatalf("error %v", err)
			}
			if got.Key != c.want.Key || got.Value != c.want.Value || got.Origin != c.want.Origin || !strings.Contains(got.Allowed, c.want.Allowed) {
				t.Errorf("got %+v, want %+v", *got, c.want)
			}
			for _, part := range []string{got.Key, got.Value, got.Allowed, got.Origin} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("message %q does not say %q", err, part)
				}
			}
		})
	}
}

func TestSeveralWrongValuesAreAllNamed(t *testing.T) {
	_, _, err := Load(Sources{File: "num.partitions=0\nlog.dirs=\n", Env: []string{"BARNABAS_NODE_ID=-4"}})
	for _, key := range []string{"num.partitions", "log.dirs", "node.id"} {
		if !strings.Contains(fmt.Sprint(err), key) {
			t.Errorf("%s is not named in %v", key, err)
		}
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	const secret = "hunter2"
	s, warnings, err := Load(Sources{File: "ssl.keystore.password=" + secret + "\nmy.plugin.key=" + secret + "\nlistener.name.x.ssl.key.password=" + secret})
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v", warnings, s.Entries())
	if strings.Contains(all, secret) {
		t.Error("a secret is shown")
	}
	if s.String("ssl.keystore.password") != secret {
		t.Error("the program does not get the secret")
	}
	_, err = s.With(nil, map[string]string{"ssl.keystore.password": "other", "delegation.token.secret.key": secret})
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("error %v", err)
	}
}

func TestUnknownNames(t *testing.T) {
	for _, c := range []struct {
		src     Sources
		nearest string
		refused bool
	}{
		{Sources{File: "log.retention.mss=1"}, "log.retention.ms", false},
		{Sources{File: "retention.ms=1"}, "log.retention.ms", false},
		{Sources{File: "zookeeper.connect=localhost:2181"}, "", false},
		{Sources{Env: []string{"BARNABAS_LOG_RETENTIN_MS=1"}}, "BARNABAS_LOG_RETENTION_MS", true},
		{Sources{Env: []string{"BARNABAS_=1"}}, "", true},
		{Sources{Flags: []Setting{{Key: "num.partition", Value: "3"}}}, "num.partitions", true},
		{Sources{Flags: []Setting{{Key: "segment.bytes", Value: "3"}}}, "log.segment.bytes", true},
	} {
		_, warnings, err := Load(c.src)
		var unknown *UnknownError
		if c.refused != errors.As(err, &unknown) {
			t.Errorf("%+v: error %v", c.src, err)
			continue
		}
		message := strings.Join(warnings, "\n")
		if c.refused {
			message = err.Error()
		}
		if !strings.Contains(message, "unknown key") || c.nearest != "" && !strings.Contains(message, "did you mean "+c.nearest+"?") {
			t.Errorf("%+v: message %q", c.src, message)
		}
	}
}

func TestOtherVariablesAreLeftAlone(t *testing.T) {
	if _, warnings, err := Load(Sources{Env: []string{"BARNABAS_BROKERS=a:1", "PATH=/bin", "BARNABASX=1", "", "=", "barnabas_x=1"}}); err != nil || len(warnings) > 0 {
		t.Errorf("%v %v", warnings, err)
	}
}

func TestEveryKeyCanBeSetByEnvironment(t *testing.T) {
	names := map[string]string{}
	for k := range Keys(Broker) {
		if other, ok := names[envName(k.Name)]; ok {
			t.Errorf("%s and %s have one variable", other, k.Name)
		}
		names[envName(k.Name)] = k.Name
	}
	s := mustLoad(t, Sources{Env: []string{"BARNABAS_LOG_DIRS=/a, /b", "BARNABAS_MAX_CONNECTIONS_PER_IP_OVERRIDES=::1:7,h:8"}})
	if diff := cmp.Diff([]string{"/a", "/b"}, s.LogDirs()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]int{"::1": 7, "h": 8}, s.MaxConnectionsPerIP()); diff != "" {
		t.Error(diff)
	}
}

// TestMeaninglessKeysAreNamed sets every key of the table to a value that it takes.
func TestMeaninglessKeysAreNamed(t *testing.T) {
	for k := range Keys(Broker) {
		value := k.Default
		if !k.HasDefault {
			value = map[Type]string{Bool: "true", List: "PLAINTEXT://127.0.0.1:9092", String: "PLAINTEXT", Class: "x", Password: "x"}[k.Type]
			if value == "" || k.Name == "admin.listener" {
				value = map[bool]string{true: "127.0.0.1:9093", false: "3"}[k.Name == "admin.listener"]
			}
		}
		if k.Name == "replica.selector.class" {
			value = RackAwareReplicaSelector
		}
		_, warnings, err := Load(Sources{File: k.Name + "=" + value})
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		all := strings.Join(warnings, "\n")
		if k.Area == tlsArea && k.Status == Effective { // between nodes, and here there is one
			if !strings.Contains(all, k.Name) || !strings.Contains(all, onlyBetweenNodes) {
				t.Errorf("%s has no effect here, warnings %q", k.Name, all)
			}
			continue
		}
		if named := strings.Contains(all, k.Name) && strings.Contains(all, k.Reason); named != (k.Status == Meaningless) {
			t.Errorf("%s is %s, warnings %q", k.Name, k.Status, all)
		}
	}
	_, warnings, err := Load(Sources{File: "process.roles=broker", FileName: "f"})
	if err != nil || !strings.Contains(strings.Join(warnings, "\n"), "process.roles is always broker,controller here: ") {
		t.Errorf("%v %v", warnings, err)
	}
}

func TestBrokerIDIsNodeID(t *testing.T) {
	for file, want := range map[string]int{"broker.id=3": 3, "node.id=4": 4, "broker.id=-1": 1, "broker.id=5\nnode.id= 5": 5} {
		if s := mustLoad(t, Sources{File: file}); s.Int("node.id") != want {
			t.Errorf("%q: node.id is %d", file, s.Int("node.id"))
		}
	}
}

func TestWholeServerPropertiesIsAccepted(t *testing.T) {
	s, warnings, err := Load(Sources{FileName: "server.properties", File: `
process.roles=broker,controller
node.id=7
controller.quorum.bootstrap.servers=localhost:9093
controller.quorum.voters=7@localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
log.dirs=C:\\data
num.partitions=4
group.min.session.timeout.ms=100
group.consumer.min.session.timeout.ms=100
group.consumer.min.heartbeat.interval.ms=100
transaction.max.timeout.ms=2147483647
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
super.users=User:admin
group.consumer.assignment.interval.ms=0
group.coordinator.rebalance.protocols=classic,consumer,share,streams
offsets.topic.replication.factor=1
log.retention.hours=168
#log.flush.interval.messages=10000
log.segment.bytes=1073741824
config.providers=file
config.providers.file.class=x
ssl.keystore.location=${file:/x:y}
`})
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(warnings, func(w string) bool { return strings.Contains(w, "unknown") }) {
		t.Errorf("warnings %q", warnings)
	}
	if s.Int("node.id") != 7 || s.Int("broker.id") != 7 || s.String("ssl.keystore.location") != "${file:/x:y}" || s.LogDirs()[0] != `C:\data` {
		t.Errorf("read wrongly: %v %v", s.String("ssl.keystore.location"), s.LogDirs())
	}
	want := [][]Endpoint{
		{{"PLAINTEXT", "PLAINTEXT", "", 9092}}, {{"CONTROLLER", "PLAINTEXT", "", 9093}}, {{"PLAINTEXT", "PLAINTEXT", "localhost", 9092}},
	}
	if diff := cmp.Diff(want, [][]Endpoint{s.Listeners(), s.ControllerListeners(), s.AdvertisedListeners()}); diff != "" {
		t.Error(diff)
	}
}

func TestValuesThatContradictEachOtherAreRefused(t *testing.T) {
	for _, c := range []struct{ file, key string }{
		{"queued.max.request.bytes=1000000", "queued.max.request.bytes"},
		{"queued.max.request.bytes=-1\nsocket.request.max.bytes=300000000", "queued.max.request.bytes"},
		{"broker.id=3\nnode.id=4", "broker.id"},
		{"advertised.listeners=OTHER://h:1", "advertised.listeners"},
		{"advertised.listeners=PLAINTEXT://0.0.0.0:1", "advertised.listeners"},
		{"listeners=PLAINTEXT://0.0.0.0:9092", "listeners"},
		{"listeners=PLAINTEXT://h:1,PLAINTEXT://h:2", "listeners"},
		{"listeners=PLAINTEXT://h:1,CONTROLLER://:1", "listeners"},
		{"listeners=CONTROLLER://h:1", "listeners"},
		{"listeners=SSL://h:1", "listener.security.protocol.map"},
		{"listeners=PLAINTEXT://h:1,MINE://h:2", "listener.security.protocol.map"},
		{"listener.security.protocol.map=PLAINTEXT:SASL_SSL", "listener.security.protocol.map"},
		{"inter.broker.listener.name=CONTROLLER", "inter.broker.listener.name"},
		{"inter.broker.listener.name=PLAINTEXT\nsecurity.inter.broker.protocol=PLAINTEXT", "inter.broker.listener.name"},
		{"controller.quorum.voters=1@a:1,2@b:1", "controller.quorum.voters"},
		{"controller.quorum.voters=2@a:1", "controller.quorum.voters"},
		{"controller.quorum.voters=1@localhost:1,2@localhost:2,2@localhost:3", "controller.quorum.voters"},
		{"controller.quorum.voters=2@localhost:1,3@localhost:2,4@localhost:3", "controller.quorum.voters"},
		{"controller.quorum.voters=1@a:1,2@b:1,3@c:1", "cluster.secret.file"},
		{"controller.quorum.voters=1@localhost:9092,2@localhost:2,3@localhost:3\nlisteners=PLAINTEXT://localhost:9092", "listeners"},
		{"controller.quorum.voters=1@a:9092,2@b:2,3@c:3\ncluster.secret.file=f\nlisteners=PLAINTEXT://a:9092", "listeners"},
		{"listeners=PLAINTEXT://h:1,C://h:2,D://h:3\ncontroller.listener.names=C,D\nlistener.security.protocol.map=C:PLAINTEXT,D:PLAINTEXT,PLAINTEXT:PLAINTEXT", "listeners"},
		{"max.connections.per.ip=0", "max.connections.per.ip"},
		{"log.cleaner.min.compaction.lag.ms=5\nlog.cleaner.max.compaction.lag.ms=4", "log.cleaner.min.compaction.lag.ms"},
		{"replica.fetch.wait.max.ms=40000", "replica.fetch.wait.max.ms"},
		{"group.consumer.session.timeout.ms=1", "group.consumer.min.session.timeout.ms"},
		{"cordoned.log.dirs=/x", "cordoned.log.dirs"},
	} {
		s, _, err := Load(Sources{File: c.file, FileName: "f"})
		var invalid *InvalidError
		if !errors.As(err, &invalid) || invalid.Key != c.key || s != nil {
			t.Errorf("%q: %v, want a refusal of %s", c.file, err, c.key)
		}
	}
	for _, file := range []string{
		"broker.id=3", "broker.id=3\nnode.id=3", "queued.max.request.bytes=-1", "controller.quorum.voters=1@a:1",
		"controller.quorum.voters=1@localhost:1,2@127.0.0.1:2,3@[::1]:3", "controller.quorum.voters=1@a:1,2@b:1,3@c:1\ncluster.secret.file=/s",
		"listeners=a://h:1,b://h:2\nlistener.security.protocol.map=A:plaintext,b:PLAINTEXT", "listeners=PLAINTEXT://h:0,CONTROLLER://:0",
		"max.connections.per.ip=0\nmax.connections.per.ip.overrides=127.0.0.1:4", "log.dirs=/a,/b\ncordoned.log.dirs=/b", "cordoned.log.dirs=*",
		"listeners=PLAINTEXT://0.0.0.0:9092\nadvertised.listeners=plaintext://h:1",
	} {
		if _, _, err := Load(Sources{File: file}); err != nil {
			t.Errorf("%q: %v", file, err)
		}
	}
}

func TestGettersOfOtherTypesPanic(t *testing.T) {
	s := mustLoad(t, Sources{})
	for name, f := range map[string]func(){
		"unknown": func() { s.Int("no.such.key") },
		"long":    func() { s.Int("log.retention.bytes") },
		"bool":    func() { s.Bool("node.id") },
		"unit":    func() { s.Millis("log.retention.hours") },
		"topic":   func() { s.Topic(nil).String("retention.ms") },
		"scope":   func() { s.Topic(nil).Int64("log.retention.ms") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestTimesStayInRange(t *testing.T) {
	s := mustLoad(t, Sources{File: "log.retention.hours=2147483647\nlog.roll.hours=2147483647"})
	if got := s.Int64("log.retention.ms"); got != 2147483647*3_600_000 {
		t.Errorf("%d", got)
	}
	s = mustLoad(t, Sources{File: "log.retention.minutes=3\nlog.retention.hours=1\nlog.roll.jitter.hours=2"})
	if got, jitter := s.Millis("log.retention.ms"), s.Millis("log.roll.jitter.ms"); got != 3*time.Minute || jitter != 2*time.Hour {
		t.Errorf("3 minutes are %v, 2 hours %v", got, jitter)
	}
	s = mustLoad(t, Sources{File: "log.retention.minutes=-1"})
	if got := s.Int64("log.retention.ms"); got != -1 || s.Millis("log.retention.ms") >= 0 {
		t.Errorf("no limit became %d", got)
	}
	if got := s.Millis("log.flush.interval.ms"); got != time.Duration(1<<63-1) {
		t.Errorf("%v", got)
	}
	if !s.Null("advertised.listeners") || s.Null("log.retention.ms") || s.List("advertised.listeners") != nil {
		t.Error("null is not what has no value")
	}
}
