package vec

import (
	"slices"
	"sync"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"

	"github.com/adaad-go/adaad/backend/vec/internal/pages"
)

// program is a compiled function: instructions over tensors, in order.
type program struct {
	backend      *Backend
	name         string
	names        []string       // of the parameters
	params       []shapes.Shape // parameters
	outputs      []shapes.Shape
	parameter    []*tensor // nil where nothing reads it
	output       []*tensor
	tensors      []*tensor
	instructions []*instruction
	macs         int64         // multiply-adds of one execution
	arena        int           // bytes
	kept         int           // bytes
	scratch      int           // bytes for each worker
	watched      []int         // parameters that kept results come from
	shared       []*tensor     // packed weights that are kept
	donor        []int         // by output, the parameter whose memory it takes if that is donated; -1 for none
	closures     []*Executable // of loops
	recall       *recall       // or nil
	base         int           // the parameter Base, if there is a recall
}

// plan lays the arena out: tensors whose lives do not overlap may share memory.
func (p *program) plan() {
	first, last := map[*tensor]int{}, map[*tensor]int{}
	for i, in := range p.instructions {
		for _, t := range slices.Concat(in.in, in.out) {
			if _, ok := first[t]; !ok {
				first[t] = i
			}
			last[t] = i
		}
		p.scratch = max(p.scratch, in.scratch)
	}
	for _, t := range p.tensors {
		if t.kind == isKept {
			p.kept += roundUp(t.bytes, alignment)
		}
	}
	p.chooseDonors(first, last)
	// A result may take the place of an operand that is not needed any more.
	place := map[*tensor]*tensor{} // of a tensor that lies in another's
	for i, in := range p.instructions {
		for _, o := range in.overlays {
			under := o.in
			if t, ok := place[under]; ok {
				under = t
			}
			if _, ok := place[o.out]; !ok && under.kind == inArena && o.out.kind == inArena && last[under] == i && first[o.out] == i && under.bytes == o.out.bytes {
				place[o.out] = under
				last[under] = last[o.out]
			}
		}
	}
	defer func() {
		for t, under := range place {
			t.offset = under.offset
		}
	}()
	var order []*tensor
	for _, t := range p.tensors {
		if _, ok := first[t]; ok && t.kind == inArena && place[t] == nil {
			order = append(order, t)
		}
	}
	// The largest first, each at the lowest place that is free for all its life.
	slices.SortStableFunc(order, func(a, b *tensor) int { return b.bytes - a.bytes })
	var placed []*tensor // by offset
	for _, t := range order {
		at := 0
		for _, o := range placed {
			if last[o] < first[t] || last[t] < first[o] || o.offset+o.bytes <= at {
				continue
			}
			if at+t.bytes <= o.offset {
				break
			}
			at = roundUp(o.offset+o.bytes, alignment)
		}
		t.offset = at
		p.arena = max(p.arena, at+t.bytes)
		i, _ := slices.BinarySearchFunc(placed, t, func(a, b *tensor) int { return a.offset - b.offset })
		placed = slices.Insert(placed, i, t)
	}
}

// chooseDonors pairs outputs with parameters of their size that are not read any more when they are written.
// A parameter that is returned as it is gives its own memory.
func (p *program) chooseDonors(first, last map[*tensor]int) {
	p.donor = slices.Repeat([]int{-1}, len(p.output))
	taken := make([]bool, len(p.parameter))
	pair := func(out, in *tensor) {
		if out.kind == isOutput && in != nil && in.kind == isParameter && in.bytes == out.bytes && p.donor[out.index] < 0 && !taken[in.index] {
			p.donor[out.index] = in.index
			taken[in.index] = true
		}
	}
	for i, t := range p.output {
		if t.kind == isParameter && !taken[t.index] {
			p.donor[i] = t.index
			taken[t.index] = true
		}
	}
	for i, in := range p.instructions {
		for _, o := range in.overlays {
			if last[o.in] == i && first[o.out] == i {
				pair(o.out, o.in)
			}
		}
	}
	for i, out := range p.output {
		if out.kind != isOutput || out.index != i {
			continue
		}
		for _, in := range p.parameter {
			if in != nil && last[in] < first[out] {
				pair(out, in)
			}
		}
	}
}

func roundUp(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }

