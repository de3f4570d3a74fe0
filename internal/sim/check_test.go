package sim

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

// story builds a history step by step.
type story struct{ *History }

var orders = Place{Topic: "orders", ID: [16]byte{1}}

var errCut = errors.New("connection reset")

// sends begins an attempt of producer 7 for the values from sequence on.
func (s story) sends(sequence int32, values ...string) *Attempt {
	return s.Attempt(Attempt{Place: orders, Client: "p", Node: 1, Acks: -1, Producer: 7, Sequence: sequence, Values: values})
}

// wrote is an attempt with its answer.
func (s story) wrote(sequence int32, offset int64, values ...string) {
	s.sends(sequence, values...).End(offset, nil)
}

// read is an answer of node 1, in leader epoch 3, from an offset with values; those before | are of epoch 2.
func (s story) read(node int32, from, watermark int64, final bool, values ...string) {
	r := Read{Place: orders, Reader: "c", Node: node, LeaderEpoch: 3, From: from, Watermark: watermark, Final: final}
	epoch := int32(3)
	if slices.Contains(values, "|") {
		epoch = 2
	}
	for _, v := range values {
		if v == "|" {
			epoch = 3
			continue
		}
		r.Records = append(r.Records, Record{from, epoch, v})
		from++
	}
	s.Read(s.Now(), r)
}

func (s story) ended(epoch int32, offset int64) {
	s.EndOffset(s.Now(), End{Place: orders, Reader: "c", Node: 1, LeaderEpoch: epoch, Offset: offset})
}

func (s story) commits(node int32, offset int64) *Commit {
	return s.Commit(Commit{Place: orders, Group: "g", Client: "m", Node: node, Offset: offset})
}

func (s story) fetched(node int32, offset int64, final bool) {
	s.Committed(s.Now(), Committed{Place: orders, Group: "g", Client: "m", Node: node, Offset: offset, Final: final})
}

// asks begins a change of topic t at node 1.
func (s story) asks(kind ChangeKind, partitions int32, value string) *Change {
	return s.Change(Change{Kind: kind, Client: "a", Node: 1, Topic: "t", Partitions: partitions, Value: value})
}

func (s story) shows(node int32, id byte, partitions int32, value string, final bool) {
	s.Sight(s.Now(), Sight{Client: "a", Node: node, Topic: "t", Exists: id != 0, ID: [16]byte{id}, Partitions: partitions, Value: value, Final: final})
}

// checkerCase is a history and the checkers that must find something in it, and no other.
type checkerCase struct {
	name  string
	finds []string
	tell  func(story)
}

func runCases(t *testing.T, cases []checkerCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := story{NewHistory()}
			c.tell(s)
			s.Finish()
			v := Check(s.History)
			var found []string
			for _, x := range v.Violations {
				if !slices.Contains(found, x.Checker) {
					found = append(found, x.Checker)
				}
			}
			if !slices.Equal(found, c.finds) {
				t.Errorf("found %q, expected %q:\n%v", found, c.finds, v.Violations)
			}
			if v.Undecided != 0 {
				t.Errorf("%d topics undecided", v.Undecided)
			}
		})
	}
}

