package disk

import (
	"cmp"
	"hash/fnv"
	"maps"
	"slices"
	"time"
)

// node is a file or a directory of a Mem. All fields are guarded by the Mem's lock. It counts its
// changes from its first: those up to settled are durable or dropped, the others are kept.
type node struct {
	born    string // the path where it was made: names it to the crash's dice
	parent  *node  // as seen now; nil once removed
	modTime time.Time
	handles int
	settled int

	dir *directory // nil for a file

	live, durable image
	pending       []fileChange
}

type directory struct {
	live, durable map[string]*node
	pending       []*dirChange
}

// fileChange is one unflushed write (data), truncation (to off) or preallocation (n bytes from off).
type fileChange struct {
	kind Kind
	off  int64
	n    int64
	data []byte
}

func (c fileChange) apply(to *image) {
	switch c.kind {
	case OpWrite:
		to.writeAt(c.data, c.off)
	case OpTruncate:
		to.truncate(c.off)
	case OpPreallocate:
		to.reserve(c.off, c.n)
	}
}

// dirChange is one step of the namespace: all of its edits become durable, or none. It is in the
// pending list of every directory that it edits.
type dirChange struct {
	edits   []edit
	dropped bool
}

// edit lets a name of a directory lead to a node, or to none.
type edit struct {
	dir  *node
	name string
	to   *node
	from *node // where it led before; change finds it
}

func newDirectory(parent *node, born string) *node {
	return &node{
		born: born, parent: parent, modTime: time.Now(),
		dir: &directory{live: map[string]*node{}, durable: map[string]*node{}},
	}
}

func (n *node) entry(name string) Entry {
	return Entry{Name: name, Dir: n.dir != nil, Size: n.live.size, ModTime: n.modTime}
}

func (n *node) isWithin(dir *node) bool {
	for ; n != nil; n = n.parent {
		if n == dir {
			return true
		}
	}
	return false
}

// inNoOrder lists the names as a directory read may: the same each time, and in no useful order.
func (d *directory) inNoOrder() []string {
	return slices.SortedFunc(maps.Keys(d.live), func(a, b string) int {
		return cmp.Or(cmp.Compare(hash(a), hash(b)), cmp.Compare(a, b))
	})
}

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // never fails
	return h.Sum64()
}

// closeAll forgets the handles of a dead process and returns how many pages are in use then.
func (n *node) closeAll() (pages int64) {
	n.handles = 0
	if n.dir == nil {
		return int64(n.live.taken())
	}
	for _, kid := range n.dir.live {
		pages += kid.closeAll()
	}
	return pages
}

// changes is how many changes the node has seen in its life.
func (n *node) changes() int {
	if n.dir != nil {
		return n.settled + len(n.dir.pending)
	}
	return n.settled + len(n.pending)
}

// flip flips bits wherever the byte is kept and returns how many pages that took (a hole has none).
func (n *node) flip(off int64, mask byte) (taken int) {
	taken = flipIn(&n.live, off, mask)
	if off < n.durable.size {
		flipIn(&n.durable, off, mask)
	}
	for _, c := range n.pending {
		if i := off - c.off; c.kind == OpWrite && i >= 0 && i < int64(len(c.data)) {
			c.data[i] ^= mask
		}
	}
	return taken
}

func flipIn(im *image, off int64, mask byte) (taken int) {
	var b [1]byte
	im.readAt(b[:], off)
	b[0] ^= mask
	return im.writeAt(b[:], off)
}

// write writes as much of p as there is space for.
func (m *Mem) write(n *node, p []byte, off int64) (wrote int) {
	wrote = int(n.live.fits(off, int64(len(p)), m.free()))
	if wrote == 0 {
		return 0
	}
	data := slices.Clone(p[:wrote])
	m.used += int64(n.live.writeAt(data, off))
	m.changeFile(n, fileChange{kind: OpWrite, off: off, data: data})
	return wrote
}

