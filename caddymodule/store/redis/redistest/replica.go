package redistest

import (
	"fmt"
	"net"
	"strconv"
)

// Follow makes the server a replica of master, and gives up its data for that
// of master. It does not wait until it has that.
func (s *Server) Follow(master *Server) error {
	host, port, err := net.SplitHostPort(master.Addr())
	if err != nil {
		return err
	}
	if master.password != "" {
		if _, err := s.Do("CONFIG", "SET", "masterauth", master.password); err != nil {
			return err
		}
	}
	_, err = s.Do("REPLICAOF", host, port)
	return err
}

// WaitSynced waits until the server, a replica of master, has everything that
// master had when WaitSynced was called.
func (s *Server) WaitSynced(master *Server) error {
	want, err := offset(master, "master_repl_offset")
	if err != nil {
		return err
	}
	err = poll(func() (bool, error) {
		info, err := s.Info("replication")
		if err != nil {
			return false, err
		}
		if info["master_link_status"] != "up" || info["master_sync_in_progress"] != "0" {
			return false, nil
		}
		got, err := offset(s, "slave_repl_offset")
		return got >= want, err
	})
	if err != nil {
		return fmt.Errorf("waiting for the replica to have everything: %w", err)
	}
	return nil
}

// offset returns how far s is in the stream of changes.
func offset(s *Server, field string) (int64, error) {
	info, err := s.Info("replication")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(info[field], 10, 64)
}

// Promote makes a replica a master, with the data that it has.
func (s *Server) Promote() error {
	_, err := s.Do("REPLICAOF", "NO", "ONE")
	return err
}
