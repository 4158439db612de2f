package caddymodule

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// fileSystems are those on which a store is not safe, or not as safe as on a
// disk, by the number that Linux knows them by.
var fileSystems = map[int64]struct{ name, risk, advice string }{
	unix.TMPFS_MAGIC: {"tmpfs", "it is memory: with a reboot it forgets every call, which then may run twice", onDisk},
	unix.RAMFS_MAGIC: {"ramfs", "it is memory: with a reboot it forgets every call, which then may run twice", onDisk},
	unix.OVERLAYFS_SUPER_MAGIC: {"overlay", "it is a container's own layer: with the container it forgets every call, which then may run twice",
		"mount a volume there"},
	unix.NFS_SUPER_MAGIC:  {"NFS", "locks and syncs across a network are promises of its server", onDisk},
	unix.SMB_SUPER_MAGIC:  {"SMB", "locks and syncs across a network are promises of its server", onDisk},
	unix.CIFS_SUPER_MAGIC: {"SMB", "locks and syncs across a network are promises of its server", onDisk},
	unix.SMB2_SUPER_MAGIC: {"SMB", "locks and syncs across a network are promises of its server", onDisk},
	unix.V9FS_MAGIC:       {"9p", "whether a sync reaches a disk is up to its host", onDisk},
	unix.FUSE_SUPER_MAGIC: {"FUSE", "whether a sync reaches a disk is up to a program", onDisk},
}

const onDisk = "name a directory on a disk, as in: store disk /var/lib/genesys-sidecar"

// checkFileSystem looks at what dir is on.
func (d *doctor) checkFileSystem(dir string) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		d.warn(checkStore, fmt.Sprintf("the file system of %s cannot be looked at: %v", dir, err), "")
		return
	}
	if f, ok := fileSystems[s.Type]; ok {
		d.warn(checkStore, fmt.Sprintf("%s is on %s: %s", dir, f.name, f.risk), f.advice)
	}
	d.checkFree(dir, s.Bavail*uint64(s.Bsize))
}

// checkOwner looks at who may read the store.
func (d *doctor) checkOwner(dir string, info fs.FileInfo) {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		d.warn(checkStore, fmt.Sprintf("%s can be entered by others (mode %04o)", dir, mode), "chmod 700 "+dir+"; the sidecar does so itself where it may")
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		d.warn(checkStore, fmt.Sprintf("%s belongs to user %d, and this runs as %d", dir, stat.Uid, os.Geteuid()),
			"run this as the user that the sidecar runs as; the directory has to be that user's")
	}
}
