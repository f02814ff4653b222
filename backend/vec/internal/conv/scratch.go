package conv

import (
	"sync"
	"unsafe"

	"github.com/adaad-go/adaad/backend/vec/internal/pages"
)

// scratch is reusable memory, one piece for each worker and one shared. Pieces hold whatever the last use left in them.
type scratch struct {
	shared  *pages.Region
	workers []*pages.Region
}

// scratches are those that nobody uses; the last one put back is the first to be taken.
var scratches struct {
	mu   sync.Mutex
	free []*scratch
}

// getScratch returns a scratch for this many workers, to be given back with put.
func getScratch(workers int) *scratch {
	scratches.mu.Lock()
	defer scratches.mu.Unlock()
	s := &scratch{}
	if n := len(scratches.free); n > 0 {
		s, scratches.free = scratches.free[n-1], scratches.free[:n-1]
	}
	for len(s.workers) < workers {
		s.workers = append(s.workers, nil)
	}
	return s
}

func (s *scratch) put() {
	scratches.mu.Lock()
	defer scratches.mu.Unlock()
	scratches.free = append(scratches.free, s)
}

// worker returns n elements that belong to one worker.
func (s *scratch) worker(worker, n int) []float32 { return grow(&s.workers[worker], n) }

// common returns n elements that all workers share.
func (s *scratch) common(n int) []float32 { return grow(&s.shared, n) }

func grow(r **pages.Region, n int) []float32 {
	if *r == nil || len((*r).Bytes()) < 4*n {
		if *r != nil {
			(*r).Free()
		}
		*r = pages.New(4 * n)
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData((*r).Bytes()))), n)
}

// line is a cache line, and the widest vector, in elements.
const line = 16

// cut takes n elements off the front of *x, and whatever it takes for the rest to start at a cache line again.
func cut(x *[]float32, n int) []float32 {
	piece := (*x)[:n:n]
	*x = (*x)[min(len(*x), roundUp(n, line)):]
	return piece
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

func divUp(n, by int) int { return (n + by - 1) / by }

// oddLines rounds a row length up to an odd number of cache lines, so that rows one below another do not compete for
// the same cache sets.
func oddLines(n int) int { return (divUp(n, line) | 1) * line }
