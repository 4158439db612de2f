package main

import (
	"testing"
)

func TestAnHourPacedCostsWaitingAndNotErrors(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	for _, m := range modes {
		r := play(t, quick(1), m)
		for _, wrong := range r.wrong() {
			t.Error(wrong)
		}
	}
}
