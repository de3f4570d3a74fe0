package burial

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/faketime"
)

// TestRemovalsAreCarriedOutInOrder, together where they gathered, and Close leaves none.
func TestRemovalsAreCarriedOutInOrder(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		var batches []string
		answers := make(chan struct{})
		q := NewQueue[string](func(all []int) {
			<-answers
			batches = append(batches, fmt.Sprint(all))
		}, nil)
		q.Add([]string{"a"}, []int{1})
		synctest.Wait()
		q.Add([]string{"b", "a"}, []int{2, 3})
		q.Add(nil, nil)
		q.Add([]string{"c"}, []int{4})
		q.Await("nobody's")
		awaited := make(chan string, 3)
		for _, key := range []string{"a", "c"} {
			go func() {
				q.Await(key)
				awaited <- key
			}()
		}
		synctest.Wait()
		answers <- struct{}{} // of the first: the key is another removal's, too
		synctest.Wait()
		if len(awaited) != 0 {
			t.Fatalf("%q is not waited for", <-awaited)
		}
		close(answers)
		q.Close()
		q.Add([]string{"late"}, []int{5})
		synctest.Wait()
		if want := []string{"[1]", "[2 3 4]"}; !slices.Equal(batches, want) || len(awaited) != 2 {
			t.Fatalf("carried out %v, %d were let go", batches, len(awaited))
		}
	})
}

// TestWhoAddsBeyondTheLimitWaits, and who waits long for the disk is heard of.
func TestWhoAddsBeyondTheLimitWaits(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		answers, told := make(chan struct{}), 0
		q := newQueue[int](func([]int) { <-answers }, func(waiting int) { told = waiting }, 3)
		for n := range 3 {
			q.Add([]int{n}, []int{n})
		}
		added := false
		go func() {
			q.Add([]int{3}, []int{3})
			added = true
		}()
		time.Sleep(Patience + time.Millisecond)
		synctest.Wait()
		if added || told != 3 {
			t.Fatalf("added %v, told of %d", added, told)
		}
		close(answers)
		synctest.Wait()
		if !added {
			t.Fatal("waits for ever")
		}
		q.Close()
	})
}

// TestNamesOfTheDeletedFit into what a file system takes.
func TestNamesOfTheDeletedFit(t *testing.T) {
	long := strings.Repeat("x", 249) + "-12"
	for log, want := range map[string]string{
		"t-0": "t-0.000102030405060708090a0b0c0d0e0f-delete",
		long:  strings.Repeat("x", 255-40) + ".000102030405060708090a0b0c0d0e0f-delete",
	} {
		if got := Name(log, [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}); got != want || len(got) > 255 {
			t.Errorf("%s becomes %s, not %s", log, got, want)
		}
	}
}

// TestGravesAreDueInTime: each is taken once, when its time has come.
func TestGravesAreDueInTime(t *testing.T) {
	now := time.Unix(1000, 0)
	var g Graves
	g.Add(Grave{"a", now.Add(time.Second)}, Grave{"b", now}, Grave{"c", now.Add(time.Hour)})
	if next := g.Next(now.Add(time.Minute)); !next.Equal(now) {
		t.Errorf("next %v", next)
	}
	if due := g.TakeDue(now); len(due) != 1 || due[0].Path != "b" {
		t.Errorf("due: %v", due)
	}
	if next := g.Next(now.Add(time.Millisecond)); !next.Equal(now.Add(time.Millisecond)) {
		t.Errorf("next %v", next)
	}
	if all := g.TakeAll(); len(all) != 2 || len(g.TakeAll()) != 0 {
		t.Errorf("all: %v", all)
	}
}
