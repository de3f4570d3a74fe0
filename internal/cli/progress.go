package cli

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/internal/cli/terminal"
)

const (
	barEvery   = 200 * time.Millisecond // on a terminal
	lineEvery  = 10 * time.Second       // elsewhere
	barColumns = 30
)

// progress shows on standard error how far something has come: a bar that is redrawn on a
// terminal, a line from time to time elsewhere.
type progress struct {
	p     *terminal.Program
	what  string
	total int64        // bytes to be read; -1: unknown
	done  atomic.Int64 // bytes of what has been acknowledged or given up
	quiet bool
	tty   bool
	began time.Time
	count func() (done, failed int64)

	connected atomic.Bool // from then on what the client logs is news

	quit  chan struct{}
	ended chan struct{}

	mu struct { // never held but to write a line
		sync.Mutex
		drawn bool
	}
}

func newProgress(p *terminal.Program, what string, total int64, quiet bool) *progress {
	return &progress{p: p, what: what, total: total, quiet: quiet, tty: terminal.IsTerminal(p.Err)}
}

// start shows the progress until stop.
func (b *progress) start(count func() (done, failed int64)) {
	b.began, b.count = time.Now(), count
	b.quit, b.ended = make(chan struct{}), make(chan struct{})
	every := lineEvery
	if b.tty {
		every = barEvery
	}
	go func() {
		defer close(b.ended)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				b.draw()
			case <-b.quit:
				return
			}
		}
	}()
}

func (b *progress) stop() {
	close(b.quit)
	<-b.ended
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wipeLocked()
}

func (b *progress) draw() {
	if b.quiet {
		return
	}
	done, failed := b.count()
	text := b.line(done, failed, b.done.Load(), time.Since(b.began))
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.tty {
		b.p.Note("%s", text)
		return
	}
	if most := terminal.Columns(b.p.Err) - 1; len(text) > most {
		text = text[:most]
	}
	fmt.Fprint(b.p.Err, "\r"+text+"\x1b[K")
	b.mu.drawn = true
}

// line is what is shown: the bar where the end is known, then the figures.
func (b *progress) line(records, failed, bytes int64, took time.Duration) string {
	text := fmt.Sprintf("%s %s, %s/s", terminal.HumanCount(records), b.what, terminal.HumanCount(int64(rate(records, took))))
	if failed > 0 {
		text += fmt.Sprintf(", %s failed", terminal.HumanCount(failed))
	}
	if b.total <= 0 {
		return text
	}
	part := min(float64(bytes)/float64(b.total), 1)
	if left := time.Duration(float64(took) * (1 - part) / max(part, 1e-9)); part > 0 && part < 1 {
		text += fmt.Sprintf(", %v left", left.Round(time.Second))
	}
	if !b.tty {
		return fmt.Sprintf("%d%%: %s", int(part*100), text)
	}
	full := int(part * barColumns)
	return fmt.Sprintf("[%s%s] %3d%%  %s", strings.Repeat("#", full), strings.Repeat(".", barColumns-full), int(part*100), text)
}

func (b *progress) wipeLocked() {
	if b.mu.drawn {
		fmt.Fprint(b.p.Err, "\r\x1b[K")
		b.mu.drawn = false
	}
}

// note writes a line that stays.
func (b *progress) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wipeLocked()
	b.p.Note(format, args...)
}

// logger gives what the client wants an operator to know, once until something else happens: a
// broker that is away for a minute is one line.
func (b *progress) logger() *slog.Logger { return slog.New(&noteHandler{bar: b}) }

type noteHandler struct {
	bar  *progress
	last atomic.Pointer[string]
}

// Enabled implements slog.Handler.
func (h *noteHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle implements slog.Handler.
func (h *noteHandler) Handle(_ context.Context, r slog.Record) error {
	if !h.bar.connected.Load() {
		return nil // the command's own error says it
	}
	if last := h.last.Swap(&r.Message); last != nil && *last == r.Message {
		return nil
	}
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if err, isError := a.Value.Any().(error); isError {
			text += ": " + terminal.RootCause(err)
		} else if a.Key != "attempt" {
			text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		}
		return true
	})
	h.bar.note("note: %s", text)
	return nil
}

// WithAttrs implements slog.Handler.
func (h *noteHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup implements slog.Handler.
func (h *noteHandler) WithGroup(string) slog.Handler { return h }
