package replica

const (
	// keptFreely is how much memory a fetcher keeps for answers however small they are.
	keptFreely = 64 << 10
	// roomyAnswers is how many answers in a row may need less than a quarter of a fetcher's memory before it is given up:
	// a follower that has caught up holds no buffer of the size that catching up took.
	roomyAnswers = 16
)

// answerMemory is where the answers to a fetcher's requests go, one after the other: made anew for each they would be most
// of what a follower's collector has to do. The largest answer bounds it.
type answerMemory struct {
	b     []byte
	roomy int // answers in a row that left most of it unused
}

// take gives n bytes; what was there before is gone.
func (m *answerMemory) take(n int) []byte {
	if n > cap(m.b) {
		m.b = make([]byte, max(n, min(2*cap(m.b), maxFetchBytes)))
	}
	return m.b[:n]
}

// used is told how long the answer was, once nobody looks at it any more.
func (m *answerMemory) used(n int) {
	if cap(m.b) <= keptFreely || 4*n >= cap(m.b) {
		m.roomy = 0
		return
	}
	if m.roomy++; m.roomy >= roomyAnswers {
		*m = answerMemory{}
	}
}