// run is the memory of one execution. It is used again by later ones, never by two at once.
type run struct {
	pool    *pool
	mem     [][]byte      // by tensor
	scratch [][]float32   // by worker
	kept    *pages.Region // what is kept
	arena   *pages.Region // of the last execution, or this one

	// What the kept results were computed from.
	seen    []contents // by parameter
	full    bool       // they have been computed
	holding *holding   // packed weights
	needed  []bool     // by instruction: it makes what is kept anew

	// For a recall.
	bases     []float32
	recallKey string
}

func (p *program) newRun() *run {
	r := &run{pool: p.backend.pool, mem: make([][]byte, len(p.tensors)), scratch: make([][]float32, p.backend.pool.workers),
		seen: make([]contents, len(p.params)), kept: pages.New(p.kept), needed: make([]bool, len(p.instructions))}
	r.hold(p)
	kept := r.kept.Bytes()
	for _, t := range p.tensors {
		switch t.kind {
		case isConstant:
			r.mem[t.id] = t.mem
		case isKept:
			r.mem[t.id] = kept[:t.bytes:t.bytes]
			kept = kept[roundUp(t.bytes, alignment):]
		}
	}
	return r
}

// enter gives the run memory for what lives during one execution only.
func (p *program) enter(r *run) {
	scratch := roundUp(p.scratch, alignment)
	arena := p.backend.arenas.get(roundUp(p.arena, alignment) + len(r.scratch)*scratch)
	if arena == r.arena {
		return // the tensors are where they were
	}
	r.arena = arena
	mem := arena.Bytes()
	for _, t := range p.tensors {
		if t.kind == inArena && !t.local {
			r.mem[t.id] = mem[t.offset:][:t.bytes:t.bytes]
		}
	}
	mem = mem[roundUp(p.arena, alignment):]
	for w := range r.scratch {
		r.scratch[w] = floats(mem[w*scratch:][:scratch])
	}
}

func (r *run) floats(t *tensor) []float32 { return floats(r.mem[t.id]) }

// optional is the memory of t, or nil of nil.
func (r *run) optional(t *tensor) []float32 {
	if t == nil {
		return nil
	}
	return r.floats(t)
}

// Executable implements [compute.Executable]. It may run several times at once.
type Executable struct {
	mu      sync.Mutex
	program *program
	idle    []*run
}

var _ compute.Executable = (*Executable)(nil)

func newExecutable(p *program) *Executable {
	if p.recall != nil {
		p.backend.memories.enlist()
	}
	return &Executable{program: p}
}

// Finalize implements [compute.Executable].
func (e *Executable) Finalize() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.idle {
		r.holding.drop()
	}
	if e.program != nil && e.program.recall != nil {
		e.program.backend.memories.retire()
	}
	if e.program != nil {
		for _, k := range e.program.closures {
			k.Finalize()
		}
	}
	e.program, e.idle = nil, nil
}

// Inputs implements [compute.Executable].
func (e *Executable) Inputs() ([]string, []shapes.Shape) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.program == nil {
		return nil, nil
	}
	return slices.Clone(e.program.names), slices.Clone(e.program.params)
}

// Outputs implements [compute.Executable].
func (e *Executable) Outputs() []shapes.Shape {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.program == nil {
		return nil
	}
	return slices.Clone(e.program.outputs)
}

// take returns the program and memory to run it in.
func (e *Executable) take() (*program, *run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.idle); n > 0 {
		r := e.idle[n-1]
		e.idle = e.idle[:n-1]
		return e.program, r
	}
	return e.program, nil
}

func (e *Executable) give(r *run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.program != nil {
		e.idle = append(e.idle, r)
	}
}

