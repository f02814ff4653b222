package vec

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/adaad-go/adaad/backend/vec/internal/pages"
)

// In an inner loop weights stay the same from step to step, so packed weights, and what else is computed of parameters
// alone on the way, are kept from one execution to the next. Packed weights are many: programs that pack the same ones,
// such as a search and the logits of the same network, share them.

// keep finds the instructions whose results can be kept: those that pack weights, and the simple ones before them that
// need nothing but parameters, none of them trained.
func (p *program) keep() {
	producer := map[*tensor]*instruction{}
	readers := map[*tensor][]*instruction{}
	sources := map[*instruction][]int{} // parameters behind an instruction that could be kept
	for _, in := range p.instructions {
		able := in.packs || in.simple
		var params []int
		for _, t := range in.in {
			readers[t] = append(readers[t], in)
			from := producer[t]
			switch {
			case t.kind == isParameter:
				params = append(params, t.index)
				able = able && !t.trained
			case t.kind == isConstant:
			case from != nil && sources[from] != nil:
				params = append(params, sources[from]...)
			default:
				able = false
			}
		}
		for _, t := range in.out {
			producer[t] = in
			able = able && t.kind == inArena
		}
		if able {
			slices.Sort(params)
			sources[in] = append([]int{}, slices.Compact(params)...)
		}
	}
	var mark func(in *instruction)
	mark = func(in *instruction) {
		if in != nil && !in.kept {
			in.kept, in.params = true, sources[in]
			p.watched = append(p.watched, in.params...)
			for _, t := range in.in {
				mark(producer[t])
			}
		}
	}
	for _, in := range p.instructions {
		if in.packs && sources[in] != nil {
			mark(in)
		}
	}
	slices.Sort(p.watched)
	p.watched = slices.Compact(p.watched)
	for _, in := range p.instructions {
		if !in.kept {
			continue
		}
		for _, t := range in.out {
			switch {
			case in.packs:
				t.kind = isShared
				p.shared = append(p.shared, t)
				t.index = in.position
			case slices.ContainsFunc(readers[t], func(reader *instruction) bool { return !reader.kept }):
				t.kind = isKept
			default: // only its like read it: it can go when they have
				in.feeds = append(in.feeds, readers[t]...)
			}
		}
	}
}

// signature says how a value is made of parameters: two that are made alike of the same ones are equal. params lists
// those in the order in which they are met.
func (c *compiler) signature(v *value) (text string, params []*value) {
	var b strings.Builder
	id := map[*value]int{}
	var walk func(v *value)
	walk = func(v *value) {
		if v == nil {
			b.WriteString(" -")
			return
		}
		if n, ok := id[v]; ok {
			fmt.Fprintf(&b, " #%d", n)
			return
		}
		id[v] = len(id)
		if v.node == nil {
			fmt.Fprintf(&b, " parameter %s", v.shape)
			params = append(params, v)
			return
		}
		fmt.Fprintf(&b, " (%d %v %d %s", v.node.op, v.node.attr, slices.Index(v.node.out, v), v.shape)
		for _, in := range v.node.in {
			walk(in)
		}
		b.WriteString(")")
	}
	walk(v)
	return b.String(), params
}

// cell is packed weights, made of certain contents of certain parameters.
type cell struct {
	key    string // empty if it is one run's own
	region *pages.Region
	refs   int
	filled bool
}

// cells are the packed weights of a backend's programs.
type cells struct {
	mu  sync.Mutex
	all map[string]*cell // those with a key that are filled
}

// use returns the cell of a key, or one of that size to fill; old is given up for it and may be nil.
func (c *cells) use(key string, size int, old *cell) *cell {
	c.mu.Lock()
	defer c.mu.Unlock()
	if found := c.all[key]; found != nil && key != "" {
		found.refs++
		c.release(old)
		return found
	}
	if old != nil && old.refs == 1 {
		c.forget(old)
		old.key, old.filled = key, false
		return old
	}
	c.release(old)
	return &cell{key: key, region: pages.New(size), refs: 1}
}

// fill makes a cell known that has been filled.
func (c *cells) fill(x *cell) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x.filled = true
	if x.key == "" {
		return
	}
	if c.all == nil {
		c.all = map[string]*cell{}
	}
	if c.all[x.key] == nil {
		c.all[x.key] = x
	}
}

func (c *cells) forget(x *cell) {
	if c.all[x.key] == x {
		delete(c.all, x.key)
	}
}

func (c *cells) release(x *cell) {
	if x == nil {
		return
	}
	if x.refs--; x.refs == 0 {
		c.forget(x)
		x.region.Free()
	}
}

// holding is the cells of a run, by the program's shared tensors.
type holding struct {
	cells *cells
	held  []*cell
}

func (h *holding) drop() {
	h.cells.mu.Lock()
	defer h.cells.mu.Unlock()
	for i, x := range h.held {
		h.cells.release(x)
		h.held[i] = nil
	}
}

// hold gives the run room for the cells it will hold, which it gives up when it is garbage, if not before.
func (r *run) hold(p *program) {
	r.holding = &holding{&p.backend.cells, make([]*cell, len(p.shared))}
	runtime.AddCleanup(r, (*holding).drop, r.holding)
}

// refresh finds out what is kept from parameters that have changed since the last execution, and so must be made again.
func (p *program) refresh(r *run, buffers []*Buffer) {
	changed, some := make([]bool, len(buffers)), !r.full
	for _, i := range p.watched {
		changed[i] = r.seen[i].changed(buffers[i])
		some = some || changed[i]
	}
	clear(r.needed)
	if !some {
		return
	}
	stale := func(in *instruction) bool {
		return !r.full || slices.ContainsFunc(in.params, func(i int) bool { return changed[i] })
	}
	for i, t := range p.shared {
		if in := p.instructions[t.index]; stale(in) {
			x := p.backend.cells.use(p.key(t, buffers), t.bytes, r.holding.held[i])
			r.holding.held[i] = x
			r.mem[t.id] = x.region.Bytes()
			r.needed[t.index] = !x.filled
		}
	}
	for i := len(p.instructions) - 1; i >= 0; i-- {
		in := p.instructions[i]
		if !in.kept || in.packs {
			continue
		}
		keeps := slices.ContainsFunc(in.out, func(t *tensor) bool { return t.kind == isKept })
		r.needed[i] = keeps && stale(in) || slices.ContainsFunc(in.feeds, func(reader *instruction) bool { return r.needed[reader.position] })
	}
}

// key names what a shared tensor holds, if its parameters' buffers can be told from their names.
func (p *program) key(t *tensor, buffers []*Buffer) string {
	var b strings.Builder
	b.WriteString(t.signature)
	for _, i := range t.params {
		if buffers[i].exposed.Load() {
			return ""
		}
		fmt.Fprintf(&b, " %d", buffers[i].id)
	}
	return b.String()
}

// contents remembers what a parameter held.
type contents struct {
	id   uint64 // of the buffer
	copy []byte // its values, if a client could have written them since
}

// changed remembers what the buffer holds and reports whether that may be something else than the last time.
func (s *contents) changed(b *Buffer) bool {
	same := s.id == b.id
	s.id = b.id
	if !b.exposed.Load() {
		s.copy = nil
		return !same
	}
	if s.copy != nil && bytes.Equal(s.copy, b.mem) {
		return false
	}
	s.copy = append(s.copy[:0], b.mem...)
	return true
}
