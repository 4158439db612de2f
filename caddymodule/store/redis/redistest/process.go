package redistest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// limit is how long anything is waited for. It is far more than it takes, since
// machines that run tests may be slow.
const limit = 30 * time.Second

// process is a process of redis-server.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed once the process has ended
}

// startProcess starts bin in dir. What it prints is appended to the file log.
func startProcess(bin string, args []string, dir, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(bin, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	dieWithParent(cmd)

	p := &process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// To the kernel the parent is a thread, so the one that starts the
		// process has to stay until the process has ended.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // how it ended is in its log
		close(p.exited)
	}()
	return p, <-started
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// running tells whether the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// signal sends sig. A process that has ended is no error.
func (p *process) signal(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %v to redis-server: %w", sig, err)
	}
	return nil
}

// end sends sig, which also reaches a paused process, and waits for the end.
func (p *process) end(sig syscall.Signal) error {
	if err := p.signal(sig); err != nil {
		return err
	}
	if err := p.signal(syscall.SIGCONT); err != nil {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("waiting for the end of redis-server after %v: still there after %v", sig, limit)
	}
}

// poll waits until done tells true or fails.
func poll(done func() (bool, error)) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		ok, err := done()
		switch {
		case err != nil:
			return err
		case ok:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("not so after %v", limit)
		}
	}
}
