package idempotency

import "sync"

// event is something that happens once. Its channel is made for who waits for it: for
// most events of most calls that is nobody. The zero event has not happened yet.
type event struct {
	mu       sync.Mutex
	happened bool          // guarded by mu
	told     chan struct{} // guarded by mu; closed once it has happened; nil: nobody has asked for it
}

// happen makes e happen, unless it has.
func (e *event) happen() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.happened {
		return
	}
	e.happened = true
	if e.told != nil {
		close(e.told)
	}
}

// has tells whether e has happened. What was done before is to be seen then.
func (e *event) has() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.happened
}

// signal returns a channel that is closed once e has happened.
func (e *event) signal() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.told == nil {
		e.told = make(chan struct{})
		if e.happened {
			close(e.told)
		}
	}
	return e.told
}
