package sim

// offsets: what a group has committed. A coordinator that was cut off may answer with what it knew, in Kafka too, so
// between the answers of different nodes nothing is claimed while there are faults. What holds:
//
//   - an offset that is told was sent to be committed before, by this group for this partition, and not refused;
//   - whoever was told by a node that a commit is done is told no earlier one by that node later: its log has it;
//   - in the end, with all nodes well, everybody is told the newest, or one that could have come after it.
func (c *checking) offsets() {
	type key struct {
		Place
		group string
	}
	commits := map[key][]*Commit{}
	for _, m := range c.h.commits {
		k := key{m.Place, m.Group}
		commits[k] = append(commits[k], m)
	}
	for _, f := range c.h.fetches {
		all := commits[key{f.Place, f.Group}]
		c.examined(offsetsKept, 1)
		var done *Commit // that rules out what is told
		possible := false
		if f.Offset < 0 {
			possible = true
			done = c.newer(f, all, nil)
		}
		for _, m := range all {
			if m.Offset != f.Offset || m.Outcome == Refused || m.Invoked > f.Returned {
				continue
			}
			over := c.newer(f, all, m)
			if possible = true; over == nil {
				done = nil
				break
			}
			done = over
		}
		switch {
		case !possible:
			c.fail(offsetsKept, "group %s has %d for %s-%d by node %d after %v, and nobody has committed it", f.Group, f.Offset, f.Topic, f.Partition, f.Node, f.Until)
		case done != nil && !c.h.mayBeDeleted(f.Place):
			c.fail(offsetsKept, "group %s has %d for %s-%d by node %d after %v; %d was committed by %s at node %d between %v and %v", f.Group, f.Offset,
				f.Topic, f.Partition, f.Node, f.Until, done.Offset, done.Client, done.Node, done.Since, done.Until)
		}
	}
}

// newer finds a commit that certainly came after m, nil for none at all, and that the answer has to know of.
func (c *checking) newer(f *Committed, all []*Commit, m *Commit) *Commit {
	for _, d := range all {
		if d.Outcome != Done || !d.before(&f.Span) || !f.Final && f.Node != d.Node {
			continue
		}
		// One whose outcome is not known may take effect as late as it likes.
		if m == nil || m != d && m.Outcome == Done && m.before(&d.Span) {
			return d
		}
	}
	return nil
}
