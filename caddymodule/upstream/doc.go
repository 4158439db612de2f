// Package upstream sends calls over HTTP/1.1 connections of its own, each from
// the goroutine that makes it.
//
// net/http gives a connection two goroutines, so that it can answer to whatever
// may happen in whichever order. Handing a request to one and an answer back from
// the other took about a sixth of the processor time of a call. A call of ours
// needs none of that: its body is short and in memory, and nobody has anything to
// send before its answer is there. What is written and what is read is net/http's
// all the same (Request.Write, ReadResponse); this package has the connections.
//
// It never sends a request twice. A connection that the server has closed in the
// meantime is found out by asking the kernel, right before the first byte goes
// out; net/http learns of it from a goroutine, once that has had its turn. What
// is left is the time a packet needs.
//
// All that it does not do, such as HTTP/2, proxies and bodies of any length, it
// leaves to another transport.
package upstream
