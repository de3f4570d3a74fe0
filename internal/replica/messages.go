package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"barnabas/internal/metadata"
	"barnabas/internal/wire"
)

// Kind says what a message between two brokers is. Replication has 32 to 47. Numbers are big-endian; those
// that are usually small are unsigned varints. A message begins with its version.
type Kind uint8

const (
	// KindFetch asks the leader of partitions for records: follower to leader, answered, perhaps after a wait.
	KindFetch Kind = 32
	// KindFlushed tells a leader how far the follower's disk has come; one way.
	KindFlushed Kind = 33
	// KindNudge asks a leader to answer the fetch that waits, for there are other things to ask; one way.
	KindNudge Kind = 34
)

// messageVersion is the version of all messages here. A broker that gets a higher one answers with its own.
const messageVersion = 3

// maxAsks bounds the partitions named in one fetch; the rest are named in the next.
const maxAsks = 4096

// errMalformed says that a message is not one of this version.
var errMalformed = errors.New("malformed replication message")

// fetchRequest asks for news of the partitions of a session: those named in it and, where nothing has changed for
// the follower, all named before.
type fetchRequest struct {
	session     uint64 // 0 begins one: the leader forgets what was named before
	sequence    uint32 // of this fetch among all that the follower has sent to this leader in this life; it may begin anew at its end
	brokerEpoch int64  // of the follower: the life of its process
	waitMs      uint32 // how long the leader may wait for news
	maxBytes    uint32 // of records in the answer; one batch may be larger
	partBytes   uint32 // of records of one partition
	gone        []uint32
	asks        []ask
}

// ask says where a follower stands in one partition.
type ask struct {
	slot      uint32 // names the partition in this session; never used for another
	flags     uint8
	topic     metadata.UUID // with askNamed
	partition int32         // with askNamed
	epoch     int32         // the leader epoch that the follower knows
	lastEpoch int32         // of its last record; -1: it has none
	start     int64         // its log's start
	end       int64         // its log's end: what it wants to have next
	flushed   int64         // everything below is on its disk
}

const (
	askNamed   = 1 << iota // topic and partition are in the message: the first time that a slot is used
	askCorrupt             // what came for this end the last time was corrupt
	askDamaged             // what the follower had from this end on is lost
	askFlags   = askNamed | askCorrupt | askDamaged
)

// answerCode is what became of a fetch, or of one partition in it.
type answerCode uint8

const (
	answerOK          answerCode = iota
	answerNoSession              // begin a new one
	answerStaleBroker            // the follower's process has registered again since
	answerNotLeader              // of this partition, or not any more
	answerFenced                 // the follower's leader epoch is over
	answerUnknown                // the follower's leader epoch has not reached the leader yet
	answerOutOfRange             // the follower's end lies outside of the leader's log; begin at its start
	answerFailed                 // the leader cannot read its log there
	answerVersion                // the other end is older
	endOfCodes
)

// part is what an answer says about one partition.
type part struct {
	slot          uint32
	code          answerCode
	flags         uint8
	highWatermark int64
	start         int64 // of the leader's log
	everywhere    int64 // everything below is on the disk of every replica
	divergedEpoch int32 // with partDiverged: the leader's last epoch that is not above the follower's,
	divergedEnd   int64 // and where it ended
	records       []byte
}

const (
	partDiverged = 1 << iota // the follower's log is of another history from divergedEnd on, at the latest
	partFlags    = partDiverged
)

func (r *fetchRequest) append(dst []byte) []byte {
	dst = append(dst, messageVersion)
	dst = binary.BigEndian.AppendUint64(dst, r.session)
	dst = binary.BigEndian.AppendUint32(dst, r.sequence)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.brokerEpoch))
	dst = binary.BigEndian.AppendUint32(dst, r.waitMs)
	dst = binary.BigEndian.AppendUint32(dst, r.maxBytes)
	dst = binary.BigEndian.AppendUint32(dst, r.partBytes)
	dst = binary.AppendUvarint(dst, uint64(len(r.gone)))
	for _, slot := range r.gone {
		dst = binary.AppendUvarint(dst, uint64(slot))
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.asks)))
	for i := range r.asks {
		dst = r.asks[i].append(dst)
	}
	return dst
}

