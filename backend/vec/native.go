package vec

import (
	"math"
	"slices"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/adaad-go/adaad/backend/vec/internal/conv"
)

// native reports whether there is a kernel for a node that is in no cluster with others.
func (c *compiler) native(n *node) bool {
	if len(n.out) != 1 || n.out[0].shape.Size() == 0 {
		return false
	}
	for _, v := range n.in {
		if v == nil || v.shape.Size() == 0 {
			return false
		}
	}
	switch n.op {
	case compute.OpTypeTranspose, compute.OpTypeBroadcastInDim, compute.OpTypeSlice, compute.OpTypeReverse, compute.OpTypeConcatenate:
		return !n.out[0].shape.DType.IsPacked() && n.out[0].shape.DType.Size() <= 8
	case compute.OpTypePad:
		for _, p := range n.attr.([]compute.PadAxis) {
			if p.Start < 0 || p.End < 0 || p.Interior < 0 {
				return false
			}
		}
		return !n.out[0].shape.DType.IsPacked() && n.out[0].shape.DType.Size() <= 8
	case compute.OpTypeReduceSum, compute.OpTypeReduceMax, compute.OpTypeReduceMin, compute.OpTypeReduceProduct:
		_, ok := reduction(n)
		return ok
	case compute.OpTypeDotGeneral:
		_, ok := product(n)
		return ok
	case compute.OpTypeReduceWindow:
		_, ok := poolingOf(n, n.out[0])
		return ok
	case compute.OpTypeSelectAndScatterMax, compute.OpTypeSelectAndScatterMin:
		_, ok := poolingOf(n, n.in[1])
		return ok
	}
	return isReshape(n)
}

// lowerNative adds the instruction of a node that native accepts.
func (c *compiler) lowerNative(n *node) {
	switch n.op {
	case compute.OpTypeReduceSum, compute.OpTypeReduceMax, compute.OpTypeReduceMin, compute.OpTypeReduceProduct:
		c.lowerReduction(n)
		return
	case compute.OpTypeDotGeneral:
		c.lowerProduct(n)
		return
	case compute.OpTypeReduceWindow:
		c.lowerPooling(n)
		return
	case compute.OpTypeSelectAndScatterMax, compute.OpTypeSelectAndScatterMin:
		c.lowerScatter(n)
		return
	}
	out := n.out[0]
	t, size := c.tensor(out), out.shape.DType.Size()
	dims, to := out.shape.Dimensions, strides(out.shape.Dimensions)
	in := instruction{name: n.op.String(), out: []*tensor{t}}
	for _, v := range n.in {
		in.in = append(in.in, c.tensor(v))
	}
	var moves []move
	switch n.op {
	case compute.OpTypeTranspose:
		from := strides(n.in[0].shape.Dimensions)
		m := move{dims: dims, to: to, from: make([]int, len(dims))}
		for i, axis := range n.attr.([]int) {
			m.from[i] = from[axis]
		}
		moves = append(moves, m)
	case compute.OpTypeBroadcastInDim:
		from := strides(n.in[0].shape.Dimensions)
		m := move{dims: dims, to: to, from: make([]int, len(dims))}
		for j, axis := range n.attr.(broadcast).axes {
			if n.in[0].shape.Dimensions[j] != 1 {
				m.from[axis] = from[j]
			}
		}
		moves = append(moves, m)
	case compute.OpTypeSlice:
		a := n.attr.(slice)
		m := move{dims: dims, to: to, from: strides(n.in[0].shape.Dimensions)}
		for i, start := range a.starts {
			m.fromBase += start * m.from[i]
			if len(a.strides) > 0 {
				m.from[i] *= a.strides[i]
			}
		}
		moves = append(moves, m)
	case compute.OpTypeReverse:
		m := move{dims: dims, to: to, from: strides(dims)}
		for _, axis := range n.attr.([]int) {
			m.fromBase += (dims[axis] - 1) * to[axis]
			m.from[axis] = -to[axis]
		}
		moves = append(moves, m)
	case compute.OpTypeConcatenate:
		at, axis := 0, n.attr.(int)
		for i, v := range n.in {
			moves = append(moves, move{source: i, dims: v.shape.Dimensions, to: to, toBase: at * to[axis], from: strides(v.shape.Dimensions)})
			at += v.shape.Dimensions[axis]
		}
	case compute.OpTypePad:
		// First the fill value everywhere.
		moves = append(moves, move{source: 1, dims: []int{out.shape.Size()}, to: []int{1}, from: []int{0}})
		m := move{dims: n.in[0].shape.Dimensions, to: slices.Clone(to), from: strides(n.in[0].shape.Dimensions)}
		for i, p := range n.attr.([]compute.PadAxis) {
			m.toBase += p.Start * to[i]
			m.to[i] *= p.Interior + 1
		}
		moves = append(moves, m)
	}
	c.addMoves(in, moves, size)
}

