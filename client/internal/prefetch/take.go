package prefetch

// Take gives records of one partition for Poll: at most max.poll.records, or what is wrong with the
// partition, once. Partitions take turns. Neither records nor an error: there is nothing.
func (s *Store[R]) Take() (tp TopicPartition, records []R, err error) {
	for s.ready.len() > 0 {
		cur := s.ready.pop()
		cur.waiting = false
		if cur.paused {
			continue
		}
		records, err := s.takeFrom(cur)
		s.enlist(cur)
		if records != nil || err != nil {
			return cur.tp, records, err
		}
	}
	return TopicPartition{}, nil, nil
}

// takeFrom takes from the first chunk of a cursor.
func (s *Store[R]) takeFrom(cur *cursor[R]) ([]R, error) {
	first := &cur.chunks[0]
	n := min(len(first.records), s.cfg.MaxPollRecords)
	records := first.records[:n:n]
	first.records = first.records[n:]
	if n > 0 {
		last := s.spotOf(&records[n-1])
		cur.position, cur.lastRead = last.Offset+1, last.LeaderEpoch
	}
	if len(first.records) > 0 {
		return records, nil
	}
	// The chunk's error is returned by the Take after that of its last record.
	if first.err != nil && n > 0 {
		return records, nil
	}
	done := *first
	cur.chunks[0] = chunk[R]{}
	cur.chunks = cur.chunks[1:]
	cur.position = done.next
	full := cur.pending >= s.cfg.MaxPartitionBytes || !s.room()
	s.hold(cur, -done.bytes)
	if full {
		s.signals.Fetchers = true
	}
	if n == 0 {
		return nil, done.err
	}
	return records, nil
}

// enlist puts a cursor that has something for Take into the turn.
func (s *Store[R]) enlist(cur *cursor[R]) {
	if len(cur.chunks) > 0 && !cur.waiting && !cur.paused && !cur.dropped {
		cur.waiting = true
		s.ready.push(cur)
		s.signals.Poll = true
	}
}

// stop reads a partition no further, and lets Take return the error behind the records that it has
// yet to return.
func (s *Store[R]) stop(cur *cursor[R], err error) {
	cur.stopped = true
	at := cur.next
	if cur.start.Kind != Known {
		at = -1
	}
	cur.chunks = append(cur.chunks, chunk[R]{next: at, err: err})
	s.enlist(cur)
}
