package redistest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// SentinelOptions are the options of a sentinel.
type SentinelOptions struct {
	// Master is the server to watch, and Name what clients call it.
	Master *Server
	Name   string

	// Quorum is how many sentinels must take the master for dead. 0: 1. For a
	// failover, more than half of all sentinels must live besides.
	Quorum int

	// DownAfter is how long a server must be silent to be taken for dead. 0: 500 ms.
	DownAfter time.Duration

	// Password is what clients of the sentinel itself have to log in with.
	// Empty: none.
	Password string
}

// Sentinel is a redis-server that watches others, and makes a replica the
// master where the master is dead.
type Sentinel struct {
	*Server
	name string
}

// StartSentinel starts a sentinel and waits until it answers. The caller
// closes it.
func StartSentinel(opts SentinelOptions) (*Sentinel, error) {
	if opts.Quorum == 0 {
		opts.Quorum = 1
	}
	if opts.DownAfter == 0 {
		opts.DownAfter = 500 * time.Millisecond
	}
	s, err := launch(opts.Password, func(s *Server, port int) error {
		config := filepath.Join(s.dir, "sentinel.conf")
		s.args = []string{config, "--sentinel"}
		// It is a file because sentinels write there what they learn.
		return os.WriteFile(config, []byte(opts.config(s.dir, port)), 0o600)
	})
	if err != nil {
		return nil, err
	}
	return &Sentinel{Server: s, name: opts.Name}, nil
}

func (o *SentinelOptions) config(dir string, port int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "bind 127.0.0.1\nport %d\ndir %q\n", port, dir)
	if o.Password != "" {
		fmt.Fprintf(&b, "requirepass %q\nsentinel sentinel-pass %q\n", o.Password, o.Password)
	}
	host, masterPort, _ := net.SplitHostPort(o.Master.Addr())
	fmt.Fprintf(&b, "sentinel monitor %s %s %s %d\n", o.Name, host, masterPort, o.Quorum)
	if o.Master.password != "" {
		fmt.Fprintf(&b, "sentinel auth-pass %s %s\n", o.Name, o.Master.password)
	}
	fmt.Fprintf(&b, "sentinel down-after-milliseconds %s %d\n", o.Name, o.DownAfter.Milliseconds())
	fmt.Fprintf(&b, "sentinel failover-timeout %s 5000\n", o.Name)
	return b.String()
}

// MasterAddr returns the address of what the sentinel says is the master.
func (s *Sentinel) MasterAddr() (string, error) {
	answer, err := s.Do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.name)
	if err != nil {
		return "", err
	}
	pair, ok := answer.([]any)
	if !ok || len(pair) != 2 {
		return "", fmt.Errorf("asking the sentinel for the master: it answered %v", answer)
	}
	return net.JoinHostPort(fmt.Sprint(pair[0]), fmt.Sprint(pair[1])), nil
}

// WaitSees waits until the sentinel knows that many replicas and other
// sentinels: before that it cannot promote a replica that it does not know.
func (s *Sentinel) WaitSees(replicas, otherSentinels int) error {
	err := poll(func() (bool, error) {
		answer, err := s.Do("SENTINEL", "MASTER", s.name)
		if err != nil {
			return false, err
		}
		list, _ := answer.([]any)
		got := make(map[string]string)
		for i := 0; i+1 < len(list); i += 2 {
			got[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
		}
		return got["num-slaves"] == fmt.Sprint(replicas) &&
			got["num-other-sentinels"] == fmt.Sprint(otherSentinels) && got["flags"] == "master", nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the sentinel to know of the others: %w", err)
	}
	return nil
}

// WaitMaster waits until the sentinel says that s is the master, and s has
// become it.
func (s *Sentinel) WaitMaster(master *Server) error {
	err := poll(func() (bool, error) {
		addr, err := s.MasterAddr()
		var answered Error
		if errors.As(err, &answered) || err == nil && addr != master.Addr() {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		info, err := master.Info("replication")
		return info["role"] == "master", err
	})
	if err != nil {
		return fmt.Errorf("waiting for another master: %w", err)
	}
	return nil
}
