package disk

import "time"

// readMachine reads the wall clock, which can be set to anything at any time; a
// name for the present run of the machine, "" where there is none; and how long
// that has lasted, the time that the machine slept included.
func readMachine() (wall time.Time, boot string, uptime time.Duration) {
	uptime = sinceBoot() // first: what comes in between makes nothing look longer
	return time.Now().Round(0), bootID(), uptime
}
