package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"barnabas/client"
	"barnabas/internal/cli/terminal"
)

const (
	// maxRecordBytes bounds a line, and with it a record and a request. What a topic takes is for
	// its max.message.bytes to say; a longer line is named and left out.
	maxRecordBytes = 16 << 20

	// failuresShown bounds how many failed lines are named. The others are counted.
	failuresShown = 10

	// givingUp bounds how long what is under way may take once a user has interrupted.
	givingUp = 5 * time.Second
)

// loader sends an input's lines and counts what becomes of them.
type loader struct {
	o        *produce
	producer *client.Producer
	split    splitter
	headers  []client.Header
	bar      *progress

	acked  atomic.Int64
	bytes  atomic.Int64 // of the values of what was acked
	failed atomic.Int64
	fatal  atomic.Pointer[error] // after which there is no point in reading on
}

// loaded is the summary.
type loaded struct {
	Topic   string  `json:"topic"`
	Records int64   `json:"records"`
	Failed  int64   `json:"failed"`
	Bytes   int64   `json:"bytes"` // of the values
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"records_per_second"`
}

func (l *loader) run(ctx context.Context, in io.Reader) error {
	began := time.Now()
	l.bar.start(func() (int64, int64) { return l.acked.Load(), l.failed.Load() })
	err := l.sendAll(ctx, in)
	closing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if ctx.Err() != nil {
		closing, cancel = context.WithTimeout(closing, givingUp)
	}
	defer cancel()
	// What cannot be sent any more fails, and is counted by its callback.
	closeErr := l.producer.Close(closing)
	l.bar.stop()
	if l.failed.Load() == 0 {
		err = errors.Join(err, closeErr)
	}
	if fatal := l.fatal.Load(); fatal != nil && err == nil {
		err = *fatal
	}
	if sumErr := l.summarise(time.Since(began)); sumErr != nil {
		return sumErr
	}
	switch {
	case errors.Is(err, terminal.ErrInterrupted):
		return terminal.ErrInterrupted
	case err != nil:
		return l.o.t.Explain(err)
	case l.failed.Load() > 0:
		return fmt.Errorf("%s could not be sent", terminal.Plural(l.failed.Load(), "record"))
	}
	return nil
}

// sendAll returns when the input has ended, ctx has, or there is no point in going on. Lines that
// cannot be sent are no error of its own.
func (l *loader) sendAll(ctx context.Context, in io.Reader) error {
	lines := readLines(ctx, in, maxRecordBytes)
	record := client.ProducerRecord{Topic: l.o.topic, Headers: l.headers, Partition: client.ToPartition(l.o.partition)}
	number := int64(0)
	for {
		chunk, err := lines.next(ctx)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		for line := range chunk.lines() {
			number++
			if line == nil {
				l.lineFailed(number, fmt.Errorf("it is longer than %s", terminal.HumanBytes(maxRecordBytes)))
				continue
			}
			if err := l.send(ctx, &record, number, line); err != nil {
				return err
			}
		}
		lines.recycle(chunk)
		if l.fatal.Load() != nil {
			return nil
		}
	}
}

func (l *loader) send(ctx context.Context, r *client.ProducerRecord, number int64, line []byte) (err error) {
	r.Key, r.Value, err = l.split(line)
	if errors.Is(err, errNothing) {
		return nil
	}
	if err != nil {
		l.lineFailed(number, err)
		return nil
	}
	size, taken := int64(len(r.Value)), int64(len(line)+len(newline))
	err = l.producer.Send(ctx, *r, func(_ client.RecordMetadata, err error) {
		l.bar.done.Add(taken)
		if err != nil {
			l.recordFailed(number, err)
			return
		}
		l.acked.Add(1)
		l.bytes.Add(size)
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, client.ErrRecordTooLarge):
		l.lineFailed(number, err)
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("line %d: %w", number, err)
}

// recordFailed takes in what a broker refused, or nobody took in time. In the second case, and
// where the topic is gone, the lines to come would not fare better.
func (l *loader) recordFailed(line int64, err error) {
	if errors.Is(err, client.ErrDeliveryTimeout) || terminal.IsUnknownTopic(err) {
		gaveUp := fmt.Errorf("stopped, as line %d could not be sent: %w", line, err)
		l.fatal.CompareAndSwap(nil, &gaveUp)
	}
	l.lineFailed(line, err)
}

func (l *loader) lineFailed(line int64, err error) {
	switch n := l.failed.Add(1); {
	case n <= failuresShown:
		l.bar.note("line %d: %s", line, terminal.Said(err))
	case n == failuresShown+1:
		l.bar.note("further failures are only counted")
	}
}

func (l *loader) summarise(took time.Duration) error {
	s := loaded{
		Topic: l.o.topic, Records: l.acked.Load(), Failed: l.failed.Load(), Bytes: l.bytes.Load(),
		Seconds: took.Round(time.Millisecond).Seconds(), Rate: rate(l.acked.Load(), took),
	}
	if l.o.out == terminal.FormatJSON {
		return l.o.p.Show(terminal.FormatJSON, s, nil)
	}
	if l.o.quiet {
		return nil
	}
	text := fmt.Sprintf("sent %s (%s) to topic %s in %.1f s: %s records/s, %s/s", terminal.Plural(s.Records, "record"), terminal.HumanBytes(s.Bytes),
		s.Topic, took.Seconds(), terminal.HumanCount(int64(s.Rate)), terminal.HumanBytes(int64(rate(s.Bytes, took))))
	if s.Failed > 0 {
		text += fmt.Sprintf("; %s failed", terminal.HumanCount(s.Failed))
	}
	l.o.p.Note("%s", text)
	return nil
}
