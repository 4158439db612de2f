package store

import (
	"slices"

	"genesys-sidecar/caddymodule/idempotency"
)

// SortOldestFirst puts records into the order of idempotency.Store's Unsettled,
// those that started at the same time into that of their IDs.
func SortOldestFirst(recs []*idempotency.Record) {
	slices.SortFunc(recs, func(a, b *idempotency.Record) int {
		if c := a.Started.Compare(b.Started); c != 0 {
			return c
		}
		return slices.Compare(a.ID[:], b.ID[:])
	})
}
