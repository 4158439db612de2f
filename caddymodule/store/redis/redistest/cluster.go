package redistest

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
)

// slots is how many slots the keys of every cluster are spread over.
const slots = 16384

// Cluster is a cluster of masters without replicas, each of which has an equal
// part of the slots: the first server the first slots, and so on.
type Cluster struct {
	Servers []*Server
}

// StartCluster starts a cluster of n servers, which all have opts, and waits
// until all of them say that it is complete. The caller closes it.
func StartCluster(n int, opts Options) (*Cluster, error) {
	c := &Cluster{}
	if err := c.start(n, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("starting a cluster: %w", err), c.Close())
	}
	return c, nil
}

func (c *Cluster) start(n int, opts Options) error {
	buses := make([]int, n)
	for i := range n {
		s, bus, err := startNode(opts)
		if err != nil {
			return err
		}
		c.Servers = append(c.Servers, s)
		buses[i] = bus
		first, last := i*slots/n, (i+1)*slots/n-1
		if _, err := s.Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(last)); err != nil {
			return err
		}
		// Equal epochs are a conflict, which takes the servers time to settle.
		if _, err := s.Do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)); err != nil {
			return err
		}
	}
	for i, s := range c.Servers[1:] {
		host, port, err := net.SplitHostPort(s.Addr())
		if err != nil {
			return err
		}
		if _, err := c.Servers[0].Do("CLUSTER", "MEET", host, port, strconv.Itoa(buses[i+1])); err != nil {
			return err
		}
	}
	return c.WaitComplete()
}

// startNode starts a server that is a cluster of its own, without slots, and
// tells the port where it speaks with others.
func startNode(opts Options) (s *Server, bus int, err error) {
	for range 20 {
		if bus, err = freePort(); err != nil {
			return nil, 0, err
		}
		node := opts
		node.Args = append(slices.Clone(opts.Args),
			"--cluster-enabled", "yes",
			"--cluster-port", strconv.Itoa(bus),
			"--cluster-node-timeout", "2000",
		)
		if opts.TLS {
			return nil, 0, errors.New("a cluster with TLS is not supported")
		}
		if s, err = Start(node); !errors.Is(err, errPortTaken) {
			break
		}
	}
	return s, bus, err
}

// WaitComplete waits until every server says that all slots are served, and
// knows all others.
func (c *Cluster) WaitComplete() error {
	want := strconv.Itoa(len(c.Servers))
	for _, s := range c.Servers {
		err := poll(func() (bool, error) {
			info, err := s.fields("CLUSTER", "INFO")
			return info["cluster_state"] == "ok" && info["cluster_slots_ok"] == strconv.Itoa(slots) &&
				info["cluster_known_nodes"] == want, err
		})
		if err != nil {
			return fmt.Errorf("waiting for the cluster to be complete: %w", err)
		}
	}
	return nil
}

// ServerOf returns the server that has the key.
func (c *Cluster) ServerOf(key string) (*Server, error) {
	answer, err := c.Servers[0].Do("CLUSTER", "KEYSLOT", key)
	if err != nil {
		return nil, err
	}
	slot, _ := answer.(int64)
	for i, s := range c.Servers {
		if int(slot) < (i+1)*slots/len(c.Servers) {
			return s, nil
		}
	}
	return nil, fmt.Errorf("asking for the slot of a key: the server answered %v", answer)
}

// Addrs returns the addresses of all servers.
func (c *Cluster) Addrs() []string {
	addrs := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		addrs[i] = s.Addr()
	}
	return addrs
}

// Close closes all servers. It may be called more than once.
func (c *Cluster) Close() error {
	var errs []error
	for _, s := range c.Servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
