package vec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
)

// Elementwise operations that feed one another are computed together, a piece of all the arrays at a time, so that what
// lies between them stays in cache. A value inside is a register: a piece of float32s, with booleans as 0 and 1.

const (
	maxSteps  = 48   // operations in one cluster
	pieceSize = 2048 // elements of a register, about
	maxPeriod = 8192 // elements of a repeated operand that is laid out in a register once
	taskSize  = 8 * pieceSize
	tasksEach = 4 // tasks for each worker, so that they end together
)

// isElementwise reports whether n can be part of a cluster.
func isElementwise(n *node) bool {
	if len(n.out) != 1 || n.out[0].shape.Size() == 0 {
		return false
	}
	number := func(v *value) bool { return v.shape.DType == dtypes.Float32 }
	truth := func(v *value) bool { return v.shape.DType == dtypes.Bool }
	all := func(is func(*value) bool) bool {
		return !slices.ContainsFunc(n.in, func(v *value) bool { return !is(v) })
	}
	switch n.op {
	case compute.OpTypeConvertDType:
		if number(n.out[0]) {
			switch n.in[0].shape.DType {
			case dtypes.Bool, dtypes.Uint8, dtypes.Int32, dtypes.Int64:
				return true
			}
			return false
		}
		return truth(n.out[0]) && number(n.in[0])
	case compute.OpTypeWhere:
		return truth(n.in[0]) && (number(n.out[0]) || truth(n.out[0]))
	case compute.OpTypeClamp:
		return number(n.out[0])
	case compute.OpTypeLogicalAnd, compute.OpTypeLogicalOr, compute.OpTypeLogicalXor, compute.OpTypeLogicalNot:
		return all(truth)
	case compute.OpTypeEqual, compute.OpTypeNotEqual:
		return all(number) || all(truth)
	}
	_, ok := steps[n.op]
	return ok && all(number)
}

// clusterElementwise puts elementwise nodes with as many elements as each other together, along the edges of the graph.
func (c *compiler) clusterElementwise() {
	for _, n := range c.nodes {
		if c.of[n] == nil && isSink(n) {
			if m := root(n.in[0]).node; m != nil && c.of[m] != nil && !isSink(m) && c.of[m].takes(n) {
				c.of[m].add(c, n)
			}
			continue
		}
		if c.of[n] != nil || !isElementwise(n) {
			continue
		}
		k := c.newCluster(n)
		k.size = n.out[0].shape.Size()
		for _, v := range n.in {
			if v.shape.Size() != k.size {
				continue
			}
			m := root(v).node
			if m == nil || c.of[m] == nil {
				continue
			}
			if o := c.of[m]; o != k && o.size == k.size && len(o.nodes)+len(k.nodes) <= maxSteps &&
				!slices.ContainsFunc(k.nodes, func(n *node) bool { return isSink(n) && !o.takes(n) }) &&
				!c.reaches(o, k) && !c.reaches(k, o) {
				o.add(c, k.nodes...)
				k = o
			}
		}
	}
}

// add makes nodes members of k.
func (k *cluster) add(c *compiler, nodes ...*node) {
	for _, n := range nodes {
		c.of[n] = k
	}
	k.nodes = append(k.nodes, nodes...)
	slices.SortFunc(k.nodes, func(a, b *node) int { return c.position[a] - c.position[b] })
	k.first, k.last = c.position[k.nodes[0]], c.position[k.nodes[len(k.nodes)-1]]
}

// takes reports whether the sums of n can be taken in k: rows are as wide as those summed already.
func (k *cluster) takes(n *node) bool {
	if k.size != n.in[0].shape.Size() || len(k.nodes) >= maxSteps {
		return false
	}
	width := n.out[0].shape.Size()
	return width == 1 || !slices.ContainsFunc(k.nodes, func(m *node) bool {
		return isSink(m) && m.out[0].shape.Size() != 1 && m.out[0].shape.Size() != width
	})
}

