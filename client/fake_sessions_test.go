package client

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fakeSession is what a node of the fake remembers of a fetcher (KIP-227).
type fakeSession struct {
	node, epoch int32
	order       []fakeRead
	told        map[fakeKey]int64 // high watermark as last answered
}

type fakeKey struct {
	topic  string
	id     [16]byte
	number int32
}

type fakeRead struct {
	key  fakeKey
	part kmsg.FetchRequestTopicPartition
}

// openSession gives the request as it would be without a session, and the session that it belongs
// to: nil where it asks for none, or code where the session is not known.
func (f *fakeCluster) openSession(node int32, r *kmsg.FetchRequest) (whole *kmsg.FetchRequest, s *fakeSession, id int32, code Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Version < 7 || r.SessionEpoch < 0 || f.mu.noSessions {
		return r, nil, 0, 0
	}
	if r.SessionEpoch == 0 {
		delete(f.mu.sessions, r.SessionID)
		f.mu.nextSession++
		id, s = f.mu.nextSession, &fakeSession{node: node, told: map[fakeKey]int64{}}
		f.mu.sessions[id] = s
	} else {
		id, s = r.SessionID, f.mu.sessions[r.SessionID]
		if s == nil || s.node != node {
			return nil, nil, 0, ErrFetchSessionIDNotFound
		}
		if s.epoch != r.SessionEpoch {
			return nil, nil, 0, ErrInvalidFetchSessionEpoch
		}
	}
	s.epoch++
	for _, t := range r.ForgottenTopics {
		for _, n := range t.Partitions {
			s.order = slices.DeleteFunc(s.order, func(x fakeRead) bool { return x.key == fakeKey{t.Topic, t.TopicID, n} })
			delete(s.told, fakeKey{t.Topic, t.TopicID, n})
		}
	}
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			key := fakeKey{t.Topic, t.TopicID, p.Partition}
			if i := slices.IndexFunc(s.order, func(x fakeRead) bool { return x.key == key }); i >= 0 {
				s.order[i].part = p
			} else {
				s.order = append(s.order, fakeRead{key, p})
			}
		}
	}
	all := *r
	all.Topics = nil
	for _, x := range s.order {
		all.Topics = append(all.Topics, kmsg.FetchRequestTopic{
			Topic: x.key.topic, TopicID: x.key.id, Partitions: []kmsg.FetchRequestTopicPartition{x.part},
		})
	}
	return &all, s, id, 0
}

// onlyNews leaves out of an answer what an incremental one does not hold.
func (f *fakeCluster) onlyNews(s *fakeSession, resp *kmsg.FetchResponse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range resp.Topics {
		t := &resp.Topics[i]
		t.Partitions = slices.DeleteFunc(t.Partitions, func(p kmsg.FetchResponseTopicPartition) bool {
			key := fakeKey{t.Topic, t.TopicID, p.Partition}
			told, before := s.told[key]
			s.told[key] = p.HighWatermark
			return before && told == p.HighWatermark && len(p.RecordBatches) == 0 && p.ErrorCode == 0 && p.PreferredReadReplica < 0
		})
	}
	resp.Topics = slices.DeleteFunc(resp.Topics, func(t kmsg.FetchResponseTopic) bool { return len(t.Partitions) == 0 })
}

// endOfEpochs answers where epochs end in the log, as leaders do (KIP-320).
func (f *fakeCluster) endOfEpochs(node int32, r *kmsg.OffsetForLeaderEpochRequest, i interference) kmsg.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	resp := kmsg.NewPtrOffsetForLeaderEpochResponse()
	for _, in := range r.Topics {
		out := kmsg.OffsetForLeaderEpochResponseTopic{Topic: in.Topic}
		for _, want := range in.Partitions {
			part := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			part.Partition, part.ErrorCode = want.Partition, i.code
			p := f.mu.topics[in.Topic].partitions[want.Partition]
			switch {
			case i.code != 0:
			case p.leader != node:
				part.ErrorCode = int16(ErrNotLeaderOrFollower)
			case want.CurrentLeaderEpoch != p.epoch:
				part.ErrorCode = int16(ErrUnknownLeaderEpoch)
			default:
				part.LeaderEpoch, part.EndOffset = p.endOf(want.LeaderEpoch)
			}
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

// endOf gives the latest epoch up to this one, and where it ends; -1 where the log begins later.
func (p *fakePartition) endOf(epoch int32) (found int32, end int64) {
	found, end = -1, -1
	for _, b := range p.batches {
		if b.LeaderEpoch() <= epoch {
			found, end = b.LeaderEpoch(), b.NextOffset()
		}
	}
	return found, end
}
