package caddymodule

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
)

// running is the app of the configuration that is in force, nil while there is
// none. Calls, tokens and stores outlive the configuration that they came with;
// what they have to tell, they tell this one.
var running atomic.Pointer[App]

// tenure is the time that an app is in force. Caddy starts and stops one app at a
// time; but it copies an App whenever it asks for its module's name, so that what
// changes stands here.
type tenure struct {
	former         *App      // what the app replaced
	formerSettings *settings // of the backend

	started func()        // closes begun
	begun   chan struct{} // closed once all apps of the configuration have started
	over    chan struct{} // closed when the app is stopped, or given up before
	end     func()        // closes over

	// handlers are those of the configuration: of the first one of a process, operators
	// may be told while they are provisioned.
	mu       sync.Mutex
	handlers []*Handler // guarded by mu
}

func newTenure() *tenure {
	t := &tenure{begun: make(chan struct{}), over: make(chan struct{})}
	t.started = sync.OnceFunc(func() { close(t.begun) })
	t.end = sync.OnceFunc(func() { close(t.over) })
	return t
}

// addHandler takes down a handler, which is ready to serve.
func (t *tenure) addHandler(h *Handler) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handlers = append(t.handlers, h)
}

// allHandlers returns those that there are by now.
func (t *tenure) allHandlers() []*Handler {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.handlers
}

// runFirst makes a the app in force, if there is none: the servers of a process may
// have started, and be asked, before a is.
func (a *App) runFirst() { running.CompareAndSwap(nil, a) }

// run makes a the app in force.
func (a *App) run() {
	if former := running.Swap(a); former != a {
		a.tenure.former = former
	}
}

// rest puts back the app that was in force before a, unless another has replaced
// a already: then a's configuration has failed, maybe before a was started, or the
// process exits. It may be called again.
func (a *App) rest() {
	former := a.tenure.former
	if former != nil && former.tenure.isOver() {
		former = nil
	}
	running.CompareAndSwap(a, former)
	a.tenure.end()
	a.tenure.former = nil // else each configuration would keep the one before it in memory
}

// inTerm returns the app in force, once all apps of its configuration have
// started, or nil if there is none.
func inTerm() *App {
	for {
		a := running.Load()
		if a == nil {
			return nil
		}
		select {
		case <-a.tenure.begun:
			return a
		case <-a.tenure.over: // and another is in its place, or none
		}
	}
}

// hasBegun tells whether all apps of the configuration have started.
func (t *tenure) hasBegun() bool { return isClosed(t.begun) }

func (t *tenure) isOver() bool { return isClosed(t.over) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Handle is called once all apps have started. It implements caddyevents.Handler.
func (t *tenure) Handle(context.Context, caddy.Event) error {
	t.started()
	return nil
}

// logger is where to log what belongs to no configuration.
func logger() *zap.Logger {
	if a := running.Load(); a != nil {
		return a.log
	}
	return caddy.Log().Named("genesys")
}

// liveLog passes records on to the logger of the configuration in force. What
// outlives a configuration cannot hold on to that configuration's loggers.
type liveLog struct{ attrs []slog.Attr }

func (liveLog) handler() slog.Handler {
	log := logger()
	return zapslog.NewHandler(log.Core(), zapslog.WithName(log.Name()), zapslog.AddStacktraceAt(slog.Level(127)))
}

// Enabled is asked with every call, and does not make a handler to know.
func (liveLog) Enabled(_ context.Context, level slog.Level) bool {
	return logger().Core().Enabled(zapLevel(level))
}

func zapLevel(level slog.Level) zapcore.Level {
	switch {
	case level >= slog.LevelError:
		return zapcore.ErrorLevel
	case level >= slog.LevelWarn:
		return zapcore.WarnLevel
	case level >= slog.LevelInfo:
		return zapcore.InfoLevel
	default:
		return zapcore.DebugLevel
	}
}

func (l liveLog) Handle(ctx context.Context, r slog.Record) error {
	return l.handler().WithAttrs(l.attrs).Handle(ctx, r)
}

func (l liveLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return liveLog{append(l.attrs[:len(l.attrs):len(l.attrs)], attrs...)}
}

func (l liveLog) WithGroup(string) slog.Handler { return l }

// Interface guards
var (
	_ slog.Handler        = liveLog{}
	_ caddyevents.Handler = (*tenure)(nil)
)
