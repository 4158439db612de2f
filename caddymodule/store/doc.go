// Package store encodes records for the stores that keep them outside the
// process, and has what several stores do alike. The stores themselves are its subpackages; what they promise is
// idempotency.Store, and package storetest checks it.
package store
