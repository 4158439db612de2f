// Package child starts programs that end when this one does, however that ends,
// as far as the system can see to it: a test that is killed leaves nothing behind.
// It finds addresses for them, too.
package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// Process is a program that was started.
type Process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // of its end; to be read once ended is closed
}

// Start starts cmd in a process group of its own, so that Ctrl-C does not reach it
// and Kill reaches its children. On Linux the kernel sends it death once this
// program has ended: SIGKILL, or SIGTERM where it has children to see to.
func Start(cmd *exec.Cmd, death syscall.Signal) (*Process, error) {
	cmd.SysProcAttr = attributes(death)
	p := &Process{cmd: cmd, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		// To the kernel the parent is a thread, which has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// Pid returns the number of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Ended returns a channel that is closed once the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Wait waits for the end of the process, and returns with what it ended.
func (p *Process) Wait() error {
	<-p.ended
	return p.err
}

// Signal sends sig. That the process has ended is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %v: %w", sig, err)
	}
	return nil
}

// Crash ends the process at once, and not its children, and waits until it is gone.
func (p *Process) Crash() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// Kill ends the process and its children at once, unless it has ended.
func (p *Process) Kill() {
	select {
	case <-p.ended:
	default:
		killGroup(p.cmd.Process)
	}
}
