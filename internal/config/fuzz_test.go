package config

import (
	"strings"
	"testing"

	"github.com/magiconair/properties"
)

// FuzzProperties: the settings found line by line are those that the library finds in the
// whole file, and every line number points at a line of it.
func FuzzProperties(f *testing.F) {
	for _, seed := range []string{
		"", "a=b", "a : b\r\n#c=d\r\n!e\r\n\r\nf = \\\r\n  g\r\n", "a\\ b=c\\\\\nd=\\u00e9", "a=b\\", "a=\\u12", "\\\n\\\n=\nx", "key\nkey2 value two", "a=1\n\\\na=2", "\fx=y", "a\\=b=c\\:d",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, file string) {
		lines, err := readProperties(file)
		if err != nil {
			return
		}
		plain := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(file)
		whole, err := (&properties.Loader{Encoding: properties.UTF8, DisableExpansion: true}).LoadBytes([]byte(plain))
		if err != nil {
			t.Fatalf("the whole does not parse: %v", err)
		}
		found := map[string]string{}
		last := 0
		for _, l := range lines {
			if l.number <= last || l.number > strings.Count(plain, "\n")+1 {
				t.Fatalf("line %d after %d of %d", l.number, last, strings.Count(plain, "\n")+1)
			}
			last = l.number
			found[l.key] = l.value
		}
		if len(found) != whole.Len() {
			t.Fatalf("found %q, the library %q", found, whole.Map())
		}
		for k, v := range whole.Map() {
			if found[k] != v {
				t.Fatalf("%q is %q, for the library %q", k, found[k], v)
			}
		}
	})
}

// FuzzLoad: nothing that a file, a variable or a flag says makes loading panic, and what is
// accepted resolves, shows and describes topics without panicking either.
func FuzzLoad(f *testing.F) {
	f.Add("log.retention.ms=5\nlisteners=A://h:1", "BARNABAS_NODE_ID=3", "log.dirs", "/a,/b")
	f.Add("broker.id=-1", "BARNABAS_LOG_ROLL_HOURS=2147483647", "log.cleaner.io.max.bytes.per.second", "1e300")
	f.Add("max.connections.per.ip.overrides=a:1,[::1]:2", "BARNABAS_X", "listener.name.x.ssl.client.auth", "none")
	f.Add("controller.quorum.voters=1@[::1]:9", "", "listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,,")
	f.Fuzz(func(t *testing.T, file, env, key, value string) {
		s, _, err := Load(Sources{File: file, Env: []string{env}, Flags: []Setting{{Key: key, Value: value}}})
		if (err == nil) != (s != nil) {
			t.Fatalf("set %v, error %v", s, err)
		}
		_ = CheckTopic(map[string]string{key: value})
		_ = CheckDynamicBroker(key, map[string]string{key: value}, true)
		if err != nil {
			return
		}
		s, _ = s.With(map[string]string{key: value}, map[string]string{key: value})
		s.Entries()
		s.DefaultEntries()
		s.Listeners()
		s.AdvertisedListeners()
		s.MaxConnectionsPerIP()
		s.Topic(map[string]string{key: value}).Entries(1)
		if s.MetadataLogDir() == "" || len(s.LogDirs()) == 0 {
			t.Fatal("no directory for data")
		}
	})
}
