package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
)

const (
	// chunkBytes is read at once: enough that neither reading nor handing over shows in a profile.
	chunkBytes = 256 << 10

	// chunksAhead bounds what is read before it is sent.
	chunksAhead = 4
)

// chunk is a stretch of input that ends with a line. Without data and with tooLong it stands for
// a line that is too long to be read.
type chunk struct {
	data    []byte
	buf     []byte
	tooLong bool
}

// lines gives the lines without their ends. A nil line was too long.
func (c chunk) lines() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if c.tooLong {
			yield(nil)
			return
		}
		for rest := c.data; len(rest) > 0; {
			line, after, _ := bytes.Cut(rest, newline)
			if line == nil {
				line = rest[:0]
			}
			if !yield(line) {
				return
			}
			rest = after
		}
	}
}

var newline = []byte("\n")

// lineReader reads ahead on a goroutine of its own, so that a user's Ctrl-C is heard while a read
// waits for a terminal or a pipe. Such a read cannot be called off; it ends with the process.
type lineReader struct {
	chunks chan chunk
	spare  chan []byte
	err    error // valid once chunks is closed
}

func readLines(ctx context.Context, in io.Reader, longest int) *lineReader {
	r := &lineReader{chunks: make(chan chunk, chunksAhead), spare: make(chan []byte, chunksAhead+2)}
	go func() {
		defer close(r.chunks)
		r.err = r.read(ctx, in, longest)
	}()
	return r
}

// next gives the next chunk; io.EOF at the end.
func (r *lineReader) next(ctx context.Context) (chunk, error) {
	select {
	case c, ok := <-r.chunks:
		if !ok {
			return chunk{}, r.err
		}
		return c, nil
	case <-ctx.Done():
		return chunk{}, context.Cause(ctx)
	}
}

// recycle gives a chunk's memory back once nobody looks at its lines.
func (r *lineReader) recycle(c chunk) {
	select {
	case r.spare <- c.buf:
	default:
	}
}

func (r *lineReader) buffer() []byte {
	select {
	case b := <-r.spare:
		if cap(b) == chunkBytes {
			return b[:0]
		}
	default:
	}
	return make([]byte, 0, chunkBytes)
}

func (r *lineReader) read(ctx context.Context, in io.Reader, longest int) error {
	buf := r.buffer()
	skipping := false // the rest of a line that was too long
	hand := func(c chunk) error {
		select {
		case r.chunks <- c:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)] // a long line: more room
		}
		n, err := in.Read(buf[len(buf):cap(buf)])
		fresh := len(buf)
		buf = buf[:fresh+n]
		if end := bytes.LastIndexByte(buf[fresh:], '\n'); end >= 0 {
			end += fresh + 1
			next := append(r.buffer(), buf[end:]...)
			data := buf[:end]
			if skipping {
				_, data, _ = bytes.Cut(data, newline)
				skipping = false
			}
			if handErr := hand(chunk{data: data, buf: buf[:0]}); handErr != nil {
				return handErr
			}
			buf = next
		}
		if skipping {
			buf = buf[:0]
		} else if len(buf) > longest {
			if handErr := hand(chunk{tooLong: true}); handErr != nil {
				return handErr
			}
			buf, skipping = buf[:0], true
		}
		if err == nil {
			continue
		}
		if len(buf) > 0 { // a last line without an end
			if handErr := hand(chunk{data: buf, buf: buf[:0]}); handErr != nil {
				return handErr
			}
		}
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return fmt.Errorf("read the input: %w", err)
	}
}

// splitter makes a key and a value of a line. Both may alias it. errNothing: the line is no record.
type splitter func(line []byte) (key, value []byte, err error)

var errNothing = errors.New("no record")

func splitAt(separator string) splitter {
	sep := []byte(separator)
	return func(line []byte) ([]byte, []byte, error) {
		key, value, ok := bytes.Cut(line, sep)
		if !ok {
			return nil, nil, fmt.Errorf("there is no %q in it", separator)
		}
		return key, value, nil
	}
}

