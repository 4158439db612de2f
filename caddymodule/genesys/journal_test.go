package genesys

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestJournalHasWhatEachAttemptCameTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(noDial, drops, says(500, "", "ININ-Correlation-Id", "c-1"), says(503, "", "Retry-After", "5"), says(200, "{}", "ININ-Correlation-Id", "c-2"))
		b := benchFor(t, up)
		b.Policy.Attempts = 5
		start := time.Now()
		reply := b.Invoke(within(t, time.Minute), honoredCall())
		want := []Attempt{
			{Written: false, Verdict: VerdictRetriedNotRun},
			{Written: true, Verdict: VerdictRetriedUnknown},
			{Written: true, Status: 500, CorrelationID: "c-1", Verdict: VerdictRetriedUnknown},
			{Written: true, Status: 503, Verdict: VerdictRetriedNotRun},
			{Written: true, Status: 200, CorrelationID: "c-2", Verdict: VerdictFinal},
		}
		if len(reply.Journal) != len(want) {
			t.Fatalf("%d attempts: %+v", len(reply.Journal), reply.Journal)
		}
		clock := start
		for i, got := range reply.Journal {
			if (got.Err != nil) != (got.Status == 0) || got.Took < 0 {
				t.Errorf("attempt %d: status %d and error %v", i+1, got.Status, got.Err)
			}
			if !got.Started.Equal(clock.Add(got.Waited)) {
				t.Errorf("attempt %d: started at %v after waiting for %v since %v", i+1, got.Started, got.Waited, clock)
			}
			clock = got.Started.Add(got.Took)
			got.Started, got.Waited, got.Took, got.Err = time.Time{}, 0, 0, nil
			if got != want[i] {
				t.Errorf("attempt %d: %+v, want %+v", i+1, got, want[i])
			}
		}
		if waited := reply.Journal[4].Waited; waited < 5*time.Second {
			t.Errorf("the last attempt waited for %v, though it was told to wait for 5s", waited)
		}
	})
}

func TestJournalTellsHowLongAnAttemptTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reply := benchFor(t, scripted(hangs)).Invoke(within(t, time.Hour), call())
		if len(reply.Journal) != 1 || reply.Journal[0].Took != DefaultPolicy.Timeout || reply.Journal[0].Verdict != VerdictUnknown {
			t.Errorf("%+v", reply.Journal)
		}
	})
}

func TestJournalIsEmptyWhereNothingWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := benchFor(t, scripted(says(200, "")))
		b.Pause.Until(time.Now().Add(time.Hour))
		if reply := b.Invoke(within(t, time.Minute), call()); len(reply.Journal) != 0 {
			t.Errorf("%+v", reply.Journal)
		}
	})
}
