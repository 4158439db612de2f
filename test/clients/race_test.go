//go:build race

package main

// raceDetector says that the sidecar is to be built as this test is.
const raceDetector = true