// isSink reports whether n sums over all but the last axes, as batch norm does per channel: a cluster that computes what
// is summed can add it up as well. A first axis that is kept is none of them even where it has one element: an image's
// sums are taken in one order, whether it is alone or not.
func isSink(n *node) bool {
	if n.op != compute.OpTypeReduceSum {
		return false
	}
	axes := n.attr.([]int)
	k, ok := reduction(n)
	return ok && k.a == 1 && k.r > 1 && k.b <= pieceSize && (len(axes) == 0 || slices.Contains(axes, 0))
}

// operand is what an elementwise node reads: a register of its cluster, or memory, seen through broadcasts.
type operand struct {
	member *node  // the member that computes it, or
	v      *value // what is in memory,
	dims   []int  // the result's axes, those that are adjacent in memory merged,
	steps  []int  // and the distance of neighbours along them in v, in elements; 0 repeats it
}

// form says how an operand lies in memory, as the result sees it.
type form int

const (
	scalarForm   form = iota // one element everywhere
	fullForm                 // as many elements as the result, in the same order
	periodicForm             // a row that repeats
	generalForm
)

func (o operand) form() form {
	switch {
	case len(o.steps) == 0 || len(o.steps) == 1 && o.steps[0] == 0:
		return scalarForm
	case len(o.steps) == 1 && o.steps[0] == 1:
		return fullForm
	case len(o.steps) == 2 && o.steps[0] == 0 && o.steps[1] == 1 && o.dims[1] <= maxPeriod:
		return periodicForm
	}
	return generalForm
}

func (o operand) key() string { return fmt.Sprintf("%p %v %v", root(o.v), o.dims, o.steps) }

// operand resolves the i-th input of n in cluster k.
func (c *compiler) operand(k *cluster, n *node, i int) operand {
	dims := n.out[0].shape.Dimensions
	v := n.in[i]
	axes := make([]int, len(dims)) // the axis of v along each axis of the result, or -1
	for a := range axes {
		axes[a] = -1
		if v.shape.Rank() > 0 && v.shape.Dimensions[a] != 1 {
			axes[a] = a
		}
	}
	for {
		if r := root(v); v.shape.Size() == k.size && (r.node == nil || r.node.op != compute.OpTypeBroadcastInDim) {
			if r.node != nil && c.of[r.node] == k {
				return operand{member: r.node}
			}
			return operand{v: v, dims: []int{k.size}, steps: []int{1}}
		}
		if v.node == nil {
			break
		}
		from := v.node.in
		if v.node.op == compute.OpTypeBroadcastInDim {
			u := from[0]
			back := map[int]int{}
			for j, a := range v.node.attr.(broadcast).axes {
				if u.shape.Dimensions[j] != 1 {
					back[a] = j
				}
			}
			for a, x := range axes {
				if j, ok := back[x]; ok {
					axes[a] = j
				} else {
					axes[a] = -1
				}
			}
			v = u
			continue
		}
		if isReshape(v.node) {
			u := from[0]
			old, now := longAxes(u.shape.Dimensions), longAxes(v.shape.Dimensions)
			if len(old) == len(now) {
				match := true
				back := map[int]int{}
				for j := range now {
					match = match && u.shape.Dimensions[old[j]] == v.shape.Dimensions[now[j]]
					back[now[j]] = old[j]
				}
				if match {
					for a, x := range axes {
						if x >= 0 {
							axes[a] = back[x]
						}
					}
					v = u
					continue
				}
			}
		}
		break
	}
	o := operand{v: v}
	st := strides(v.shape.Dimensions)
	for a, d := range dims {
		if d == 1 {
			continue
		}
		step := 0
		if axes[a] >= 0 {
			step = st[axes[a]]
		}
		if last := len(o.steps) - 1; last >= 0 && o.steps[last] == step*d {
			o.dims[last] *= d
			o.steps[last] = step
		} else {
			o.dims, o.steps = append(o.dims, d), append(o.steps, step)
		}
	}
	return o
}

// longAxes lists the axes that are longer than 1.
func longAxes(dims []int) []int {
	var axes []int
	for i, d := range dims {
		if d != 1 {
			axes = append(axes, i)
		}
	}
	return axes
}

