package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/faketime"
	"barnabas/internal/quorum"
)

// TestApiVersionsListsWhatIsServed: what is listed is answered, what is not listed is refused, and
// the answer to an unknown version is one that every client reads.
func TestApiVersionsListsWhatIsServed(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		var listed map[int16][2]int16
		for version := int16(0); version <= 4; version++ {
			q := kmsg.NewPtrApiVersionsRequest()
			q.Version, q.ClientSoftwareName, q.ClientSoftwareVersion = version, "some-client", "1.2.3"
			res := ask[*kmsg.ApiVersionsResponse](s, q)
			listed = map[int16][2]int16{}
			for _, k := range res.ApiKeys {
				listed[k.ApiKey] = [2]int16{k.MinVersion, k.MaxVersion}
			}
			if version >= 3 && (len(res.FinalizedFeatures) != 2 || res.FinalizedFeatures[1].Name != "metadata.version" ||
				res.FinalizedFeatures[1].MaxVersionLevel != 30 || res.FinalizedFeatures[0].Name != "kraft.version" ||
				res.FinalizedFeatures[0].MaxVersionLevel != 1 || res.FinalizedFeaturesEpoch < 1) {
				t.Errorf("version %d: features %+v", version, res)
			}
			// To versions before 4 a feature whose lowest level is 0 is not shown (KAFKA-17011).
			if supported := res.SupportedFeatures; version == 3 && len(supported) != 1 || version == 4 &&
				(len(supported) != 2 || supported[0].Name != "kraft.version" || supported[0].MinVersion != 0 || supported[0].MaxVersion != 1) {
				t.Errorf("version %d: features %+v", version, res)
			}
		}
		if listed[0] != [2]int16{0, 13} {
			t.Errorf("Produce is listed as %v: librdkafka would not compress (KAFKA-18659)", listed[0])
		}
		for key := int16(0); key < 100; key++ {
			for version := int16(0); version < 25; version++ {
				_, _, err := s.beginRaw(s.peer(), key, version, nil)
				refused := err != nil && strings.Contains(err.Error(), errUnsupportedVersion.Error())
				known, ok := listed[key]
				ok = ok && version >= known[0] && version <= known[1]
				if key == 0 && version < 3 {
					ok = false
				}
				if key != 18 && refused == ok {
					t.Errorf("key %d version %d: listed %v, but %v", key, version, known, err)
				}
			}
		}
		reply, ready, err := s.beginRaw(s.peer(), 18, 77, []byte("anything"))
		if err != nil || !ready {
			t.Fatal(err)
		}
		body, err := written(s.ctx, reply)
		if err != nil {
			t.Fatal(err)
		}
		if want := []byte{0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4}; !slices.Equal(body, want) {
			t.Errorf("unknown version: %x, want %x", body, want)
		}
	})
}

// TestApiVersionsNamesTheClient: names that KIP-511 does not allow are refused, others remembered.
func TestApiVersionsNamesTheClient(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		for name, ok := range map[string]bool{
			"apache-kafka-java": true, "x": true, "a.b": true, "": false, "-x": false, "x-": false, "a b": false, "ä": false, "a\nb": false,
		} {
			for _, both := range [][2]string{{name, "1"}, {"n", name}} {
				q := kmsg.NewPtrApiVersionsRequest()
				q.Version, q.ClientSoftwareName, q.ClientSoftwareVersion = 3, both[0], both[1]
				peer := s.peer()
				reply, _, err := s.begin(peer, q)
				if err != nil {
					t.Fatal(err)
				}
				res, err := s.finish(s.ctx, q, reply)
				if err != nil {
					t.Fatal(err)
				}
				if code := res.(*kmsg.ApiVersionsResponse).ErrorCode; (code == 0) != ok || !ok && code != kerr.InvalidRequest.Code {
					t.Errorf("%q: code %d", both, code)
				}
				if remembered := peer.SoftwareName == both[0] && peer.SoftwareVersion == both[1] && peer.SoftwareName != ""; remembered != ok {
					t.Errorf("%q: remembered %v", both, remembered)
				}
			}
		}
	})
}

