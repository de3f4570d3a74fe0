//go:build compat

package compat

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"barnabas/test/compat/rig"
)

// library is one of the programs below clients: its README says what they print.
type library struct {
	name    string // in subtests and in the table
	dir     string
	version string // an argument for build, where one source serves several
	about   about  // asked of the program itself
	command []string
}

// about is a program's own account of what its library offers.
type about struct {
	Client     string
	Version    string
	Language   string
	Codecs     []string
	Acks       []string
	Idempotent bool
	Static     bool
	Commits    bool
	Listener   bool
	Assignors  []string
	Lacks      []string
	Notes      []string
}

// printed is any line that a program prints; which fields are there says what it is.
type printed struct {
	Acked *int
	Done  *int

	Partition          int32
	Offset             int64
	Key, Value, Header string

	Assigned, Revoked *[]int32
	Record            *struct {
		Partition int32
		Offset    int64
		Value     string
	}
	Committed map[int32]int64
	Left      bool

	Step, Case, Error, Unsupported string
	OK                             bool
	Detail                         json.RawMessage
}

// clientsCache is where the programs are built; what is there from before is used again.
func clientsCache(t *testing.T) string {
	t.Helper()
	home, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(home, "barnabas", "clients")
}

// build makes the program, and asks it about itself.
func (l *library) build(cache string) error {
	args := []string{filepath.Join(cache, l.name)}
	if l.version != "" {
		args = append(args, l.version)
	}
	command, err := rig.Build(filepath.Join(rig.Root(), "test", "compat", "clients", l.dir, "build"), args...)
	l.command = command
	return err
}

// launch starts the program with a verb and flags.
func (l *library) launch(t *testing.T, name string, each func(printed), verb string, flags ...string) *rig.Program {
	t.Helper()
	command := append(append([]string{}, l.command...), append([]string{verb}, flags...)...)
	return rig.Launch(t, name, command, func(line string) {
		var p printed
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Errorf("%s printed what is no line of its language: %v\n%s", name, err, line)
			return
		}
		each(p)
	})
}

// run runs the program to its end and returns what it printed.
func (l *library) run(t *testing.T, verb string, flags ...string) []printed {
	t.Helper()
	var mu sync.Mutex
	var all []printed
	l.launch(t, l.name+" "+verb, func(p printed) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, p)
	}, verb, flags...).Succeeds(patience + 15*time.Second)
	mu.Lock()
	defer mu.Unlock()
	return all
}

// introduce asks the program about itself.
func (l *library) introduce(t *testing.T) {
	t.Helper()
	var said string
	rig.Launch(t, l.name+" about", append(append([]string{}, l.command...), "about"), func(line string) { said = line }).Succeeds(patience)
	l.about = decodeJSON[about](t, l.name+" about", said)
	if l.about.Client == "" || l.about.Version == "" || l.about.Language == "" || len(l.about.Codecs) == 0 || len(l.about.Acks) == 0 || len(l.about.Assignors) == 0 {
		t.Fatalf("%s tells too little about itself: %s", l.name, said)
	}
}

// production follows a program that produces.
type production struct {
	t       *testing.T
	program *rig.Program
	mu      sync.Mutex
	acked   map[int]place
	changed chan struct{} // closed and replaced at every acknowledgement
}

type place struct {
	partition int32
	offset    int64
}

func (l *library) produce(t *testing.T, name string, flags ...string) *production {
	t.Helper()
	p := &production{t: t, acked: map[int]place{}, changed: make(chan struct{})}
	p.program = l.launch(t, name, func(line printed) {
		if line.Acked == nil {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.acked[*line.Acked] = place{line.Partition, line.Offset}
		close(p.changed)
		p.changed = make(chan struct{})
	}, "produce", flags...)
	return p
}

// awaitAcked waits until so many records are acknowledged.
func (p *production) awaitAcked(n int) {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		have, changed := len(p.acked), p.changed
		p.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-changed:
		case <-p.program.Ended():
			p.t.Fatalf("the producer ended after %d acknowledgements, before %d\n%s", have, n, p.program.Said())
		case <-deadline:
			p.t.Fatalf("%d acknowledgements within %v, not %d\n%s", have, patience, n, p.program.Said())
		}
	}
}

// finish waits for the producer's end and returns where each acknowledged record lies.
func (p *production) finish() map[int]place {
	p.t.Helper()
	p.program.Succeeds(patience + 15*time.Second)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked
}

func flagOf(n any) string { return fmt.Sprint(n) }
