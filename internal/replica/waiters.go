package replica

import "slices"

// waiter is one producer's request that waits until the high watermark reaches need.
type waiter struct {
	need int64
	done chan struct{} // closed when it is reached, or when the partition's role changes or is in doubt
	// cutOff is written before done is closed: the role is in doubt.
	cutOff bool
}

// waiters are kept ordered by need, so that a move of the watermark touches only the satisfied.
// Their number is bounded by the connections' limit of unanswered requests.
type waiters []*waiter

func (w *waiters) add(n *waiter) {
	at := len(*w)
	for at > 0 && (*w)[at-1].need > n.need { // nearly always appended: offsets are handed out in order
		at--
	}
	*w = slices.Insert(*w, at, n)
}

func (w *waiters) remove(n *waiter) {
	if at := slices.Index(*w, n); at >= 0 {
		*w = slices.Delete(*w, at, at+1)
	}
}

// take removes and returns those whose need is at most reached.
func (w *waiters) take(reached int64) []*waiter {
	n := 0
	for n < len(*w) && (*w)[n].need <= reached {
		n++
	}
	if n == 0 {
		return nil
	}
	taken := slices.Clone((*w)[:n])
	*w = slices.Delete(*w, 0, n)
	return taken
}

func (w *waiters) takeAll() []*waiter {
	taken := *w
	*w = nil
	return taken
}
