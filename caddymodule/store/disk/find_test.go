package disk

import (
	"slices"
	"testing"

	"genesys-sidecar/caddymodule/idempotency"
)

func TestRecordsAreFoundByHowTheirIDsBegin(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{})
	defer s.Close()
	fill(t, s, 50)
	page, err := s.List(t.Context(), idempotency.Query{})
	if err != nil || len(page.Records) < 50 {
		t.Fatalf("%d records, %v", len(page.Records), err)
	}
	for _, rec := range page.Records {
		if ids, err := s.Find(t.Context(), rec.ID[:6]); err != nil || !slices.Equal(ids, []idempotency.ID{rec.ID}) {
			t.Errorf("%v: found %v, %v", rec.ID, ids, err)
		}
	}
	if ids, err := s.Find(t.Context(), nil); err != nil || len(ids) != 2 {
		t.Errorf("what begins with anything: %v, %v", ids, err)
	}
	if ids, err := s.Find(t.Context(), []byte("no such")); err != nil || len(ids) != 0 {
		t.Errorf("what is not there: %v, %v", ids, err)
	}
}
