package prefetch

import "slices"

// line is a queue that keeps its memory: in a steady state nothing is made anew.
type line[T any] struct {
	all   []T // of which those before first have left
	first int
}

func (l *line[T]) len() int { return len(l.all) - l.first }

func (l *line[T]) push(one T) {
	if len(l.all) == cap(l.all) && l.first > len(l.all)/2 {
		n := copy(l.all, l.all[l.first:])
		clear(l.all[n:])
		l.all, l.first = l.all[:n], 0
	}
	l.all = append(l.all, one)
}

// pop takes the first, of which there must be one.
func (l *line[T]) pop() (one T) {
	one, l.all[l.first] = l.all[l.first], one
	if l.first++; l.first == len(l.all) {
		l.all, l.first = l.all[:0], 0
	}
	return one
}

// remove takes out those that are gone.
func (l *line[T]) remove(gone func(T) bool) {
	l.all = slices.Delete(l.all, 0, l.first)
	l.all, l.first = slices.DeleteFunc(l.all, gone), 0
}