func TestCheckersOfRecords(t *testing.T) {
	runCases(t, []checkerCase{
		{"all is well, with a repeat and a loss that nobody was told of", nil, func(s story) {
			s.wrote(0, 0, "a", "b")
			lost := s.sends(2, "c")
			lost.End(-1, errCut)
			s.wrote(2, 2, "c")
			s.read(1, 0, 3, false, "a", "b", "c")
			s.sends(3, "d").End(-1, errCut)
			s.read(1, 0, 3, true, "a", "b", "c")
			s.read(2, 0, 3, true, "a", "b", "c")
		}},
		{"an acknowledged record is gone from one replica", []string{nothingLost}, func(s story) {
			s.wrote(0, 0, "a", "b")
			s.read(1, 0, 2, true, "a", "b")
			s.Read(s.Now(), Read{Place: orders, Node: 2, Follower: true, LeaderEpoch: 3, Watermark: 1, Final: true, Records: []Record{{0, 3, "a"}}})
		}},
		{"an acknowledged record is somewhere else", []string{nothingLost, nothingReordered, nothingDiverged}, func(s story) {
			s.wrote(0, 0, "a")
			s.wrote(1, 1, "b")
			s.sends(2, "c").End(-1, errCut)
			s.read(1, 0, 3, true, "a", "c", "b")
		}},
		{"nobody looks at the end", []string{nothingLost}, func(s story) { s.wrote(0, 0, "a") }},
		{"acks=1 promises nothing", nil, func(s story) {
			s.Attempt(Attempt{Place: orders, Acks: 1, Producer: -1, Sequence: -1, Values: []string{"a"}}).End(0, nil)
		}},
		{"deleted by request", nil, func(s story) {
			s.wrote(0, 0, "a")
			s.wrote(1, 1, "b")
			s.Trim(Trim{orders, 1})
			s.Read(s.Now(), Read{Place: orders, Node: 1, LeaderEpoch: -1, From: 1, LogStart: 1, Watermark: 2, Final: true, Records: []Record{{1, 3, "b"}}})
		}},
		{"the log begins later though nothing was deleted", []string{nothingLost, watermarkStays}, func(s story) {
			s.wrote(0, 0, "a")
			s.wrote(1, 1, "b")
			s.Read(s.Now(), Read{Place: orders, Node: 1, LeaderEpoch: -1, From: 1, LogStart: 1, Watermark: 2, Final: true, Records: []Record{{1, 3, "b"}}})
		}},
		{"its topic was deleted", nil, func(s story) {
			s.wrote(0, 0, "a")
			s.Change(Change{Kind: DeleteTopic, Topic: "orders"})
		}},
		{"a repeat is written twice", []string{nothingDoubled}, func(s story) {
			s.sends(0, "a").End(-1, errCut)
			s.wrote(0, 1, "a")
			s.read(1, 0, 2, true, "a", "a")
		}},
		{"a repeat is acknowledged twice, at two offsets", []string{nothingLost, nothingDoubled}, func(s story) {
			one, two := s.sends(0, "a"), s.sends(0, "a")
			one.End(0, nil)
			two.End(5, nil)
			s.read(1, 0, 0, true)
		}},
		{"a repeat without a producer id may be there twice", nil, func(s story) {
			for range 2 {
				s.Attempt(Attempt{Place: orders, Acks: -1, Producer: -1, Sequence: -1, Values: []string{"a"}}).End(-1, errCut)
			}
			s.read(1, 0, 2, true, "a", "a")
		}},
		{"a later sequence comes first", []string{nothingReordered}, func(s story) {
			one := s.sends(0, "a")
			two := s.sends(1, "b")
			one.End(1, nil)
			two.End(0, nil)
			s.read(1, 0, 2, true, "b", "a")
		}},
		{"what was sent after an acknowledgement lies before it", []string{nothingReordered}, func(s story) {
			s.wrote(0, 1, "a")
			b := s.Attempt(Attempt{Place: orders, Acks: -1, Producer: 8, Values: []string{"b"}})
			b.End(0, nil)
			s.read(1, 0, 2, true, "b", "a")
		}},
		{"nobody wrote it", []string{nothingPhantom}, func(s story) { s.read(1, 0, 1, false, "x") }},
		{"it was refused", []string{nothingPhantom}, func(s story) {
			s.sends(0, "a").End(-1, kerr.NotEnoughReplicas)
			s.read(1, 0, 1, false, "a")
		}},
		{"it was refused once, and is open", nil, func(s story) {
			s.sends(0, "a").End(-1, kerr.NotEnoughReplicas)
			s.sends(0, "a")
			s.read(1, 0, 1, false, "a")
		}},
		{"it was refused for an answer that leaves it open", nil, func(s story) {
			s.sends(0, "a").End(-1, kerr.NotEnoughReplicasAfterAppend)
			s.read(1, 0, 1, false, "a")
		}},
		{"it was read before it was sent", []string{nothingPhantom}, func(s story) {
			s.read(1, 0, 1, false, "a")
			s.sends(0, "a")
		}},
		{"two readers, two records", []string{nothingDiverged}, func(s story) {
			s.sends(0, "a")
			s.sends(1, "b")
			s.read(1, 0, 1, false, "a")
			s.read(2, 0, 1, false, "b")
		}},
		{"the same record in two epochs", []string{nothingDiverged}, func(s story) {
			s.sends(0, "a")
			s.read(1, 0, 1, false, "a")
			s.read(2, 0, 1, false, "a", "|")
		}},
		{"epochs fall along the offsets", []string{nothingDiverged}, func(s story) {
			s.sends(0, "a", "b")
			s.Read(s.Now(), Read{Place: orders, LeaderEpoch: -1, Watermark: 2, Records: []Record{{0, 3, "a"}, {1, 2, "b"}}})
		}},
		{"a hole", []string{nothingDiverged}, func(s story) {
			s.sends(0, "a", "b")
			s.Read(s.Now(), Read{Place: orders, LeaderEpoch: -1, Watermark: 3, Records: []Record{{0, 3, "a"}, {2, 3, "b"}}})
		}},
	})
}

