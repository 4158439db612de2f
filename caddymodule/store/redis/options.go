package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"genesys-sidecar/caddymodule/store"
)

// Defaults of Options.
const (
	DefaultPrefix         = "genesys-sidecar:"
	DefaultConnectTimeout = 2 * time.Second
	DefaultCommandTimeout = 2 * time.Second
	DefaultLease          = 5 * time.Second
)

// Options are the options of a Store. All but Endpoint have defaults.
type Options struct {
	// Endpoint tells where Redis is.
	Endpoint Endpoint

	// Credentials returns user and password, and is asked anew when Redis has
	// not answered or refuses the old ones. The empty user is Redis' default
	// user. nil: those of the URL.
	Credentials func() (user, password string, err error)

	// SentinelCredentials is the same for Sentinels. nil: none.
	SentinelCredentials func() (user, password string, err error)

	// TLS, where not nil, is used for every connection; a server name is put in
	// where it has none. nil: as the URL says, with the system's authorities.
	TLS *tls.Config

	// Prefix precedes every key and channel. Stores with the same Prefix in the
	// same database are one. Default: DefaultPrefix.
	Prefix string

	// ConnectTimeout bounds the making of a connection. Default:
	// DefaultConnectTimeout.
	ConnectTimeout time.Duration

	// CommandTimeout is how long a reply is waited for, or a 32nd longer: see
	// deadline.Shared. Default: DefaultCommandTimeout.
	CommandTimeout time.Duration

	// Lease is how long a process is believed to live after it was last heard
	// of; processes are to be heard of four times as often. It has to be the
	// same for all that share a store. Default: DefaultLease.
	Lease time.Duration

	// WaitReplicas is how many replicas must have a change before it counts;
	// 0: none has to. A claim that fewer have is taken back.
	WaitReplicas int

	// WaitTimeout bounds that wait. It must be positive where WaitReplicas is.
	WaitTimeout time.Duration

	// Keyring encrypts records from now on; those that are there stay as they
	// are. Where some need a key that it does not have, the store refuses
	// everything. nil: they are not encrypted.
	Keyring *store.Keyring

	// Logger is told what an operator should know. nil: nobody.
	Logger *slog.Logger

	// Now tells the local time, from which it is worked out how long a record
	// lives. It must be safe for concurrent use. nil: time.Now.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = DefaultConnectTimeout
	}
	if o.CommandTimeout == 0 {
		o.CommandTimeout = DefaultCommandTimeout
	}
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Endpoint is where a Redis is. Make one with ParseURLs.
type Endpoint struct{ client rueidis.ClientOption }

// ParseURLs returns the endpoint that urls lead to: one server; several nodes of
// a Cluster, any of which may be down; or several Sentinels. Each URL is one of
//
//	redis://[[<user>]:<password>@]<host>[:<port>][/<database>][?master_set=<name>]
//	rediss://…  the same over TLS
//	unix://[[<user>]:<password>@]</path/of/socket>[?db=<database>]
//
// valkey and valkeys are the same as redis and rediss. They may differ in host
// and port only. With master_set, they are the addresses of Sentinels. Errors
// contain nothing of a URL, since that may have a password.
func ParseURLs(urls []string) (Endpoint, error) {
	if len(urls) == 0 {
		return Endpoint{}, errors.New("parsing Redis URL: there is none")
	}
	var all rueidis.ClientOption
	for i, text := range urls {
		next, err := parseURL(text)
		if err != nil {
			return Endpoint{}, fmt.Errorf("parsing Redis URL %d of %d: %w", i+1, len(urls), err)
		}
		if i == 0 {
			all = next
			continue
		}
		if !sameButAddress(all, next) {
			return Endpoint{}, fmt.Errorf("parsing Redis URL %d of %d: it differs from the first in more than host and port", i+1, len(urls))
		}
		all.InitAddress = append(all.InitAddress, next.InitAddress...)
	}
	if len(all.InitAddress) > 1 && all.DialCtxFn != nil {
		return Endpoint{}, errors.New("parsing Redis URL: several sockets cannot be one store")
	}
	return Endpoint{all}, nil
}

// Addresses returns the addresses to begin with, without credentials.
func (e Endpoint) Addresses() []string { return slices.Clone(e.client.InitAddress) }

// Database returns the number of the database.
func (e Endpoint) Database() int { return e.client.SelectDB }

// MasterSet returns the name that Sentinels know the master by, or "".
func (e Endpoint) MasterSet() string { return e.client.Sentinel.MasterSet }

// User returns the user that the URL names, or "".
func (e Endpoint) User() string { return e.client.Username }

// TLS tells whether the URL asks for TLS.
func (e Endpoint) TLS() bool { return e.client.TLSConfig != nil }

