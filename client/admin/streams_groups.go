package admin

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// StreamsGroupDescription is a group of Kafka Streams programs, as DescribeStreamsGroups gives it (KIP-1071). What it has
// committed GroupOffsets gives, as of other groups.
type StreamsGroupDescription struct {
	Group           string
	State           GroupState // also "NotReady": topics that the topology needs are missing
	Epoch           int32      // goes up with what the members want
	AssignmentEpoch int32      // goes up with what they are to have
	TopologyEpoch   int32      // -1: no topology is known
	Subtopologies   []StreamsSubtopology
	Members         []StreamsMember // by id
	Coordinator     BrokerDescription

	AuthorizedOperations []ACLOperation // on the group; nil without the option of that name
	Err                  error          // ErrGroupIDNotFound, ErrGroupAuthorizationFailed
}

// StreamsSubtopology is a part of a topology that runs by itself: a task for each partition that it reads.
type StreamsSubtopology struct {
	ID                   string
	SourceTopics         []string
	RepartitionSinks     []string
	RepartitionSources   []StreamsTopic
	StateChangelogTopics []StreamsTopic
}

// StreamsTopic is a topic that a topology keeps for itself.
type StreamsTopic struct {
	Name              string
	Partitions        int32 // 0: as many as its sources have
	ReplicationFactor int16 // 0: the broker's default
	Configs           map[string]string
}

// StreamsMember is a process, or a thread of one, that runs tasks.
type StreamsMember struct {
	ID            string
	InstanceID    string // of a static member, else empty
	ClientID      string
	Host          string // as the coordinator sees it: "/10.0.0.7"
	Rack          string
	Epoch         int32
	TopologyEpoch int32
	Process       string            // the same for all threads of one process
	Endpoint      string            // HOST:PORT for interactive queries; empty where there is none
	Tags          map[string]string // by which stand-by tasks are spread
	Classic       bool              // speaks the classic protocol
	Assignment    StreamsAssignment
	Target        StreamsAssignment // what it is to have in the end
	Offsets       []StreamsTaskOffset
	EndOffsets    []StreamsTaskOffset
}

// StreamsTask is a partition of a subtopology.
type StreamsTask struct {
	Subtopology string
	Partition   int32
}

// StreamsAssignment is what a member runs. Each list is sorted.
type StreamsAssignment struct {
	Active, Standby, Warmup []StreamsTask
}

// StreamsTaskOffset is how far the state of a task has been restored (in EndOffsets: how far that would be).
type StreamsTaskOffset struct {
	Task   StreamsTask
	Offset int64
}

// DescribeStreamsGroups gives streams groups with their topologies and members, in the order of the names. A group of
// another type has Err ErrGroupIDNotFound.
func (a *Admin) DescribeStreamsGroups(ctx context.Context, groups ...string) ([]StreamsGroupDescription, error) {
	at := map[string]BrokerDescription{}
	out, err := perCoordinator(ctx, a, "describe streams groups", groups, at,
		func(_ context.Context, of []string) kmsg.Request {
			req := kmsg.NewPtrStreamsGroupDescribeRequest()
			req.Groups, req.IncludeAuthorizedOperations = of, a.authorized
			return req
		},
		func(resp *kmsg.StreamsGroupDescribeResponse, give func(string, StreamsGroupDescription, error)) {
			for i := range resp.Groups {
				d := readStreamsGroup(&resp.Groups[i])
				give(d.Group, d, d.Err)
			}
		},
		func(group string, err error) StreamsGroupDescription {
			return StreamsGroupDescription{Group: group, Epoch: -1, AssignmentEpoch: -1, TopologyEpoch: -1, Err: err}
		})
	for i := range out {
		out[i].Coordinator = at[out[i].Group]
	}
	return out, err
}

func readStreamsGroup(in *kmsg.StreamsGroupDescribeResponseGroup) StreamsGroupDescription {
	d := StreamsGroupDescription{
		Group: in.Group, State: GroupState(in.State), Epoch: in.Epoch, AssignmentEpoch: in.AssignmentEpoch, TopologyEpoch: -1,
		AuthorizedOperations: operations(in.AuthorizedOperations), Err: client.CodeError(in.ErrorCode, in.ErrorMessage),
	}
	if t := in.Topology; t != nil {
		d.TopologyEpoch = t.Epoch
		for i := range t.Subtopologies {
			s := &t.Subtopologies[i]
			d.Subtopologies = append(d.Subtopologies, StreamsSubtopology{
				ID: s.SubtopologyID, SourceTopics: s.SourceTopics, RepartitionSinks: s.RepartitionSinkTopics,
				RepartitionSources: readStreamsTopics(s.RepartitionSourceTopics), StateChangelogTopics: readStreamsTopics(s.StateChangelogTopics),
			})
		}
	}
	for i := range in.Members {
		d.Members = append(d.Members, readStreamsMember(&in.Members[i]))
	}
	slices.SortFunc(d.Members, func(a, b StreamsMember) int { return cmp.Compare(a.ID, b.ID) })
	return d
}

func readStreamsTopics(in []kmsg.TopicInfo) []StreamsTopic {
	var out []StreamsTopic
	for _, t := range in {
		topic := StreamsTopic{Name: t.Topic, Partitions: t.NumPartitions, ReplicationFactor: t.ReplicationFactor, Configs: map[string]string{}}
		for _, c := range t.Configs {
			topic.Configs[c.Key] = c.Value
		}
		out = append(out, topic)
	}
	return out
}

func readStreamsMember(in *kmsg.StreamsGroupDescribeResponseGroupMember) StreamsMember {
	m := StreamsMember{
		ID: in.MemberID, InstanceID: text(in.InstanceID), ClientID: in.ClientID, Host: in.ClientHost, Rack: text(in.RackID),
		Epoch: in.MemberEpoch, TopologyEpoch: in.TopologyEpoch, Process: in.ProcessID, Tags: map[string]string{}, Classic: in.IsClassic,
		Assignment: readStreamsAssignment(&in.Assignment), Target: readStreamsAssignment(&in.TargetAssignment),
		Offsets: readTaskOffsets(in.TaskOffsets), EndOffsets: readTaskOffsets(in.TaskEndOffsets),
	}
	if e := in.UserEndpoint; e != nil {
		m.Endpoint = net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
	}
	for _, t := range in.ClientTags {
		m.Tags[t.Key] = t.Value
	}
	return m
}

func readStreamsAssignment(in *kmsg.StreamsAssignment) StreamsAssignment {
	return StreamsAssignment{readTasks(in.ActiveTasks), readTasks(in.StandbyTasks), readTasks(in.WarmupTasks)}
}

func readTasks(in []kmsg.TaskIDs) []StreamsTask {
	var out []StreamsTask
	for _, t := range in {
		for _, p := range t.Partitions {
			out = append(out, StreamsTask{t.SubtopologyID, p})
		}
	}
	slices.SortFunc(out, compareTasks)
	return out
}

func readTaskOffsets(in []kmsg.TaskOffset) []StreamsTaskOffset {
	var out []StreamsTaskOffset
	for _, o := range in {
		out = append(out, StreamsTaskOffset{StreamsTask{o.SubtopologyID, o.Partition}, o.Offset})
	}
	slices.SortFunc(out, func(a, b StreamsTaskOffset) int { return compareTasks(a.Task, b.Task) })
	return out
}

func compareTasks(a, b StreamsTask) int {
	return cmp.Or(cmp.Compare(a.Subtopology, b.Subtopology), cmp.Compare(a.Partition, b.Partition))
}