func (c *compiler) elementwiseReads(k *cluster, add func(*value)) {
	for _, n := range k.nodes {
		for i := range n.in {
			if o := c.operand(k, n, i); o.member == nil {
				add(o.v)
			}
		}
	}
}

// load brings an operand from memory to a register.
type load struct {
	operand
	t     *tensor
	dtype dtypes.DType
	form  form
	reg   int
}

// stage computes one register from others.
type stage struct {
	compute   func(dst, a, b, c []float32)
	dst       int
	a, b, c   int
	operands  int     // how many of them it reads
	out       *tensor // where the register is stored as well, or nil
	outIsBool bool
}

// sink adds a register up, each task for itself and then the tasks in order.
type sink struct {
	step, reg, width int // after which step, which register, over rows of which width
	partial, out     *tensor
}

// opName is how profiles call an operation.
func opName(op compute.OpType) string {
	switch op {
	case opAbove:
		return "Above"
	case opGate:
		return "Gate"
	case opRoundBF16:
		return "RoundBF16"
	}
	return op.String()
}

// lowerElementwise adds the instruction of a cluster.
func (c *compiler) lowerElementwise(k *cluster) {
	inside := map[*node]bool{}
	for _, n := range k.nodes {
		inside[n] = true
	}
	var in instruction
	var loads []*load
	loaded := map[string]*load{}
	operands := make([][]operand, len(k.nodes))
	lastUse := map[*node]int{}
	for i, n := range k.nodes {
		for j := range n.in {
			o := c.operand(k, n, j)
			operands[i] = append(operands[i], o)
			if o.member != nil {
				if !isSink(n) {
					lastUse[o.member] = i
				}
				continue
			}
			if loaded[o.key()] == nil {
				l := &load{operand: o, t: c.tensor(o.v), dtype: o.v.shape.DType, form: o.form(), reg: len(loads)}
				loaded[o.key()] = l
				loads = append(loads, l)
				in.in = append(in.in, l.t)
			}
		}
	}
	regs := len(loads)
	var free []int
	at, made := map[*node]int{}, map[*node]int{} // register and step of a member
	var list []stage
	var sinks []*sink
	var names []string
	for i, n := range k.nodes {
		names = append(names, opName(n.op))
		if isSink(n) {
			o := operands[i][0]
			l := &sink{step: made[o.member], reg: at[o.member], width: n.out[0].shape.Size(), out: c.tensor(n.out[0])}
			in.out = append(in.out, l.out)
			sinks = append(sinks, l)
			continue
		}
		s := stage{compute: c.backend.kernels.of(n), operands: len(n.in)}
		for j, o := range operands[i] {
			reg := 0
			if o.member != nil {
				reg = at[o.member]
			} else {
				reg = loaded[o.key()].reg
			}
			*[]*int{&s.a, &s.b, &s.c}[j] = reg
		}
		// A register may be written where one is read for the last time: kernels go element by element.
		for _, o := range operands[i] {
			if m := o.member; m != nil && lastUse[m] == i {
				if !slices.Contains(free, at[m]) {
					free = append(free, at[m])
				}
			}
		}
		if c.usedOutside(n.out[0], inside) {
			s.out = c.tensor(n.out[0])
			s.outIsBool = n.out[0].shape.DType == dtypes.Bool
			in.out = append(in.out, s.out)
		}
		if direct := s.out != nil && !s.outIsBool; len(free) > 0 && !direct {
			s.dst, free = free[len(free)-1], free[:len(free)-1]
		} else {
			s.dst = regs
			regs++
			if direct { // the register is the memory itself, and no other value's
				delete(lastUse, n)
			}
		}
		at[n] = s.dst
		made[n] = len(list)
		list = append(list, s)
	}
	in.name = "elementwise: " + strings.Join(names, " ")

	piece := pieceSize
	if regs > 16 {
		piece /= 2
	}
	for _, l := range loads {
		if l.form == periodicForm && l.dims[1] > piece {
			piece = l.dims[1]
		}
	}
	for _, l := range loads {
		if l.form == periodicForm && piece%l.dims[1] != 0 && piece >= l.dims[1] {
			piece -= piece % l.dims[1]
		}
	}
	for _, l := range loads {
		if l.form == periodicForm && piece%l.dims[1] != 0 {
			l.form = generalForm
		}
	}
	for _, l := range sinks {
		// Pieces hold whole rows; periodic operands have to fit again.
		if piece%l.width != 0 {
			piece = roundUp(piece, l.width)
			for _, l := range loads {
				if l.form == periodicForm && piece%l.dims[1] != 0 {
					l.form = generalForm
				}
			}
		}
	}
	piece = min(piece, k.size)
	stride := roundUp(piece, 16)
	in.scratch = 4 * (regs*stride + sideBySide)
	addRows := c.backend.kernels.addRows
	workers := c.backend.pool.workers
	each := roundUp(max(taskSize, (k.size+tasksEach*workers-1)/(tasksEach*workers)), piece)
	if len(sinks) > 0 { // the order of sums may not depend on the number of workers
		each = roundUp(taskSize, piece)
	}
	tasks := (k.size + each - 1) / each
	for _, l := range sinks {
		l.partial = c.newTensor(4 * tasks * l.width)
		in.out = append(in.out, l.partial)
	}
	// layOut makes a worker's registers, with what repeats in them.
	layOut := func(r *run, worker int) [][]float32 {
		reg := make([][]float32, regs)
		for i := range reg {
			reg[i] = r.scratch[worker][i*stride:][:piece]
		}
		for _, l := range loads {
			if l.form == scalarForm || l.form == periodicForm {
				l.fill(reg[l.reg], r.mem[l.t.id], 0)
			}
		}
		return reg
	}
	// compute does the elements from lo to hi; at returns those of a tensor, and done is called after each step.
	compute := func(r *run, reg [][]float32, lo, hi int, at func(t *tensor) []float32, done func(step, n int)) {
		for from := lo; from < hi; from += piece {
			n := min(piece, hi-from)
			for _, l := range loads {
				switch {
				case l.form == fullForm && l.dtype == dtypes.Float32:
					reg[l.reg] = at(l.t)[from-lo:][:n]
				case l.form == fullForm || l.form == generalForm:
					l.fill(reg[l.reg][:n], r.mem[l.t.id], from)
				}
			}
			for i := range list {
				s := &list[i]
				if s.out != nil && !s.outIsBool {
					reg[s.dst] = at(s.out)[from-lo:][:n]
				}
				dst := reg[s.dst][:n]
				s.compute(dst, reg[s.a][:n], reg[s.b][:n], reg[s.c][:n])
				if s.outIsBool {
					out := r.mem[s.out.id][from:][:n]
					for j, x := range dst {
						out[j] = byte(x)
					}
				}
				done(i, n)
			}
		}
	}
	in.run = func(r *run) error {
		registers := make([][][]float32, len(r.scratch))
		r.pool.Run(tasks, func(task, worker int) {
			if registers[worker] == nil {
				registers[worker] = layOut(r, worker)
			}
			reg := registers[worker]
			for _, l := range sinks {
				clear(r.floats(l.partial)[task*l.width:][:l.width])
			}
			lo, hi := task*each, min((task+1)*each, k.size)
			compute(r, reg, lo, hi, func(t *tensor) []float32 { return r.floats(t)[lo:hi] }, func(step, n int) {
				for _, l := range sinks {
					if l.step == step {
						addRows(r.floats(l.partial)[task*l.width:][:l.width], reg[l.reg][:n], r.scratch[worker][regs*stride:])
					}
				}
			})
		})
		for _, l := range sinks {
			out := r.floats(l.out)
			clear(out)
			addRows(out, r.floats(l.partial), r.scratch[0])
		}
		return nil
	}
	in.splitting = splitElementwise(k.size, loads, list, sinks, func(v part, lo, hi int) {
		compute(v.r, layOut(v.r, v.worker), lo, hi, v.floats, func(int, int) {})
	})
	in.pixelwise = in.splitting != nil && !slices.ContainsFunc(loads, func(l *load) bool { return l.form == generalForm })
	in.text = func() (text string) {
		for _, l := range loads {
			text += fmt.Sprint(" ", l.form)
			if l.form != fullForm {
				text += c.describe(l.v)
			}
			if l.form == periodicForm {
				text += fmt.Sprint(l.dims[1:], l.steps[1:])
			}
		}
		for i, s := range list {
			text += fmt.Sprint(" ", names[i], s.dst, s.a, s.b, s.c, s.out != nil)
		}
		return text
	}
	in.simple = len(sinks) == 0
	in.overlays = overlays(loads, list)
	c.add(in)
}