func (a *ask) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(a.slot))
	dst = append(dst, a.flags)
	if a.flags&askNamed != 0 {
		dst = append(dst, a.topic[:]...)
		dst = binary.BigEndian.AppendUint32(dst, uint32(a.partition))
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(a.epoch))
	dst = binary.BigEndian.AppendUint32(dst, uint32(a.lastEpoch))
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.start))
	dst = binary.BigEndian.AppendUint64(dst, uint64(a.end))
	return binary.BigEndian.AppendUint64(dst, uint64(a.flushed))
}

// parseFetch parses into r, whose slices are used again.
func (r *fetchRequest) parse(body []byte) error {
	d := decoder{rest: body}
	d.version()
	r.session, r.sequence = d.uint64(), d.uint32()
	r.brokerEpoch = d.int64()
	r.waitMs, r.maxBytes, r.partBytes = d.uint32(), d.uint32(), d.uint32()
	r.gone, r.asks = r.gone[:0], r.asks[:0]
	for range d.count(1) {
		r.gone = append(r.gone, d.slot())
	}
	for range d.count(leastAskBytes) {
		r.asks = append(r.asks, d.ask())
	}
	return d.end("fetch")
}

// The least that an element takes: what a number of elements may be in a message of some size.
const (
	leastAskBytes     = 1 + 1 + 4 + 4 + 8 + 8 + 8
	leastFlushedBytes = 1 + 4 + 8
)

func (d *decoder) ask() (a ask) {
	a.slot, a.flags = d.slot(), d.byte()
	if a.flags&^askFlags != 0 {
		d.fail("flags")
	}
	if a.flags&askNamed != 0 {
		copy(a.topic[:], d.take(len(a.topic)))
		a.partition = d.int32()
	}
	a.epoch, a.lastEpoch = d.int32(), d.int32()
	a.start, a.end, a.flushed = d.int64(), d.int64(), d.int64()
	if a.partition < 0 || a.epoch < 0 || a.lastEpoch < -1 || a.start < 0 || a.start > a.end || a.flushed < 0 || a.flushed > a.end {
		d.fail("place in a log")
	}
	return a
}

func appendAnswerHead(dst []byte, code answerCode, session uint64) []byte {
	dst = append(dst, messageVersion, byte(code))
	return binary.BigEndian.AppendUint64(dst, session)
}

// appendPart leaves the records out: so many bytes of them have to follow.
func appendPart(dst []byte, p *part, records int) []byte {
	dst = binary.AppendUvarint(dst, uint64(p.slot))
	dst = append(dst, byte(p.code), p.flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.highWatermark))
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.start))
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.everywhere))
	if p.flags&partDiverged != 0 {
		dst = binary.BigEndian.AppendUint32(dst, uint32(p.divergedEpoch))
		dst = binary.BigEndian.AppendUint64(dst, uint64(p.divergedEnd))
	}
	return binary.AppendUvarint(dst, uint64(records))
}

// fetchAnswer walks over the parts of an answer.
type fetchAnswer struct {
	code    answerCode
	session uint64
	d       decoder
}

func parseAnswer(body []byte) (fetchAnswer, error) {
	a := fetchAnswer{d: decoder{rest: body}}
	a.d.version()
	a.code, a.session = a.d.code(), a.d.uint64()
	if a.d.err != nil {
		return a, a.d.wrap("answer")
	}
	return a, nil
}

