package client

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
)

// fakeTransactions is the transaction coordinator of a fakeCluster, on one node at a time. Instead
// of writing markers it notes which batches count. f.mu guards it.
type fakeTransactions struct {
	f     *fakeCluster
	node  int32
	level int16 // of transaction.version
	byID  map[string]*fakeTransaction

	commits map[string]map[TopicPartition]int64 // what groups have committed
}

type fakeTransaction struct {
	id          int64
	epoch, last int16 // last: the epoch before, whose retries are known
	open        bool
	ended       bool // at least once
	commit      bool // how it ended
	parts       map[TopicPartition]bool
	groups      map[string]bool
	offsets     map[string]map[TopicPartition]int64 // pending
	ends        int
}

// transactions gives the cluster a coordinator of transactions.
func (f *fakeCluster) transactions(level int16) *fakeTransactions {
	x := &fakeTransactions{
		f: f, node: f.mu.nodes[0], level: level, byID: map[string]*fakeTransaction{}, commits: map[string]map[TopicPartition]int64{},
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.txns = x
	for key, most := range map[int16]int16{10: 6, 24: 5, 25: 4, 26: 5, 28: 5} {
		f.mu.maxVersion[key] = most
	}
	return x
}

func (x *fakeTransactions) find(node int32, name string, id int64, epoch int16) (*fakeTransaction, Error) {
	t := x.byID[name]
	switch {
	case node != x.node:
		return nil, ErrNotCoordinator
	case t == nil || t.id != id:
		return nil, ErrInvalidProducerIDMapping
	case epoch != t.epoch:
		return t, ErrProducerFenced
	}
	return t, 0
}

// handle answers a request about transactions; code is what the script wants instead.
func (x *fakeTransactions) handle(node int32, req kmsg.Request, code int16) kmsg.Response {
	x.f.mu.Lock()
	defer x.f.mu.Unlock()
	switch r := req.(type) {
	case *kmsg.FindCoordinatorRequest:
		resp := kmsg.NewPtrFindCoordinatorResponse()
		c := kmsg.NewFindCoordinatorResponseCoordinator()
		c.Key, c.NodeID, c.Host, c.Port, c.ErrorCode = r.CoordinatorKeys[0], x.node, fmt.Sprintf("n%d", x.node), 9092, code
		resp.Coordinators = append(resp.Coordinators, c)
		return resp
	case *kmsg.InitProducerIDRequest:
		return x.initialise(node, r, code)
	case *kmsg.AddPartitionsToTxnRequest:
		return x.addPartitions(node, r, code)
	case *kmsg.AddOffsetsToTxnRequest:
		resp := kmsg.NewPtrAddOffsetsToTxnResponse()
		t, refusal := x.find(node, r.TransactionalID, r.ProducerID, r.ProducerEpoch)
		if resp.ErrorCode = code; code == 0 {
			resp.ErrorCode = int16(refusal)
		}
		if resp.ErrorCode == 0 {
			t.begin()
			t.groups[r.Group] = true
		}
		return resp
	case *kmsg.TxnOffsetCommitRequest:
		return x.commitOffsets(node, r, code)
	case *kmsg.EndTxnRequest:
		return x.end(node, r, code)
	}
	panic("BUG: no request about transactions")
}

func (t *fakeTransaction) begin() {
	if !t.open {
		t.open, t.parts, t.groups, t.offsets = true, map[TopicPartition]bool{}, map[string]bool{}, map[string]map[TopicPartition]int64{}
	}
}

func (x *fakeTransactions) initialise(node int32, r *kmsg.InitProducerIDRequest, code int16) kmsg.Response {
	resp := kmsg.NewPtrInitProducerIDResponse()
	t := x.byID[*r.TransactionalID]
	switch {
	case code != 0:
		resp.ErrorCode = code
		return resp
	case node != x.node:
		resp.ErrorCode = int16(ErrNotCoordinator)
		return resp
	case t == nil:
		x.f.mu.nextID++
		t = &fakeTransaction{id: x.f.mu.nextID, last: -1}
		x.byID[*r.TransactionalID] = t
	case r.ProducerID >= 0 && (r.ProducerID != t.id || r.ProducerEpoch != t.epoch && r.ProducerEpoch != t.last):
		resp.ErrorCode = int16(ErrProducerFenced)
		return resp
	case r.ProducerID >= 0 && r.ProducerEpoch == t.last: // the answer was lost
	case t.open: // nobody is given the epoch that ends it, so who named its own is fenced when it asks again
		x.settle(t, false)
		t.last, t.epoch = -1, t.epoch+1
		resp.ErrorCode = int16(ErrConcurrentTransactions)
		return resp
	default:
		t.last, t.epoch, t.ended = t.epoch, t.epoch+1, false
	}
	resp.ProducerID, resp.ProducerEpoch = t.id, t.epoch
	return resp
}

func (x *fakeTransactions) addPartitions(node int32, r *kmsg.AddPartitionsToTxnRequest, code int16) kmsg.Response {
	if r.Version > 3 {
		x.f.t.Errorf("AddPartitionsToTxn in version %d, which is for brokers", r.Version)
	}
	resp := kmsg.NewPtrAddPartitionsToTxnResponse()
	t, refusal := x.find(node, r.TransactionalID, r.ProducerID, r.ProducerEpoch)
	if code == 0 {
		code = int16(refusal)
	}
	for _, topic := range r.Topics {
		out := kmsg.NewAddPartitionsToTxnResponseTopic()
		out.Topic = topic.Topic
		for _, n := range topic.Partitions {
			if code == 0 {
				t.begin()
				t.parts[TopicPartition{topic.Topic, n}] = true
			}
			out.Partitions = append(out.Partitions, kmsg.AddPartitionsToTxnResponseTopicPartition{Partition: n, ErrorCode: code})
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func (x *fakeTransactions) commitOffsets(node int32, r *kmsg.TxnOffsetCommitRequest, code int16) kmsg.Response {
	resp := kmsg.NewPtrTxnOffsetCommitResponse()
	t, refusal := x.find(node, r.TransactionalID, r.ProducerID, r.ProducerEpoch)
	switch {
	case code != 0:
	case refusal != 0:
		code = int16(refusal)
	case r.Generation == 99:
		code = int16(ErrIllegalGeneration)
	case x.level < 2 && r.Version > lastTxnOffsetCommitTold, x.level >= 2 && r.Version <= lastTxnOffsetCommitTold:
		x.f.t.Errorf("TxnOffsetCommit in version %d with transaction.version %d", r.Version, x.level)
	case x.level < 2 && !t.groups[r.Group]:
		code = int16(ErrInvalidTxnState)
	}
	for _, topic := range r.Topics {
		out := kmsg.NewTxnOffsetCommitResponseTopic()
		out.Topic = topic.Topic
		for _, p := range topic.Partitions {
			if code == 0 {
				t.begin()
				if t.offsets[r.Group] == nil {
					t.offsets[r.Group] = map[TopicPartition]int64{}
				}
				t.offsets[r.Group][TopicPartition{topic.Topic, p.Partition}] = p.Offset
			}
			out.Partitions = append(out.Partitions, kmsg.TxnOffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: code})
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func (x *fakeTransactions) end(node int32, r *kmsg.EndTxnRequest, code int16) kmsg.Response {
	resp := kmsg.NewPtrEndTxnResponse()
	if x.level < 2 != (r.Version <= lastEndTxnTold) {
		x.f.t.Errorf("EndTxn in version %d with transaction.version %d", r.Version, x.level)
	}
	t, refusal := x.find(node, r.TransactionalID, r.ProducerID, r.ProducerEpoch)
	switch {
	case code != 0:
		resp.ErrorCode = code
		return resp
	case refusal == ErrProducerFenced && x.level >= 2 && r.ProducerEpoch == t.last && t.ended && t.commit == r.Commit && !t.open:
		resp.ProducerID, resp.ProducerEpoch = t.id, t.epoch // the answer was lost
		return resp
	case refusal != 0:
		resp.ErrorCode = int16(refusal)
		return resp
	case !t.open && x.level < 2 && t.ended && t.commit == r.Commit: // the answer was lost
		return resp
	case !t.open && (x.level < 2 || r.Commit):
		resp.ErrorCode = int16(ErrInvalidTxnState)
		return resp
	}
	x.settle(t, r.Commit)
	if x.level >= 2 {
		t.ended, t.commit = true, r.Commit // an abort of nothing is one, too: it may be asked for again
		t.last, t.epoch = t.epoch, t.epoch+1
		x.raise(t)
	}
	resp.ProducerID, resp.ProducerEpoch = t.id, t.epoch
	return resp
}

// settle ends an open transaction, as markers do.
func (x *fakeTransactions) settle(t *fakeTransaction, commit bool) {
	if !t.open {
		return
	}
	t.open, t.ended, t.commit = false, true, commit
	t.ends++
	for tp := range t.parts {
		p := x.f.mu.topics[tp.Topic].partitions[tp.Partition]
		for i, o := range p.outcomes {
			if o == undecided && p.batches[i].ProducerID() == t.id {
				p.outcomes[i] = discarded
				if commit {
					p.outcomes[i] = counted
				}
			}
		}
	}
	for group, offsets := range t.offsets {
		if commit {
			if x.commits[group] == nil {
				x.commits[group] = map[TopicPartition]int64{}
			}
			for tp, o := range offsets {
				x.commits[group][tp] = o
			}
		}
	}
}

// raise lets leaders know of the new epoch, as the markers of the second protocol do.
func (x *fakeTransactions) raise(t *fakeTransaction) {
	for tp := range t.parts {
		if s := x.f.mu.topics[tp.Topic].partitions[tp.Partition].producers[t.id]; s != nil {
			*s = fakeProducer{epoch: t.epoch}
		}
	}
}

// fakeOutcome is whether a batch counts for who reads committed.
type fakeOutcome int8

const (
	counted fakeOutcome = iota
	undecided
	discarded
)

// admit checks a batch of a transaction before its leader appends it.
func (x *fakeTransactions) admit(r *kmsg.ProduceRequest, tp TopicPartition, b batch.Batch) int16 {
	if !b.IsTransactional() {
		return 0
	}
	if r.TransactionID == nil {
		x.f.t.Error("a batch of a transaction in a request that names none")
		return int16(ErrInvalidRequest)
	}
	if x.level < 2 != (r.Version <= lastProduceTold) {
		x.f.t.Errorf("Produce in version %d with transaction.version %d", r.Version, x.level)
	}
	t := x.byID[*r.TransactionID]
	switch {
	case t == nil || t.id != b.ProducerID():
		return int16(ErrInvalidProducerIDMapping)
	case t.epoch != b.ProducerEpoch():
		return int16(ErrInvalidProducerEpoch)
	case x.level < 2 && !t.parts[tp]:
		return int16(ErrInvalidTxnState)
	}
	t.begin()
	t.parts[tp] = true
	return 0
}

// committed gives what who reads committed sees of a partition, and how many batches are undecided.
func (f *fakeCluster) committed(tp TopicPartition) (values []string, open int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	checker := batch.NewChecker()
	p := f.mu.topics[tp.Topic].partitions[tp.Partition]
	for i, b := range p.batches {
		switch p.outcomes[i] {
		case undecided:
			open++
			continue
		case discarded:
			continue
		case counted:
		}
		for r, err := range checker.Records(b) {
			if err != nil {
				f.t.Errorf("what the client wrote cannot be read: %v", err)
				break
			}
			values = append(values, string(r.Value))
		}
	}
	return values, open
}