// parseURL parses one URL. What is wrong is said in words of its own: any part
// may belong to a password that was not encoded.
func parseURL(text string) (rueidis.ClientOption, error) {
	fail := func(what string) (rueidis.ClientOption, error) {
		return rueidis.ClientOption{}, errors.New(what)
	}
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Fragment != "" {
		return fail("it is no URL such as redis://localhost:6379; what is special in user and password has to be percent-encoded")
	}
	for name := range u.Query() {
		if name != "master_set" && (name != "db" || u.Scheme != "unix") {
			return fail("it has a parameter that is not known; master_set is, and db for sockets")
		}
	}
	switch u.Scheme {
	case "redis", "rediss", "valkey", "valkeys":
		if u.Hostname() == "" {
			return fail("it has no host, as in redis://localhost:6379")
		}
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), "6379")
		}
		u.Path = strings.TrimSuffix(u.Path, "/")
		if !isNumber(strings.TrimPrefix(u.Path, "/")) {
			return fail("after its host is something that is no database number")
		}
	case "unix":
		if u.Path == "" {
			return fail("it has no path, as in unix:///run/redis/redis.sock")
		}
		if !isNumber(u.Query().Get("db")) {
			return fail("its db is no database number")
		}
	default:
		return fail("its scheme is none of redis, rediss, valkey, valkeys and unix")
	}
	option, err := rueidis.ParseURL(u.String())
	if err != nil {
		return fail("it cannot be understood")
	}
	return option, nil
}

// isNumber tells whether s is a number, or empty.
func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 31)
	return s == "" || err == nil
}

// sameButAddress tells whether two URLs are of nodes of one Redis.
func sameButAddress(a, b rueidis.ClientOption) bool {
	return a.Username == b.Username && a.Password == b.Password && a.SelectDB == b.SelectDB &&
		a.Sentinel.MasterSet == b.Sentinel.MasterSet && (a.TLSConfig == nil) == (b.TLSConfig == nil) &&
		(a.DialCtxFn == nil) == (b.DialCtxFn == nil)
}

// clientOption returns what the client is made with.
func (o Options) clientOption() (rueidis.ClientOption, error) {
	c := o.Endpoint.client
	c.InitAddress = slices.Clone(c.InitAddress)
	if o.TLS != nil {
		c.TLSConfig = o.TLS
	}
	dial := c.DialCtxFn
	c.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
		defer cancel()
		conn, err := o.dial(ctx, addr, d, t, dial)
		if err != nil {
			return nil, &dialError{err}
		}
		return conn, nil
	}
	if o.Credentials != nil {
		user, password, err := o.Credentials()
		if err != nil {
			return c, fmt.Errorf("reading credentials: %w", err)
		}
		c.Username, c.Password = user, password
	}
	c.Dialer.Timeout = o.ConnectTimeout
	c.ConnWriteTimeout = 2 * o.CommandTimeout // a command is given up before its connection is
	c.ClientName = "genesys-sidecar"
	c.DisableRetry = true // what may be sent again is for the store to say
	c.DisableCache = true // the gate has its own
	c.ClusterOption.ShardsRefreshInterval = 5 * time.Second
	c.BlockingPoolCleanup = time.Minute // connections that wait for replicas
	// A record is small, and replies are read as they come.
	c.ReadBufferEachConn, c.WriteBufferEachConn = 64<<10, 64<<10
	if c.Sentinel.MasterSet != "" {
		c.Sentinel.Dialer, c.Sentinel.TLSConfig = c.Dialer, c.TLSConfig
		c.Sentinel.TopologyRefreshInterval = 5 * time.Second
		if o.SentinelCredentials != nil {
			user, password, err := o.SentinelCredentials()
			if err != nil {
				return c, fmt.Errorf("reading Sentinel's credentials: %w", err)
			}
			c.Sentinel.Username, c.Sentinel.Password = user, password
		}
	}
	return c, nil
}

// dialError says that a connection was not made, so that nothing was sent on it.
type dialError struct{ error }

func (e *dialError) Unwrap() error { return e.error }

type dialFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

// dial connects to addr, by the endpoint's own way where it has one.
func (o Options) dial(ctx context.Context, addr string, d *net.Dialer, t *tls.Config, own dialFn) (net.Conn, error) {
	switch {
	case own != nil:
		return own(ctx, addr, d, t)
	case t == nil:
		return d.DialContext(ctx, "tcp", addr)
	default:
		if t.ServerName == "" || o.TLS == nil {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			t = t.Clone()
			t.ServerName = host
		}
		return (&tls.Dialer{NetDialer: d, Config: t}).DialContext(ctx, "tcp", addr)
	}
}
