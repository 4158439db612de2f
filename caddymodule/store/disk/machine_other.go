//go:build !linux

package disk

import "time"

// bootID would name the present run of the system.
func bootID() string { return "" }

// sinceBoot returns a time that goes on evenly.
func sinceBoot() time.Duration { return time.Since(processStart) }

var processStart = time.Now()