func TestCheckersOfLeaders(t *testing.T) {
	runCases(t, []checkerCase{
		{"leaders follow each other", nil, func(s story) {
			s.wrote(0, 0, "a")
			s.wrote(1, 1, "b")
			s.read(1, 0, 2, true, "a", "|", "b")
		}},
		{"two acknowledge one offset", []string{nothingLost, nothingDiverged, oneLeader}, func(s story) {
			one, two := s.sends(0, "a"), s.sends(1, "b")
			one.End(0, nil)
			two.End(0, nil)
			s.read(1, 0, 1, true, "a")
		}},
		{"an epoch that is over acknowledges behind the next", []string{oneLeader}, func(s story) {
			one, two := s.sends(0, "a"), s.sends(1, "b")
			one.End(0, nil)
			two.End(1, nil)
			s.Read(s.Now(), Read{Place: orders, LeaderEpoch: -1, Watermark: 2, Final: true, Records: []Record{{0, 3, "a"}}})
			s.Read(s.Now(), Read{Place: orders, LeaderEpoch: -1, From: 1, Watermark: 2, Final: true, Records: []Record{{1, 2, "b"}}})
		}},
	})
}

func TestCheckerOfWatermarks(t *testing.T) {
	runCases(t, []checkerCase{
		{"it grows, and a new leader may not know", nil, func(s story) {
			s.read(1, 0, 3, false)
			s.Read(s.Now(), Read{Place: orders, Node: 2, LeaderEpoch: 4, Watermark: 1})
			s.ended(4, 5)
			s.ended(3, 4) // of a leader that has been deposed
			s.ended(4, 5)
		}},
		{"records beyond it", []string{watermarkStays}, func(s story) {
			s.sends(0, "a")
			s.read(1, 0, 0, false, "a")
		}},
		{"it falls in one epoch", []string{watermarkStays}, func(s story) {
			s.read(1, 0, 3, false)
			s.read(2, 0, 2, false)
		}},
		{"answers that overlap have no order", nil, func(s story) {
			first := s.Now()
			s.read(1, 0, 3, false)
			s.Read(first, Read{Place: orders, LeaderEpoch: 3, Watermark: 2})
		}},
		{"the end falls with a new leader", []string{watermarkStays}, func(s story) {
			s.ended(3, 5)
			s.ended(4, 4)
		}},
		{"the end is before what was read", []string{watermarkStays}, func(s story) {
			s.sends(0, "a")
			s.read(1, 0, 1, false, "a")
			s.ended(4, 0)
		}},
		{"the end is before what was acknowledged", []string{watermarkStays}, func(s story) {
			s.wrote(0, 0, "a")
			s.ended(4, 0)
			s.read(1, 0, 1, true, "a")
		}},
	})
}

func TestCheckerOfCommittedOffsets(t *testing.T) {
	runCases(t, []checkerCase{
		{"the newest, or one that is open", nil, func(s story) {
			s.fetched(1, -1, false)
			s.commits(1, 5).End(nil)
			open := s.commits(1, 4)
			s.fetched(1, 5, false)
			s.fetched(1, 4, true)
			open.End(errCut)
			s.fetched(2, 4, true)
		}},
		{"a node that was cut off is behind", nil, func(s story) {
			s.commits(1, 5).End(nil)
			s.commits(2, 6).End(nil)
			s.fetched(1, 5, false)
		}},
		{"nobody committed it", []string{offsetsKept}, func(s story) { s.fetched(1, 3, false) }},
		{"it was refused", []string{offsetsKept}, func(s story) {
			s.commits(1, 3).End(kerr.IllegalGeneration)
			s.fetched(1, 3, false)
		}},
		{"a commit is lost", []string{offsetsKept}, func(s story) {
			s.commits(1, 5).End(nil)
			s.fetched(2, -1, true)
		}},
		{"an earlier one is back", []string{offsetsKept}, func(s story) {
			s.commits(1, 5).End(nil)
			s.commits(2, 6).End(nil)
			s.fetched(1, 5, true)
		}},
		{"a node forgets what it has answered", []string{offsetsKept}, func(s story) {
			s.commits(1, 5).End(nil)
			s.commits(1, 6).End(nil)
			s.fetched(1, 5, false)
		}},
	})
}

