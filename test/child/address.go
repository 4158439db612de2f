package child

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// FreeAddress returns an address on loopback on which nothing listens, and that it
// has not returned before: two programs that listen on one are not always told so
// (Caddy's are not). It is none that systems give to outgoing connections, which
// could take it while its program is away.
func FreeAddress() (string, error) {
	var err error
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(15000+rand.IntN(5000)))
		if _, given := addresses.LoadOrStore(address, nil); given {
			continue
		}
		var ln net.Listener
		if ln, err = net.Listen("tcp", address); err == nil {
			return address, ln.Close()
		}
	}
	if err == nil {
		err = errors.New("all that were tried have been given to others")
	}
	return "", fmt.Errorf("looking for a free port: %w", err)
}

// addresses are those that FreeAddress has tried.
var addresses sync.Map
