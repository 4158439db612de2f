package disk

import (
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
)

// pebbleLogger is what Pebble logs to. Its messages are for who looks into
// Pebble, so they are kept to debug level.
type pebbleLogger struct {
	*slog.Logger
	guard *guard
}

func (l pebbleLogger) Infof(format string, args ...any) {
	l.Debug("pebble", "message", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.Debug("pebble", "error", fmt.Sprintf(format, args...))
}

// Fatalf is called where Pebble would end the process. It comes back, which
// Pebble does not expect, but by then nothing that it does has an effect.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	l.guard.fail(err)
	l.Debug("database failed", "error", err) // the store tells at error level
}

// eventListener logs what happens in the background. Pebble would end the
// process on corruption; here it is for the method that needs the data to
// return an error, while others go on.
func eventListener(logger *slog.Logger) *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) { logger.Debug("database background error", "error", err) },
		DataCorruption:  func(info pebble.DataCorruptionInfo) { logger.Error("database damaged", "info", info.String()) },
	}
}
