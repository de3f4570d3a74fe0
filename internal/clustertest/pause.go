package clustertest

// Pause lets the node stand still, as SIGSTOP does a process: nothing that it asks of its network or its disk returns
// before Resume, or before the node dies. What others send it waits in its kernel. Unlike SIGSTOP it does not keep the
// node's own timers from firing; what they cause cannot leave the node either.
func (n *Node) Pause() {
	n.w.Net.Pause(n.Name)
	f := &n.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.paused == nil {
		f.paused = make(chan struct{})
	}
}

// Resume ends a Pause.
func (n *Node) Resume() {
	n.w.Net.Resume(n.Name)
	n.resumeDisk()
}

func (n *Node) resumeDisk() {
	f := &n.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.paused != nil {
		close(f.paused)
		f.paused = nil
	}
}
