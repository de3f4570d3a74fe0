//go:build compat && linux

package telemetry

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"barnabas/internal/batch"
	"barnabas/test/compat/rig"
)

// Apache Kafka's brokers unpack and read what is pushed with each codec, as its own classes do it here.
func TestApacheKafkaReadsEveryCodec(t *testing.T) {
	m, p, _, _ := busy()
	for node := range int32(2000) { // several blocks
		p.Answered(node, 3, time.Millisecond, 0)
	}
	s := m.Collect(after(9 * time.Second))
	codecs := []batch.Codec{batch.None, batch.Gzip, batch.Snappy, batch.Lz4, batch.Zstd}
	var in strings.Builder
	points := 0
	for _, codec := range codecs {
		sub := all
		sub.Codecs = []batch.Codec{codec}
		payload := s.Payload(&sub, Compress)
		if payload.Codec != codec {
			t.Fatalf("%v: packed with %v", codec, payload.Codec)
		}
		points = payload.Points
		fmt.Fprintf(&in, "%d %s\n", codec, base64.StdEncoding.EncodeToString(payload.Bytes))
	}
	out := rig.Java(t, strings.NewReader(in.String()), filepath.Join(rig.Root(), "test", "compat", "telemetry", "TelemetryFile.java"))
	read := strings.Split(strings.TrimSpace(out), "\n")
	if len(read) != len(codecs) {
		t.Fatalf("%d lines", len(read))
	}
	for i, line := range read {
		var metrics []struct {
			Name  string
			Value float64
			Scope string
		}
		if err := json.Unmarshal([]byte(line), &metrics); err != nil {
			t.Fatalf("%v: %v", codecs[i], err)
		}
		sent := 0.0
		for _, m := range metrics {
			if m.Name == "org.apache.kafka.producer.record.send.total" {
				sent = m.Value
			}
		}
		if len(metrics) != points || sent != 100 || line != read[0] {
			t.Errorf("%v: %d metrics of %d are read, %v records were sent", codecs[i], len(metrics), points, sent)
		}
	}
}
