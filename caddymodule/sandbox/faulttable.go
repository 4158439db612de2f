package sandbox

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// FaultInfo describes a fault for a help text.
type FaultInfo struct {
	// Name is the fault's name. In a name with <status>, any status from 400
	// to 599 can stand.
	Name string `json:"name"`
	// Argument says what may follow "=", and its default. Empty: nothing may.
	Argument string `json:"argument,omitempty"`
	// Effect says what the fault does.
	Effect string `json:"effect"`
}

// kind is what a fault does with a request.
type kind int

const (
	kindNone kind = iota
	kindDrop
	kindEarlyClose
	kindTruncate
	kindHang
	kindStatus
	kindFail
	// What follows decides nothing: it only changes how things go.
	kindSlow
	kindStall
	kindLarge
	kindGzip
	kindCookie
)

// decides says whether the fault decides the outcome. Of those a request names,
// one applies at most; of the others, all do.
func (k kind) decides() bool { return k < kindSlow }

// fault is a parsed fault.
type fault struct {
	spec  string // name[=arg], as it was written
	times int    // zero: always
	kind  kind
	// executes says that the action takes effect before the fault strikes.
	executes bool
	// status of kindStatus and kindFail; remote says that the answer is the
	// remote service's and no errorBody.
	status int
	remote bool
	code   string // replaces the status's own code
	retry  retryForm
	revoke bool
	wait   time.Duration // of kindSlow, kindStall, kindHang; of Retry-After
	size   int64
}

// retryForm is how an answer tells when to come again.
type retryForm int

const (
	retryUntold retryForm = iota
	retrySeconds
	retryDate
)

type faultEntry struct {
	FaultInfo
	fault fault
	// arg reads the argument into the fault; nil if there is none.
	arg func(f *fault, arg string) error
}

var faultTable = []faultEntry{
	{FaultInfo{"ok", "", "nothing; it keeps the configured probabilities off the request"},
		fault{kind: kindNone}, nil},
	{FaultInfo{"drop-before", "", "closes the connection without a byte; not executed"},
		fault{kind: kindDrop}, nil},
	{FaultInfo{"execute-then-drop", "", "executes, then closes the connection without a byte"},
		fault{kind: kindDrop, executes: true}, nil},
	{FaultInfo{"early-close", "", "as execute-then-drop, but on reused connections only: a fresh one is answered"},
		fault{kind: kindEarlyClose, executes: true}, nil},
	{FaultInfo{"truncate", "", "executes, then cuts the connection in the middle of the body"},
		fault{kind: kindTruncate, executes: true}, nil},
	{FaultInfo{"hang-before", "duration, default until the caller leaves", "answers nothing, then closes the connection; not executed"},
		fault{kind: kindHang}, argDuration},
	{FaultInfo{"fail", "status, default 500", "the action itself fails: no effect, and a key is bound to the failure"},
		fault{kind: kindFail, status: http.StatusInternalServerError}, argStatus},
	{FaultInfo{"401", "revoke: the token is really revoked", "the platform's 401; not executed"},
		fault{kind: kindStatus, status: http.StatusUnauthorized}, argRevoke},
	{FaultInfo{"429", "seconds, default 1", "the platform's 429 with Retry-After; not executed"},
		fault{kind: kindStatus, status: http.StatusTooManyRequests, retry: retrySeconds, wait: time.Second}, argSeconds},
	{FaultInfo{"429-date", "seconds, default 1", "as 429, with a date in Retry-After"},
		fault{kind: kindStatus, status: http.StatusTooManyRequests, retry: retryDate, wait: time.Second}, argSeconds},
	{FaultInfo{"429-bare", "", "executes, then a 429 without code and Retry-After"},
		fault{kind: kindStatus, status: http.StatusTooManyRequests, executes: true, remote: true}, nil},
	{FaultInfo{"503-retry-after", "seconds, default 1", "503 with Retry-After; not executed"},
		fault{kind: kindStatus, status: http.StatusServiceUnavailable, retry: retrySeconds, wait: time.Second}, argSeconds},
	{FaultInfo{"400-contract", "", "the platform's 400 for an input against the contract; not executed"},
		fault{kind: kindStatus, status: http.StatusBadRequest, code: "invalid.schema"}, nil},
	{FaultInfo{"slow", "duration, default 5s", "executes at once and answers later; goes with other faults"},
		fault{kind: kindSlow, wait: 5 * time.Second}, argDuration},
	{FaultInfo{"stall", "duration, default 5s", "executes later, its key being in use until then; goes with other faults"},
		fault{kind: kindStall, wait: 5 * time.Second}, argDuration},
	{FaultInfo{"large", "bytes, as 65536, 64KiB or 9MiB; default 16MiB", "the answer has exactly that size; goes with other faults"},
		fault{kind: kindLarge, size: 16 << 20}, argSize},
	{FaultInfo{"gzip", "", "the answer is gzipped, if that is accepted; goes with other faults"},
		fault{kind: kindGzip}, nil},
	{FaultInfo{"set-cookie", "", "the answer sets a cookie; goes with other faults"},
		fault{kind: kindCookie}, nil},
}

