package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"genesys-sidecar/test/child"
)

// patience is how long a program may take to end before it is killed.
const patience = 30 * time.Second

// process is a program that this one has started.
type process struct {
	*child.Process
	name   string
	dir    string // its working directory, with its log
	cancel context.CancelFunc
}

// startProcess starts a program in dir. Its environment is what env adds to a
// bare one, so that nobody's proxy or client secret leaks into a measurement.
// It ends, with its children, when ctx does.
func startProcess(ctx context.Context, name, dir string, env []string, program string, args ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer log.Close() // the child has its own

	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.Getenv("TMPDIR"), "LANG=C.UTF-8",
		"HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir,
	}, env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	started, err := child.Start(cmd, syscall.SIGTERM) // which lets it end its children
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &process{Process: started, name: name, dir: dir, cancel: cancel}
	context.AfterFunc(ctx, func() {
		time.AfterFunc(patience, p.Kill)
		_ = p.Signal(syscall.SIGTERM)
	})
	return p, nil
}

// start starts a server of the current section.
func (b *bench) start(ctx context.Context, name, dir string, env []string, program string, args ...string) (*process, error) {
	p, err := startProcess(ctx, name, dir, env, program, args...)
	if err == nil {
		b.servers = append(b.servers, p)
	}
	return p, err
}

// stop asks the program to end, and waits until it has.
func (p *process) stop() {
	p.cancel()
	<-p.Ended()
}

// kill ends the program as a crash would, and waits until it is gone.
func (p *process) kill() {
	p.Crash()
	p.cancel()
}

// logTail returns the end of the program's log.
func (p *process) logTail() string {
	log, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-2000):])
}

// usage is what programs have used up to now. Where the system does not tell,
// known is false.
type usage struct {
	cpu   time.Duration
	rss   int64
	known bool
}

// tick is the unit in which Linux tells CPU time, on all its architectures.
const tick = time.Second / 100

// used returns the usage of the program and its children.
func (p *process) used() usage { return usageOf(p.Pid(), true) }

// usageOf returns the usage of a process, and of its children if asked to.
func usageOf(pid int, withChildren bool) usage {
	u := usage{known: true}
	pids := []int{pid}
	if withChildren {
		pids = append(pids, descendants(pid)...)
	}
	for i, pid := range pids {
		fields, ok := procStat(pid)
		if !ok {
			if i == 0 {
				return usage{}
			}
			continue // a child that ended meanwhile
		}
		user, _ := strconv.ParseInt(fields[11], 10, 64)
		system, _ := strconv.ParseInt(fields[12], 10, 64)
		u.cpu += time.Duration(user+system) * tick
		u.rss += residentSize(pid)
	}
	return u
}

// procStat returns the fields of /proc/pid/stat after the program's name, which
// may hold anything: the state, the parent's pid and so on.
func procStat(pid int) ([]string, bool) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return nil, false
	}
	_, after, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	fields := strings.Fields(after)
	return fields, len(fields) > 12
}

// descendants returns a process's children, their children and so on.
func descendants(pid int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if fields, ok := procStat(child); ok {
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], child)
		}
	}
	all := children[pid]
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// residentSize returns how much memory a process holds, in bytes.
func residentSize(pid int) int64 {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	number, _, _ := strings.Cut(strings.TrimSpace(after), " ")
	kib, _ := strconv.ParseInt(number, 10, 64)
	return kib << 10
}

// rest waits until the program has nothing more to do for what it was sent: a
// database tidies up after its callers have gone, and that work is its own, not
// that of whoever has the next turn.
func (p *process) rest(ctx context.Context) {
	before := p.used()
	for range 40 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(75 * time.Millisecond):
		}
		now := p.used()
		if !now.known || now.cpu-before.cpu < tick {
			return
		}
		before = now
	}
}