// TestListOffsets asks for every special timestamp at every version.
func TestListOffsets(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		s.createTopic("orders", 2)
		base := time.Now().UnixMilli()
		for _, deltas := range [][]int64{{0, 10}, {50, 20, 30}, {40}} {
			b := batch.NewBuilder(batch.BuilderOptions{})
			for _, d := range deltas {
				b.Append(base+d, nil, []byte("v"), nil)
			}
			built, err := b.Build()
			if err != nil {
				t.Fatal(err)
			}
			s.append("orders", 0, built)
		}
		if _, err := s.partition("orders", 0).DeleteRecords(s.ctx, 1); err != nil {
			t.Fatal(err)
		}
		for version := int16(1); version <= 11; version++ {
			look := func(number int32, timestamp int64, epoch int32) kmsg.ListOffsetsResponseTopicPartition {
				q := kmsg.NewPtrListOffsetsRequest()
				q.Version, q.ReplicaID = version, -1
				q.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "orders", Partitions: []kmsg.ListOffsetsRequestTopicPartition{
					{Partition: number, Timestamp: timestamp, CurrentLeaderEpoch: epoch},
				}}}
				return ask[*kmsg.ListOffsetsResponse](s, q).Topics[0].Partitions[0]
			}
			for _, c := range []struct {
				number    int32
				timestamp int64
				since     int16
				at        int64
				offset    int64
			}{
				{0, -1, 1, -1, 6},
				{0, -2, 1, -1, 1},
				{0, -3, 7, base + 50, 2},
				{0, -4, 8, -1, 1},
				{0, -5, 9, -1, -1},
				{0, -6, 11, -1, -1},
				{0, -7, 99, -1, -1},
				{0, base + 10, 1, base + 10, 1},
				{0, base + 11, 1, base + 50, 2},
				{0, base + 51, 1, -1, -1},
				{0, 0, 1, base + 10, 1},
				{1, -1, 1, -1, 0},
				{1, -2, 1, -1, 0},
				{1, -3, 7, -1, -1},
				{1, 0, 1, -1, -1},
			} {
				got := look(c.number, c.timestamp, -1)
				code, at, offset, epoch := int16(0), c.at, c.offset, int32(-1)
				if offset >= 0 && version >= 4 {
					epoch = 0
				}
				if version < c.since {
					code, at, offset, epoch = kerr.UnsupportedVersion.Code, -1, -1, -1
				}
				if got.ErrorCode != code || got.Timestamp != at || got.Offset != offset || got.LeaderEpoch != epoch {
					t.Errorf("version %d, partition %d at %d: %+v, want code %d time %d offset %d epoch %d",
						version, c.number, c.timestamp, got, code, at, offset, epoch)
				}
			}
			if code := look(7, -1, -1).ErrorCode; code != kerr.UnknownTopicOrPartition.Code {
				t.Errorf("version %d: no such partition: %d", version, code)
			}
			if code := look(0, -1, 3).ErrorCode; version >= 4 && code != kerr.UnknownLeaderEpoch.Code {
				t.Errorf("version %d: an epoch of the future: %d", version, code)
			}
		}
	})
}

// TestListOffsetsSeesOnlyWhatIsCommitted: records that are not on disk yet have no offsets for
// consumers of a durable topic, for a debugger they have.
func TestListOffsetsSeesOnlyWhatIsCommitted(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		s.createTopic("orders", 1)
		s.append("orders", 0, records(2, 1))
		stall := make(chan struct{})
		s.disk.SetFault(stallFlushes(stall))
		time.Sleep(time.Hour)
		if _, err := s.partition("orders", 0).Append(records(3, 1), false, time.Now().UnixMilli()); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			replica           int32
			timestamp, offset int64
		}{{-1, -1, 2}, {-2, -1, 5}, {-1, -3, -1}, {-2, -3, 4}, {-1, time.Now().UnixMilli(), -1}, {-2, time.Now().UnixMilli(), 2}} {
			q := kmsg.NewPtrListOffsetsRequest()
			q.Version, q.ReplicaID = 7, c.replica
			q.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: "orders", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Timestamp: c.timestamp, CurrentLeaderEpoch: -1}}}}
			if got := ask[*kmsg.ListOffsetsResponse](s, q).Topics[0].Partitions[0]; got.Offset != c.offset || got.ErrorCode != 0 {
				t.Errorf("replica %d at %d: %+v, want %d", c.replica, c.timestamp, got, c.offset)
			}
		}
		s.disk.SetFault(nil)
		close(stall)
	})
}

