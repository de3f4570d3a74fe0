package telemetry

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"barnabas/internal/batch"
)

// point is a data point as OpenTelemetry's own description of the messages reads it.
type point struct {
	resource string // its attributes
	name     string
	labels   string
	form     string // "gauge", "delta" or "cumulative"
	value    float64
	start    time.Time // zero: none
	at       time.Time
}

func (p point) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s%s %s %v", p.resource, strings.TrimPrefix(p.name, "org.apache.kafka."), p.labels, p.form, p.value))
}

// metricsData is the type MetricsData.
var metricsData = sync.OnceValues(func() (protoreflect.MessageDescriptor, error) {
	text, err := os.ReadFile("testdata/otlp-metrics-v1.binpb")
	if err != nil {
		return nil, err
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(text, &set); err != nil {
		return nil, err
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return nil, err
	}
	d, err := files.FindDescriptorByName("opentelemetry.proto.metrics.v1.MetricsData")
	if err != nil {
		return nil, err
	}
	return d.(protoreflect.MessageDescriptor), nil
})

// decode reads MetricsData. A field that the messages do not have is an error.
func decode(t testing.TB, text []byte) (points []point) {
	t.Helper()
	kind, err := metricsData()
	if err != nil {
		t.Fatal(err)
	}
	m := dynamicpb.NewMessage(kind)
	if err := proto.Unmarshal(text, m); err != nil {
		t.Fatalf("what was pushed is no MetricsData: %v", err)
	}
	for resource := range messages(t, m, "resource_metrics") {
		labels := attributes(t, resource.Get(field(resource, "resource")).Message())
		for scope := range messages(t, resource, "scope_metrics") {
			if name := scope.Get(field(scope, "scope")).Message(); name.Get(field(name, "name")).String() != scopeOfMetrics {
				t.Errorf("the scope is %v", name)
			}
			for metric := range messages(t, scope, "metrics") {
				points = append(points, dataPointsOf(t, labels, metric)...)
			}
		}
	}
	return points
}

func dataPointsOf(t testing.TB, resource string, metric protoreflect.Message) (points []point) {
	data, form := metric.Get(field(metric, "gauge")).Message(), "gauge"
	if f := field(metric, "sum"); metric.Has(f) {
		data = metric.Get(f).Message()
		form = map[protoreflect.EnumNumber]string{1: "delta", 2: "cumulative"}[data.Get(field(data, "aggregation_temporality")).Enum()]
		if !data.Get(field(data, "is_monotonic")).Bool() {
			t.Errorf("a sum that may go down: %v", metric)
		}
	}
	for p := range messages(t, data, "data_points") {
		if !p.Has(field(p, "as_double")) {
			t.Errorf("a point without a value: %v", p)
		}
		out := point{
			resource: resource, name: metric.Get(field(metric, "name")).String(), labels: attributes(t, p), form: form,
			value: p.Get(field(p, "as_double")).Float(), at: time.Unix(0, int64(p.Get(field(p, "time_unix_nano")).Uint())).UTC(),
		}
		if start := p.Get(field(p, "start_time_unix_nano")).Uint(); start > 0 {
			out.start = time.Unix(0, int64(start)).UTC()
		}
		points = append(points, out)
	}
	return points
}

func field(m protoreflect.Message, name protoreflect.Name) protoreflect.FieldDescriptor {
	return m.Descriptor().Fields().ByName(name)
}

func messages(t testing.TB, m protoreflect.Message, name protoreflect.Name) func(func(protoreflect.Message) bool) {
	t.Helper()
	if len(m.GetUnknown()) > 0 {
		t.Errorf("%s has unknown fields", m.Descriptor().FullName())
	}
	list := m.Get(field(m, name)).List()
	return func(yield func(protoreflect.Message) bool) {
		for i := range list.Len() {
			if !yield(list.Get(i).Message()) {
				return
			}
		}
	}
}

func attributes(t testing.TB, m protoreflect.Message) string {
	t.Helper()
	var all []string
	for kv := range messages(t, m, "attributes") {
		v := kv.Get(field(kv, "value")).Message()
		all = append(all, kv.Get(field(kv, "key")).String()+"="+v.Get(field(v, "string_value")).String())
	}
	return "{" + strings.Join(all, " ") + "}"
}

// unpack is the inverse of Compress.
func unpack(t testing.TB, codec batch.Codec, packed []byte) []byte {
	t.Helper()
	var in io.Reader
	var err error
	switch codec {
	case batch.None:
		return packed
	case batch.Gzip:
		in, err = gzip.NewReader(bytes.NewReader(packed))
	case batch.Lz4:
		in = lz4.NewReader(bytes.NewReader(packed))
	case batch.Zstd:
		var z *zstd.Decoder
		if z, err = zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1)); err == nil {
			defer z.Close()
			in = z
		}
	case batch.Snappy:
		var plain []byte
		for rest := packed[16:]; len(rest) > 0; {
			n := binary.BigEndian.Uint32(rest)
			block, err := snappy.Decode(nil, rest[4:4+n])
			if err != nil {
				t.Fatal(err)
			}
			plain, rest = append(plain, block...), rest[4+n:]
		}
		return plain
	}
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(in)
	if err != nil {
		t.Fatalf("%v: %v", codec, err)
	}
	return plain
}
