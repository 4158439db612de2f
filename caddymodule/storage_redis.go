package caddymodule

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
	"genesys-sidecar/caddymodule/store/redis"
)

func init() {
	caddy.RegisterModule(RedisStorage{})
}

// RedisStorage keeps answers in Redis 7 or later, or Valkey, where all sidecars
// of a fleet find them. What survives is up to how Redis is set up; what weakens
// a promise is said in the log.
//
// While Redis does not answer, new calls are refused. A call under way answers
// its caller and is recorded once Redis is back.
type RedisStorage struct {
	// Where Redis is: `redis://[[user]:password@]host[:port][/database]`,
	// `rediss://` for TLS, or `unix://path`. Several URLs are nodes of one
	// Cluster or, with `?master_set=name`, Sentinels. Placeholders are replaced.
	URLs []string `json:"urls,omitempty"`

	// Redis' user, in place of the URL's. Placeholders are replaced. Default:
	// none, which is Redis' user `default`.
	Username string `json:"username,omitempty"`

	// Redis' password, in place of the URL's. Placeholders are replaced, and
	// `{file.*}` is read again when Redis refuses the password or has been away.
	Password string `json:"password,omitempty"`

	// The Sentinels' user and password. Default: none.
	SentinelUsername string `json:"sentinel_username,omitempty"`
	SentinelPassword string `json:"sentinel_password,omitempty"`

	// What precedes all keys and channels in Redis. Sidecars with the same
	// prefix in the same database are a fleet. Default: `genesys-sidecar:`.
	Prefix string `json:"prefix,omitempty"`

	// How long the making of a connection may take. Default: 2s.
	ConnectTimeout caddy.Duration `json:"connect_timeout,omitempty"`

	// How long to wait for a reply. Commands share timers, so that a wait may be
	// a 32nd longer. Default: 2s.
	CommandTimeout caddy.Duration `json:"command_timeout,omitempty"`

	// How long a sidecar that is not heard of any more is still waited for. It
	// has to be the same for the whole fleet. Default: 5s.
	Lease caddy.Duration `json:"lease,omitempty"`

	// How many replicas must have a call before it is sent, and its answer
	// before it counts as stored. Default: 0.
	WaitReplicas int `json:"wait_replicas,omitempty"`

	// How long to wait for them. A call that fewer have by then is refused.
	WaitTimeout caddy.Duration `json:"wait_timeout,omitempty"`

	// How to verify Redis and to authenticate with TLS. Default: the system's
	// certificate authorities, and no client certificate.
	TLS *reverseproxy.TLSConfig `json:"tls,omitempty"`

	options  redis.Options
	identity string
}

// CaddyModule returns the Caddy module information.
func (RedisStorage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.genesys_cloud.storage.redis",
		New: func() caddy.Module { return new(RedisStorage) },
	}
}

// Provision finds out where Redis is.
func (s *RedisStorage) Provision(ctx caddy.Context) error {
	repl := caddy.NewReplacer()
	urls := make([]string, len(s.URLs))
	for i, text := range s.URLs {
		var err error
		if urls[i], err = repl.ReplaceOrErr(text, true, true); err != nil {
			return fmt.Errorf("reading urls: %w", err)
		}
	}
	endpoint, err := redis.ParseURLs(urls)
	if err != nil {
		return err
	}
	prefix, err := repl.ReplaceOrErr(s.Prefix, true, true)
	if err != nil {
		return fmt.Errorf("reading prefix: %w", err)
	}
	s.options = redis.Options{
		Endpoint:       endpoint,
		Prefix:         prefix,
		ConnectTimeout: time.Duration(s.ConnectTimeout),
		CommandTimeout: time.Duration(s.CommandTimeout),
		Lease:          time.Duration(s.Lease),
		WaitReplicas:   s.WaitReplicas,
		WaitTimeout:    time.Duration(s.WaitTimeout),
	}
	if s.TLS != nil {
		if !endpoint.TLS() {
			return errors.New("tls is set, but the URL does not ask for it; write rediss:// in place of redis://")
		}
		if s.options.TLS, err = s.TLS.MakeTLSClientConfig(ctx); err != nil {
			return fmt.Errorf("reading tls: %w", err)
		}
	}
	if s.Username != "" || s.Password != "" {
		s.options.Credentials = credentials(s.Username, s.Password)
		if _, _, err := s.options.Credentials(); err != nil {
			return err
		}
	}
	if s.SentinelUsername != "" || s.SentinelPassword != "" {
		s.options.SentinelCredentials = credentials(s.SentinelUsername, s.SentinelPassword)
		if _, _, err := s.options.SentinelCredentials(); err != nil {
			return err
		}
	}
	return s.identify(endpoint, urls)
}