// statusForms are the faults that exist for any status.
var statusForms = []FaultInfo{
	{"<status>", "", "the platform's own error; not executed"},
	{"<status>-before", "", "the same"},
	{"<status>-after", "", "executes, then a 5xx as <status>-before, not to be told from it; or a 4xx as <status>-remote"},
	{"<status>-remote", "", "executes, then an error of the service behind the action, in no form of the platform's"},
}

// FaultTable lists every fault there is.
func FaultTable() []FaultInfo {
	table := make([]FaultInfo, 0, len(faultTable)+len(statusForms))
	for _, entry := range faultTable {
		table = append(table, entry.FaultInfo)
	}
	return append(table, statusForms...)
}

func faultNames() string {
	var names []string
	for _, info := range FaultTable() {
		names = append(names, info.Name)
	}
	return strings.Join(names, ", ")
}

// parseSpec reads name[=arg].
func parseSpec(spec string) (fault, error) {
	name, arg, hasArg := strings.Cut(spec, "=")
	for _, entry := range faultTable {
		if entry.Name != name {
			continue
		}
		f := entry.fault
		f.spec = spec
		switch {
		case !hasArg:
			return f, nil
		case entry.arg == nil:
			return fault{}, fmt.Errorf("reading fault %q: %s takes no argument", spec, name)
		}
		if err := entry.arg(&f, arg); err != nil {
			return fault{}, fmt.Errorf("reading fault %q: %w", spec, err)
		}
		return f, nil
	}
	number, form, _ := strings.Cut(name, "-")
	status, err := parseStatus(number)
	f := fault{spec: spec, kind: kindStatus, status: status}
	switch form {
	case "", "before":
	case "after":
		f.executes = true
		// The platform's own codes on a 4xx say that nothing ran. Once
		// something did, a 4xx can only be the remote service's.
		f.remote = status < 500
	case "remote":
		f.executes, f.remote = true, true
	default:
		err = strconv.ErrSyntax
	}
	if err != nil || strings.HasSuffix(name, "-") {
		return fault{}, fmt.Errorf("unknown fault %q: known are %s", name, faultNames())
	}
	if hasArg {
		return fault{}, fmt.Errorf("reading fault %q: %s takes no argument", spec, name)
	}
	return f, nil
}

func parseStatus(s string) (int, error) {
	status, err := strconv.Atoi(s)
	if err != nil || len(s) != 3 || status < 400 || status > 599 {
		return 0, fmt.Errorf("%q is no status from 400 to 599", s)
	}
	return status, nil
}

func argDuration(f *fault, arg string) (err error) {
	f.wait, err = time.ParseDuration(arg)
	if err == nil && f.wait < 0 {
		err = fmt.Errorf("%q is negative", arg)
	}
	return err
}

func argSeconds(f *fault, arg string) error {
	seconds, err := strconv.ParseUint(arg, 10, 31)
	if err != nil {
		return fmt.Errorf("%q is no number of seconds", arg)
	}
	f.wait = time.Duration(seconds) * time.Second
	return nil
}

func argStatus(f *fault, arg string) (err error) {
	f.status, err = parseStatus(arg)
	return err
}

func argRevoke(f *fault, arg string) error {
	if arg != "revoke" {
		return fmt.Errorf("%q is not \"revoke\"", arg)
	}
	f.revoke = true
	return nil
}

func argSize(f *fault, arg string) (err error) {
	f.size, err = parseSize(arg)
	return err
}

// maxSize bounds what an answer can be made to weigh.
const maxSize = 16 << 30

// parseSize reads a number of bytes, with KiB, MiB or GiB if wanted.
func parseSize(s string) (int64, error) {
	digits, unit := s, int64(1)
	for i, suffix := range []string{"KiB", "MiB", "GiB"} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			digits, unit = rest, 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > maxSize/unit {
		return 0, fmt.Errorf("%q is no number of bytes up to 16GiB", s)
	}
	return n * unit, nil
}
