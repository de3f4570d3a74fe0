package localcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"barnabas/internal/cli/terminal"
)

// stopPatience is how long nodes may take to stop. Past it they are killed, and recover at the next start as after a crash.
const stopPatience = 30 * time.Second

// mostLineBytes bounds a line of a node's output; a longer one is shown in pieces.
const mostLineBytes = 64 << 10

// member is a node to be run.
type member struct {
	id      int
	data    string
	address string
	command []string
}

// supervisor runs the members until it is told to stop, or all have ended.
type supervisor struct {
	p       *terminal.Program
	members []member
	// ready is called once, when every member has said that it is, with the line that the last one said.
	ready func([]runningNode, string) error

	processes []*exec.Cmd // by member
	events    chan event
	output    sync.Mutex // lines of several nodes do not mix
}

// event is what a member's process tells: that it is ready, or has ended.
type event struct {
	at    int    // of the member in the list
	ready string // its line; "" where it has ended
	err   error  // of its end
}

// state is what became of the members so far.
type state struct {
	ready    []bool
	isReady  int
	running  int
	stopping bool
	failure  error
}

func (s *supervisor) run(ctx context.Context) error {
	// The nodes are told when the thread that started them ends (see separate), so it has to last.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s.events = make(chan event)
	now := state{ready: make([]bool, len(s.members))}
	for i := range s.members {
		if err := s.start(i); err != nil {
			now.failure = err
			break
		}
		now.running++
	}
	stop, kill := ctx.Done(), (<-chan time.Time)(nil)
	for {
		if now.failure != nil && !now.stopping || now.stopping && stop != nil {
			now.stopping, stop, kill = true, nil, time.After(stopPatience)
			s.each(terminate)
		}
		if now.running == 0 {
			break
		}
		select {
		case e := <-s.events:
			s.note(&now, e)
		case <-stop:
			now.stopping = true
		case <-kill:
			s.p.Note("barnabas: not all nodes have stopped within %v: they are killed", stopPatience)
			kill = nil
			s.each(func(c *exec.Cmd) error { return c.Process.Kill() })
		}
	}
	if now.failure == nil && !now.stopping {
		return errors.New("no node is left")
	}
	return now.failure
}

// start starts a member, and a goroutine that waits for its end.
func (s *supervisor) start(at int) error {
	m := s.members[at]
	c := exec.Command(m.command[0], m.command[1:]...) // it is stopped by a signal, not by a context, which would kill it
	said := false
	c.Stdout = &lines{take: func(line string) {
		if !said && strings.HasPrefix(line, "ready ") {
			said = true
			s.events <- event{at: at, ready: line}
			return
		}
		s.pass(m.id, line)
	}}
	c.Stderr = &lines{take: func(line string) { s.pass(m.id, line) }}
	separate(c)
	if err := c.Start(); err != nil {
		return fmt.Errorf("start node %d: %w", m.id, err)
	}
	s.processes = append(s.processes, c)
	go func() { s.events <- event{at: at, err: ended(c.Wait())} }() // run takes events until every process has ended
	return nil
}

// errLeft is the end of a process that nobody asked to end, and that says nothing is wrong.
var errLeft = errors.New("it ended by itself")

func ended(err error) error {
	if err == nil {
		return errLeft
	}
	return err
}

// pass hands on what a node writes.
func (s *supervisor) pass(id int, line string) {
	s.output.Lock()
	defer s.output.Unlock()
	s.p.Note("node %d: %s", id, line)
}

func (s *supervisor) each(do func(*exec.Cmd) error) {
	for _, c := range s.processes {
		_ = do(c) // one that has ended already needs no more
	}
}

// note takes an event.
func (s *supervisor) note(now *state, e event) {
	m := s.members[e.at]
	if e.ready != "" {
		now.ready[e.at] = true
		now.isReady++
		s.tell(now, fmt.Appendf(nil, "node %d (pid %d) %s\n", m.id, s.processes[e.at].Process.Pid, e.ready))
		if now.isReady == len(s.members) && !now.stopping {
			now.failure = errors.Join(now.failure, s.ready(s.runningNodes(), e.ready))
		}
		return
	}
	now.running--
	switch {
	case now.stopping && errors.Is(e.err, errLeft):
	case now.stopping:
		now.failure = errors.Join(now.failure, fmt.Errorf("node %d did not stop cleanly: %w", m.id, e.err))
	case !now.ready[e.at]:
		now.failure = fmt.Errorf("node %d did not start: %w", m.id, e.err)
	default:
		s.output.Lock()
		defer s.output.Unlock()
		s.p.Note("barnabas: node %d died: %v; %s of %d left", m.id, e.err, terminal.Plural(now.running, "node"), len(s.members))
		if now.running > 0 && now.running <= len(s.members)/2 {
			s.p.Note("barnabas: that is no majority: nothing can be changed, and leaders that are gone are not replaced")
		}
	}
}

// tell writes to standard output. Who cannot be told is not left with a cluster that nobody knows of.
func (s *supervisor) tell(now *state, line []byte) {
	s.output.Lock()
	defer s.output.Unlock()
	if err := s.p.Write(line); err != nil {
		now.failure = errors.Join(now.failure, err)
	}
}

func (s *supervisor) runningNodes() (all []runningNode) {
	for i, m := range s.members {
		all = append(all, runningNode{Node: m.id, PID: s.processes[i].Process.Pid, Address: m.address, Data: m.data})
	}
	return all
}

// lines cuts what is written into lines.
type lines struct {
	take func(string)
	rest []byte
}

// Write implements io.Writer. It is called by one goroutine.
func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		end := bytes.IndexByte(l.rest, '\n')
		switch {
		case end >= 0:
			l.take(string(bytes.TrimSuffix(l.rest[:end], []byte("\r"))))
			l.rest = l.rest[end+1:]
		case len(l.rest) > mostLineBytes:
			l.take(string(l.rest))
			l.rest = nil
		default:
			return len(b), nil
		}
	}
}
