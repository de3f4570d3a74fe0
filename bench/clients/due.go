package main

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// whenDue calls do n times, tick apart, with the instant at which each was due. It sleeps in the
// kernel on a thread of its own: the runtime's timers round a sleep of less than a millisecond up to
// one, which would drown what is measured.
func whenDue(n int, tick time.Duration, do func(i int, due time.Time)) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread()                             // not unlocked: the thread ends with the goroutine
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // in ns: by default the kernel may be 50 us late
		for due, i := time.Now(), 0; i < n; i, due = i+1, due.Add(tick) {
			for wait := time.Until(due); wait > 0; wait = time.Until(due) { // a signal ends a sleep early
				ts := unix.NsecToTimespec(int64(wait))
				_ = unix.Nanosleep(&ts, nil)
			}
			do(i, due)
		}
	}()
	<-ended
}
