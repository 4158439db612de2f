package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// journal is an append-only file of lines. One flush serves all the lines
// that came while the last one went on. A nil journal keeps nothing.
type journal struct {
	file *os.File

	mu     sync.Mutex
	lines  []byte
	batch  *batch
	broken error
	closed bool
	wake   chan struct{}
	ended  chan struct{}
}

// batch is the lines of one flush.
type batch struct {
	done chan struct{}
	err  error
}

var errJournalClosed = errors.New("ledger file is closed")

// openJournal calls load with every line of the file, then opens it for more.
// A last line without its newline was never acknowledged and is cut off.
func openJournal(name string, load func([]byte) error) (_ *journal, err error) {
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening ledger file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = file.Close()
		}
	}()
	end, err := readJournal(file, load)
	if err != nil {
		return nil, fmt.Errorf("reading ledger file %s: %w", name, err)
	}
	if err := file.Truncate(end); err != nil {
		return nil, fmt.Errorf("cutting unfinished line off ledger file: %w", err)
	}
	if _, err := file.Seek(end, io.SeekStart); err != nil {
		return nil, fmt.Errorf("seeking end of ledger file: %w", err)
	}
	if err := syncDir(filepath.Dir(name)); err != nil {
		return nil, fmt.Errorf("flushing directory of ledger file: %w", err)
	}
	j := &journal{
		file:  file,
		batch: newBatch(),
		wake:  make(chan struct{}, 1),
		ended: make(chan struct{}),
	}
	go j.run()
	return j, nil
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

func readJournal(r io.Reader, load func([]byte) error) (end int64, err error) {
	reader := bufio.NewReader(r)
	for number := 1; ; number++ {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return end, nil
		}
		if err != nil {
			return 0, err
		}
		end += int64(len(line))
		if err := load(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return 0, fmt.Errorf("reading line %d: %w", number, err)
		}
	}
}

// syncDir makes a new file's name as durable as its content. Systems that
// cannot flush a directory keep names by other means.
func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	_ = dir.Sync()
	return nil
}

// append takes a line and returns how to wait until it is on the disk. Lines
// keep the order of the calls.
func (j *journal) append(line []byte) (wait func() error) {
	if j == nil {
		return func() error { return nil }
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.broken; err != nil {
		return func() error { return err }
	}
	if j.closed {
		return func() error { return errJournalClosed }
	}
	j.lines = append(append(j.lines, line...), '\n')
	b := j.batch
	select {
	case j.wake <- struct{}{}:
	default:
	}
	return func() error {
		<-b.done
		return b.err
	}
}

func (j *journal) run() {
	defer close(j.ended)
	for range j.wake {
		j.flush()
	}
	j.flush()
}

func (j *journal) flush() {
	j.mu.Lock()
	lines, b, err := j.lines, j.batch, j.broken
	j.lines, j.batch = nil, newBatch()
	j.mu.Unlock()
	if len(lines) > 0 && err == nil {
		_, err = j.file.Write(lines)
		if err == nil {
			err = j.file.Sync()
		}
		if err != nil {
			// After a failed write or flush nobody knows what the file
			// holds, so nothing more is promised.
			err = fmt.Errorf("writing ledger file: %w", err)
			j.mu.Lock()
			j.broken = err
			j.mu.Unlock()
		}
	}
	b.err = err
	close(b.done)
}

// close writes what is left and closes the file.
func (j *journal) close() error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	again := j.closed
	if !again {
		j.closed = true
		close(j.wake)
	}
	j.mu.Unlock()
	<-j.ended
	if again {
		return nil
	}
	return errors.Join(j.broken, j.file.Close())
}