// identify names the store by where it is and, since it can be opened twice and
// its settings cannot be changed while it is open, by all of its configuration.
// It may have passwords, so that it is told by a digest.
func (s *RedisStorage) identify(endpoint redis.Endpoint, urls []string) error {
	config, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("naming store: %w", err)
	}
	digest := sha256.Sum256(append(config, strings.Join(urls, " ")...))
	s.identity = fmt.Sprintf("redis:%s/%d %x", strings.Join(endpoint.Addresses(), ","), endpoint.Database(), digest[:8])
	return nil
}

// credentials returns a function that reads user and password.
func credentials(username, password string) func() (string, string, error) {
	return func() (string, string, error) {
		repl := caddy.NewReplacer()
		u, err := repl.ReplaceOrErr(username, false, true)
		if err != nil {
			return "", "", fmt.Errorf("reading username: %w", err)
		}
		p, err := repl.ReplaceOrErr(password, false, true)
		if err != nil {
			return "", "", fmt.Errorf("reading password: %w", err)
		}
		return strings.TrimSpace(u), strings.TrimSpace(p), nil
	}
}

// Validate checks what no default can mend.
func (s *RedisStorage) Validate() error {
	switch {
	case s.ConnectTimeout < 0 || s.CommandTimeout < 0:
		return errors.New("connect_timeout and command_timeout of store redis must be positive")
	case s.Lease < 0 || s.Lease > 0 && time.Duration(s.Lease) < minLease:
		return fmt.Errorf("lease of store redis is %v; it must be %v or more", time.Duration(s.Lease), minLease)
	case s.WaitReplicas < 0 || s.WaitReplicas > 0 && time.Duration(s.WaitTimeout) < time.Millisecond:
		return errors.New("wait_replicas of store redis needs a number and how long to wait, as in: wait_replicas 1 500ms")
	}
	return nil
}

// minLease is the shortest lease that a loaded machine can be expected to keep.
const minLease = 500 * time.Millisecond

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store redis <url>... {
//	    username          <user>
//	    password          <password>
//	    sentinel_username <user>
//	    sentinel_password <password>
//	    prefix            <prefix>
//	    connect_timeout   <duration>
//	    command_timeout   <duration>
//	    lease             <duration>
//	    wait_replicas     <n> <timeout>
//	    tls_...           # as in reverse_proxy's transport http
//	}
func (s *RedisStorage) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume store name
	s.URLs = d.RemainingArgs()
	if len(s.URLs) == 0 {
		return d.Err("store redis: where is it? As in: store redis redis://127.0.0.1:6379")
	}
	for _, text := range s.URLs {
		if strings.Contains(text, "{") {
			continue
		}
		if _, err := redis.ParseURLs([]string{text}); err != nil {
			return d.Errf("store redis: %v", err)
		}
	}
	seen := make(map[string]bool)
	var tls []caddyfile.Token
	for d.NextBlock(0) {
		name := d.Val()
		if strings.HasPrefix(name, "tls_") {
			tls = append(tls, d.NextSegment()...)
			continue
		}
		if seen[name] {
			return d.Errf("store redis: %s is given twice", name)
		}
		seen[name] = true
		if err := s.unmarshalOption(d, name); err != nil {
			return err
		}
	}
	return s.unmarshalTLS(d, tls)
}

