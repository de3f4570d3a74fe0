package admin

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// A topic that is named by its id is that one and no other of its name.
func TestTopicsByID(t *testing.T) {
	first, gone := client.UUID{1}, client.UUID{2}
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.MetadataRequest:
			if len(r.Topics) == 0 || r.Topics[0].Topic != nil {
				return nil
			}
			resp := metadataOf(&kmsg.MetadataRequest{}, nil)
			for _, topic := range slices.Backward(r.Topics) {
				out := kmsg.NewMetadataResponseTopic()
				if out.TopicID = topic.TopicID; topic.TopicID == gone {
					out.ErrorCode = int16(client.ErrUnknownTopicID)
				} else {
					out.Topic, out.AuthorizedOperations = kmsg.StringPtr("t"), 1<<4
					out.Partitions = []kmsg.MetadataResponseTopicPartition{{Partition: 1}, {Partition: 0}}
				}
				resp.Topics = append(resp.Topics, out)
			}
			return resp
		case *kmsg.DeleteTopicsRequest:
			resp := kmsg.NewPtrDeleteTopicsResponse()
			for _, topic := range r.Topics {
				out := kmsg.NewDeleteTopicsResponseTopic()
				if out.TopicID = topic.TopicID; topic.Topic != nil {
					t.Errorf("%+v", topic)
				} else if topic.TopicID == gone {
					out.ErrorCode = int16(client.ErrUnknownTopicID)
				}
				resp.Topics = append(resp.Topics, out)
			}
			return resp
		}
		return nil
	}
	serving(t, []int16{20}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.DescribeTopicsByID(ctx, first, gone)
		if err != nil || got[0].Name != "t" || got[0].ID != first || got[0].Partitions[1].Partition != 1 || got[0].AuthorizedOperations != nil ||
			!errors.Is(got[1].Err, client.ErrUnknownTopicID) {
			t.Errorf("%+v, %v", got, err)
		}
		AuthorizedOperations()(a)
		if got, err = a.DescribeTopicsByID(ctx, first); err != nil || !slices.Equal(got[0].AuthorizedOperations, []ACLOperation{OperationWrite}) {
			t.Errorf("%+v, %v", got, err)
		}
		deleted, err := a.DeleteTopicsByID(ctx, gone, first)
		if err != nil || !errors.Is(deleted[0].Err, client.ErrUnknownTopicID) || deleted[0].ID != gone || deleted[1] != (TopicIDResult{ID: first}) {
			t.Errorf("%+v, %v", deleted, err)
		}
	})
	serving(t, []int16{20}, answers, func(ctx context.Context, f *fake, a *Admin) {
		f.newest = map[int16]int16{20: 5}
		if deleted, err := a.DeleteTopicsByID(ctx, first); err != nil || !errors.Is(deleted[0].Err, client.ErrUnsupported) {
			t.Errorf("an older broker: %+v, %v", deleted, err)
		}
	})
}

// Each broker is asked about the directories of its own replicas.
func TestReplicasAreMovedByTheirBrokers(t *testing.T) {
	answers := func(node int32, req kmsg.Request) kmsg.Response {
		r, ok := req.(*kmsg.AlterReplicaLogDirsRequest)
		if !ok {
			return nil
		}
		resp := kmsg.NewPtrAlterReplicaLogDirsResponse()
		for _, d := range r.Dirs {
			for _, topic := range d.Topics {
				out := kmsg.NewAlterReplicaLogDirsResponseTopic()
				out.Topic = topic.Topic
				for _, p := range topic.Partitions {
					code := client.Error(0)
					if d.Dir == "/none" {
						code = client.ErrLogDirNotFound
					}
					if node == 2 && p != 7 || node == 1 && p == 7 {
						t.Errorf("partition %d at broker %d", p, node)
					}
					out.Partitions = append(out.Partitions, kmsg.AlterReplicaLogDirsResponseTopicPartition{Partition: p, ErrorCode: int16(code)})
				}
				resp.Topics = append(resp.Topics, out)
			}
		}
		return resp
	}
	serving(t, []int16{34}, answers, func(ctx context.Context, f *fake, a *Admin) {
		got, err := a.AlterReplicaLogDirs(ctx, map[PartitionReplica]string{
			{at("t", 7), 2}: "/a", {at("t", 1), 1}: "/none", {at("t", 0), 1}: "/a", {at("a", 0), 1}: "/a", {at("t", 7), 9}: "/a",
		})
		if err != nil || len(got) != 5 {
			t.Fatalf("%+v, %v", got, err)
		}
		for i, want := range []struct {
			r   PartitionReplica
			err error
		}{
			{PartitionReplica{at("a", 0), 1}, nil},
			{PartitionReplica{at("t", 0), 1}, nil},
			{PartitionReplica{at("t", 1), 1}, client.ErrLogDirNotFound},
			{PartitionReplica{at("t", 7), 2}, nil},
			{PartitionReplica{at("t", 7), 9}, client.ErrUnknownBroker},
		} {
			if got[i].Replica != want.r || !errors.Is(got[i].Err, want.err) || (got[i].Err == nil) != (want.err == nil) {
				t.Errorf("%+v, expected %+v", got[i], want)
			}
		}
		asked := askedOf(f, 34)
		slices.Sort(asked)
		if !slices.Equal(asked, []string{"34@1", "34@2"}) {
			t.Errorf("asked %v", asked)
		}
	})
}

// What replaces a configuration is all of it, and a broker's goes to that broker.
func TestConfigurationsAreReplaced(t *testing.T) {
	elsewhere := true
	answers := func(node int32, req kmsg.Request) kmsg.Response {
		r, ok := req.(*kmsg.AlterConfigsRequest)
		if !ok {
			return nil
		}
		resp := kmsg.NewPtrAlterConfigsResponse()
		for _, in := range r.Resources {
			out := kmsg.NewAlterConfigsResponseResource()
			out.ResourceType, out.ResourceName = in.ResourceType, in.ResourceName
			switch {
			case in.ResourceType == kmsg.ConfigResourceTypeBroker && node != 2 || !r.ValidateOnly:
				t.Errorf("%+v at broker %d", in, node)
			case in.ResourceName == "bad":
				out.ErrorCode = int16(client.ErrInvalidConfig)
			case in.ResourceName == "t" && elsewhere:
				elsewhere, out.ErrorCode = false, int16(client.ErrNotController)
			case in.ResourceName == "t" && (len(in.Configs) != 2 || in.Configs[0].Name != "a" || *in.Configs[1].Value != "2"):
				t.Errorf("%+v", in.Configs)
			}
			resp.Resources = append(resp.Resources, out)
		}
		return resp
	}
	serving(t, []int16{33}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.ReplaceConfigs(ctx, map[Resource]map[string]string{Topic("t"): {"b": "2", "a": "1"}, Broker(2): {"c": "3"}, Topic("bad"): {}}, ValidateOnly())
		if err != nil || got[0].Resource != Topic("bad") || !errors.Is(got[0].Err, client.ErrInvalidConfig) || got[1].Err != nil || got[2] != (ResourceResult{Resource: Broker(2)}) || elsewhere {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