// addTranspose adds an instruction that writes a transposed: axis i of the result is axis perm[i] of dims.
func (c *compiler) addTranspose(to, from *tensor, dims, perm []int, size int) {
	m := move{dims: make([]int, len(dims)), from: make([]int, len(dims))}
	st := strides(dims)
	for i, axis := range perm {
		m.dims[i], m.from[i] = dims[axis], st[axis]
	}
	m.to = strides(m.dims)
	c.addMoves(instruction{name: "Transpose", in: []*tensor{from}, out: []*tensor{to}}, []move{m}, size)
}

// move copies elements from one place to another, along axes with any steps.
type move struct {
	source           int // operand
	dims, to, from   []int
	toBase, fromBase int
}

// merged joins axes that are adjacent on both sides and drops those of length 1.
func (m move) merged() move {
	var dims, to, from []int
	for i, d := range m.dims {
		if d == 1 {
			continue
		}
		if last := len(dims) - 1; last >= 0 && to[last] == m.to[i]*d && from[last] == m.from[i]*d {
			dims[last] *= d
			to[last], from[last] = m.to[i], m.from[i]
		} else {
			dims, to, from = append(dims, d), append(to, m.to[i]), append(from, m.from[i])
		}
	}
	if len(dims) == 0 {
		dims, to, from = []int{1}, []int{1}, []int{1}
	}
	m.dims, m.to, m.from = dims, to, from
	return m
}

// addMoves adds the instruction that does the moves, one after the other, with elements of size bytes.
func (c *compiler) addMoves(in instruction, moves []move, size int) {
	for i := range moves {
		moves[i] = moves[i].merged()
	}
	in.simple = true
	in.run = func(r *run) error {
		to := r.mem[in.out[0].id]
		for _, m := range moves {
			from := r.mem[in.in[m.source].id]
			switch size {
			case 1:
				doMove(r.pool, m, to, from)
			case 2:
				doMove(r.pool, m, numbers[uint16](to), numbers[uint16](from))
			case 4:
				doMove(r.pool, m, numbers[uint32](to), numbers[uint32](from))
			case 8:
				doMove(r.pool, m, numbers[uint64](to), numbers[uint64](from))
			}
		}
		return nil
	}
	c.add(in)
}

// numbers views memory as values of a type.
func numbers[T uint16 | uint32 | uint64 | int32 | int64](mem []byte) []T {
	var t T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(mem))), len(mem)/int(unsafe.Sizeof(t)))
}

// doMove divides the first axes, or a single one, among the workers.
func doMove[T any](p *pool, m move, to, from []T) {
	last := len(m.dims) - 1
	if last == 0 {
		// One axis: pieces of it.
		const each = 1 << 15
		d := m.dims[0]
		p.Run((d+each-1)/each, func(i, _ int) {
			at := i * each
			moveRow(to[m.toBase+at*m.to[0]:], from, m.fromBase+at*m.from[0], min(each, d-at), m.to[0], m.from[0])
		})
		return
	}
	rows := prod(m.dims[:last])
	each := max(1, (1<<14)/m.dims[last])
	p.Run((rows+each-1)/each, func(task, _ int) {
		index := make([]int, last)
		t, f := m.toBase, m.fromBase
		for a, rest := last-1, task*each; a >= 0; a-- {
			index[a] = rest % m.dims[a]
			rest /= m.dims[a]
			t += index[a] * m.to[a]
			f += index[a] * m.from[a]
		}
		for range min(each, rows-task*each) {
			moveRow(to[t:], from, f, m.dims[last], m.to[last], m.from[last])
			for a := last - 1; a >= 0; a-- {
				index[a]++
				t += m.to[a]
				f += m.from[a]
				if index[a] < m.dims[a] {
					break
				}
				t -= m.dims[a] * m.to[a]
				f -= m.dims[a] * m.from[a]
				index[a] = 0
			}
		}
	})
}

