//go:build compat

package compat

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/test/compat/rig"
)

func kcat(t *testing.T, addr, stdin string, args ...string) string {
	t.Helper()
	return rig.Run(t, strings.NewReader(stdin), "kcat", append([]string{"-b", addr, "-m", "30"}, args...)...)
}

func kcatFails(t *testing.T, addr, stdin string, args ...string) string {
	t.Helper()
	stdout, stderr, err := rig.Try(t, strings.NewReader(stdin), "kcat", append([]string{"-b", addr, "-m", "30"}, args...)...)
	if err == nil {
		t.Errorf("kcat %s did not fail:\n%s%s", strings.Join(args, " "), stdout, stderr)
	}
	return stdout + stderr
}

func TestKcat(t *testing.T) {
	b := rig.Start(t)
	for _, codec := range codecs {
		for _, acks := range []string{"0", "1", "all"} {
			t.Run("codec "+codec+" acks "+acks, func(t *testing.T) { kcatRoundTrip(t, b.Addr, codec, acks) })
		}
	}
	t.Run("idempotent", func(t *testing.T) { kcatIdempotent(t, b.Addr) })
	t.Run("headers, keys and tombstones", func(t *testing.T) { kcatShapes(t, b.Addr) })
	t.Run("large", func(t *testing.T) { kcatLarge(t, b.Addr) })
	t.Run("positions", func(t *testing.T) { kcatPositions(t, b.Addr) })
	t.Run("metadata", func(t *testing.T) { kcatMetadata(t, b.Addr) })
	t.Run("errors", func(t *testing.T) { kcatErrors(t, b.Addr) })
}

func kcatRoundTrip(t *testing.T, addr, codec, acks string) {
	topic := "kcat-" + codec + "-" + acks
	createTopic(t, addr, topic, 2)
	var sent [2][]string
	for i := range 2000 {
		sent[i%2] = append(sent[i%2], fmt.Sprintf("k%d:%d %s", i%17, i, strings.Repeat("data ", i%20)))
	}
	for p, text := range sent {
		kcat(t, addr, strings.Join(text, "\n")+"\n", "-P", "-t", topic, "-p", fmt.Sprint(p), "-K", ":", "-z", codec, "-X", "acks="+acks)
	}
	for p, want := range sent {
		if acks != "all" { // nothing says when it has arrived, or when it may be read
			rig.Eventually(t, patience, "all records are there", func() bool {
				return strings.HasSuffix(strings.TrimSpace(kcat(t, addr, "", "-Q", "-t", fmt.Sprintf("%s:%d:-1", topic, p))), fmt.Sprintf("offset %d", len(want)))
			})
		}
		got := kcat(t, addr, "", "-C", "-t", topic, "-p", fmt.Sprint(p), "-o", "beginning", "-e", "-q", "-f", "%o %k:%s\n")
		numbered := make([]string, len(want))
		for i, line := range want {
			numbered[i] = fmt.Sprintf("%d %s", i, line)
		}
		equalLines(t, fmt.Sprintf("%s-%d", topic, p), lines(got), numbered)
	}
	stored := uint8(slices.Index(codecs, codec))
	if codec == "lz4" && !lists(t, addr, kmsg.FindCoordinator) {
		stored = 0 // librdkafka takes FindCoordinator as the mark of a broker that knows LZ4
	}
	// A batch that does not shrink librdkafka leaves as it is, and on a busy machine some have one record only.
	shown := false
	for _, r := range readAll(t, addr, topic)[0] {
		came := r.Attrs.CompressionType()
		if came != stored && came != 0 {
			t.Fatalf("record %d came with codec %d, not %d for %s", r.Offset, came, stored, codec)
		}
		shown = shown || came == stored
	}
	if !shown {
		t.Errorf("no record came with codec %d for %s", stored, codec)
	}
}

// lists says whether a broker offers an API.
func lists(t *testing.T, addr string, key kmsg.Key) bool {
	t.Helper()
	reply, err := kmsg.NewPtrApiVersionsRequest().RequestWith(within(t, patience), kgoClient(t, addr))
	if err != nil {
		t.Fatalf("ask for versions: %v", err)
	}
	return slices.ContainsFunc(reply.ApiKeys, func(k kmsg.ApiVersionsResponseApiKey) bool { return k.ApiKey == key.Int16() })
}

func kcatIdempotent(t *testing.T, addr string) {
	createTopic(t, addr, "kcat-idempotent", 1)
	var sent []string
	for i := range 5000 {
		sent = append(sent, fmt.Sprint(i))
	}
	kcat(t, addr, strings.Join(sent, "\n")+"\n", "-P", "-t", "kcat-idempotent", "-X", "enable.idempotence=true", "-X", "batch.num.messages=100")
	equalLines(t, "idempotent", lines(kcat(t, addr, "", "-C", "-t", "kcat-idempotent", "-o", "beginning", "-e", "-q")), sent)
}

