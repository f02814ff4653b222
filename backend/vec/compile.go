package vec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/pkg/errors"
)

// Compile implements [compute.Builder].
func (b *Builder) Compile() (compute.Executable, error) {
	if b.compiled {
		return nil, errors.Errorf("vec: builder %q was compiled already", b.name)
	}
	if !b.main.returned {
		return nil, errors.Errorf("vec: builder %q: Compile needs Return to have been called on the main function", b.name)
	}
	if b.backend.IsFinalized() {
		return nil, errors.Errorf("vec: builder %q: the backend was finalized", b.name)
	}
	b.compiled = true
	c := &compiler{
		backend: b.backend,
		program: &program{backend: b.backend, name: b.name, names: b.main.names},
		fn:      b.main,
		uses:    map[*value]int{},
		tensors: map[*value]*tensor{},
		of:      map[*node]*cluster{},
		packs:   map[packed]*tensor{},
	}
	if err := c.compile(); err != nil {
		return nil, errors.WithMessagef(err, "vec: compiling %q", b.name)
	}
	// What was recorded goes with the shadow; the program needs its own parts only.
	b.shadow, b.main = nil, newFunction(b, nil, compute.MainName, nil)
	return newExecutable(c.program), nil
}

// kind says where the memory of a tensor comes from.
type kind int

const (
	inArena    kind = iota
	isKept          // from one execution to the next
	isShared        // likewise, and by several programs: index is of the instruction that packs it
	isRecalled      // from one execution to another with the same images
	isParameter
	isConstant
	isOutput
)

// tensor is memory that a program reads or writes. Values that are reshapes of one another share one.
type tensor struct {
	id     int
	kind   kind
	bytes  int
	index  int    // of the parameter or the output
	offset int    // in the arena
	mem    []byte // of a constant

	local   bool // in the memory of the worker that makes and reads it
	trained bool // a parameter that the program returns a new value of

	signature string // of packed weights: how they are made
	params    []int  // of which parameters
}

// instruction is one step of a program.
type instruction struct {
	name    string // what it does, for profiles
	in, out []*tensor
	scratch int  // bytes of scratch memory each worker needs
	packs   bool // it packs weights
	simple  bool // it moves elements or computes them one by one

	// overlays are what it reads that may lie where it writes: it reads each element before it writes there, and never
	// again.
	overlays []overlay

	// kept says that its results are made of parameters alone, params, and are kept from one execution to the next, or are
	// only there for what is kept, feeds.
	kept     bool
	params   []int
	feeds    []*instruction
	position int

	*splitting               // nil if it takes all images at once
	images     int           // of a convolution
	windowed   *windowed     // or nil
	pixelwise  bool          // elements of results are made of those at their places
	text       func() string // how it is done, and with what besides what belongs to the images, where a recall may do it
	run        func(r *run) error
}

// overlay is an operand and a result of one size.
type overlay struct{ in, out *tensor }

// cluster is nodes that become one instruction.
type cluster struct {
	nodes    []*node
	size     int // elements of each result, of an elementwise cluster; otherwise 0
	first    int // position of its first node
	last     int // and of its last
	conv     *convPlan
	fallback bool
	inputs   []*value // what it reads in memory
	emitted  bool
}

// compiler turns a recorded function into a program.
type compiler struct {
	backend  *Backend
	program  *program
	fn       *Function
	nodes    []*node        // live ones, operands first
	position map[*node]int  // in nodes
	uses     map[*value]int // by live nodes and outputs
	readers  map[*value][]*node
	tensors  map[*value]*tensor // by root value
	of       map[*node]*cluster
	packs    map[packed]*tensor
	masks    []mask
	trained  map[*value]bool // parameters
}

func (c *compiler) compile() error {
	c.simplify()
	for _, n := range c.nodes {
		c.program.macs += n.macs()
	}
	c.clusterConvolutions()
	c.clusterElementwise()
	for _, n := range c.nodes {
		if c.of[n] == nil {
			c.newCluster(n).fallback = n.op != compute.OpTypeWhile && !c.native(n)
		}
	}
	order := c.schedule()
	c.findTrained()
	if err := c.lower(order); err != nil {
		return err
	}
	c.addMasks()
	c.program.keep()
	c.addRecall()
	c.program.byImages()
	c.program.plan()
	return nil
}

// findTrained finds the parameters that the function returns a new value of: an output made of them element by element,
// as an optimizer makes weights. They change with every execution.
func (c *compiler) findTrained() {
	c.trained = map[*value]bool{}
	seen := map[*value]bool{}
	var walk func(v *value, size int)
	walk = func(v *value, size int) {
		v = root(v)
		if seen[v] || v.shape.Size() != size {
			return
		}
		seen[v] = true
		if v.node == nil {
			c.trained[v] = true
		} else if isElementwise(v.node) {
			for _, in := range v.node.in {
				walk(in, size)
			}
		}
	}
	for _, v := range c.fn.outputs {
		walk(v, v.shape.Size())
	}
}

