package redistest

import (
	"crypto/tls"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// want fails the test unless the server answers the command so.
func want(t *testing.T, s *Server, answer any, args ...string) {
	t.Helper()
	got, err := s.Do(args...)
	if err != nil {
		t.Fatal(err)
	}
	if got != answer {
		t.Errorf("%q: the server answered %#v, want %#v", args, got, answer)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAppendOnlyFileKeepsKeysOverKillAndStop(t *testing.T) {
	s := New(t, Options{Args: []string{"--appendonly", "yes", "--appendfsync", "always"}})
	addr := s.Addr()
	want(t, s, "OK", "SET", "a", "1")
	must(t, s.Kill())
	if _, err := s.Do("PING"); err == nil {
		t.Error("a killed server answers")
	}
	must(t, s.Restart())
	want(t, s, "1", "GET", "a")
	must(t, s.Stop())
	must(t, s.Restart())
	want(t, s, "1", "GET", "a")
	must(t, s.Restart()) // while it runs
	want(t, s, "1", "GET", "a")
	if s.Addr() != addr {
		t.Errorf("the server moved from %s to %s", addr, s.Addr())
	}
}

func TestServerWithoutPersistenceForgetsOnKill(t *testing.T) {
	s := New(t, Options{})
	want(t, s, "OK", "SET", "a", "1")
	must(t, s.Kill())
	must(t, s.Restart())
	want(t, s, nil, "GET", "a")
}

func TestPausedServerAnswersAfterResume(t *testing.T) {
	s := New(t, Options{})
	must(t, s.Pause())
	answered := make(chan error, 1)
	go func() {
		_, err := s.Do("PING")
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("a paused server answered (%v)", err)
	case <-time.After(100 * time.Millisecond):
	}
	must(t, s.Resume())
	must(t, <-answered)
}

func TestPausedServerCanBeStoppedAndClosed(t *testing.T) {
	s := New(t, Options{})
	must(t, s.Pause())
	must(t, s.Stop())
	must(t, s.Restart())
	must(t, s.Pause())
	must(t, s.Close())
	must(t, s.Close())
	if _, err := os.Stat(s.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of a closed server: %v", err)
	}
}

func TestAnswersAreOfEveryKind(t *testing.T) {
	s := New(t, Options{})
	want(t, s, int64(1), "RPUSH", "l", "x")
	want(t, s, "", "ECHO", "")
	want(t, s, "a\r\nb", "ECHO", "a\r\nb")
	list, err := s.Do("EVAL", "return {'x', 2, false, {}, redis.error_reply('ERR y')}", "0")
	must(t, err)
	got, ok := list.([]any)
	if !ok || len(got) != 5 || got[0] != "x" || got[1] != int64(2) || got[2] != nil || got[4] != Error("ERR y") {
		t.Errorf("got %#v", list)
	}
	var answered Error
	if _, err := s.Do("NONSENSE"); !errors.As(err, &answered) || !strings.HasPrefix(string(answered), "ERR") {
		t.Errorf("got the error %v, want one of the server", err)
	}
}

func TestPasswordsAndUsersAreAskedFor(t *testing.T) {
	s := New(t, Options{
		Password: "se:cr@t",
		Args:     []string{"--user", "app", "on", ">pw", "~app:*", "&*", "+@all"},
	})
	want(t, s, "PONG", "PING")
	want(t, s, "OK", "AUTH", "app", "pw")
	if _, err := s.Do("AUTH", "app", "other"); err == nil {
		t.Error("the server takes any password of a user")
	}
	if _, err := do(s.Addr(), "", nil, "GET", "a"); err == nil {
		t.Error("the server asks for no password")
	}
	if s.URL() != "redis://:se%3Acr%40t@"+s.Addr() {
		t.Errorf("the URL is %s", s.URL())
	}
}

func TestServerThatCannotStartTellsWhy(t *testing.T) {
	New(t, Options{}) // skips where there is none
	s, err := Start(Options{Args: []string{"--no-such-setting", "1"}})
	if err == nil {
		s.Close()
		t.Fatal("it started")
	}
	if !strings.Contains(err.Error(), "no-such-setting") {
		t.Errorf("got the error %v", err)
	}
}

func TestServerWithTLSIsTrustedByItsAuthority(t *testing.T) {
	s := New(t, Options{TLS: true, Password: "pw"})
	want(t, s, "OK", "SET", "a", "1")
	must(t, s.Restart())
	if !strings.HasPrefix(s.URL(), "rediss://") {
		t.Errorf("the URL is %s", s.URL())
	}
	if _, err := os.Stat(s.CAFile()); err != nil {
		t.Error(err)
	}
	if _, err := do(s.Addr(), "pw", nil, "PING"); err == nil {
		t.Error("it answers without TLS")
	}
	if _, err := do(s.Addr(), "pw", &tls.Config{ServerName: "127.0.0.1"}, "PING"); err == nil {
		t.Error("it is trusted without its authority")
	}
}

func TestServerWithTLSMayAskForCertificates(t *testing.T) {
	s := New(t, Options{TLS: true, Args: []string{"--tls-auth-clients", "yes"}})
	want(t, s, "PONG", "PING")
	config := s.certs.config.Clone()
	config.Certificates = nil
	if _, err := do(s.Addr(), "", config, "PING"); err == nil {
		t.Error("it answers a client without certificate")
	}
}

func TestReplicaCopiesAndCanBePromoted(t *testing.T) {
	t.Parallel()
	master := New(t, Options{Password: "pw"})
	want(t, master, "OK", "SET", "a", "1")
	replica := New(t, Options{ReplicaOf: master, Password: "pw"})
	must(t, replica.WaitSynced(master))
	want(t, replica, "1", "GET", "a")
	want(t, master, "OK", "SET", "a", "2")
	must(t, replica.WaitSynced(master))
	want(t, replica, "2", "GET", "a")
	if _, err := replica.Do("SET", "a", "3"); err == nil {
		t.Error("a replica takes writes")
	}
	must(t, master.Kill())
	must(t, replica.Promote())
	want(t, replica, "OK", "SET", "a", "3")

	must(t, master.Restart())
	must(t, master.Follow(replica))
	must(t, master.WaitSynced(replica))
	want(t, master, "3", "GET", "a")
}

func TestSentinelPromotesTheReplica(t *testing.T) {
	t.Parallel()
	master := New(t, Options{Password: "pw"})
	replica := New(t, Options{ReplicaOf: master, Password: "pw"})
	must(t, replica.WaitSynced(master))
	a := NewSentinel(t, SentinelOptions{Master: master, Name: "main"})
	must(t, a.WaitSees(1, 0))
	must(t, a.WaitMaster(master))
	must(t, master.Kill())
	must(t, a.WaitMaster(replica))
	want(t, replica, "OK", "SET", "a", "1")
}

func TestSentinelsFindOneAnother(t *testing.T) {
	t.Parallel()
	master := New(t, Options{})
	replica := New(t, Options{ReplicaOf: master})
	must(t, replica.WaitSynced(master))
	a := NewSentinel(t, SentinelOptions{Master: master, Name: "main", Password: "s"})
	b := NewSentinel(t, SentinelOptions{Master: master, Name: "main", Password: "s"})
	must(t, a.WaitSees(1, 1))
	must(t, b.WaitSees(1, 1))
	must(t, master.Pause()) // silent, not gone
	must(t, a.WaitMaster(replica))
	must(t, b.WaitMaster(replica))
}

func TestClusterSpreadsKeys(t *testing.T) {
	t.Parallel()
	c := NewCluster(t, 3, Options{})
	for _, key := range []string{"a", "b", "c", "{a}x"} {
		s, err := c.ServerOf(key)
		must(t, err)
		want(t, s, "OK", "SET", key, "1")
		for _, other := range c.Servers {
			if other == s {
				continue
			}
			var moved Error
			if _, err := other.Do("GET", key); !errors.As(err, &moved) || !strings.HasPrefix(string(moved), "MOVED") {
				t.Errorf("asking another for %s: %v", key, err)
			}
		}
	}
	must(t, c.Servers[0].Kill())
	must(t, c.Servers[0].Restart())
	must(t, c.WaitComplete())
}
