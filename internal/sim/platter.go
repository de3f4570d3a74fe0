package sim

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/clustertest"
	"barnabas/internal/disk"
)

// rotLasts is how long a flipped bit is there at least before the operator looks after the disk.
const rotLasts = 2 * time.Second

const mostSegment = 1 << 20 // bytes of a segment file of a world, with room to spare

// segments are the segment files of the topics that stay on a node's disk.
func (m *nemesis) segments(n *clustertest.Node) (files []string) {
	for _, dir := range m.r.plan.dirs {
		for _, t := range m.r.plan.steady {
			for p := range t.partitions {
				at := path.Join(dir, fmt.Sprintf("%s-%d", t.name, p))
				found, err := n.Disk().List(at)
				if err != nil {
					continue
				}
				for _, e := range found {
					if strings.HasSuffix(e.Name, ".log") && e.Size > 0 {
						files = append(files, path.Join(at, e.Name))
					}
				}
			}
		}
	}
	return files
}

// flipBit flips one bit of what lies in one segment since a while: below the recovery point, which is checkpointed. What lies
// beyond is looked through after a crash, and what is not whole there is taken for what the crash has torn, as in Kafka.
func (m *nemesis) flipBit() (string, bool) {
	id := m.victim(m.mayLose)
	if id == 0 {
		return "", false
	}
	n := m.r.node(id)
	files := m.segments(n)
	if len(files) == 0 {
		return "", false
	}
	file := files[m.dice.IntN(len(files))]
	e, err := n.Disk().Stat(file)
	if err != nil || e.Size == 0 {
		return "", false
	}
	off := m.dice.Int64N(e.Size)
	if !m.checked(n, file, off) {
		return "", false
	}
	if err := n.Disk().FlipBit(file, off, uint8(m.dice.IntN(8))); err != nil {
		return "", false
	}
	m.wounded, m.flipped[id] = id, true
	m.after(rotLasts+m.lasts(), func() {}) // for somebody to come across it
	return fmt.Sprintf("%d, %s at %d", id, file, off), true
}

// checked reports whether a batch's checksum, or its length, covers a byte of a segment. Kafka's format leaves the first
// offset and the leader's epoch out, for leaders write them into batches that clients have made: nobody can tell that
// a bit of these has flipped.
func (m *nemesis) checked(n *clustertest.Node, file string, off int64) bool {
	data, err := disk.ReadFile(n.Disk(), file, mostSegment)
	if err != nil {
		return false
	}
	durable := m.recoveryPoint(n, file)
	for at := int64(0); ; {
		b, _, err := batch.Next(data[at:])
		if err != nil || b.NextOffset() > durable {
			return false
		}
		if in := off - at; in < b.Size() {
			return in >= 8 && in < 12 || in >= 16
		}
		at += b.Size()
	}
}

// recoveryPoint is the offset up to which a node takes the log of a segment for durable, whatever happens.
func (m *nemesis) recoveryPoint(n *clustertest.Node, file string) int64 {
	log := path.Base(path.Dir(file))
	at := strings.LastIndexByte(log, '-')
	points, err := disk.ReadFile(n.Disk(), path.Join(path.Dir(path.Dir(file)), "recovery-point-offset-checkpoint"), mostSegment)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(points)) {
		var topic, partition string
		var offset int64
		if _, err := fmt.Sscan(line, &topic, &partition, &offset); err == nil && topic == log[:at] && partition == log[at+1:] {
			return offset
		}
	}
	return 0
}

// unreadable says which segment of a node holds a batch that is not what was written, "" if none.
func (m *nemesis) unreadable(n *clustertest.Node) string {
	for _, file := range m.segments(n) {
		data, err := disk.ReadFile(n.Disk(), file, mostSegment)
		if err != nil {
			return fmt.Sprintf("%s: %v", file, err)
		}
		for rest := data; len(rest) > 0; {
			var b batch.Batch
			b, rest, err = batch.Next(rest)
			if errors.Is(err, batch.ErrIncomplete) && len(bytes.Trim(rest, "\x00")) == 0 {
				break
			}
			if err == nil {
				err = b.CheckCRC()
			}
			if err != nil {
				return fmt.Sprintf("%s: %v", file, err)
			}
		}
	}
	return ""
}

// anyMarked reports whether a data directory of a node has failed, as a mark in another says.
func (m *nemesis) anyMarked(n *clustertest.Node) bool {
	for _, dir := range m.r.plan.dirs {
		found, err := n.Disk().List(dir)
		if err != nil {
			return true
		}
		for _, e := range found {
			if strings.HasPrefix(e.Name, "failed-directory-") {
				return true
			}
		}
	}
	return false
}