// withNulls turns a key or value that is the marker into null.
func withNulls(split splitter, marker string) splitter {
	return func(line []byte) ([]byte, []byte, error) {
		key, value, err := split(line)
		if key != nil && string(key) == marker {
			key = nil
		}
		if string(value) == marker {
			value = nil
		}
		return key, value, err
	}
}

// splitJSON takes the key from a field of the object that the line is. A text is taken as it is, a
// number and a truth value as they are written, null is no key. Blank lines are no records.
func splitJSON(field string) splitter {
	return func(line []byte) ([]byte, []byte, error) {
		line = bytes.TrimRight(line, "\r")
		trimmed := bytes.TrimSpace(line)
		if len(trimmed) == 0 {
			return nil, nil, errNothing
		}
		if !json.Valid(trimmed) {
			return nil, nil, invalidJSON(trimmed)
		}
		if trimmed[0] != '{' {
			return nil, nil, errors.New("it is JSON, but not an object")
		}
		raw, ok := fieldOf(trimmed, field)
		if !ok {
			return nil, nil, fmt.Errorf("the object has no field %q", field)
		}
		key, err := keyOf(raw)
		if err != nil {
			return nil, nil, fmt.Errorf("the field %q is %w", field, err)
		}
		return key, line, nil
	}
}

func invalidJSON(line []byte) error {
	var any json.RawMessage
	if err := json.Unmarshal(line, &any); err != nil {
		return fmt.Errorf("it is not JSON: %w", err)
	}
	return errors.New("it is not JSON")
}

func keyOf(raw []byte) ([]byte, error) {
	switch raw[0] {
	case '"':
		if inner := raw[1 : len(raw)-1]; bytes.IndexByte(inner, '\\') < 0 {
			return inner, nil
		}
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, fmt.Errorf("not a text: %w", err)
		}
		return []byte(s), nil
	case 'n':
		return nil, nil
	case '{':
		return nil, errors.New("an object, and a key is a text or a number")
	case '[':
		return nil, errors.New("a list, and a key is a text or a number")
	}
	return raw, nil
}

// fieldOf finds the value of a field of a JSON object, which must be valid, at its top level; the
// last where it is there several times, as decoders do.
func fieldOf(object []byte, field string) (raw []byte, found bool) {
	at := skipBlank(object, 1)
	for object[at] != '}' {
		end := skipValue(object, at)
		name := object[at:end]
		at = skipBlank(object, skipBlank(object, end)+1) // behind the colon
		end = skipValue(object, at)
		if isName(name, field) {
			raw, found = object[at:end], true
		}
		at = skipBlank(object, end)
		if object[at] == ',' {
			at = skipBlank(object, at+1)
		}
	}
	return raw, found
}

func isName(quoted []byte, field string) bool {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner) == field
	}
	var s string
	return json.Unmarshal(quoted, &s) == nil && s == field
}

func skipBlank(b []byte, at int) int {
	for at < len(b) && (b[at] == ' ' || b[at] == '\t' || b[at] == '\n' || b[at] == '\r') {
		at++
	}
	return at
}

// skipValue gives the position behind the value that begins at at.
func skipValue(b []byte, at int) int {
	switch b[at] {
	case '"':
		return skipText(b, at)
	case '{', '[':
		for depth := 0; ; {
			switch b[at] {
			case '"':
				at = skipText(b, at)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return at + 1
				}
			}
			at++
		}
	}
	for at < len(b) && b[at] != ',' && b[at] != '}' && b[at] != ']' && b[at] > ' ' {
		at++
	}
	return at
}

func skipText(b []byte, at int) int {
	for at++; b[at] != '"'; at++ {
		if b[at] == '\\' {
			at++
		}
	}
	return at + 1
}
