// Package disk keeps records in a directory, in a Pebble database. What it has
// acknowledged survives kill -9 and, as far as the disk keeps its word, loss of
// power. One process uses a directory at a time.
//
// # Layout
//
// The directory holds LOCK, which tells that somebody uses it, and records/,
// the database. Everything is readable by its owner alone. A new database is
// made as records.new and then renamed, so that records/ is either whole or
// damaged, never half made.
//
// # Encryption
//
// Where there is a keyring, records are sealed (see package store), and which keys
// they may need stands beside them. What was written in the clear before stays
// readable until it has expired and Pebble has compacted it away.
//
// # Damage
//
// A database that has lost something is refused, never mended, and never taken
// for an empty one: an empty store lets every call run once more. Pebble itself
// detects missing and truncated tables when it opens, and flipped bits within
// them when they are read. It takes a manifest that ends early, or a log that
// is not there, for the whole truth, so this package keeps a seal about them
// (see seal.go). The tail of the last log may be torn, as a crash leaves it;
// but not before a byte that the log itself says was synced (see tail.go).
// Since a clean Close moves everything into tables, only the log of a process
// that crashed has a tail that matters.
//
// # Failing disks
//
// Once a write to the disk has failed, the store has failed: nothing is written
// any more, every method returns an error that wraps ErrFailed, and what is on
// the disk stays as a crash at that moment would have left it. See guard.go for
// how Pebble, which would end the process instead, is brought to that.
//
// From then on the store tries to open its directory anew, as after a crash, and
// holds its locks meanwhile; when that succeeds, it serves again. A change that
// was reported as failed may then turn out to have been made. See reopen.go.
//
// # Removal
//
// What was removed or replaced stays in tables until they are compacted, and in
// logs until they are written over. Purge brings both about; see purge.go.
//
// # Time
//
// Records go by a clock of the store's own, which the wall clock's being set does
// not disturb. See clock.go.
package disk
