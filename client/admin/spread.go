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

// spread is a call about many items of which each is one broker's business: partitions their
// leaders', groups their coordinators'. All brokers are asked at once, and again about the items
// whose broker turned out to be another, until each item has an answer that counts.
type spread[Item comparable, Response kmsg.Response, Result any] struct {
	what string // for the error of the call as a whole, as in "delete records"

	// owners finds whose business the items are now; unowned has those that are nobody's, and why.
	owners func(context.Context, []Item) (owned map[int32][]Item, unowned map[Item]error, err error)
	// awaited tells which of the unowned are asked about again.
	awaited func(error) bool

	// request is what one broker is asked. It runs concurrently with others.
	request func(context.Context, []Item) kmsg.Request
	// read takes an answer apart. An item given with an error that may pass is asked about again.
	read func(answer Response, give func(Item, Result, error))
	// failed is the result of an item that has an error.
	failed func(Item, error) Result
}

// run gives the results in the order of the items. Out of time with some unanswered, those have
// their error and the others their result.
func (s spread[Item, Response, Result]) run(ctx context.Context, a *Admin, items []Item) ([]Result, error) {
	results, errs := map[Item]Result{}, map[Item]error{}
	open := slices.Clone(items)
	err := a.try(ctx, func(ctx context.Context) error {
		owned, unowned, err := s.owners(ctx, open)
		if err != nil {
			return err
		}
		open = open[:0]
		for item, err := range unowned {
			if errs[item] = err; s.awaited(err) {
				open = append(open, item)
			}
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for node, of := range owned {
			wg.Go(func() {
				answer, err := ask[Response](ctx, a, client.ToBroker(node), s.request(ctx, of))
				mu.Lock()
				defer mu.Unlock()
				for _, item := range of {
					errs[item] = reached(err)
				}
				if err == nil {
					s.read(answer, func(item Item, r Result, err error) { results[item], errs[item] = r, err })
				}
				for _, item := range of {
					if again(errs[item]) {
						open = append(open, item)
					}
				}
			})
		}
		wg.Wait()
		if len(open) > 0 {
			return errs[open[0]]
		}
		return nil
	})
	if err != nil && len(errs) == 0 {
		return nil, fmt.Errorf("%s: %w", s.what, err)
	}
	out := make([]Result, len(items))
	for i, item := range items {
		out[i] = results[item]
		if errs[item] != nil {
			out[i] = s.failed(item, errs[item])
		}
	}
	return out, nil
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
