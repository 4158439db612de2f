//go:build !linux

package caddymodule

import "io/fs"

// checkFileSystem is for Linux.
func (d *doctor) checkFileSystem(string) {}

// checkOwner is for Linux.
func (d *doctor) checkOwner(string, fs.FileInfo) {}