func (m *Mem) truncate(n *node, size int64) {
	m.used -= int64(n.live.truncate(size))
	m.changeFile(n, fileChange{kind: OpTruncate, off: size})
}

func (m *Mem) changeFile(n *node, c fileChange) {
	n.modTime = time.Now()
	n.pending = append(n.pending, c)
	if n.parent != nil {
		m.dirty[n] = true
	}
}

// change does one step of the namespace, as every reader sees it at once.
func (m *Mem) change(edits ...edit) {
	c := &dirChange{edits: edits}
	for i, e := range edits { // all before any is linked again: two files may change places
		if old := e.dir.dir.live[e.name]; old != nil {
			c.edits[i].from = old
			m.unlink(old)
		}
	}
	for _, e := range edits {
		d := e.dir.dir
		if e.to == nil {
			delete(d.live, e.name)
		} else {
			m.link(e.to, e.dir)
			d.live[e.name] = e.to
		}
		e.dir.modTime = time.Now()
		if last := len(d.pending) - 1; last < 0 || d.pending[last] != c {
			d.pending = append(d.pending, c)
		}
		m.dirty[e.dir] = true
	}
}

// unlink takes a node out of the tree; its space is free once nobody has it open. A removed file
// needs no flush, but a removed directory is not forgotten before its removal is durable.
func (m *Mem) unlink(n *node) {
	n.parent = nil
	if n.dir == nil {
		delete(m.dirty, n)
	}
	if n.handles == 0 {
		m.used -= int64(n.live.taken())
	}
}

// link is for new nodes, which have no space yet, and for those that a rename has just unlinked.
func (m *Mem) link(n *node, parent *node) {
	n.parent = parent
	if n.handles == 0 {
		m.used += int64(n.live.taken())
	}
	if n.changes() > n.settled {
		m.dirty[n] = true
	}
}

// settle makes the first upTo changes of n durable, at a cost that is that of those changes.
func (m *Mem) settle(n *node, upTo int) {
	if n.dir != nil {
		for _, c := range n.takeDirChanges(upTo) {
			m.settleStep(n, c)
		}
	} else {
		for _, c := range n.takeFileChanges(upTo) {
			c.apply(&n.durable)
		}
	}
	if n.changes() == n.settled {
		delete(m.dirty, n)
	}
}

// settleStep makes c durable in dir, and in the other directory that a rename edits as well, with
// all that happened there before: journals commit a rename as a whole and keep their order.
func (m *Mem) settleStep(dir *node, c *dirChange) {
	for _, e := range c.edits {
		if e.dir != dir {
			if i := slices.Index(e.dir.dir.pending, c); i >= 0 {
				m.settle(e.dir, e.dir.settled+i+1)
			}
			continue
		}
		if c.dropped {
			continue
		}
		if e.from != nil && e.from.parent == nil {
			delete(m.dirty, e.from)
		}
		if e.to == nil {
			delete(dir.dir.durable, e.name)
		} else {
			dir.dir.durable[e.name] = e.to
		}
	}
}

// drop forgets the first upTo changes of n without making them durable. Reads still show them.
func (m *Mem) drop(n *node, upTo int) {
	if n.dir != nil {
		for _, c := range n.takeDirChanges(upTo) {
			c.dropped = true
		}
	} else {
		n.takeFileChanges(upTo)
	}
	if n.changes() == n.settled {
		delete(m.dirty, n)
	}
}

func (n *node) takeDirChanges(upTo int) (changes []*dirChange) {
	changes, n.dir.pending = take(n.dir.pending, upTo-n.settled)
	n.settled += len(changes)
	return changes
}

func (n *node) takeFileChanges(upTo int) (changes []fileChange) {
	changes, n.pending = take(n.pending, upTo-n.settled)
	n.settled += len(changes)
	return changes
}

// take splits a list; what stays gets memory of its own, so that it does not hold on to the rest.
// n may be negative: another flush was quicker.
func take[T any](list []T, n int) (taken, rest []T) {
	n = max(0, n)
	return list[:n], slices.Clone(list[n:])
}