func (s *RedisStorage) unmarshalOption(d *caddyfile.Dispenser, name string) error {
	switch name {
	case "username":
		return parseArg(d, &s.Username)
	case "password":
		return parseArg(d, &s.Password)
	case "sentinel_username":
		return parseArg(d, &s.SentinelUsername)
	case "sentinel_password":
		return parseArg(d, &s.SentinelPassword)
	case "prefix":
		return parseArg(d, &s.Prefix)
	case "connect_timeout":
		return parsePositiveDuration(d, &s.ConnectTimeout)
	case "command_timeout":
		return parsePositiveDuration(d, &s.CommandTimeout)
	case "lease":
		return parsePositiveDuration(d, &s.Lease)
	case "wait_replicas":
		return s.unmarshalWaitReplicas(d)
	default:
		return d.Errf("store redis has no option %q; it has username, password, sentinel_username, sentinel_password, prefix, "+
			"connect_timeout, command_timeout, lease, wait_replicas, and the tls_ options of transport http", name)
	}
}

func (s *RedisStorage) unmarshalWaitReplicas(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Err("wait_replicas: how many, and how long is each call to wait for them? As in: wait_replicas 1 500ms")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 {
		return d.Errf("wait_replicas: %q is no number from 1 on", args[0])
	}
	timeout, err := caddy.ParseDuration(args[1])
	if err != nil || timeout < time.Millisecond {
		return d.Errf("wait_replicas: %q is no duration of 1ms or more", args[1])
	}
	s.WaitReplicas, s.WaitTimeout = n, caddy.Duration(timeout)
	return nil
}

// unmarshalTLS has Caddy's own transport parse the options that it has, too.
func (s *RedisStorage) unmarshalTLS(d *caddyfile.Dispenser, tokens []caddyfile.Token) error {
	if len(tokens) == 0 {
		return nil
	}
	first := tokens[0]
	around := func(text string, line int) caddyfile.Token {
		return caddyfile.Token{File: first.File, Line: line, Text: text}
	}
	all := append([]caddyfile.Token{around("http", first.Line-1), around("{", first.Line-1)}, tokens...)
	all = append(all, around("}", tokens[len(tokens)-1].Line+1))
	var transport reverseproxy.HTTPTransport
	if err := transport.UnmarshalCaddyfile(caddyfile.NewDispenser(all)); err != nil {
		return err
	}
	if t := transport.TLS; t != nil && (len(t.ExceptPorts) > 0 || t.HandshakeTimeout != 0) {
		return d.Err("store redis: tls_except_ports and tls_timeout make no sense here; write redis:// or rediss://, and connect_timeout")
	}
	s.TLS = transport.TLS
	return nil
}

// Identity implements Storage.
func (s *RedisStorage) Identity() string { return s.identity }

// where tells operators where the store is.
func (s *RedisStorage) where() string { return strings.Join(s.options.Endpoint.Addresses(), " ") }

// Open implements Storage.
func (s *RedisStorage) Open(o OpenOptions) (idempotency.Store, error) {
	options := s.options
	options.Logger, options.Keyring = o.Logger, o.Keyring
	return redis.Open(options)
}

func (*RedisStorage) reconfigure(opened idempotency.Store, keys *store.Keyring) error {
	return setKeyring(opened, keys)
}

// Interface guards
var (
	_ Storage               = (*RedisStorage)(nil)
	_ reconfigurer          = (*RedisStorage)(nil)
	_ caddy.Provisioner     = (*RedisStorage)(nil)
	_ caddy.Validator       = (*RedisStorage)(nil)
	_ caddyfile.Unmarshaler = (*RedisStorage)(nil)
)