// TestOffsetForLeaderEpoch: the end of the epoch asked for, or of the largest below it.
func TestOffsetForLeaderEpoch(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 1)
		s.append("orders", 0, records(3, 1))
		s.raiseEpoch(id, 0)
		s.raiseEpoch(id, 0)
		s.append("orders", 0, records(2, 1))
		for version := int16(2); version <= 4; version++ {
			for _, c := range []struct {
				epoch, caller int32
				code          int16
				found         int32
				end           int64
			}{
				{0, -1, 0, 0, 3},
				{1, -1, 0, 0, 3},
				{2, -1, 0, 2, 5},
				{3, -1, 0, -1, -1},
				{2, 2, 0, 2, 5},
				{2, 1, kerr.FencedLeaderEpoch.Code, -1, -1},
				{2, 3, kerr.UnknownLeaderEpoch.Code, -1, -1},
			} {
				q := kmsg.NewPtrOffsetForLeaderEpochRequest()
				q.Version, q.ReplicaID = version, -1
				q.Topics = []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: "orders", Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{
					{LeaderEpoch: c.epoch, CurrentLeaderEpoch: c.caller},
				}}}
				got := ask[*kmsg.OffsetForLeaderEpochResponse](s, q).Topics[0].Partitions[0]
				if got.ErrorCode != c.code || got.LeaderEpoch != c.found || got.EndOffset != c.end {
					t.Errorf("version %d, epoch %d asked in %d: %+v", version, c.epoch, c.caller, got)
				}
			}
		}
	})
}

// TestInitProducerID: new ids without end, blocks in their order, and errors that clients understand.
func TestInitProducerID(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		seen := map[int64]bool{}
		for n := range 2500 {
			q := kmsg.NewPtrInitProducerIDRequest()
			q.Version, q.ProducerID, q.ProducerEpoch = int16(n%6), -1, -1
			if n%7 == 0 {
				q.ProducerID, q.ProducerEpoch = 5, 1 // asks for the next epoch, and gets another id (KIP-360)
			}
			got := ask[*kmsg.InitProducerIDResponse](s, q)
			if got.ErrorCode != 0 || got.ProducerEpoch != 0 || seen[got.ProducerID] {
				t.Fatalf("request %d: %+v", n, got)
			}
			seen[got.ProducerID] = true
		}
		if next := s.controller.Image().NextProducerID(); next != 3000 {
			t.Errorf("2500 ids took blocks up to %d", next)
		}
		s.log.refuse(quorum.ErrNoSpace)
		for range 500 {
			ask[*kmsg.InitProducerIDResponse](s, kmsg.NewPtrInitProducerIDRequest())
		}
		s.logged.take()
		for version := int16(0); version <= 5; version++ {
			for _, c := range []struct {
				transactional *string
				id            int64
				epoch         int16
				want          *kerr.Error
				since         int16
			}{
				{nil, -1, 1, kerr.InvalidRequest, 3},
				{nil, 1, -1, kerr.InvalidRequest, 3},
				{kmsg.StringPtr(""), -1, -1, kerr.InvalidRequest, 0},
				{kmsg.StringPtr("t"), -1, -1, kerr.TransactionalIDAuthorizationFailed, 0},
				{nil, -1, -1, kerr.CoordinatorLoadInProgress, 0},
			} {
				if version < c.since {
					continue
				}
				q := kmsg.NewPtrInitProducerIDRequest()
				q.Version, q.TransactionalID, q.ProducerID, q.ProducerEpoch = version, c.transactional, c.id, c.epoch
				if got := ask[*kmsg.InitProducerIDResponse](s, q); got.ErrorCode != c.want.Code || got.ProducerID != -1 || got.ProducerEpoch != -1 {
					t.Errorf("version %d: %+v: %+v, want %v", version, c, got, c.want)
				}
			}
		}
		s.logged.take()
	})
}

