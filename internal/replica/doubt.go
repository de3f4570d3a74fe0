package replica

// Doubt says that others may have gone on without this broker, or that it knows better now. As long as it is said, partitions that
// another replica may have been elected to lead are not led here: nothing is appended, and producers that wait for
// records to be committed, which needs the others, are let go with ErrCutOff. What they have written stays, and
// whether it outlives another leader is open: a producer with sequences asks the next leader, which has it or takes it.
//
// What is committed is committed under every leader, so it can be read; at its end readers are sent away, too, for they would
// wait here for records that are written elsewhere, and beyond it, for what they ask for may be there. A partition whose
// other replicas are neither in sync, nor proposed to be, nor eligible is led on: nobody else can have been elected, but by
// an unclean election.
func (m *Manager) Doubt(doubted bool) {
	m.doubted.Store(doubted)
	if !doubted {
		return
	}
	for _, p := range m.Partitions() {
		p.sendAway()
	}
}

// InDoubt reports whether this broker leads the partition as far as it knows, and another may by now.
func (p *Partition) InDoubt() bool {
	if !p.m.doubted.Load() { // nearly always
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r, leads := p.mu.role.(*leading)
	return leads && p.doubtedLocked(r)
}

// OthersMayLead reports whether this broker leads the partition as far as it knows, and another replica could have been elected
// without its knowing yet. What such a leader does not have may be there all the same: before it denies that, it asks the controller.
func (p *Partition) OthersMayLead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, leads := p.mu.role.(*leading)
	return leads && r.reliesOnOthers()
}

func (p *Partition) doubtedLocked(r *leading) bool { return p.m.doubted.Load() && r.reliesOnOthers() }

// sendAway lets everybody go who waits for what others have to do.
func (p *Partition) sendAway() {
	p.mu.Lock()
	var let []*waiter
	if r, leads := p.mu.role.(*leading); leads && p.doubtedLocked(r) {
		let = p.mu.waiters.takeAll()
		p.notifyWatchesLocked()
	}
	p.mu.Unlock()
	for _, w := range let {
		w.cutOff = true
		close(w.done)
	}
}
