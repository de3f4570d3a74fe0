package commitlog

import "barnabas/internal/commitlog/segment"

// host is what a log is to its segments.
type host struct{ *Log }

func (l *Log) newSegment(base int64) *segment.Segment { return segment.New(host{l}, l.dir.files, base) }

func (h host) Directory() string { return h.path }

func (h host) Gaps() bool { return h.gaps() }

func (h host) NamesChanged() { h.entriesDirty.Store(true) }

func (h host) Damage(offset int64, cause error) { h.damaged(offset, cause) }

func (h host) Astray(s *segment.Segment) {
	h.dir.logger.Warn("offset index is wrong and will be made again", "file", s.Path(segment.IndexSuffix))
	h.dir.repairSoon()
}

func (h host) Tolerate(err error) { h.tolerate(err) }