func moveRow[T any](to, from []T, at, n, toStep, fromStep int) {
	switch {
	case toStep == 1 && fromStep == 1:
		copy(to[:n], from[at:])
	case toStep == 1 && fromStep == 0:
		x := from[at]
		for i := range to[:n] {
			to[i] = x
		}
	default:
		for i := range n {
			to[i*toStep] = from[at+i*fromStep]
		}
	}
}

// reduced is a reduction of the middle axis of [a, r, b].
type reduced struct{ a, r, b int }

// reduction maps a float32 reduction over adjacent axes.
func reduction(n *node) (reduced, bool) {
	dims := n.in[0].shape.Dimensions
	over := make([]bool, len(dims))
	axes := n.attr.([]int)
	for _, axis := range axes {
		over[axis] = true
	}
	if len(axes) == 0 {
		for i := range over {
			over[i] = true
		}
	}
	k := reduced{1, 1, 1}
	for i, d := range dims {
		switch {
		case d == 1:
		case over[i] && k.b > 1:
			return k, false
		case over[i]:
			k.r *= d
		case k.r > 1:
			k.b *= d
		default:
			k.a *= d
		}
	}
	return k, isFloat(n.in[0])
}

// lowerReduction adds a reduction. The order in which sums are taken depends on the shape alone: columns in pieces of rows,
// rows in pieces, then the pieces in order.
func (c *compiler) lowerReduction(n *node) {
	k, _ := reduction(n)
	x, y := c.tensor(n.in[0]), c.tensor(n.out[0])
	in := instruction{name: n.op.String(), in: []*tensor{x}, out: []*tensor{y}}
	set := c.backend.set
	var row func(x []float32) float32
	var column func(y, x []float32)
	var neutral float32
	switch n.op {
	case compute.OpTypeReduceSum:
		row = c.backend.kernels.sumRow
	case compute.OpTypeReduceMax:
		neutral = float32(math.Inf(-1))
		row = func(x []float32) float32 {
			m := neutral
			for _, v := range x {
				m = max(m, v)
			}
			return m
		}
		column = func(y, x []float32) { set.Max(y, y, x) }
	case compute.OpTypeReduceMin:
		neutral = float32(math.Inf(1))
		row = func(x []float32) float32 {
			m := neutral
			for _, v := range x {
				m = min(m, v)
			}
			return m
		}
		column = func(y, x []float32) { set.Min(y, y, x) }
	case compute.OpTypeReduceProduct:
		neutral = 1
		row = func(x []float32) float32 {
			p := float32(1)
			for _, v := range x {
				p *= v
			}
			return p
		}
		column = func(y, x []float32) { set.Mul(y, y, x) }
	}
	columns := func(y, x, scratch []float32) {
		for i := range y {
			y[i] = neutral
		}
		if column == nil {
			c.backend.kernels.addRows(y, x, scratch)
			return
		}
		for ; len(x) > 0; x = x[len(y):] {
			column(y, x[:len(y)])
		}
	}
	// The middle axis is cut into pieces, each with its own partial result: short ones, so that float32 sums stay exact
	// enough.
	each := max(16, (1<<12)/k.b)
	if k.b == 1 {
		each = 1 << 14
	}
	pieces := (k.r + each - 1) / each
	partial := y
	if pieces > 1 {
		partial = c.newTensor(4 * k.a * pieces * k.b)
		in.out = append(in.out, partial)
	}
	group := max(1, (1<<14)/(min(each, k.r)*k.b)) // pieces in one task
	in.scratch = 4 * sideBySide
	rows := k.a * pieces
	reduce := func(y, x []float32, at int, scratch []float32) { // piece at of x, of which y is the result
		from := at % pieces * each
		piece := x[(at/pieces*k.r+from)*k.b:][:min(each, k.r-from)*k.b]
		if k.b == 1 {
			y[at] = row(piece)
			return
		}
		columns(y[at*k.b:][:k.b], piece, scratch)
	}
	in.run = func(r *run) error {
		x, y, partial := r.floats(x), r.floats(y), r.floats(partial)
		r.pool.Run((rows+group-1)/group, func(task, worker int) {
			for i := task * group; i < min((task+1)*group, rows); i++ {
				reduce(partial, x, i, r.scratch[worker])
			}
		})
		if pieces > 1 {
			for a := range k.a {
				part := partial[a*pieces*k.b:][:pieces*k.b]
				if k.b == 1 {
					y[a] = row(part)
				} else {
					columns(y[a*k.b:][:k.b], part, r.scratch[0])
				}
			}
		}
		return nil
	}
	if pieces == 1 {
		in.splitting = &splitting{
			fits: func(images int) bool { return rows%images == 0 },
			each: []*tensor{x, y},
			split: func(count int) func(v part) {
				return func(v part) {
					x, y := v.floats(x), v.floats(y)
					for i := range rows / v.images * count {
						reduce(y, x, i, v.r.scratch[v.worker])
					}
				}
			},
		}
	}
	c.add(in)
}