// splitElementwise says how a cluster of so many elements is done for a part of the images, if it can be: without sums,
// on float32 alone. compute does the elements from lo to hi.
func splitElementwise(size int, loads []*load, list []stage, sinks []*sink, compute func(v part, lo, hi int)) *splitting {
	if len(sinks) > 0 {
		return nil
	}
	s := &splitting{split: func(int) func(v part) {
		return func(v part) {
			each := size / v.images
			compute(v, v.first*each, (v.first+v.count)*each)
		}
	}}
	period := 1
	for _, l := range loads {
		switch {
		case l.form == fullForm && l.dtype == dtypes.Float32:
			s.each = append(s.each, l.t)
			continue
		case l.form == fullForm:
			return nil
		case l.form == periodicForm:
			period *= l.dims[1] / gcd(period, l.dims[1])
		}
		s.whole = append(s.whole, l.t)
	}
	for _, x := range list {
		switch {
		case x.outIsBool:
			return nil
		case x.out != nil:
			s.each = append(s.each, x.out)
		}
	}
	s.fits = func(images int) bool { return size%images == 0 && size/images%period == 0 }
	return s
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// overlays finds the operands that results may be written over.
func overlays(loads []*load, list []stage) (found []overlay) {
	for _, l := range loads {
		if l.form != fullForm || l.dtype != dtypes.Float32 || slices.ContainsFunc(loads, func(o *load) bool { return o != l && o.t == l.t }) {
			continue
		}
		last := 0
		for i, s := range list {
			for _, reg := range []int{s.a, s.b, s.c}[:s.operands] {
				if reg == l.reg {
					last = i
				}
			}
		}
		for _, s := range list[last:] {
			if s.out != nil && !s.outIsBool {
				found = append(found, overlay{l.t, s.out})
			}
		}
	}
	return found
}

// fill writes len(dst) elements of the operand, from the given position of the result on.
func (l *load) fill(dst []float32, mem []byte, from int) {
	switch l.dtype {
	case dtypes.Float32:
		fill(dst, floats(mem), from, l.dims, l.steps)
	case dtypes.Int32:
		fill(dst, numbers[int32](mem), from, l.dims, l.steps)
	case dtypes.Int64:
		fill(dst, numbers[int64](mem), from, l.dims, l.steps)
	default: // Uint8, and Bool as 0 and 1
		fill(dst, mem, from, l.dims, l.steps)
	}
}

func fill[T float32 | int32 | int64 | uint8](dst []float32, src []T, from int, dims, steps []int) {
	if len(dims) == 0 {
		for i := range dst {
			dst[i] = float32(src[0])
		}
		return
	}
	last := len(dims) - 1
	index := make([]int, len(dims))
	at := 0
	for a, rest := last, from; a >= 0; a-- {
		index[a] = rest % dims[a]
		rest /= dims[a]
		at += index[a] * steps[a]
	}
	for len(dst) > 0 {
		n := min(dims[last]-index[last], len(dst))
		switch steps[last] {
		case 0:
			x := float32(src[at])
			for i := range dst[:n] {
				dst[i] = x
			}
		case 1:
			for i, x := range src[at:][:n] {
				dst[i] = float32(x)
			}
		default:
			for i := range n {
				dst[i] = float32(src[at+i*steps[last]])
			}
		}
		dst = dst[n:]
		at += n * steps[last]
		index[last] += n
		for a := last; index[a] == dims[a]; a-- {
			if a == 0 { // a periodic operand starts again
				clear(index)
				at = 0
				break
			}
			at += steps[a-1] - dims[a]*steps[a]
			index[a] = 0
			index[a-1]++
		}
	}
}
