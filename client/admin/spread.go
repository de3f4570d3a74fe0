package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// spread is a call about many items of which each is some broker's business: partitions their
// leaders', groups their coordinators', topics the controller's. All brokers are asked at once, and
// again about the items whose broker turned out to be another, until each item has an answer that
// counts.
type spread[Item comparable, Response kmsg.Response, Result any] struct {
	what string // for the error of the call as a whole, as in "delete records"

	// owners finds whose business the items are now; unowned has those that are nobody's, and why.
	owners func(context.Context, []Item) (owned map[client.Target][]Item, unowned map[Item]error, err error)
	// awaited tells which of the unowned are asked about again.
	awaited func(error) bool
	// repeated tells with which errors in an answer an item is asked about again.
	repeated func(error) bool

	// together: one broker answers for all. That it does not answer is the call's error, not the items'.
	together bool

	// request is what one broker is asked. It runs concurrently with others.
	request func(context.Context, []Item) kmsg.Request
	// read takes an answer apart. An item given with an error that may pass is asked about again.
	read func(answer Response, give func(Item, Result, error))
	// failed is the result of an item that has an error.
	failed func(Item, error) Result
}

// progress is how far a spread has come.
type progress[Item comparable, Result any] struct {
	mu       sync.Mutex // never held while asking
	results  map[Item]Result
	errs     map[Item]error
	open     []Item // to be asked about, again
	unasked  error  // why a broker that answers for all did not
	answered bool   // what is missing from now on is an item's own error
}

// run gives the results in the order of the items. Out of time with some unanswered, those have
// their error and the others their result.
func (s spread[Item, Response, Result]) run(ctx context.Context, a *Admin, items []Item) ([]Result, error) {
	p := progress[Item, Result]{results: map[Item]Result{}, errs: map[Item]error{}, open: slices.Clone(items)}
	if err := a.try(ctx, func(ctx context.Context) error { return s.round(ctx, a, &p) }); err != nil && !p.answered {
		return nil, fmt.Errorf("%s: %w", s.what, err)
	}
	out := make([]Result, len(items))
	for i, item := range items {
		out[i] = p.results[item]
		if p.errs[item] != nil {
			out[i] = s.failed(item, p.errs[item])
		}
	}
	return out, nil
}

// round asks once about the items that are open. Its error is that of one that stays open.
func (s spread[Item, Response, Result]) round(ctx context.Context, a *Admin, p *progress[Item, Result]) error {
	owned, unowned, err := s.owners(ctx, p.open)
	if err != nil {
		return err
	}
	p.open, p.unasked = nil, nil
	for item, err := range unowned {
		p.answered = true
		if p.errs[item] = err; s.awaited(err) {
			p.open = append(p.open, item)
		}
	}
	var wg sync.WaitGroup
	for to, of := range owned {
		wg.Go(func() { s.ask(ctx, a, to, of, p) })
	}
	wg.Wait()
	switch {
	case p.unasked != nil:
		return p.unasked
	case len(p.open) > 0:
		return p.errs[p.open[0]]
	}
	return nil
}

// ask asks one broker about items that are its business.
func (s spread[Item, Response, Result]) ask(ctx context.Context, a *Admin, to client.Target, of []Item, p *progress[Item, Result]) {
	asking := ask[Response]
	if to == client.Controller {
		asking = func(ctx context.Context, a *Admin, _ client.Target, req kmsg.Request) (Response, error) {
			return askController[Response](ctx, a, req)
		}
	}
	answer, err := asking(ctx, a, to, s.request(ctx, of))
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil && s.together {
		p.unasked, p.open = err, of
		return
	}
	p.answered = true
	for _, item := range of {
		p.errs[item] = reached(err)
	}
	if err == nil {
		s.read(answer, func(item Item, r Result, err error) { p.results[item], p.errs[item] = r, err })
	}
	for _, item := range of {
		if err := p.errs[item]; err != nil && s.repeated(err) {
			p.open = append(p.open, item)
		}
	}
}

// reached is the error of an item before the answer is looked at: that of asking, or that the
// answer leaves it out. A broker named by one and unknown to the metadata is on its way in or out.
func reached(err error) error {
	switch {
	case err == nil:
		return errLeftOut
	case errors.Is(err, client.ErrUnknownBroker):
		return fmt.Errorf("%w: %w", client.ErrNetwork, err)
	}
	return err
}

// decide is a call about items for which one broker, the controller or any, answers. Items are asked
// about again where the broker was not the controller or had no time for them (KIP-599); whatever
// else it said of one is final.
func decide[Item comparable, Response kmsg.Response, Result any](ctx context.Context, a *Admin, what string, by client.Target, items []Item,
	request func(context.Context, []Item) kmsg.Request,
	read func(Response, func(Item, Result, error)),
	failed func(Item, error) Result,
) ([]Result, error) {
	return spread[Item, Response, Result]{
		what: what, request: request, read: read, failed: failed, together: true,
		owners: func(_ context.Context, items []Item) (map[client.Target][]Item, map[Item]error, error) {
			return map[client.Target][]Item{by: items}, nil, nil
		},
		repeated: func(err error) bool {
			return errors.Is(err, client.ErrNotController) || errors.Is(err, client.ErrThrottlingQuotaExceeded)
		},
	}.run(ctx, a, items)
}
