package idempotency

import (
	"context"
	"errors"
)

// Erase removes what was said in the call with id, and what could tell who made
// it. What remains are digests, so that no repeat runs: it is told that the
// answer is not kept. Its errors are those of Forget.
func (g *Gate) Erase(ctx context.Context, id ID) error {
	return g.change(ctx, id, func(rec *Record) error {
		if rec.Deferred != nil {
			return ErrNotOwner // it is yet to be sent
		}
		erased := *rec
		erased.Answer, erased.Journal, erased.Label.Scope = nil, Journal{}, ScopeID{}
		erased.Key = ""
		if !rec.Honored || rec.State != Open && rec.State != Started {
			erased.UpstreamKey = "" // the others are sent again under it, a digest where there is a scope
		}
		return g.store.Finish(ctx, &erased)
	})
}

// EraseScopes erases all calls of any of scopes that lister has, and tells how
// many those were, and how many it left alone because they are under way.
// Afterwards nothing of what it erased is left in the store's files, where it is a
// Purger; that goes on if ctx ends.
func (g *Gate) EraseScopes(ctx context.Context, lister Lister, scopes []ScopeID) (erased, underWay int, err error) {
	query := Query{Scopes: scopes}
	for {
		page, err := lister.List(ctx, query)
		if err != nil {
			return erased, underWay, storeError(err)
		}
		for _, rec := range page.Records {
			switch err := g.eraseSoon(ctx, rec.ID); {
			case err == nil:
				erased++
			case errors.Is(err, ErrUnderWay):
				underWay++
			case !errors.Is(err, ErrNoRecord):
				return erased, underWay, err
			}
		}
		if page.Next.IsZero() {
			break
		}
		query.After = page.Next
	}
	if purger, ok := lister.(Purger); ok {
		g.purging.Lock()
		defer g.purging.Unlock()
		if err := purger.Purge(context.WithoutCancel(ctx)); err != nil {
			return erased, underWay, storeError(err)
		}
	}
	return erased, underWay, nil
}

// eraseSoon is Erase, and has some patience with a caller who is just asking.
func (g *Gate) eraseSoon(ctx context.Context, id ID) error {
	return g.seizeSoon(ctx, func() error { return g.Erase(ctx, id) })
}
