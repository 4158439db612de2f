package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// hangs is when a client is given up. None needs so long.
const hangs = 45 * time.Second

// end is what a client ended with.
type end struct {
	status int // zero: no answer
	body   string
	err    string
	hung   bool
}

func (e end) ok() bool { return e.status >= 200 && e.status < 300 }

func (e end) String() string {
	switch {
	case e.hung:
		return "hangs"
	case e.status != 0 && strings.Contains(e.body, `"outcome":"unknown"`):
		return strconv.Itoa(e.status) + ", outcome unknown"
	case e.status != 0:
		return strconv.Itoa(e.status)
	case timedOut.MatchString(e.err):
		return "timed out"
	default:
		return "connection lost"
	}
}

var timedOut = regexp.MustCompile(`(?i)time-?d? ?out|ECONNABORTED|deadline exceeded`)

// side is one half of a play.
type side struct {
	ends []end // of each run
	counts
}

// play is what came of a client in a scenario.
type play struct {
	client   ready
	scenario scenario
	direct   side
	sidecar  side
}

// perform plays all scenarios with all clients, a few at a time, and stops the
// sidecar.
func perform(ctx context.Context, s *stage, cast []ready, pieces []scenario, parallel int, progress func(done, of int)) ([]*play, error) {
	var plays []*play
	for _, c := range cast {
		for _, sc := range pieces {
			if c.plays(sc) {
				plays = append(plays, &play{client: c, scenario: sc})
			}
		}
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		errs  []error
		done  int
		slots = make(chan struct{}, parallel)
	)
	for _, p := range plays {
		for _, through := range []bool{false, true} {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				err := p.run(ctx, s, through)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					errs = append(errs, err)
				}
				done++
				progress(done, 2*len(plays))
			})
		}
	}
	wg.Wait()
	if err := errors.Join(append(errs, ctx.Err(), s.stop())...); err != nil {
		return nil, err
	}
	all, err := s.count()
	if err != nil {
		return nil, err
	}
	for _, p := range plays {
		p.direct.counts = all[p.scenario.id(p.client.client, false)]
		p.sidecar.counts = all[p.scenario.id(p.client.client, true)]
	}
	return plays, nil
}

// run runs the client, directly or through the sidecar.
func (p *play) run(ctx context.Context, s *stage, through bool) error {
	id := p.scenario.id(p.client.client, through)
	s.setFault(id, p.scenario.fault)
	half, address := &p.direct, s.direct
	if through {
		half, address = &p.sidecar, s.sidecar
		if p.scenario.warm {
			if err := s.warm(ctx); err != nil {
				return err
			}
		}
	}
	key, warm := "", ""
	if p.scenario.keyed {
		key = "key-" + id
	}
	if p.scenario.warm {
		warm = "yes"
	}
	for range p.scenario.runs {
		e, err := p.client.order(ctx, []string{
			"CLIENT_URL=http://" + address,
			"CLIENT_PATH=" + p.scenario.family.path(id),
			"CLIENT_ACTION=" + id,
			"CLIENT_BODY=" + p.scenario.family.body(),
			"CLIENT_TOKEN=" + s.token,
			"CLIENT_ID=" + clientID, "CLIENT_SECRET=" + clientSecret,
			"CLIENT_KEY=" + key, "CLIENT_WARM=" + warm, "CLIENT_MODE=" + p.client.mode,
			"CLIENT_TIMEOUT=" + p.scenario.timeout,
			"CLIENT_TRIES=" + strconv.Itoa(p.scenario.tries),
		})
		if err != nil {
			return fmt.Errorf("running %s (%s): %w", p.client.name, id, err)
		}
		half.ends = append(half.ends, e)
	}
	return nil
}

// order runs the client's program and reads what it says.
func (c ready) order(ctx context.Context, env []string) (end, error) {
	ctx, cancel := context.WithTimeout(ctx, hangs)
	defer cancel()
	var out, errors bytes.Buffer
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Env = append(plainEnvironment(), env...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &errors, childAttributes()
	cmd.Cancel = func() error { return killGroup(cmd.Process) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if ctx.Err() == context.DeadlineExceeded {
		return end{hung: true}, nil
	}
	if err != nil {
		return end{}, fmt.Errorf("%w: %s", err, errors.String())
	}
	first, body, _ := strings.Cut(out.String(), "\n")
	if text, ok := strings.CutPrefix(first, "error "); ok {
		return end{err: text + " " + body}, nil
	}
	status, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return end{}, fmt.Errorf("it said %q, and %s", out.String(), errors.String())
	}
	return end{status: status, body: strings.TrimSpace(body)}, nil
}
