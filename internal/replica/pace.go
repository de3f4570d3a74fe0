package replica

import "time"

const (
	// answerSpan is how long an answer should take to arrive: as long as one is under way nothing else comes from the leader,
	// and producers wait for what replicas in sync have to copy.
	answerSpan = 2 * time.Second
	// firstAnswer is how many bytes of records the first answer may have; where they come quickly the next has twice as many.
	firstAnswer = 1 << 20
	// leastAnswer is how many any answer may have, however slowly it comes.
	leastAnswer = 64 << 10
)

// pace is how much a fetcher asks for at a time: as much as the line brings within answerSpan.
type pace struct{ most int64 }

// bound is how many bytes to ask for where most are wanted.
func (p *pace) bound(most int64) int64 {
	if p.most == 0 {
		p.most = firstAnswer
	}
	return min(p.most, most)
}

// took is told how long an answer took from its first byte to its last.
func (p *pace) took(bytes int, d time.Duration) {
	switch {
	case d > answerSpan:
		p.most = max(int64(float64(bytes)*answerSpan.Seconds()/d.Seconds()), leastAnswer)
	case int64(bytes) >= p.most/2 && d < answerSpan/2:
		p.most = min(2*p.most, maxFetchBytes)
	}
}
