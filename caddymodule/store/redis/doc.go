// Package redis keeps records in Redis 7 or Valkey, standalone, behind Sentinel
// or as a Cluster, where the sidecars of a fleet share them. How long a record
// survives is Redis' own matter: what it is told at Open about Redis' settings,
// it says in the log (see inspect.go).
//
// # Layout
//
// Each record is a string of its own, under <prefix>r:<id>: a head that scripts
// read and change in place (see head.go), then the record as package store
// encodes it. It expires by the server's clock. Each change is one Lua script
// with one key, which compares the owner's token before it changes anything, so
// that the server decides who was first, in a Cluster too.
//
// Calls without a key are found again by what they are like: <prefix>a:<adoption>
// is a sorted set of IDs, each with the owner of the claim that put it there. It
// may hold more than what is unsettled, never less; the head decides.
//
// For operators, <prefix>t has the places of all records in a listing, and
// <prefix>o those of the ones that are not done (see place.go). Nothing but listings
// goes by them: what is there and leads nowhere is passed over.
//
// <prefix>p:<process> holds when a process was last heard of, by the server's
// clock (see beat.go). On the channel <prefix>news stands which record has
// changed that somebody waits for, and whom somebody asks for a sign of life.
//
// <prefix>{queue}:… is the backlog (see queue_scripts.go): streams of tickets, one for
// each of its parts, in which a ticket leads to the record of a call that was handed
// over for later, and the record says where its ticket is. The two are in different
// slots of a Cluster, so that no script changes both. The ticket is put there first
// and taken away last.
//
// <prefix>b:<name> is a budget that the fleet's calls start within (see
// budget_scripts.go).
//
// Where there is a keyring, what follows the head is sealed (see package store),
// and <prefix>k is a sorted set of the keys that records may need.
//
// What is removed or replaced is gone from Redis at once. What Redis has written to
// files of its own, its append-only file and its snapshots, is its administrator's
// matter: BGREWRITEAOF and BGSAVE write them anew.
//
// # Lost replies
//
// A change whose reply is lost is sent once more. That is no guess: a claim that
// finds its own token was made, a finished record is finished again by the same
// owner alone, and what is gone stays gone.
package redis