func kcatShapes(t *testing.T, addr string) {
	createTopic(t, addr, "kcat-shapes", 1)
	kcat(t, addr, "a:1\n", "-P", "-t", "kcat-shapes", "-K", ":", "-H", "one=1", "-H", "two=zwei", "-H", "bare")
	kcat(t, addr, "gone:\n", "-P", "-t", "kcat-shapes", "-K", ":", "-Z")
	kcat(t, addr, "no key\n", "-P", "-t", "kcat-shapes")
	type envelope struct {
		Offset  int64
		Tstype  string
		TS      int64
		Key     *string
		Payload *string
		Headers []string
	}
	var got []string
	for _, line := range lines(kcat(t, addr, "", "-C", "-t", "kcat-shapes", "-o", "beginning", "-e", "-q", "-J")) {
		e := decodeJSON[envelope](t, "a record", line)
		got = append(got, fmt.Sprintf("%d %s %s %s %v", e.Offset, e.Tstype, quoted(e.Key), quoted(e.Payload), e.Headers))
		if e.TS < 1_700_000_000_000 {
			t.Errorf("timestamp %d is not today's", e.TS)
		}
	}
	equalLines(t, "shapes", got, []string{
		`0 create "a" "1" [one 1 two zwei bare ]`, `1 create "gone" null []`, `2 create null "no key" []`,
	})
}

func quoted(s *string) string {
	if s == nil {
		return "null"
	}
	return fmt.Sprintf("%q", *s)
}

func kcatLarge(t *testing.T, addr string) {
	createTopic(t, addr, "kcat-large", 1, "max.message.bytes=10485760")
	large := strings.Repeat("0123456789abcdef", 5<<20/16)
	file := writeFile(t, "large", large)
	kcat(t, addr, "", "-P", "-t", "kcat-large", "-X", "message.max.bytes=8000000", file)
	kcat(t, addr, "small\n", "-P", "-t", "kcat-large")
	// The first batch comes whole, even where it is larger than what was asked for.
	got := kcat(t, addr, "", "-C", "-t", "kcat-large", "-o", "beginning", "-e", "-q", "-D", "\n",
		"-X", "fetch.message.max.bytes=100000", "-X", "fetch.max.bytes=100000", "-X", "message.max.bytes=100000", "-X", "receive.message.max.bytes=20000000")
	if got != large+"\nsmall\n" {
		t.Errorf("read %d bytes back, want %d", len(got), len(large)+7)
	}
}

func kcatPositions(t *testing.T, addr string) {
	createTopic(t, addr, "kcat-positions", 1)
	for i := range 3 { // three batches, so that an offset lies inside one
		var text []string
		for j := range 10 {
			text = append(text, fmt.Sprint(10*i+j))
		}
		kcat(t, addr, strings.Join(text, "\n")+"\n", "-P", "-t", "kcat-positions")
	}
	for from, want := range map[string]string{"15": "15 16 17", "-3": "27 28 29", "beginning": "0 1 2", "s@0": "0 1 2"} {
		got := lines(kcat(t, addr, "", "-C", "-t", "kcat-positions", "-p", "0", "-o", from, "-c", "3", "-q"))
		if strings.Join(got, " ") != want {
			t.Errorf("from %s: %v, want %s", from, got, want)
		}
	}
	for at, want := range map[string]string{"1000": "offset 0", "-1": "offset 30", "-2": "offset 0"} {
		contains(t, "the offset of time "+at, kcat(t, addr, "", "-Q", "-t", "kcat-positions:0:"+at), want)
	}
	if got := kcat(t, addr, "", "-C", "-t", "kcat-positions", "-o", "end", "-e", "-q"); got != "" {
		t.Errorf("at the end there is %q", got)
	}
}

func kcatMetadata(t *testing.T, addr string) {
	createTopic(t, addr, "kcat-listed", 3)
	type listing struct {
		Brokers []struct {
			ID   int
			Name string
		}
		Topics []struct {
			Topic      string
			Partitions []struct {
				Partition, Leader int
				Replicas, Isrs    []struct{ ID int }
			}
		}
	}
	l := decodeJSON[listing](t, "the listing", kcat(t, addr, "", "-L", "-J", "-t", "kcat-listed"))
	if len(l.Brokers) != 1 || l.Brokers[0].Name != addr || len(l.Topics) != 1 || len(l.Topics[0].Partitions) != 3 {
		t.Fatalf("listing: %+v", l)
	}
	for _, p := range l.Topics[0].Partitions {
		if p.Leader != l.Brokers[0].ID || len(p.Replicas) != 1 || len(p.Isrs) != 1 {
			t.Errorf("partition: %+v", p)
		}
	}
}

func kcatErrors(t *testing.T, addr string) {
	createTopic(t, addr, "kcat-small", 1, "max.message.bytes=1000")
	contains(t, "a large record", kcatFails(t, addr, strings.Repeat("x", 5000)+"\n", "-P", "-t", "kcat-small"), "Message size too large")
	contains(t, "a partition that is not", kcatFails(t, addr, "x\n", "-P", "-t", "kcat-small", "-p", "9"), "Unknown partition")
	contains(t, "a wrong name", kcatFails(t, addr, "", "-C", "-t", "a b", "-e"), "Invalid topic")
	out := kcatFails(t, addr, "", "-C", "-t", "kcat-small", "-p", "0", "-o", "100", "-e", "-X", "topic.auto.offset.reset=error")
	contains(t, "an offset past the end", strings.ToLower(out), "offset out of range")
}
