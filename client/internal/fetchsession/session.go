// Package fetchsession keeps a fetch session (KIP-227) with one broker: the broker remembers which
// partitions are read and from where, so that a request names only what has changed, and an answer
// only what has news. Session is a pure record of what the broker knows; the fetcher of a consumer
// owns it. It knows nothing of connections, and decides nothing about what is read.
package fetchsession

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"barnabas/client/internal/errcode"
)

// Partition names a partition as requests do: by the topic's id where both ends know ids.
type Partition struct {
	Topic  string
	ID     [16]byte
	Number int32
}

// Read is how a partition is read.
type Read struct {
	Partition   Partition
	Offset      int64
	LeaderEpoch int32 // as the metadata has it
	MaxBytes    int32
}

// Request is the part of a Fetch request that the session decides.
type Request struct {
	ID, Epoch int32
	Reads     []Read
	Forget    []Partition
}

// Whole tells whether the request names everything, so that the answer does too.
func (r *Request) Whole() bool { return r.Epoch == initialEpoch || r.Epoch == noSession }

const (
	noSession    = -1
	initialEpoch = 0
)

// Session is what a broker knows. The zero value knows nothing.
type Session struct {
	id    int32
	epoch int32 // of the next request
	ids   bool  // partitions go by topic id
	known map[Partition]Read
}

// Next makes a request for exactly these partitions. ids says whether the request goes by topic
// ids. A request that is made counts as sent: Answered or Failed must follow.
func (s *Session) Next(reads []Read, ids bool) Request {
	if s.ids != ids {
		s.Failed() // names and ids do not mix in one session
		s.ids = ids
	}
	if s.epoch == initialEpoch {
		s.known = make(map[Partition]Read, len(reads))
		for _, r := range reads {
			s.known[r.Partition] = r
		}
		return Request{ID: s.id, Epoch: initialEpoch, Reads: reads}
	}
	out := Request{ID: s.id, Epoch: s.epoch}
	wanted := make(map[Partition]bool, len(reads))
	for _, r := range reads {
		wanted[r.Partition] = true
		if known, there := s.known[r.Partition]; !there || known != r {
			out.Reads = append(out.Reads, r)
			s.known[r.Partition] = r
		}
	}
	if len(s.known) > len(wanted) {
		for p := range s.known {
			if !wanted[p] {
				out.Forget = append(out.Forget, p)
				delete(s.known, p)
			}
		}
		slices.SortFunc(out.Forget, func(a, b Partition) int {
			return cmp.Or(cmp.Compare(a.Topic, b.Topic), bytes.Compare(a.ID[:], b.ID[:]), cmp.Compare(a.Number, b.Number))
		})
	}
	return out
}

// Answered takes in the session's id and the error of an answer; true where the request failed
// because of the session, and is to be made again, whole.
func (s *Session) Answered(id int32, err errcode.Error) (again bool) {
	switch err {
	case 0:
	case errcode.FetchSessionIDNotFound:
		*s = Session{ids: s.ids}
		return true
	case errcode.InvalidFetchSessionEpoch, errcode.FetchSessionTopicIDError:
		s.Failed()
		return true
	default:
		s.Failed()
		return false
	}
	switch {
	case id == 0: // the broker has no room for a session, or closed it
		*s = Session{ids: s.ids}
	case s.epoch == math.MaxInt32:
		s.id, s.epoch = id, 1
	default:
		s.id, s.epoch = id, s.epoch+1
	}
	return false
}

// Failed says that a request got no answer: what the broker knows is uncertain, so the next
// request replaces the session.
func (s *Session) Failed() { s.epoch, s.known = initialEpoch, nil }
