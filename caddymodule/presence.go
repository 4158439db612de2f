package caddymodule

import (
	"context"
	"net"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A request's context ends when its caller leaves, but only once the server has
// got round to notice: on a busy machine, or after a pause, that may be long after
// the caller's repeat came on another connection. The kernel knows at once. It
// cannot be asked where Caddy has wrapped the connection (proxy_protocol, or
// protocols h1 alone), and knows nothing of a stream that was reset over HTTP/2:
// there the context has to do.

// connKey is the context key of a request's connection.
type connKey struct{}

// watchCallers has the server that is being provisioned tell each request which
// connection it came by.
func watchCallers(ctx caddy.Context) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return // a handler of no server, as in tests
	}
	server.RegisterConnContext(func(ctx context.Context, conn net.Conn) context.Context {
		if ctx.Value(connKey{}) != nil {
			return ctx // another handler of the same server has
		}
		if raw := rawConn(conn); raw != nil {
			return context.WithValue(ctx, connKey{}, raw)
		}
		return ctx
	})
}

// rawConn returns the connection as the kernel has it, or nil.
func rawConn(conn net.Conn) syscall.RawConn {
	for {
		switch c := conn.(type) {
		case syscall.Conn:
			raw, err := c.SyscallConn()
			if err != nil {
				return nil
			}
			return raw
		case interface{ NetConn() net.Conn }: // TLS
			conn = c.NetConn()
		default:
			return nil
		}
	}
}

// present tells whether the caller of the request with ctx is still there, as far
// as anybody can tell.
func present(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	raw, ok := ctx.Value(connKey{}).(syscall.RawConn)
	return !ok || !hungUp(raw)
}
