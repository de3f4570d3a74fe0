package burial

import (
	"slices"
	"sync"
	"time"
)

// Grave is a file or directory that waits for its removal.
type Grave struct {
	Path string
	Due  time.Time
}

// Graves are those of a directory. The zero value is empty. Methods are safe for concurrent use.
type Graves struct {
	mu struct { // short
		sync.Mutex
		graves []Grave
	}
}

// Add keeps account of more.
func (g *Graves) Add(graves ...Grave) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.graves = append(g.mu.graves, graves...)
}

// TakeDue returns those whose time has come, and forgets them.
func (g *Graves) TakeDue(now time.Time) (due []Grave) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.graves = slices.DeleteFunc(g.mu.graves, func(one Grave) bool {
		if one.Due.After(now) {
			return false
		}
		due = append(due, one)
		return true
	})
	return due
}

// TakeAll returns all, due or not, and forgets them.
func (g *Graves) TakeAll() []Grave {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := g.mu.graves
	g.mu.graves = nil
	return all
}

// Next is when the next is due, but not after limit.
func (g *Graves) Next(limit time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.mu.graves {
		if one.Due.Before(limit) {
			limit = one.Due
		}
	}
	return limit
}
