package peer

import (
	"context"
	"errors"
	"fmt"

	"barnabas/internal/wire"
)

// The first byte of an answer's body says what the rest is.
const (
	answerResult    byte = iota // the result
	answerUnserved              // nothing: nobody here answers this kind
	answerNotFormed             // nothing: one end belongs to no cluster
	answerError                 // why there is no result, as text
)

// maxErrorText bounds the text of an error that is sent to the other end.
const maxErrorText = 2 << 10

// Handler takes a message from another node, on the reader of its connection and in the order in which
// they were sent. What it waits for holds up only what comes behind on the same connection. A one-way
// message's Reply is not used. ready says that the Reply will not wait; others get a goroutine each. An
// error closes the connection: it is for bytes that are no message. body is only valid until Handle
// returns, and what a Reply has put out may be sent after that, ready or not.
type Handler func(ctx context.Context, from Node, body []byte) (reply wire.Reply, ready bool, err error)

// Answer makes a Handler of a function that works out the whole answer and may wait. An error of its
// own reaches the caller as a RemoteError.
func Answer(f func(ctx context.Context, from Node, body []byte) ([]byte, error)) Handler {
	return func(_ context.Context, from Node, body []byte) (wire.Reply, bool, error) {
		owned := append([]byte(nil), body...)
		return func(ctx context.Context, out *wire.Out) error {
			result, err := f(ctx, from, owned)
			if err != nil {
				return err
			}
			out.Bytes(result)
			return nil
		}, false, nil
	}
}

// Receive makes a Handler of a function that takes one-way messages.
func Receive(f func(from Node, body []byte) error) Handler {
	return func(_ context.Context, from Node, body []byte) (wire.Reply, bool, error) {
		return nil, true, f(from, body)
	}
}

// result opens an answer.
func result(body []byte) ([]byte, error) {
	if len(body) == 0 {
		return nil, fmt.Errorf("an answer without a status: %w", wire.ErrMalformed)
	}
	switch body[0] {
	case answerResult:
		return body[1:], nil
	case answerUnserved:
		return nil, ErrUnserved
	case answerNotFormed:
		return nil, ErrNotFormed
	case answerError:
		return nil, &RemoteError{Message: string(body[1:])}
	}
	return nil, fmt.Errorf("an answer with status %d: %w", body[0], wire.ErrMalformed)
}

// compose runs a reply into out, as a complete answer whatever it returns.
func compose(ctx context.Context, out *wire.Out, id int32, reply wire.Reply) error {
	out.Begin(id, true)
	out.Append(func(dst []byte) []byte { return append(dst, answerResult) })
	err := reply(ctx, out)
	if err == nil {
		_, err = out.End()
	} else {
		out.Discard()
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return err // the connection is ending
	}
	return status(out, id, answerError, err.Error())
}

func status(out *wire.Out, id int32, code byte, text string) error {
	out.Begin(id, true)
	out.Append(func(dst []byte) []byte {
		return append(append(dst, code), text[:min(len(text), maxErrorText)]...)
	})
	_, err := out.End()
	return err
}
