package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// redialInterval is how often it is tried to reach a Redis that does not answer.
const redialInterval = 250 * time.Millisecond

// errUnavailable is wrapped by what is returned while Redis does not answer.
var errUnavailable = errors.New("redis does not answer")

// link is the way to Redis, which is made anew as often as it breaks. Whether it
// is whole is found out by beating: while it is not, nobody has to wait for it.
type link struct {
	client atomic.Pointer[rueidis.Client] // nil: none yet, or broken
	why    atomic.Pointer[error]          // why client is nil
}

// get returns the client, or why there is none.
func (l *link) get() (rueidis.Client, error) {
	if c := l.client.Load(); c != nil {
		return *c, nil
	}
	if why := l.why.Load(); why != nil {
		if isKeyTrouble(*why) {
			return nil, fmt.Errorf("the store in redis cannot be used: %w", *why)
		}
		return nil, fmt.Errorf("%w: %w", errUnavailable, *why)
	}
	return nil, errUnavailable
}

// connect makes a connection and looks at what it leads to.
func (s *Store) connect(ctx context.Context) (rueidis.Client, error) {
	option, err := s.options.clientOption()
	if err != nil {
		return nil, err
	}
	client, err := rueidis.NewClient(option)
	if err != nil {
		if len(option.InitAddress) > 1 && strings.Contains(err.Error(), "cluster support disabled") {
			err = fmt.Errorf("several addresses are a Cluster, or Sentinels (with ?master_set=<name>); this is neither: %w", err)
		}
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.CommandTimeout)
	defer cancel()
	err = s.inspect(ctx, client)
	if err == nil {
		err = s.checkKeys(client)
	}
	if err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// run keeps the link whole until the store is closed.
func (s *Store) run(client rueidis.Client, why error) {
	defer close(s.stopped)
	for inVain := 0; ; { // how many clients in a row have not served
		if client != nil {
			var served bool
			if served, why = s.tend(client); why == nil {
				s.leave(client)
				s.leaveBudgets(client)
				s.leaveParts(client)
				client.Close()
				return
			}
			if inVain++; served {
				inVain = 0
			}
			client, why = s.replace(client, inVain, why)
			continue
		}
		s.breakLink(why)
		select {
		case <-s.closing:
			return
		case <-time.After(redialInterval):
		}
		client, why = s.connect(context.Background())
	}
}

// replace returns a client in place of one that fails, or why there is none.
// Nobody is refused anything where a connection was cut and another is there at
// once.
func (s *Store) replace(client rueidis.Client, inVain int, why error) (rueidis.Client, error) {
	// What is under way in the old one may still succeed.
	time.AfterFunc(2*s.options.CommandTimeout, client.Close)
	if inVain > 1 || isRedisError(why) && inVain > 0 || errors.Is(why, errTimeout) {
		s.breakLink(why) // another one would do no better
		return nil, why
	}
	next, err := s.connect(context.Background())
	if err != nil {
		s.breakLink(err)
		return nil, err
	}
	return next, nil
}

// tend uses client until a beat fails, and returns why, and whether one had
// succeeded; or until the store is closed.
func (s *Store) tend(client rueidis.Client) (served bool, why error) {
	s.link.client.Store(&client) // what a beat has to do first uses it
	if why := s.beat(client); why != nil {
		return false, why
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go s.listen(ctx, client)
	go s.sweepIndexes(ctx)
	s.mendLink()

	ticker := time.NewTicker(s.options.Lease / 4)
	defer ticker.Stop()
	keyNoted := time.Now() // when it was connected
	for {
		select {
		case <-s.closing:
			s.tidySoon(ctx, client)
			return true, nil
		case <-ticker.C:
			s.noteKey(client, &keyNoted)
		case <-s.poked:
		}
		if why := s.beat(client); why != nil {
			return true, why
		}
		s.tidySoon(ctx, client)
	}
}

func (s *Store) mendLink() {
	if s.link.why.Swap(nil) != nil {
		s.log.Info("redis answers again")
	}
}

func (s *Store) breakLink(why error) {
	s.link.client.Store(nil)
	was := s.link.why.Swap(&why)
	switch {
	case isKeyTrouble(why):
		if was == nil || !isKeyTrouble(*was) {
			s.log.Error("the store in redis cannot be used; calls are refused until it can", slog.Any("error", why))
		}
	case was == nil:
		s.log.Error("redis does not answer; calls are refused until it does", slog.Any("error", why))
	}
}

// do sends what build makes to Redis, within the command timeout. What can be
// sent twice is sent once more if its reply was lost. (build is called for each
// time: the client reuses commands.) ctx ends the wait, but what was sent may
// still be done.
func (s *Store) do(ctx context.Context, build func(rueidis.Client) rueidis.Completed) (rueidis.RedisResult, error) {
	return s.twice(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, build(c))
	})
}

func isFailure(r rueidis.RedisResult) bool {
	err := r.Error()
	return err != nil && !rueidis.IsRedisNil(err)
}

// twice calls send, and once more if the reply was lost, so that it is not known
// what became of it. Nil replies are no errors.
func (s *Store) twice(ctx context.Context, send func(context.Context, rueidis.Client) rueidis.RedisResult) (rueidis.RedisResult, error) {
	var result rueidis.RedisResult
	for again := false; ; again = true {
		if err := ctx.Err(); err != nil {
			return result, err
		}
		client, err := s.link.get()
		if err != nil {
			return result, unlessSent(again, err)
		}
		timed, cancel := s.timeouts.Within(ctx)
		result = send(timed, client)
		err = result.Error()
		if err != nil && timed.Err() != nil && ctx.Err() == nil {
			err = errTimeout
		}
		cancel()
		switch {
		case err == nil || rueidis.IsRedisNil(err):
			return result, nil
		case isRefusal(err):
			if isReadOnly(err) {
				s.poke() // a beat fails too, and the master is looked for anew
			}
			return result, unlessSent(again, err)
		case isKind(err, "MOVED"), isKind(err, "ASK"):
			if again {
				return result, err
			}
		case isRedisError(err):
			return result, err
		case isDialError(err):
			return result, unlessSent(again, err)
		case again:
			return result, err
		}
	}
}

// errNotSent is wrapped by errors that say that nothing was done. It adds no
// words to those.
var errNotSent = errors.New("")

// errAside is wrapped where what was asked for was done, but not what belongs to
// it.
var errAside = errors.New("listing the call")

var errTooFewReplicas = errors.New("waiting for replicas")

var errTimeout = errors.New("redis did not reply in time")

// unlessSent says of err that nothing was done, unless something was sent before.
func unlessSent(sent bool, err error) error {
	if sent {
		return err
	}
	return fmt.Errorf("%w%w", errNotSent, err)
}

func isRedisError(err error) bool {
	_, ok := rueidis.IsRedisErr(err)
	return ok
}

func isDialError(err error) bool {
	var d *dialError
	return errors.As(err, &d)
}

// refusals are the errors by which Redis says that it has not begun.
var refusals = []string{"LATE", "OOM", "READONLY", "LOADING", "NOAUTH", "WRONGPASS", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF", "BUSY", "NOPERM"}

func isRefusal(err error) bool {
	return slices.ContainsFunc(refusals, func(kind string) bool { return isKind(err, kind) })
}

func isReadOnly(err error) bool { return isKind(err, "READONLY") }

// isKind tells whether err is Redis' error of that kind, its first word.
func isKind(err error, kind string) bool {
	e, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(e.Error(), kind+" ")
}
