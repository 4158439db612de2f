package caddymodule

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
)

// running is the app of the configuration that is in force, nil while there is
// none. Calls, tokens and stores outlive the configuration that they came with;
// what they have to tell, they tell this one.
var running atomic.Pointer[App]

// run makes a the app in force. Caddy starts and stops one app at a time.
func (a *App) run() { a.former = running.Swap(a) }

// rest puts back the app that was in force before a, unless another has replaced
// a already: then a's configuration has failed, or the process exits.
func (a *App) rest() {
	former := a.former
	if former != nil && former.rested {
		former = nil
	}
	running.CompareAndSwap(a, former)
	a.rested = true
	a.former = nil // else each configuration would keep the one before it in memory
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

// Interface guard
var _ slog.Handler = liveLog{}
