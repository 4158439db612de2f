package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// metric is something that must not grow.
type metric struct {
	name  string
	bytes bool
	rule  rule
}

// The metrics, with what is allowed. The floors are above what the estimates come to
// for short runs that do not leak, which varies by the pauses that a 429 makes.
var (
	heap       = metric{"heap in use", true, rule{share: 0.15, floor: 4 << 20}}
	resident   = metric{"resident memory", true, rule{share: 0.25, floor: 24 << 20}}
	goroutines = metric{"goroutines", false, rule{share: 0.25, floor: 100}}
	files      = metric{"open files", false, rule{share: 0.25, floor: 50}}
	storeSize  = metric{"store, on disk", true, rule{share: 0.5, floor: 3 << 20}}
	redisSize  = metric{"Redis, memory used", true, rule{share: 0.25, floor: 4 << 20}}
	redisKeys  = metric{"Redis, keys", false, rule{share: 0.25, floor: 300}}
)

// series is a metric over a run.
type series struct {
	metric
	points []point
}

// sampler takes samples of a sidecar and of its store.
type sampler struct {
	sidecar *sidecar
	store   string            // its directory, if it has one
	redis   *redistest.Server // if it uses one
	client  *http.Client
	all     []*series
	missed  int   // samples that could not be taken
	err     error // why the last of them could not be
}

func newSampler(s *sidecar, store string, redis *redistest.Server) *sampler {
	m := &sampler{sidecar: s, store: store, redis: redis, client: &http.Client{Timeout: 20 * time.Second}}
	metrics := []metric{heap, resident, goroutines, files}
	switch {
	case redis != nil:
		metrics = append(metrics, redisSize, redisKeys)
	case store != "":
		metrics = append(metrics, storeSize)
	}
	for _, metric := range metrics {
		m.all = append(m.all, &series{metric: metric})
	}
	return m
}

// run takes a sample each second until ctx ends.
func (m *sampler) run(ctx context.Context, start time.Time) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		values, err := m.sample(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil { // while the admin endpoint moves to a new configuration, say
			m.missed, m.err = m.missed+1, err
			continue
		}
		at := time.Since(start)
		for _, s := range m.all {
			s.points = append(s.points, point{at, values[s.name]})
		}
	}
}

// sample returns a value for each metric.
func (m *sampler) sample(ctx context.Context) (map[string]float64, error) {
	// The collection comes first, so that only what is held on to counts.
	if err := m.get(ctx, "/debug/pprof/heap?gc=1", func(r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	}); err != nil {
		return nil, err
	}
	values := make(map[string]float64)
	names := map[string]string{"go_memstats_heap_inuse_bytes": heap.name, "go_goroutines": goroutines.name}
	if err := m.get(ctx, "/metrics", func(r io.Reader) error { return readMetrics(r, names, values) }); err != nil {
		return nil, err
	}
	var err error
	if values[resident.name], err = residentSize(m.sidecar.Pid()); err != nil {
		return nil, err
	}
	open, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(m.sidecar.Pid()), "fd"))
	if err != nil {
		return nil, fmt.Errorf("counting open files: %w", err)
	}
	values[files.name] = float64(len(open))
	switch {
	case m.redis != nil:
		err = m.readRedis(values)
	case m.store != "":
		values[storeSize.name], err = directorySize(m.store)
	}
	return values, err
}

// get has read read what the sidecar's admin endpoint answers.
func (m *sampler) get(ctx context.Context, path string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.sidecar.admin+path, nil)
	if err != nil {
		return fmt.Errorf("reading metrics: %w", err)
	}
	req.Close = true // a reload ends the endpoint's connections
	resp, err := m.client.Do(req)
	if err != nil {
		return fmt.Errorf("reading metrics: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("reading metrics: %s answers %s", path, resp.Status)
	}
	if err := read(resp.Body); err != nil {
		return fmt.Errorf("reading metrics: %w", err)
	}
	return nil
}

// readMetrics reads what is called as names say off Prometheus' text format.
func readMetrics(r io.Reader, names map[string]string, values map[string]float64) error {
	found := 0
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if names[name] == "" {
			continue
		}
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return err
		}
		values[names[name]] = number
		found++
	}
	if found < len(names) {
		return errors.New("some are missing")
	}
	return lines.Err()
}

// residentSize returns how much memory a process holds.
func residentSize(pid int) (float64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, fmt.Errorf("reading resident memory: %w", err)
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	number, _, _ := strings.Cut(strings.TrimSpace(after), " ")
	kib, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("reading resident memory: %w", err)
	}
	return kib * 1024, nil
}

// directorySize returns the size of all files in dir. Some may go while it looks.
func directorySize(dir string) (float64, error) {
	var size int64
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = entry.Info(); err == nil {
				size += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("measuring the store: %w", err)
	}
	return float64(size), nil
}

// readRedis asks Redis how much it holds.
func (m *sampler) readRedis(values map[string]float64) error {
	info, err := m.redis.Info("memory")
	if err != nil {
		return fmt.Errorf("measuring Redis: %w", err)
	}
	if values[redisSize.name], err = strconv.ParseFloat(info["used_memory"], 64); err != nil {
		return fmt.Errorf("measuring Redis: %w", err)
	}
	keys, err := m.redis.Do("DBSIZE")
	if err != nil {
		return fmt.Errorf("measuring Redis: %w", err)
	}
	n, ok := keys.(int64)
	if !ok {
		return fmt.Errorf("measuring Redis: DBSIZE answers %v", keys)
	}
	values[redisKeys.name] = float64(n)
	return nil
}
