// Package failpoint ends the process that it is built into at an exact point of a
// call, as kill -9 would. Only tests build it in, by an overlay (package overlay):
// what is shipped holds no trace of it.
package failpoint

import "os"

// The environment of a process says where it is to end, and names a file from
// whose existence on it is.
const (
	Point = "FAILPOINT"
	Armed = "FAILPOINT_ARMED"
)

// At ends the process if this is the point.
func At(point string) {
	if os.Getenv(Point) != point {
		return
	}
	if _, err := os.Stat(os.Getenv(Armed)); err != nil {
		return
	}
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(err)
	}
	select {} // nothing after this point happens
}
