package redis

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/pacing"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// The scripts of a budget run here in a real Redis, by a clock that the tests set:
// it follows the scripts' arguments.
var (
	timedTake = timed(takeScript)
	timedHold = timed(holdScript)
)

func timed(s *script) *script {
	return newScript(strings.Replace(s.text, "redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}", 1))
}

// ledger is a budget and what was granted of it.
type ledger struct {
	t      *testing.T
	s      *Store
	key    string
	limits pacing.Limits
	now    int64 // µs since 1970
	starts []int64
}

const epoch = 1_790_000_000_000_000

var ledgers int

func openOne(t *testing.T, server *redistest.Server) *Store {
	t.Helper()
	where, err := ParseURLs([]string{server.URL()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{Endpoint: where})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func newLedger(t *testing.T, s *Store, limits pacing.Limits) *ledger {
	ledgers++
	return &ledger{t: t, s: s, key: s.budgetKey(strconv.Itoa(ledgers)), limits: limits, now: epoch}
}

func newProcesses(n int) []idempotency.Process {
	all := make([]idempotency.Process, n)
	for i := range all {
		all[i] = idempotency.NewProcess()
	}
	return all
}

func (l *ledger) clock() []string {
	return []string{strconv.FormatInt(l.now/1_000_000, 10), strconv.FormatInt(l.now%1_000_000, 10)}
}

func (l *ledger) take(p idempotency.Process, ask pacing.Ask) pacing.Grant {
	l.t.Helper()
	args, err := takeArgs(p, l.limits, ask)
	if err != nil {
		l.t.Fatal(err)
	}
	result, err := l.s.exec(l.t.Context(), evaluation{script: timedTake, key: l.key, args: append(args, l.clock()...)})
	if err != nil {
		l.t.Fatal(err)
	}
	grant, at, err := parseGrant(result)
	if err != nil {
		l.t.Fatal(err)
	}
	for range grant.Starts {
		l.starts = append(l.starts, at)
	}
	return grant
}

func (l *ledger) want(p idempotency.Process, n int) pacing.Grant {
	l.t.Helper()
	return l.take(p, pacing.Ask{Want: n})
}

func (l *ledger) hold(d time.Duration) {
	l.t.Helper()
	args, err := holdArgs(idempotency.Process{}, l.limits, d)
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := l.s.exec(l.t.Context(), evaluation{script: timedHold, key: l.key, args: append(args, l.clock()...)}); err != nil {
		l.t.Fatal(err)
	}
}

func (l *ledger) pass(d time.Duration) { l.now += d.Microseconds() }

// saturate has p want all it can get for d, and come back when it is told to.
func (l *ledger) saturate(p idempotency.Process, d time.Duration) {
	l.t.Helper()
	for end := l.now + d.Microseconds(); l.now < end; {
		l.pass(max(l.want(p, 1000).Wait, time.Microsecond))
	}
}

// most returns how many starts there were at the most in any period of d.
func most(starts []int64, d time.Duration) int {
	slices.Sort(starts)
	found, first := 0, 0
	for i, at := range starts {
		for at-starts[first] > d.Microseconds() {
			first++
		}
		found = max(found, i-first+1)
	}
	return found
}

func TestNoWindowHasMoreStartsThanTheBudgetWhateverIsAsked(t *testing.T) {
	s := openOne(t, redistest.New(t, redistest.Options{}))
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		window := []time.Duration{time.Millisecond, 100 * time.Millisecond, time.Second, time.Minute, 90 * time.Minute}[r.IntN(5)]
		l := newLedger(t, s, pacing.Limits{Starts: 1 + r.IntN(60), Window: window, Burst: r.IntN(40), Concurrency: 10 * r.IntN(2) * 100})
		processes := newProcesses(1 + r.IntN(4))
		for range 250 {
			l.take(processes[r.IntN(len(processes))], pacing.Ask{Want: r.IntN(50), Leave: r.IntN(3), InFlight: r.IntN(3)})
			switch r.IntN(8) {
			case 0:
				l.pass(time.Duration(r.Int64N(int64(window + 1))))
			case 1:
				l.hold(time.Duration(r.Int64N(int64(window/10 + 1))))
			default:
				l.pass(time.Duration(r.Int64N(int64(window/20 + 1))))
			}
		}
		if n := most(l.starts, window); n > l.limits.Starts || n == 0 {
			t.Errorf("seed %d: %d starts in a window of %v, of %d", seed, n, window, l.limits.Starts)
		}
	}
}

func TestASaturatedBudgetHasOneDeadTimeAndThenStartsEvenlyAtTheFullRate(t *testing.T) {
	s := openOne(t, redistest.New(t, redistest.Options{}))
	for _, limits := range []pacing.Limits{
		{Starts: 300, Window: time.Minute},
		{Starts: 300, Window: 3 * time.Second, Burst: 300},
		{Starts: 7, Window: time.Second},
		{Starts: 100, Window: 100 * time.Millisecond, Burst: 1},
	} {
		l := newLedger(t, s, limits)
		l.saturate(newProcesses(1)[0], 6*limits.Window)
		interval := float64(limits.Window.Microseconds()) * 1.01 / float64(limits.Starts)
		dead, last := 0, l.starts[0]
		for i, at := range l.starts[1:] {
			gap := float64(at - last)
			last = at
			if gap > 1.5*interval {
				dead++
			}
			if after := at > epoch+2*limits.Window.Microseconds(); after && (gap < interval-2 || gap > interval+2) {
				t.Fatalf("%+v: start %d comes %v µs after the one before, not %v", limits, i+1, gap, interval)
			}
		}
		if dead > 1 {
			t.Errorf("%+v: there were %d dead times", limits, dead)
		}
		if n := len(l.starts); float64(n) < 0.98*6*float64(limits.Starts) {
			t.Errorf("%+v: only %d starts in six windows", limits, n)
		}
	}
}

func TestABurstStartsAtOnceAfterATimeWithLessToDo(t *testing.T) {
	s := openOne(t, redistest.New(t, redistest.Options{}))
	for burst, want := range map[int]int{0: 20, 35: 35, 900: 200} {
		l := newLedger(t, s, pacing.Limits{Starts: 200, Window: time.Second, Burst: burst})
		p := newProcesses(1)[0]
		if g := l.want(p, 1000); g.Starts != want || g.Used != want || g.Limit != 200 || g.Sharers != 1 {
			t.Errorf("with burst %d: %+v", burst, g)
		}
	}
}

func TestThoseThatWaitGetTheSame(t *testing.T) {
	s := openOne(t, redistest.New(t, redistest.Options{}))
	l := newLedger(t, s, pacing.Limits{Starts: 300, Window: 3 * time.Second})
	processes := newProcesses(3)
	got, back := make([]int, 3), make([]int64, 3)
	for end := l.now + 15_000_000; l.now < end; l.pass(100 * time.Microsecond) {
		for i, p := range processes { // the first is always the first to ask, the last is late
			if l.now >= back[i] {
				g := l.want(p, 50)
				got[i] += g.Starts
				back[i] = l.now + g.Wait.Microseconds() + int64(i*1500)
			}
		}
	}
	if slices.Max(got) > slices.Min(got)*11/10 || got[0]+got[1]+got[2] < 1400 {
		t.Errorf("they got %v", got)
	}
}

func TestWhoHasGoneWithoutAWordHoldsUpNobodyForLong(t *testing.T) {
	s := openOne(t, redistest.New(t, redistest.Options{}))
	l := newLedger(t, s, pacing.Limits{Starts: 5, Window: time.Second, Burst: 1})
	p := newProcesses(2)
	l.want(p[0], 1)
	l.want(p[1], 1) // and is not heard of again
	l.starts = nil
	l.saturate(p[0], 10*time.Second)
	if n := len(l.starts); n < 45 {
		t.Errorf("the other got %d starts in ten windows of 5", n)
	}
}

func TestAStartThatComesLateCountsFromWhenItCame(t *testing.T) {
	s := openOne(t, redistest.New(t, redistest.Options{}))
	l := newLedger(t, s, pacing.Limits{Starts: 5, Window: time.Second, Burst: 5})
	p := newProcesses(1)[0]
	if g := l.want(p, 5); g.Starts != 5 {
		t.Fatalf("got %+v", g)
	}
	l.pass(600 * time.Millisecond)
	ago := 600 * time.Millisecond
	if g := l.take(p, pacing.Ask{Late: []time.Duration{ago, ago, ago}}); g.Used != 5 {
		t.Errorf("three have come now: %+v", g)
	}
	l.pass(500 * time.Millisecond)
	if g := l.want(p, 5); g.Used-g.Starts != 3 || g.Starts == 0 {
		t.Errorf("when two are a window ago: %+v", g)
	}
	l.pass(5 * time.Second)
	if g := l.take(p, pacing.Ask{Late: []time.Duration{6 * time.Second}}); g.Used != 1 {
		t.Errorf("one has come when it counted no more: %+v", g)
	}
}

func TestStartsThatAProcessHasMadeByItselfCountFromWhenTheyCame(t *testing.T) {
	s := openOne(t, redistest.New(t, redistest.Options{}))
	l := newLedger(t, s, pacing.Limits{Starts: 5, Window: time.Second, Burst: 5})
	p := newProcesses(1)[0]
	l.pass(2 * time.Second)
	ask := pacing.Ask{Late: []time.Duration{5 * time.Second}, Own: []time.Duration{600 * time.Millisecond, 100 * time.Millisecond, 3 * time.Second}}
	if g := l.take(p, ask); g.Used != 3 { // the late one, and two within the window
		t.Errorf("when it is told: %+v", g)
	}
	l.pass(500 * time.Millisecond)
	if g := l.take(p, pacing.Ask{}); g.Used != 2 {
		t.Errorf("when one is a window ago: %+v", g)
	}
}

func TestWhatIsToBeLeftIsLeft(t *testing.T) {
	s := openOne(t, redistest.New(t, redistest.Options{}))
	l := newLedger(t, s, pacing.Limits{Starts: 100, Window: time.Second, Burst: 10, Concurrency: 20})
	p := newProcesses(1)[0]
	if g := l.take(p, pacing.Ask{Want: 100, Leave: 3}); g.Starts != 7 {
		t.Errorf("leaving 3 of 10: %+v", g)
	}
	g := l.take(p, pacing.Ask{Want: 100, Leave: 3, InFlight: 7})
	if g.Starts != 0 || g.Wait <= 0 {
		t.Errorf("leaving 3 of 3: %+v", g)
	}
	if g := l.take(p, pacing.Ask{Want: 1, InFlight: 7}); g.Starts != 1 {
		t.Errorf("leaving nothing of 3: %+v", g)
	}
	l.pass(time.Second)
	if g := l.take(p, pacing.Ask{Want: 100, LeaveConcurrency: 5, InFlight: 10}); g.Starts != 5 {
		t.Errorf("leaving 5 of 10 places: %+v", g)
	}
	l.pass(time.Second)
	if g := l.take(p, pacing.Ask{Want: 100, Leave: 1000, LeaveConcurrency: 1000}); g.Starts != 1 {
		t.Errorf("who leaves more than there is: %+v", g)
	}
}

func TestTheWaitIsTruthful(t *testing.T) {
	s := openOne(t, redistest.New(t, redistest.Options{}))
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 2))
		l := newLedger(t, s, pacing.Limits{Starts: 1 + r.IntN(30), Window: time.Second, Burst: 1 + r.IntN(10)})
		p := newProcesses(1)[0]
		for range 50 {
			ask := pacing.Ask{Want: 1000, Leave: r.IntN(4)}
			g := l.take(p, ask)
			holds := seed%2 == 1
			if holds && r.IntN(10) == 0 {
				l.hold(time.Duration(r.Int64N(int64(2 * time.Second))))
				g = l.take(p, ask)
			}
			if g.Wait <= 0 {
				t.Fatalf("seed %d: %+v", seed, g)
			}
			l.pass(g.Wait - 3*time.Microsecond) // it is as exact as a number of µs since 1970
			early := l.take(p, ask)
			if early.Starts > 0 && !holds { // a limit that grows back lets it start sooner
				t.Fatalf("seed %d: %+v before %v were over", seed, early, g.Wait)
			}
			l.pass(3 * time.Microsecond)
			if late := l.take(p, ask); late.Starts+early.Starts == 0 {
				t.Fatalf("seed %d: %+v after %+v", seed, late, g)
			}
			l.pass(time.Duration(r.Int64N(int64(300 * time.Millisecond))))
		}
	}
}