// TestDescribeTopicPartitionsPages: pages of any size, put together, are all partitions in order.
func TestDescribeTopicPartitionsPages(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t, "max.request.partition.size.limit=4")
		for name, n := range map[string]int32{"a": 3, "b": 1, "c": 7, "d": 2} {
			s.createTopic(name, n)
		}
		for _, names := range [][]string{nil, {"d", "a", "c", "b"}, {"c", "a", "c"}} {
			var all []string
			for _, name := range []string{"a", "b", "c", "d"} {
				if topic, _ := s.controller.Image().Topic(name); names == nil || slices.Contains(names, name) {
					for number := range topic.Partitions {
						all = append(all, fmt.Sprint(name, number))
					}
				}
			}
			for limit := int32(-1); limit <= 20; limit++ {
				var got []string
				q := kmsg.NewPtrDescribeTopicPartitionsRequest()
				q.ResponsePartitionLimit = limit
				for _, name := range names {
					q.Topics = append(q.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: name})
				}
				for pages := 0; pages < 40; pages++ {
					res := ask[*kmsg.DescribeTopicPartitionsResponse](s, q)
					n := 0
					for _, topic := range res.Topics {
						for _, p := range topic.Partitions {
							got = append(got, fmt.Sprint(deref(topic.Topic), p.Partition))
							n++
						}
					}
					if most := min(max(limit, 1), 4); int32(n) > most {
						t.Fatalf("limit %d: a page of %d", limit, n)
					}
					if res.NextCursor == nil {
						break
					}
					q.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: res.NextCursor.Topic, Partition: res.NextCursor.Partition}
				}
				if !slices.Equal(got, all) {
					t.Fatalf("topics %v, limit %d: %v, want %v", names, limit, got, all)
				}
			}
		}
		bad := kmsg.NewPtrDescribeTopicPartitionsRequest()
		bad.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "a"}}
		for _, cursor := range []kmsg.DescribeTopicPartitionsRequestCursor{{Topic: "b"}, {Topic: "a", Partition: -1}} {
			bad.Cursor = &cursor
			if res := ask[*kmsg.DescribeTopicPartitionsResponse](s, bad); res.Topics[0].ErrorCode != kerr.InvalidRequest.Code {
				t.Errorf("cursor %+v: %+v", cursor, res.Topics[0])
			}
		}
		bad.Cursor = nil
		bad.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "missing"}, {Topic: "not legal"}}
		res := ask[*kmsg.DescribeTopicPartitionsResponse](s, bad)
		if res.Topics[0].ErrorCode != kerr.UnknownTopicOrPartition.Code || res.Topics[1].ErrorCode != kerr.InvalidTopicException.Code {
			t.Errorf("%+v", res.Topics)
		}
	})
}

// TestDescribeLogDirs: every replica with its size, also those that have no files yet; a directory
// that has failed says so.
func TestDescribeLogDirs(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		s.createTopic("orders", 2)
		s.createTopic("other", 1)
		b := records(3, 100)
		s.append("orders", 1, b)
		for version := int16(1); version <= 5; version++ {
			q := kmsg.NewPtrDescribeLogDirsRequest()
			q.Version = version
			for _, c := range []struct {
				topics []kmsg.DescribeLogDirsRequestTopic
				want   string
			}{
				{nil, fmt.Sprintf("orders-0:0 orders-1:%d other-0:0 ", len(b))},
				{[]kmsg.DescribeLogDirsRequestTopic{}, ""},
				{[]kmsg.DescribeLogDirsRequestTopic{{Topic: "orders", Partitions: []int32{1, 9}}, {Topic: "missing", Partitions: []int32{0}}}, fmt.Sprintf("orders-1:%d ", len(b))},
			} {
				q.Topics = c.topics
				res := ask[*kmsg.DescribeLogDirsResponse](s, q)
				got := ""
				for _, topic := range res.Dirs[0].Topics {
					for _, p := range topic.Partitions {
						got += fmt.Sprintf("%s-%d:%d ", topic.Topic, p.Partition, p.Size)
					}
				}
				if got != c.want || len(res.Dirs) != 1 || res.Dirs[0].Dir != "/data" || res.Dirs[0].ErrorCode != 0 {
					t.Errorf("version %d: %q in %+v, want %q", version, got, res.Dirs, c.want)
				}
				if d := res.Dirs[0]; version >= 4 && (d.TotalBytes <= 0 || d.UsableBytes <= 0 || d.UsableBytes > d.TotalBytes) {
					t.Errorf("version %d: %d of %d bytes usable", version, d.UsableBytes, d.TotalBytes)
				}
			}
		}
	})
}

