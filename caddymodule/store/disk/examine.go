package disk

import (
	"path/filepath"
	"strings"
)

// Holder says which other process uses the store in dir: "name, process 17", or
// "" where none does or the system does not tell. It changes nothing.
func Holder(dir string) string {
	return strings.Trim(holder(filepath.Join(dir, lockName)), " ()")
}

// Advice returns what to do about an error of the operating system's that has
// to do with a store's directory, or "" where that is not known.
func Advice(err error) string { return adviceOn(err) }
