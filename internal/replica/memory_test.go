package replica

import "testing"

func TestAnswersShareMemoryWhileTheyNeedIt(t *testing.T) {
	var m answerMemory
	first := m.take(1 << 20)
	m.used(len(first))
	second := m.take(1 << 19)
	m.used(len(second))
	if &first[0] != &second[0] {
		t.Fatal("an answer that fits got memory of its own")
	}
	if third := m.take(1<<20 + 1); len(third) != 1<<20+1 {
		t.Fatalf("%d bytes for an answer that does not fit", len(third))
	}
}

func TestAFollowerThatHasCaughtUpHoldsNoLargeBuffer(t *testing.T) {
	var m answerMemory
	m.used(len(m.take(10 << 20)))
	for i := range roomyAnswers {
		if cap(m.b) == 0 {
			t.Fatalf("given up after %d small answers", i)
		}
		m.used(len(m.take(100)))
	}
	if cap(m.b) != 0 {
		t.Fatalf("%d bytes are held after %d small answers", cap(m.b), roomyAnswers)
	}
	for range 10 * roomyAnswers {
		m.used(len(m.take(100)))
		m.used(len(m.take(keptFreely)))
	}
	if cap(m.b) != keptFreely {
		t.Fatalf("%d bytes are held, answers of both sizes take %d", cap(m.b), keptFreely)
	}
}