// TestDeleteRecords: up to an offset, up to the high watermark, and where it is refused.
func TestDeleteRecords(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		s.createTopic("orders", 1)
		s.createTopic("compacted", 1, "cleanup.policy=compact")
		s.createTopic("__consumer_offsets", 1)
		s.append("orders", 0, records(9, 1))
		for version := int16(0); version <= 2; version++ {
			for _, c := range []struct {
				topic  string
				number int32
				offset int64
				low    int64
				want   int16
			}{
				{"orders", 0, int64(version), int64(version), 0},
				{"orders", 0, 0, int64(version), 0},
				{"orders", 0, 10, -1, kerr.OffsetOutOfRange.Code},
				{"orders", 0, -2, -1, kerr.OffsetOutOfRange.Code},
				{"orders", 1, 0, -1, kerr.UnknownTopicOrPartition.Code},
				{"compacted", 0, 0, -1, kerr.PolicyViolation.Code},
				{"__consumer_offsets", 0, 0, -1, kerr.InvalidTopicException.Code},
			} {
				q := kmsg.NewPtrDeleteRecordsRequest()
				q.Version, q.TimeoutMillis = version, 1000
				q.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: c.topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: c.number, Offset: c.offset}}}}
				got := ask[*kmsg.DeleteRecordsResponse](s, q).Topics[0].Partitions[0]
				if got.ErrorCode != c.want || got.LowWatermark != c.low {
					t.Errorf("version %d, %s-%d below %d: %+v", version, c.topic, c.number, c.offset, got)
				}
			}
		}
		q := kmsg.NewPtrDeleteRecordsRequest()
		q.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: "orders", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: -1}}}}
		if got := ask[*kmsg.DeleteRecordsResponse](s, q).Topics[0].Partitions[0]; got.LowWatermark != 9 {
			t.Errorf("up to the high watermark: %+v", got)
		}
	})
}

