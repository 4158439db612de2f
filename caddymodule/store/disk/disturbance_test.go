package disk

import (
	"path/filepath"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// disturbance is what a broken disk does: it fails one kind of operation on one
// kind of file.
type disturbance struct {
	kinds []errorfs.OpKind
	file  string // a pattern of its base name
	err   error
}

// fails tells how the disk answers op.
func (d disturbance) fails(op errorfs.Op) error {
	if ok, _ := filepath.Match(d.file, filepath.Base(op.Path)); !ok {
		return nil
	}
	for _, k := range d.kinds {
		if k == op.Kind {
			return d.err
		}
	}
	return nil
}

var syncs = []errorfs.OpKind{errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo}

// disturbances has one of each kind that brings a store to its end.
var disturbances = map[string]disturbance{
	"writing a log":       {[]errorfs.OpKind{errorfs.OpFileWrite}, "*.log", syscall.ENOSPC},
	"syncing a log":       {syncs, "*.log", syscall.EIO},
	"making a log":        {[]errorfs.OpKind{errorfs.OpCreate, errorfs.OpReuseForWrite}, "*.log", syscall.ENOSPC},
	"writing a table":     {[]errorfs.OpKind{errorfs.OpFileWrite}, "*.sst", syscall.ENOSPC},
	"syncing a table":     {syncs, "*.sst", syscall.EIO},
	"making a table":      {[]errorfs.OpKind{errorfs.OpCreate}, "*.sst", syscall.EROFS},
	"writing a manifest":  {[]errorfs.OpKind{errorfs.OpFileWrite}, "MANIFEST-*", syscall.ENOSPC},
	"syncing a manifest":  {syncs, "MANIFEST-*", syscall.EIO},
	"making the seal":     {[]errorfs.OpKind{errorfs.OpCreate}, "seal.new", syscall.ENOSPC},
	"renaming the seal":   {[]errorfs.OpKind{errorfs.OpRename}, "seal.new", syscall.EIO},
	"syncing a directory": {syncs, dbName, syscall.EIO},
	"anything":            {append([]errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpRename}, syncs...), "*", syscall.ENOSPC},
}
