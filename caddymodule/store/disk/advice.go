package disk

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// adviceOnDamage is what to do about damage.
const adviceOnDamage = "restore it from a copy, or move the directory away to start with an empty store, which forgets every answer"

// advice tells what to do about an error of the operating system.
var advice = map[syscall.Errno]string{
	syscall.ENOSPC: "make room on its file system",
	syscall.EDQUOT: "make room, or raise the quota",
	syscall.EROFS:  "make its file system writable: it is mounted read-only, or the system made it so after an error",
	syscall.EACCES: "let the user that the sidecar runs as write there",
	syscall.EPERM:  "let the user that the sidecar runs as write there",
	syscall.EIO:    "the disk does not work: the system's log tells more",
	syscall.EMFILE: "raise the limit of open files",
	syscall.ENFILE: "raise the limit of open files",
}

// adviceOn returns what to do about err, or "" where that is not known.
func adviceOn(err error) string {
	if errors.Is(err, ErrDamaged) {
		return adviceOnDamage
	}
	var errno syscall.Errno
	errors.As(err, &errno)
	return advice[errno]
}

// withAdvice returns err with what to do about it, where that is known and not
// said yet.
func withAdvice(err error) error {
	if what := adviceOn(err); what != "" && !strings.Contains(err.Error(), what) {
		return fmt.Errorf("%w; %s", err, what)
	}
	return err
}
