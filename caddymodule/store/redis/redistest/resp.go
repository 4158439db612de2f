package redistest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Error is an error that a server answered, such as "ERR unknown command".
type Error string

// Error implements error.
func (e Error) Error() string { return string(e) }

// do sends one command to addr, over a connection of its own so that there is
// no state that a killed server could spoil, and returns the answer.
func do(addr, password string, tlsConfig *tls.Config, args ...string) (any, error) {
	conn, err := net.DialTimeout("tcp", addr, limit)
	if err != nil {
		return nil, err
	}
	if tlsConfig != nil {
		conn = tls.Client(conn, tlsConfig)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	if password != "" {
		if _, err := roundTrip(conn, r, "AUTH", password); err != nil {
			return nil, err
		}
	}
	return roundTrip(conn, r, args...)
}

// roundTrip sends one command and returns its answer, or what the server had
// against it as an Error.
func roundTrip(w io.Writer, r *bufio.Reader, args ...string) (any, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return nil, err
	}
	answer, err := readAnswer(r)
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	if e, ok := answer.(Error); ok {
		return nil, e
	}
	return answer, nil
}

// readAnswer reads one answer of RESP2: a string, an int64, nil, an Error, or a
// []any of these.
func readAnswer(r *bufio.Reader) (any, error) {
	kind, line, err := readLine(r)
	if err != nil {
		return nil, err
	}
	if kind == '+' {
		return line, nil
	}
	if kind == '-' {
		return Error(line), nil
	}
	n, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		return nil, err
	}
	switch kind {
	case ':':
		return n, nil
	case '$':
		if n < 0 {
			return nil, nil
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		return string(b[:n]), nil
	case '*':
		if n < 0 {
			return nil, nil
		}
		list := make([]any, n)
		for i := range list {
			if list[i], err = readAnswer(r); err != nil {
				return nil, err
			}
		}
		return list, nil
	default:
		return nil, fmt.Errorf("an answer that begins with %q", kind)
	}
}

// readLine reads a line and splits off its first byte, which tells what it is.
func readLine(r *bufio.Reader) (kind byte, rest string, err error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return 0, "", errors.New("an empty line")
	}
	return line[0], line[1:], nil
}