// newCluster puts nodes, in order, into a cluster of their own.
func (c *compiler) newCluster(nodes ...*node) *cluster {
	k := &cluster{nodes: nodes, first: c.position[nodes[0]], last: c.position[nodes[len(nodes)-1]]}
	for _, n := range nodes {
		c.of[n] = k
	}
	return k
}

// simplify drops what no output needs, merges what is computed twice, and sees through operations that change nothing.
// Values are replaced in place.
func (c *compiler) simplify() {
	same := map[*value]*value{}
	canonical := func(v *value) *value {
		if w, ok := same[v]; ok {
			return w
		}
		return v
	}
	id := map[*value]int{}
	number := func(v *value) int {
		if v == nil {
			return -1
		}
		n, ok := id[v]
		if !ok {
			n = len(id)
			id[v] = n
		}
		return n
	}
	seen := map[string]*node{}
	relu := map[*value]*value{} // max(0, x) by x
	for _, n := range c.fn.nodes {
		n.replace(canonical)
		switch {
		case n.op == compute.OpTypeIdentity, n.op == compute.OpTypeSchedulingBarrier, n.op == compute.OpTypeOptimizationBarrier:
			for i, out := range n.out {
				same[out] = n.in[i]
			}
			continue
		case n.op == compute.OpTypeConvertDType && n.in[0].shape.DType == n.out[0].shape.DType:
			same[n.out[0]] = n.in[0]
			continue
		case isReshape(n):
			// A reshape of a reshape is a reshape of the first, and no longer the transposition or broadcast it may have been:
			// those have axes of the operand they were recorded with.
			n.op, n.attr = compute.OpTypeReshape, nil
			for n.in[0].node != nil && isReshape(n.in[0].node) {
				n.in[0] = n.in[0].node.in[0]
			}
			if n.in[0].shape.Equal(n.out[0].shape) {
				same[n.out[0]] = n.in[0]
				continue
			}
		}
		if len(n.subs) > 0 {
			continue
		}
		if v := unchanged(n); v != nil {
			same[n.out[0]] = v
			continue
		}
		rewrite(n, relu)
		var key strings.Builder
		fmt.Fprintf(&key, "%d %v", n.op, n.attr)
		for _, v := range n.in {
			fmt.Fprintf(&key, " %d", number(v))
		}
		if isReshape(n) {
			fmt.Fprintf(&key, " %v", n.out[0].shape.Dimensions)
		}
		if first, ok := seen[key.String()]; ok {
			for i, out := range n.out {
				same[out] = first.out[i]
			}
			continue
		}
		seen[key.String()] = n
	}
	for i, v := range c.fn.outputs {
		c.fn.outputs[i] = canonical(v)
	}

	c.readers = map[*value][]*node{}
	live := map[*node]bool{}
	for _, v := range c.fn.outputs {
		c.uses[v]++
		if v.node != nil {
			live[v.node] = true
		}
	}
	for i := len(c.fn.nodes) - 1; i >= 0; i-- {
		if n := c.fn.nodes[i]; live[n] {
			n.operands(func(v *value) {
				c.uses[v]++
				c.readers[v] = append(c.readers[v], n)
				if v.node != nil {
					live[v.node] = true
				}
			})
		}
	}
	c.position = map[*node]int{}
	for _, n := range c.fn.nodes {
		if live[n] {
			c.position[n] = len(c.nodes)
			c.nodes = append(c.nodes, n)
		}
	}
}

// replace puts canonical values in the place of operands, those of closures included.
func (n *node) replace(canonical func(*value) *value) {
	for i, v := range n.in {
		if v != nil {
			n.in[i] = canonical(v)
		}
	}
	for _, sub := range n.subs {
		for _, m := range sub.nodes {
			m.replace(canonical)
		}
		for i, v := range sub.outputs {
			sub.outputs[i] = canonical(v)
		}
	}
}

// isReshape reports whether the result of n is its operand's memory under another shape.
func isReshape(n *node) bool {
	if len(n.out) != 1 || n.out[0].shape.DType.IsPacked() {
		return false
	}
	switch n.op {
	case compute.OpTypeReshape:
		return true
	case compute.OpTypeBroadcastInDim:
		return n.in[0].shape.Size() == n.out[0].shape.Size()
	case compute.OpTypeTranspose:
		// Only axes of length 1 move.
		last := -1
		for _, axis := range n.attr.([]int) {
			if n.in[0].shape.Dimensions[axis] != 1 {
				if axis < last {
					return false
				}
				last = axis
			}
		}
		return true
	}
	return false
}