func TestCheckersOfMetadata(t *testing.T) {
	created := func(s story, id byte) { s.asks(CreateTopic, 3, "v0").End([16]byte{id}, nil) }
	done := func(c *Change) { c.End([16]byte{}, nil) }
	runCases(t, []checkerCase{
		{"made, grown, altered, deleted, made again", nil, func(s story) {
			created(s, 1)
			done(s.asks(GrowTopic, 5, ""))
			done(s.asks(AlterTopic, 0, "v1"))
			s.shows(1, 1, 5, "v1", false)
			done(s.asks(DeleteTopic, 0, ""))
			s.shows(1, 0, 0, "", false)
			s.asks(CreateTopic, 2, "v2").End([16]byte{}, errCut)
			s.asks(CreateTopic, 2, "v3").End([16]byte{}, kerr.TopicAlreadyExists)
			s.asks(AlterTopic, 0, "v4").End([16]byte{}, errCut)
			s.shows(1, 2, 2, "v4", true)
			s.shows(2, 2, 2, "v4", true)
		}},
		{"a node that is cut off is behind", nil, func(s story) {
			created(s, 1)
			done(s.asks(AlterTopic, 0, "v1"))
			s.shows(2, 0, 0, "", false)
			s.shows(2, 1, 3, "v0", false)
		}},
		{"made, deleted by somebody else, and made again by a broker that had no answer", nil, func(s story) {
			m := s.asks(CreateTopic, 3, "v0")
			done(s.asks(DeleteTopic, 0, ""))
			m.End([16]byte{1}, nil)
			s.shows(1, 1, 3, "v0", true)
			done(s.asks(AlterTopic, 0, "v1"))
		}},
		{"made again after the answer", []string{metadataOrdered}, func(s story) {
			created(s, 1)
			done(s.asks(DeleteTopic, 0, ""))
			done(s.asks(AlterTopic, 0, "v1"))
		}},
		{"made twice", []string{metadataOrdered}, func(s story) {
			created(s, 1)
			created(s, 2)
			s.shows(1, 2, 3, "v0", true)
		}},
		{"a topic that was made is gone", []string{metadataOrdered}, func(s story) {
			created(s, 1)
			s.shows(2, 0, 0, "", true)
		}},
		{"a topic that was made is gone, and somebody had been refused its deletion before", []string{metadataOrdered}, func(s story) {
			s.asks(DeleteTopic, 0, "").End([16]byte{}, kerr.UnknownTopicOrPartition)
			created(s, 1)
			s.shows(2, 0, 0, "", true)
		}},
		{"deleted by a change that was refused when a broker asked again", nil, func(s story) {
			created(s, 1)
			s.asks(DeleteTopic, 0, "").End([16]byte{}, kerr.UnknownTopicOrPartition)
			s.shows(2, 0, 0, "", true)
		}},
		{"a topic that was deleted is back", []string{metadataOrdered}, func(s story) {
			created(s, 1)
			done(s.asks(DeleteTopic, 0, ""))
			s.shows(2, 1, 3, "v0", true)
		}},
		{"a setting is lost", []string{metadataOrdered}, func(s story) {
			created(s, 1)
			done(s.asks(AlterTopic, 0, "v1"))
			s.shows(2, 1, 3, "v0", true)
		}},
		{"nodes do not agree in the end", []string{metadataOrdered}, func(s story) {
			created(s, 1)
			s.asks(AlterTopic, 0, "v1")
			s.shows(1, 1, 3, "v1", true)
			s.shows(2, 1, 3, "v0", true)
		}},
		{"grown twice to the same", []string{metadataOrdered}, func(s story) {
			created(s, 1)
			done(s.asks(GrowTopic, 5, ""))
			done(s.asks(GrowTopic, 5, ""))
		}},
		{"a node goes back to a value", []string{metadataMonotonic}, func(s story) {
			created(s, 1)
			done(s.asks(AlterTopic, 0, "v1"))
			s.shows(2, 1, 3, "v1", false)
			s.shows(2, 1, 3, "v0", false)
		}},
		{"a node goes back to fewer partitions", []string{metadataMonotonic}, func(s story) {
			created(s, 1)
			done(s.asks(GrowTopic, 5, ""))
			s.shows(2, 1, 5, "v0", false)
			s.shows(2, 1, 3, "v0", false)
		}},
		{"a node goes back to a topic that is gone", []string{metadataMonotonic}, func(s story) {
			created(s, 1)
			done(s.asks(DeleteTopic, 0, ""))
			s.shows(2, 1, 3, "v0", false)
			s.shows(2, 0, 0, "", false)
			s.shows(2, 1, 3, "v0", false)
		}},
		{"a node does not show its own change", []string{metadataMonotonic}, func(s story) {
			created(s, 1)
			done(s.asks(AlterTopic, 0, "v1"))
			s.shows(1, 1, 3, "v0", false)
		}},
		{"a topic from the future", []string{metadataMonotonic}, func(s story) {
			s.shows(1, 1, 3, "v0", false)
			created(s, 1)
		}},
		{"a value that nobody set", []string{metadataMonotonic}, func(s story) {
			created(s, 1)
			s.shows(1, 1, 3, "v9", false)
		}},
	})
}

// What is said of a history is bounded, and says what it leaves out.
func TestVerdictIsBounded(t *testing.T) {
	s := story{NewHistory()}
	for range 3 * mostViolations {
		s.read(1, 0, 1, false, "x")
	}
	v := Check(s.History)
	if len(v.Violations) != mostViolations+1 || !strings.Contains(v.Violations[mostViolations].What, "and 10 more") {
		t.Errorf("%v", v.Violations)
	}
	if v.Examined[nothingPhantom] != 3*mostViolations {
		t.Errorf("examined %v", v.Examined)
	}
}