// Execute implements [compute.Executable]. Donated buffers are invalid afterwards, whether it succeeds or not; inputs that it
// refuses stay as they are.
func (e *Executable) Execute(inputs []compute.Buffer, donate []bool, device compute.DeviceNum) ([]compute.Buffer, error) {
	p, r := e.take()
	if p == nil {
		return nil, errors.New("vec: Execute: the program was finalized")
	}
	if err := p.backend.check("Execute", device); err != nil {
		return nil, err
	}
	buffers, err := p.checkInputs(inputs, donate)
	if err != nil {
		return nil, err
	}
	if r == nil {
		r = p.newRun()
	}
	p.backend.macs.Add(p.macs)
	p.enter(r)
	for i, t := range p.parameter {
		if t != nil {
			r.mem[t.id] = buffers[i].mem
		}
	}
	outputs := make([]*Buffer, len(p.output))
	results := make([]compute.Buffer, len(p.output))
	for i, t := range p.output {
		outputs[i] = p.newOutput(i, p.donor[i], buffers, donate)
		results[i] = outputs[i]
		if t.kind == isOutput && t.index == i {
			r.mem[t.id] = outputs[i].mem
		}
	}
	defer func() {
		for i := range donate {
			if donate[i] {
				if slices.ContainsFunc(outputs, func(out *Buffer) bool { return sameMemory(out.mem, buffers[i].mem) }) {
					buffers[i].mem = nil // the output's now
				}
				buffers[i].release()
			}
		}
	}()
	if p.recall != nil {
		r.bases, r.recallKey = floats(buffers[p.base].mem), p.recallKey(buffers)
	}
	p.refresh(r, buffers)
	r.full = false // until all have run
	for _, in := range p.instructions {
		if in.kept && !r.needed[in.position] {
			continue
		}
		var start time.Time
		if p.backend.observe != nil {
			start = time.Now()
		}
		if err := in.run(r); err != nil {
			return nil, errors.WithMessagef(err, "vec: %q: %s", p.name, in.name)
		}
		if p.backend.observe != nil {
			p.backend.observe(in, time.Since(start))
		}
	}
	for i, t := range p.shared {
		if r.needed[t.index] {
			p.backend.cells.fill(r.holding.held[i])
		}
	}
	r.full = true
	for i, t := range p.output {
		if t.kind != isOutput || t.index != i { // a parameter, a constant, or returned twice
			copy(outputs[i].mem, r.mem[t.id])
		}
	}
	for _, t := range p.tensors {
		if t.kind == isParameter || t.kind == isOutput {
			r.mem[t.id] = nil
		}
	}
	p.backend.arenas.put(r.arena)
	e.give(r)
	return results, nil
}

// newOutput returns the buffer of an output: in the memory of the donor, if that parameter is donated and to no one else.
func (p *program) newOutput(i, donor int, buffers []*Buffer, donate []bool) *Buffer {
	if donor >= 0 && len(donate) > 0 && donate[donor] && p.donor[i] == donor {
		from := buffers[donor]
		uses := 0
		for _, b := range buffers {
			if b == from {
				uses++
			}
		}
		if uses == 1 {
			b := &Buffer{backend: p.backend, shape: p.outputs[i].Clone(), mem: from.mem, id: lastID.Add(1)}
			b.exposed.Store(from.exposed.Load())
			return b
		}
	}
	return p.backend.newBuffer(p.outputs[i])
}

func sameMemory(a, b []byte) bool { return len(a) > 0 && len(b) > 0 && &a[0] == &b[0] }

// checkInputs compares the inputs with the program's parameters.
func (p *program) checkInputs(inputs []compute.Buffer, donate []bool) ([]*Buffer, error) {
	if len(inputs) != len(p.params) {
		return nil, errors.Errorf("vec: %q takes %d inputs, %d given", p.name, len(p.params), len(inputs))
	}
	if len(donate) != 0 && len(donate) != len(inputs) {
		return nil, errors.Errorf("vec: %q: donate has length %d, expected one for each of the %d inputs", p.name, len(donate), len(inputs))
	}
	buffers := make([]*Buffer, len(inputs))
	for i, input := range inputs {
		b, ok := input.(*Buffer)
		switch {
		case !ok || b == nil:
			return nil, errors.Errorf("vec: %q: parameter %q (input %d): %T given, expected a buffer of this backend", p.name, p.names[i], i, input)
		case b.backend != p.backend:
			return nil, errors.Errorf("vec: %q: parameter %q (input %d): the buffer belongs to another instance of this backend", p.name, p.names[i], i)
		case b.mem == nil:
			return nil, errors.Errorf("vec: %q: parameter %q (input %d): the buffer was finalized or donated", p.name, p.names[i], i)
		case b.shape.DType != p.params[i].DType || !b.shape.EqualDimensions(p.params[i]):
			return nil, errors.Errorf("vec: %q: parameter %q (input %d): shape %s given, expected %s", p.name, p.names[i], i, b.shape, p.params[i])
		}
		buffers[i] = b
	}
	return buffers, nil
}
