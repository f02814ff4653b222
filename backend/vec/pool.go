package vec

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// pool runs loops on a fixed number of workers. The caller of Run is worker 0; the others wait for work, awake for a
// moment and then asleep. One loop at a time has the workers; others that come meanwhile, and loops inside loops, run on
// their caller alone.
type pool struct {
	workers int
	start   sync.Once
	busy    sync.Mutex
	current atomic.Pointer[loop]
	asleep  []atomic.Bool
	wake    []chan struct{}
	eager   bool // work is handed over whenever it could be, whether anybody waits or not, as tests have it
}

// loop is one call of Run. Each worker has a range of the indices of its own and takes those of others when it is through:
// neighbouring indices mean neighbouring memory, and a worker finds in its cache what it wrote there in the loop before.
// When none are left either, it waits for others to hand over some of what they are at.
type loop struct {
	f      func(i, worker int, l *loop)
	eager  bool
	ranges []span                           // by worker
	left   atomic.Int64                     // indices and pieces handed over that are not done
	idle   atomic.Int64                     // workers that wait
	handed atomic.Pointer[func(worker int)] // a piece that nobody has taken yet
}

// span is a range of indices, alone in its cache line.
type span struct {
	next atomic.Int64 // first index nobody has taken
	end  int64
	_    [48]byte
}

const (
	// awake is how often a worker looks for new work before it sleeps: about half a millisecond. To be woken takes longer
	// than many a loop for a single image.
	awake = 500000
	// polls is after how many looks it lets others run, such as those that make the next work.
	polls = 100
)

func newPool(workers int) *pool {
	p := &pool{workers: workers, asleep: make([]atomic.Bool, workers), wake: make([]chan struct{}, workers)}
	for w := range p.wake {
		p.wake[w] = make(chan struct{}, 1)
	}
	return p
}

// Workers is the number of workers.
func (p *pool) Workers() int { return p.workers }

// Run calls f(i, worker) for every i in [0,n), at most one at a time for each worker, and returns when all are done.
func (p *pool) Run(n int, f func(i, worker int)) {
	p.share(n, func(i, worker int, _ *loop) { f(i, worker) })
}

// share is Run with an f that may hand over some of its work. Where only its caller works l is nil.
func (p *pool) share(n int, f func(i, worker int, l *loop)) {
	if n <= 1 || p.workers == 1 || !p.busy.TryLock() {
		for i := range n {
			f(i, 0, nil)
		}
		return
	}
	defer p.busy.Unlock()
	p.start.Do(func() {
		for w := 1; w < p.workers; w++ {
			go p.work(w)
		}
	})
	l := &loop{f: f, eager: p.eager, ranges: make([]span, p.workers)}
	l.left.Store(int64(n))
	for w := range l.ranges {
		l.ranges[w].next.Store(int64(w * n / p.workers))
		l.ranges[w].end = int64((w + 1) * n / p.workers)
	}
	p.current.Store(l)
	p.rouse(min(n, p.workers))
	l.do(0)
}

// do works for the loop until all is done.
func (l *loop) do(worker int) {
	done := int64(0) // told at the end, for all workers would wait for the memory it is told in
	for k := range l.ranges {
		r := &l.ranges[(worker+k)%len(l.ranges)]
		for i := r.next.Add(1) - 1; i < r.end; i = r.next.Add(1) - 1 {
			l.f(int(i), worker, l)
			done++
		}
	}
	l.left.Add(-done)
	l.idle.Add(1)
	for spins := 0; l.left.Load() > 0; spins++ {
		if l.handed.Load() != nil {
			if piece := l.handed.Swap(nil); piece != nil {
				l.idle.Add(-1)
				(*piece)(worker)
				l.left.Add(-1)
				l.idle.Add(1)
			}
		} else if spins > 100 {
			runtime.Gosched()
		}
	}
}

// wanting reports whether a worker waits for a piece of work. Then all indices are taken: a worker that hands something over
// begins with no other, and the memory it works in stays as it is.
func (l *loop) wanting() bool {
	return l != nil && (l.idle.Load() > 0 || l.eager && l.taken()) && l.handed.Load() == nil
}

// taken reports whether all indices are.
func (l *loop) taken() bool {
	for w := range l.ranges {
		if l.ranges[w].next.Load() < l.ranges[w].end {
			return false
		}
	}
	return true
}

// hand gives a piece of work to a worker that waits. Where it returns false another piece came first.
func (l *loop) hand(piece func(worker int)) bool {
	l.left.Add(1) // before it is taken and done
	if l.handed.CompareAndSwap(nil, &piece) {
		return true
	}
	l.left.Add(-1)
	return false
}

// rouse wakes the sleepers among the first workers.
func (p *pool) rouse(workers int) {
	for w := 1; w < workers; w++ {
		if p.asleep[w].CompareAndSwap(true, false) {
			p.wake[w] <- struct{}{}
		}
	}
}

// stopped is the loop that ends the workers.
var stopped = &loop{}

func (p *pool) stop() {
	p.busy.Lock()
	defer p.busy.Unlock()
	p.current.Store(stopped)
	p.rouse(p.workers)
}

func (p *pool) work(w int) {
	var last *loop
	for {
		l := p.current.Load()
		for spins := 1; l == last && spins < awake; spins++ {
			if spins%polls == 0 {
				runtime.Gosched()
			}
			l = p.current.Load()
		}
		if l == last {
			p.asleep[w].Store(true)
			// Work may have come between the last look and the flag; then either this takes the flag back, or the
			// caller has and a wake-up is on its way.
			if p.current.Load() == last || !p.asleep[w].CompareAndSwap(true, false) {
				<-p.wake[w]
			}
			continue
		}
		if l == stopped {
			return
		}
		last = l
		l.do(w)
	}
}