// root is the value whose memory v is.
func root(v *value) *value {
	for v.node != nil && isReshape(v.node) {
		v = v.node.in[0]
	}
	return v
}

// isFloat reports whether v is float32 and not empty.
func isFloat(v *value) bool { return v.shape.DType == dtypes.Float32 && v.shape.Size() > 0 }

// constant returns the value of v if all its elements are one float32 known now.
func constant(v *value) (float32, bool) {
	for v.node != nil && (isReshape(v.node) || v.node.op == compute.OpTypeBroadcastInDim) {
		v = v.node.in[0]
	}
	if v.node == nil || v.node.op != compute.OpTypeConstant {
		return 0, false
	}
	x, ok := v.node.attr.(flat).values.([]float32)
	if !ok || len(x) == 0 {
		return 0, false
	}
	for _, y := range x {
		if y != x[0] {
			return 0, false
		}
	}
	return x[0], true
}

// tensor is the memory of v.
func (c *compiler) tensor(v *value) *tensor {
	r := root(v)
	t, ok := c.tensors[r]
	if !ok {
		t = c.newTensor(byteSize(r.shape))
		if r.node != nil && r.node.op == compute.OpTypeConstant {
			t.kind = isConstant
			t.mem = allocate(t.bytes)
			copy(t.mem, dtypes.UnsafeByteSliceFromAny(r.node.attr.(flat).values))
		}
		c.tensors[r] = t
	}
	return t
}

func (c *compiler) newTensor(bytes int) *tensor {
	t := &tensor{id: len(c.program.tensors), bytes: bytes}
	c.program.tensors = append(c.program.tensors, t)
	return t
}

// schedule finds what each cluster reads, drops those that nobody reads, and puts the rest in an order in which operands
// come first, close to the order they were recorded in.
func (c *compiler) schedule() []*cluster {
	var needed []*cluster
	waits := map[*cluster]int{}            // operands' clusters not yet scheduled
	followers := map[*cluster][]*cluster{} // who reads a cluster
	var visit func(k *cluster)
	source := func(v *value) *cluster {
		if n := root(v).node; n != nil && n.op != compute.OpTypeConstant {
			return c.of[n]
		}
		return nil
	}
	visit = func(k *cluster) {
		if k.emitted {
			return
		}
		k.emitted = true
		needed = append(needed, k)
		k.inputs = c.reads(k)
		counted := map[*cluster]bool{}
		for _, v := range k.inputs {
			if s := source(v); s != nil && s != k && !counted[s] {
				counted[s] = true
				waits[k]++
				followers[s] = append(followers[s], k)
				visit(s)
			}
		}
	}
	for _, v := range c.fn.outputs {
		if s := source(v); s != nil {
			visit(s)
		}
	}
	slices.SortFunc(needed, func(a, b *cluster) int { return a.last - b.last })
	order := make([]*cluster, 0, len(needed))
	ready := make([]*cluster, 0, len(needed)) // sorted by last, descending
	push := func(k *cluster) {
		at, _ := slices.BinarySearchFunc(ready, k, func(a, b *cluster) int { return b.last - a.last })
		ready = slices.Insert(ready, at, k)
	}
	for _, k := range needed {
		if waits[k] == 0 {
			push(k)
		}
	}
	for len(ready) > 0 {
		k := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		order = append(order, k)
		for _, f := range followers[k] {
			if waits[f]--; waits[f] == 0 {
				push(f)
			}
		}
	}
	if len(order) != len(needed) {
		panic("vec: clusters depend on one another")
	}
	return order
}

// reads lists the values that a cluster reads from memory.
func (c *compiler) reads(k *cluster) []*value {
	var list []*value
	seen := map[*value]bool{}
	add := func(v *value) {
		if !seen[v] {
			seen[v] = true
			list = append(list, v)
		}
	}
	switch {
	case k.size > 0:
		c.elementwiseReads(k, add)
	case k.conv != nil:
		k.conv.reads(add)
	default:
		for _, n := range k.nodes {
			n.operands(add)
		}
	}
	return list
}

// reaches reports whether one cluster needs another by way of a third, so that the two cannot be one.
func (c *compiler) reaches(from, to *cluster) bool {
	seen := map[*node]bool{}
	found := false
	var walk func(nodes []*node)
	walk = func(nodes []*node) {
		for _, n := range nodes {
			seen[n] = true
		}
		for _, n := range nodes {
			n.operands(func(v *value) {
				m := root(v).node
				if found || m == nil || seen[m] {
					return
				}
				k := c.of[m]
				switch {
				case k == to:
				case k == from:
					found = c.of[n] != to || isSink(m)
				case k != nil && k.last >= from.first:
					walk(k.nodes)
				case k == nil && c.position[m] >= from.first:
					walk([]*node{m})
				}
			})
		}
	}
	walk(to.nodes)
	return found
}