// next returns the next part; false after the last. Its records alias the body.
func (a *fetchAnswer) next() (p part, more bool, err error) {
	if len(a.d.rest) == 0 {
		return part{}, false, nil
	}
	d := &a.d
	p.slot, p.code, p.flags = d.slot(), d.code(), d.byte()
	if p.flags&^partFlags != 0 {
		d.fail("flags")
	}
	p.highWatermark, p.start, p.everywhere = d.int64(), d.int64(), d.int64()
	if p.flags&partDiverged != 0 {
		p.divergedEpoch, p.divergedEnd = d.int32(), d.int64()
	}
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.fail("length of records")
		n = 0
	}
	p.records = d.take(int(n))
	if p.highWatermark < 0 || p.start < 0 || p.everywhere < 0 || p.divergedEpoch < -1 || p.divergedEnd < 0 {
		d.fail("place in a log")
	}
	if d.err != nil {
		return part{}, false, d.wrap("answer")
	}
	return p, true, nil
}

// flushedMessage says how far the disk has come for partitions of a session.
type flushedMessage struct {
	session     uint64
	brokerEpoch int64
	places      []flushedPlace
}

type flushedPlace struct {
	slot    uint32
	epoch   int32 // the leader epoch in which the records were fetched
	flushed int64
}

func (m *flushedMessage) append(dst []byte) []byte {
	dst = append(dst, messageVersion)
	dst = binary.BigEndian.AppendUint64(dst, m.session)
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.brokerEpoch))
	dst = binary.AppendUvarint(dst, uint64(len(m.places)))
	for _, p := range m.places {
		dst = binary.AppendUvarint(dst, uint64(p.slot))
		dst = binary.BigEndian.AppendUint32(dst, uint32(p.epoch))
		dst = binary.BigEndian.AppendUint64(dst, uint64(p.flushed))
	}
	return dst
}

func (m *flushedMessage) parse(body []byte) error {
	d := decoder{rest: body}
	d.version()
	m.session, m.brokerEpoch = d.uint64(), d.int64()
	m.places = m.places[:0]
	for range d.count(leastFlushedBytes) {
		p := flushedPlace{slot: d.slot(), epoch: d.int32(), flushed: d.int64()}
		if p.epoch < 0 || p.flushed < 0 {
			d.fail("place in a log")
		}
		m.places = append(m.places, p)
	}
	return d.end("flushed")
}

// decoder takes a message apart; after an error everything is zero.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", errMalformed, what)
	}
	d.rest = nil
}

func (d *decoder) wrap(what string) error { return fmt.Errorf("parse %s: %w", what, d.err) }

// end is called after the last field.
func (d *decoder) end(what string) error {
	if d.err == nil && len(d.rest) > 0 {
		d.fail("bytes after the end")
	}
	if d.err != nil {
		return d.wrap(what)
	}
	return nil
}

func (d *decoder) take(n int) []byte {
	if n > len(d.rest) {
		d.fail("too short")
	}
	if d.err != nil {
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) byte() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) int32() int32 { return int32(d.uint32()) }
func (d *decoder) int64() int64 { return int64(d.uint64()) }

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail("number")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) slot() uint32 {
	v := d.uvarint()
	if v > math.MaxUint32 {
		d.fail("slot")
	}
	return uint32(v)
}

func (d *decoder) code() answerCode {
	c := answerCode(d.byte())
	if c >= endOfCodes {
		d.fail("code")
	}
	return c
}

// count is a number of elements, none of which takes fewer bytes than least.
func (d *decoder) count(least int) int {
	n := d.uvarint()
	if n > uint64(len(d.rest)/least) {
		d.fail("number of elements")
		return 0
	}
	return int(n)
}

func (d *decoder) version() {
	if v := d.byte(); v != messageVersion && d.err == nil {
		d.fail(fmt.Sprintf("version %d", v))
	}
}

// tell writes one part of an answer with its records.
func tell(out *wire.Out, p *part, records wire.FileRange) {
	n := 0
	if records != nil {
		n = int(records.Len())
	}
	out.Append(func(dst []byte) []byte { return appendPart(dst, p, n) })
	if n > 0 {
		out.File(records)
	}
}