// TestConfigsDescribedAsSet: what was set through the protocol is what is described, with its source.
func TestConfigsDescribedAsSet(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t, "log.retention.ms=1000")
		s.createTopic("orders", 1, "segment.bytes=1048576")
		set := func(kind kmsg.ConfigResourceType, name, key string, value *string) int16 {
			q := kmsg.NewPtrIncrementalAlterConfigsRequest()
			q.Version = 1
			op := kmsg.IncrementalAlterConfigOpSet
			if value == nil {
				op = kmsg.IncrementalAlterConfigOpDelete
			}
			q.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{
				ResourceType: kind, ResourceName: name,
				Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: key, Op: op, Value: value}},
			}}
			return ask[*kmsg.IncrementalAlterConfigsResponse](s, q).Resources[0].ErrorCode
		}
		get := func(kind kmsg.ConfigResourceType, name, key string) string {
			q := kmsg.NewPtrDescribeConfigsRequest()
			q.Version, q.IncludeSynonyms, q.IncludeDocumentation = 4, true, true
			q.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kind, ResourceName: name, ConfigNames: []string{key}}}
			r := ask[*kmsg.DescribeConfigsResponse](s, q).Resources[0]
			if r.ErrorCode != 0 || len(r.Configs) != 1 {
				return fmt.Sprint("code ", r.ErrorCode, " configs ", len(r.Configs))
			}
			c := r.Configs[0]
			if c.Documentation == nil {
				t.Errorf("%s has no documentation", key)
			}
			text := fmt.Sprintf("%s %d %v:", deref(c.Value), c.Source, c.ConfigType)
			for _, y := range c.ConfigSynonyms {
				text += fmt.Sprintf(" %s=%s@%d", y.Name, deref(y.Value), y.Source)
			}
			return text
		}
		const topic, broker = kmsg.ConfigResourceTypeTopic, kmsg.ConfigResourceTypeBroker
		expect := func(got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		expect(get(topic, "orders", "segment.bytes"), "1048576 1 INT: segment.bytes=1048576@1 log.segment.bytes=1073741824@5")
		expect(get(topic, "orders", "retention.ms"), "1000 4 LONG: log.retention.ms=1000@4 log.retention.hours=168@5")
		if code := set(broker, "", "log.retention.ms", kmsg.StringPtr("2000")); code != 0 {
			t.Fatal(code)
		}
		if code := set(broker, "1", "log.retention.ms", kmsg.StringPtr("3000")); code != 0 {
			t.Fatal(code)
		}
		expect(get(broker, "", "log.retention.ms"), "2000 3 LONG: log.retention.ms=2000@3")
		expect(get(broker, "1", "log.retention.ms"), "3000 2 LONG: log.retention.ms=3000@2 log.retention.ms=2000@3 log.retention.ms=1000@4 log.retention.hours=168@5")
		expect(get(topic, "orders", "retention.ms"), "3000 2 LONG: log.retention.ms=3000@2 log.retention.ms=2000@3 log.retention.ms=1000@4 log.retention.hours=168@5")
		if ms := s.partition("orders", 0).Log().Config().RetentionMs; ms != 3000 {
			t.Errorf("the log keeps records for %d ms", ms)
		}
		if code := set(broker, "1", "log.retention.ms", nil); code != 0 {
			t.Fatal(code)
		}
		expect(get(topic, "orders", "retention.ms"), "2000 3 LONG: log.retention.ms=2000@3 log.retention.ms=1000@4 log.retention.hours=168@5")
		expect(get(topic, "missing", ""), "code 3 configs 0")
		expect(get(topic, "not legal", ""), "code 17 configs 0")
		expect(get(broker, "2", ""), "code 42 configs 0")
		expect(get(broker, "x", ""), "code 42 configs 0")
		expect(get(kmsg.ConfigResourceTypeBrokerLogger, "1", ""), "code 42 configs 0")
		expect(get(99, "x", ""), "code 42 configs 0")
		if code := set(topic, "orders", "retention.ms", kmsg.StringPtr("soon")); code != kerr.InvalidConfig.Code {
			t.Errorf("a topic's wrong value: %d", code)
		}
		if code := set(broker, "1", "log.retention.ms", kmsg.StringPtr("soon")); code != kerr.InvalidRequest.Code && code != kerr.InvalidConfig.Code {
			t.Errorf("a broker's wrong value: %d", code)
		}
		q := kmsg.NewPtrListConfigResourcesRequest()
		q.Version = 1
		names := ""
		for _, r := range ask[*kmsg.ListConfigResourcesResponse](s, q).ConfigResources {
			names += fmt.Sprintf("%s:%d ", r.Name, r.Type)
		}
		expect(names, "orders:2 1:4 1:8 ")
		q.ResourceTypes = []int8{2, 99}
		if code := ask[*kmsg.ListConfigResourcesResponse](s, q).ErrorCode; code != kerr.UnsupportedVersion.Code {
			t.Errorf("a type that there is not: %d", code)
		}
	})
}

// TestNobodyWaitsForAControllerThatIsGone: every change is answered although nothing can be decided.
func TestNobodyWaitsForAControllerThatIsGone(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		s.log.refuse(quorum.ErrNotLeader)
		q := kmsg.NewPtrCreateTopicsRequest()
		q.Version, q.TimeoutMillis = 7, 1000
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = "x", 1, 1
		q.Topics = append(q.Topics, topic)
		if code := ask[*kmsg.CreateTopicsResponse](s, q).Topics[0].ErrorCode; code != kerr.NotController.Code {
			t.Errorf("create: %d", code)
		}
		s.logged.take()
	})
}