func TestCallsUnderWayAreCountedForAllProcessesUntilTheyAreForgotten(t *testing.T) {
	s := openOne(t, redistest.New(t, redistest.Options{}))
	l := newLedger(t, s, pacing.Limits{Concurrency: 10})
	a, b := newProcesses(1)[0], newProcesses(1)[0]
	if g := l.want(a, 6); g.Starts != 6 || g.InFlight != 6 || g.Wait != 0 {
		t.Fatalf("the first: %+v", g)
	}
	if g := l.want(b, 6); g.Starts != 4 || g.InFlight != 10 || g.Sharers != 2 {
		t.Fatalf("the second: %+v", g)
	}
	l.pass(5 * time.Second)
	if g := l.take(b, pacing.Ask{Want: 6, InFlight: 3}); g.Starts != 1 || g.InFlight != 10 {
		t.Errorf("one of the second's has ended: %+v", g)
	}
	l.pass(5*time.Second - time.Microsecond)
	if g := l.take(b, pacing.Ask{Want: 1, InFlight: 4}); g.Starts != 0 || g.Sharers != 2 {
		t.Errorf("the first has not been heard of for nearly 10s: %+v", g)
	}
	l.pass(time.Microsecond)
	if g := l.take(b, pacing.Ask{Want: 6, InFlight: 4}); g.Starts != 6 || g.Sharers != 1 {
		t.Errorf("the first is forgotten: %+v", g)
	}
}

