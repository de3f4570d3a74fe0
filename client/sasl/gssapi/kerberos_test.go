//go:build kerberos && linux

package gssapi

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"barnabas/client"
	"barnabas/client/sasl"
	"barnabas/test/compat/rig"
)

// The tests of this file need MIT Kerberos' KDC (kdb5_util, kadmin.local, krb5kdc and kinit in PATH) and an Apache Kafka, see
// package rig. Where KRB5_CONFIG is set it goes on holding for what these tests say nothing about.

const patience = 3 * time.Minute

// realm is a KDC with three principals: a broker at 127.0.0.1, alice with a keytab, bob with a password.
type realm struct {
	dir, conf string
	env       []string
}

func startRealm(t *testing.T) *realm {
	t.Helper()
	r := &realm{dir: t.TempDir()}
	address := rig.FreeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	r.conf = r.file(t, "krb5.conf", fmt.Sprintf(`[libdefaults]
 default_realm = TEST
 dns_lookup_kdc = false
 dns_lookup_realm = false
 udp_preference_limit = 1
 rdns = false
[realms]
 TEST = {
  kdc = %s
 }
`, address))
	profile := r.file(t, "kdc.conf", fmt.Sprintf(`[kdcdefaults]
 kdc_listen = %s
 kdc_tcp_listen = %s
[realms]
 TEST = {
  database_name = %s
  key_stash_file = %s
  acl_file = %s
 }
`, port, port, filepath.Join(r.dir, "db"), filepath.Join(r.dir, "stash"), filepath.Join(r.dir, "acl")))
	conf := r.conf
	if more := os.Getenv("KRB5_CONFIG"); more != "" {
		conf += ":" + more
	}
	r.env = append(os.Environ(), "KRB5_CONFIG="+conf, "KRB5_KDC_PROFILE="+profile)
	r.run(t, "", "kdb5_util", "create", "-s", "-r", "TEST", "-P", "master")
	for _, q := range []string{
		"addprinc -randkey kafka/127.0.0.1@TEST", "ktadd -k " + r.path("broker.keytab") + " kafka/127.0.0.1@TEST",
		"addprinc -randkey alice@TEST", "ktadd -k " + r.path("alice.keytab") + " alice@TEST", "addprinc +requires_preauth -pw secret bob@TEST",
	} {
		r.run(t, "", "kadmin.local", "-r", "TEST", "-q", q)
	}
	kdc := exec.Command("krb5kdc", "-n", "-r", "TEST")
	kdc.Env = r.env
	if err := kdc.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = kdc.Process.Kill()
		_ = kdc.Wait()
	})
	rig.Eventually(t, patience, "the KDC listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return r
}

func (r *realm) path(name string) string { return filepath.Join(r.dir, name) }

func (r *realm) file(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(r.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return r.path(name)
}

func (r *realm) run(t *testing.T, stdin string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Stdin = r.env, strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func (r *realm) mechanism(t *testing.T, c Config) *Mechanism {
	t.Helper()
	c.ConfigFile = r.conf
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func startKafka(t *testing.T, r *realm) (address string) {
	t.Helper()
	address, open, controller := rig.FreeAddress(t), rig.FreeAddress(t), rig.FreeAddress(t)
	properties := r.file(t, "server.properties", fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[3]s
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=SASL://%[1]s,PLAINTEXT://%[2]s,CONTROLLER://%[3]s
advertised.listeners=SASL://%[1]s,PLAINTEXT://%[2]s
listener.security.protocol.map=SASL:SASL_PLAINTEXT,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%[4]s
offsets.topic.replication.factor=1
sasl.enabled.mechanisms=GSSAPI
sasl.kerberos.service.name=kafka
listener.name.sasl.gssapi.connections.max.reauth.ms=3000
listener.name.sasl.gssapi.sasl.jaas.config=com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true keyTab="%[5]s" principal="kafka/127.0.0.1@TEST";
`, address, open, controller, r.path("data"), r.path("broker.keytab")))
	t.Setenv("JDK_JAVA_OPTIONS", "-Djava.security.krb5.conf="+r.conf)
	rig.Java(t, nil, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM1Qk", "-c", properties)
	rig.Launch(t, "kafka", rig.JavaCommand(t, "kafka.Kafka", properties), func(string) {})
	c, err := client.New(client.Brokers(open))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rig.Eventually(t, patience, "the broker answers", func() bool { return c.Ping(t.Context()) == nil })
	return address
}

func TestKafkaTakesTickets(t *testing.T) {
	r := startRealm(t)
	address := startKafka(t, r)
	r.run(t, "", "kinit", "-k", "-t", r.path("alice.keytab"), "-c", r.path("cache"), "alice@TEST")
	for name, cfg := range map[string]Config{
		"keytab": {User: "alice", KeytabFile: r.path("alice.keytab")}, "password": {User: "bob", Realm: "TEST", Password: "secret"},
		"cache": {CacheFile: r.path("cache")},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := client.New(client.Brokers(address), client.SASL(r.mechanism(t, cfg)))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			p, err := c.NewProducer()
			if err != nil {
				t.Fatal(err)
			}
			// For two sessions, so that the connection is authenticated anew.
			for end := time.Now().Add(6 * time.Second); time.Now().Before(end); {
				if _, err := p.SendSync(t.Context(), client.ProducerRecord{Topic: "t", Value: []byte("x")}); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	for name, cfg := range map[string]Config{
		"wrong password": {User: "bob", Password: "wrong"}, "nobody": {User: "nobody", Password: "secret"},
		"another service": {User: "bob", Password: "secret", Service: "other"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := client.New(client.Brokers(address), client.SASL(r.mechanism(t, cfg)))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.Ping(t.Context()); !errors.Is(err, client.ErrAuthentication) || !errors.Is(err, sasl.ErrRefused) {
				t.Errorf("%v", err)
			}
		})
	}
}
