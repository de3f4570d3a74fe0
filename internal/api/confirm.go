package api

import (
	"context"
	"fmt"
	"time"

	"barnabas/internal/replica"
)

// confirmPatience is how long an answer waits for the controller's word that this broker leads still. Without it the client is
// sent to look for another leader, and comes back where there is none.
const confirmPatience = 500 * time.Millisecond

// confirm makes this broker's metadata as new as the request under way. A leader that was replaced a moment ago, and has not heard
// of it, would deny what its successor has: readers would begin anew, at the first record perhaps. So it denies nothing of
// the log's end before the controller has spoken; what it says after that was so when the request came.
// Errors: replica.ErrCutOff, the context's.
func (h *Handler) confirm(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, confirmPatience)
	defer cancel()
	err := h.o.Controller.Sync(limited)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("confirm who leads: %w", ctx.Err())
	}
	h.log.Debug("the controller does not confirm that this broker leads; a reader is sent away", "err", err)
	return fmt.Errorf("confirm who leads: %w", replica.ErrCutOff)
}
