package main

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestASparklineIsScaledFromTheLowestToTheHighest(t *testing.T) {
	if got := sparkline(seconds(8, leak(1)), 8*time.Second, 8, 0); got != "▁▂▃▄▅▆▇█" {
		t.Errorf("it is %s", got)
	}
}

func TestWhatVariesByMuchLessThanIsAllowedLooksFlat(t *testing.T) {
	if got := sparkline(seconds(8, leak(1)), 8*time.Second, 8, 100); got != "▁▁▁▁▁▁▁▁" {
		t.Errorf("it is %s", got)
	}
}

func TestASparklineHasTheMedianOfEachColumnAndBlanksWithoutSamples(t *testing.T) {
	points := []point{{0, 1}, {1, 9}, {2, 1}, {30, 9}}
	if got := sparkline(points, 40, 4, 0); got != "▁  █" {
		t.Errorf("it is %q", got)
	}
}

func TestARunFailsByWhatGrowsAndByAnswersThatAreWrong(t *testing.T) {
	r := report{series: []*series{{metric: heap}, {metric: files}}, verdicts: []verdict{{}, {grows: true}}, results: &results{}}
	r.results.add("new", answer{status: http.StatusOK}, http.StatusOK)
	if wrong := strings.Join(r.wrong(), "; "); wrong != "open files grows" {
		t.Errorf("wrong: %s", wrong)
	}
	r.results.add("new", answer{status: http.StatusBadGateway}, http.StatusOK)
	if wrong := strings.Join(r.wrong(), "; "); !strings.Contains(wrong, "1 answers are not what they should be") {
		t.Errorf("wrong: %s", wrong)
	}
}

func TestARequestLostNowAndThenIsForgivenAndManyAreNot(t *testing.T) {
	r := report{results: &results{}}
	for range 100 {
		r.results.add("new", answer{status: http.StatusOK}, http.StatusOK)
	}
	r.results.add("new", answer{err: lostError{errors.New("EOF")}}, http.StatusOK)
	if wrong := r.wrong(); len(wrong) > 0 {
		t.Errorf("wrong: %s", wrong)
	}
	r.results.add("new", answer{err: lostError{errors.New("EOF")}}, http.StatusOK)
	if wrong := r.wrong(); len(wrong) != 1 {
		t.Errorf("wrong: %s", wrong)
	}
}