func TestAHoldStopsAllAndLowersTheLimitWhichGrowsBack(t *testing.T) {
	s := openOne(t, redistest.New(t, redistest.Options{}))
	l := newLedger(t, s, pacing.Limits{Starts: 100, Window: time.Second, Burst: 100})
	p := newProcesses(2)
	l.want(p[0], 40)
	l.hold(3 * time.Second)
	g := l.want(p[1], 10)
	if g.Starts != 0 || g.Limit != 40 || g.Wait != 3*time.Second {
		t.Errorf("while it holds: %+v", g)
	}
	l.pass(2 * time.Second)
	l.hold(2 * time.Second) // of a straggler; nothing has started since
	l.pass(2 * time.Second)
	if g := l.want(p[1], 10); g.Starts != 1 || g.Limit != 40 {
		t.Errorf("when it is over: %+v", g)
	}
	l.pass(4 * time.Second)
	if g := l.take(p[1], pacing.Ask{}); g.Limit != 60 {
		t.Errorf("four windows later: %+v", g)
	}
	l.pass(time.Minute)
	if g := l.take(p[1], pacing.Ask{}); g.Limit != 100 {
		t.Errorf("a minute later: %+v", g)
	}
	l.hold(0)
	if g := l.take(p[1], pacing.Ask{}); g.Limit != 5 { // as much as it grows by in a window
		t.Errorf("a hold with nothing used: %+v", g)
	}
}

