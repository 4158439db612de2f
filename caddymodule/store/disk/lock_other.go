//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package disk

// holder would name the process that has locked the file name.
func holder(string) string { return "" }