// matrices is a DotGeneral as matrix products, one for each element of the batch axes.
type matrices struct {
	batch, m, n, k int
	aBatch, bBatch int // distance of matrices
	aRows, aCols   int
	bRows, bCols   int
}

// product maps a float32 DotGeneral whose axes can be merged to two for each operand, and the batch.
func product(n *node) (p matrices, ok bool) {
	a := n.attr.(dot)
	for _, d := range []dtypes.DType{a.config.AccumulatorDType, a.config.OutputDType} {
		if d != dtypes.InvalidDType && d != dtypes.Float32 {
			return p, false
		}
	}
	x, y := n.in[0], n.in[1]
	if !isFloat(x) || !isFloat(y) || !isFloat(n.out[0]) {
		return p, false
	}
	okAll := true
	// merge is the length of axes taken together, and the distance of neighbours along them.
	merge := func(v *value, axes []int) (length, step int) {
		st := strides(v.shape.Dimensions)
		length, step = 1, 1
		for i := len(axes) - 1; i >= 0; i-- {
			d := v.shape.Dimensions[axes[i]]
			switch {
			case d == 1:
				continue
			case length == 1:
				step = st[axes[i]]
			case st[axes[i]] != step*length:
				okAll = false
			}
			length *= d
		}
		return length, step
	}
	rest := func(v *value, lists ...[]int) (axes []int) {
		for i := range v.shape.Rank() {
			if !slices.Contains(slices.Concat(lists...), i) {
				axes = append(axes, i)
			}
		}
		return axes
	}
	p.batch, p.aBatch = merge(x, a.lhsBatch)
	_, p.bBatch = merge(y, a.rhsBatch)
	p.k, p.aCols = merge(x, a.lhsContracting)
	_, p.bRows = merge(y, a.rhsContracting)
	p.m, p.aRows = merge(x, rest(x, a.lhsBatch, a.lhsContracting))
	p.n, p.bCols = merge(y, rest(y, a.rhsBatch, a.rhsContracting))
	return p, okAll
}

func (c *compiler) lowerProduct(n *node) {
	p, _ := product(n)
	a, b, out := c.tensor(n.in[0]), c.tensor(n.in[1]), c.tensor(n.out[0])
	set := c.backend.set
	c.add(instruction{name: "DotGeneral", in: []*tensor{a, b}, out: []*tensor{out}, run: func(r *run) error {
		for i := range p.batch {
			conv.Gemm(r.pool, set, p.m, p.n, p.k,
				conv.Matrix{Data: r.floats(a)[i*p.aBatch:], Rows: p.aRows, Cols: p.aCols},
				conv.Matrix{Data: r.floats(b)[i*p.bBatch:], Rows: p.bRows, Cols: p.bCols},
				r.floats(out)[i*p.m*p.n:][:p.m*p.n])
		}
		return nil
	}})
}