func TestAHoldStopsCallsThatAreLimitedInNumberOnly(t *testing.T) {
	s := openOne(t, redistest.New(t, redistest.Options{}))
	l := newLedger(t, s, pacing.Limits{Concurrency: 5})
	p := newProcesses(1)[0]
	l.hold(time.Second)
	if g := l.want(p, 1); g.Starts != 0 || g.Wait != time.Second {
		t.Errorf("while it holds: %+v", g)
	}
	l.pass(time.Second)
	if g := l.want(p, 1); g.Starts != 1 {
		t.Errorf("when it is over: %+v", g)
	}
}

func TestABudgetGoesOnWhenTheClockIsSetBack(t *testing.T) {
	s := openOne(t, redistest.New(t, redistest.Options{}))
	l := newLedger(t, s, pacing.Limits{Starts: 10, Window: time.Second, Burst: 10})
	p := newProcesses(1)[0]
	l.want(p, 10)
	l.pass(-time.Hour)
	if g := l.want(p, 1); g.Starts != 0 || g.Wait != 1010*time.Millisecond {
		t.Errorf("when the clock was set back: %+v", g)
	}
	l.pass(1010 * time.Millisecond)
	if g := l.want(p, 1); g.Starts != 1 {
		t.Errorf("a window later: %+v", g)
	}
}

func TestABudgetThatNobodyUsesGoesByItself(t *testing.T) {
	s := openOne(t, redistest.New(t, redistest.Options{}))
	l := newLedger(t, s, pacing.Limits{Starts: 100, Window: time.Minute})
	l.want(newProcesses(1)[0], 50)
	ttl, err := s.do(t.Context(), func(c rueidis.Client) rueidis.Completed { return c.B().Pttl().Key(l.key).Build() })
	if err != nil {
		t.Fatal(err)
	}
	if ms, err := ttl.AsInt64(); err != nil || ms < 60_000 || ms > 65_000 {
		t.Errorf("it lives for %d ms, %v", ms, err)
	}
}
