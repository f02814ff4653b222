package vec

import (
	"crypto/sha256"
	"fmt"
	"reflect"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/notimplemented"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"
)

// Builder implements [compute.Builder]: it records functions.
//
// Every operation is also given to a builder of the Go backend, the shadow, which checks its arguments and infers its shapes.
// The shadow is never compiled and goes when this builder is.
type Builder struct {
	notimplemented.Builder
	backend  *Backend
	name     string
	shadow   compute.Builder
	main     *Function
	compiled bool
}

var _ compute.Builder = (*Builder)(nil)

// Name implements [compute.Builder].
func (b *Builder) Name() string { return b.name }

// Main implements [compute.Builder].
func (b *Builder) Main() compute.Function { return b.main }

// NewFunction implements [compute.Builder].
func (b *Builder) NewFunction(name string) (compute.Function, error) {
	if b.compiled {
		return nil, errors.Errorf("vec: function %q: builder %q was compiled already", name, b.name)
	}
	shadow, err := b.shadow.NewFunction(name)
	if err != nil {
		return nil, err
	}
	return newFunction(b, nil, name, shadow), nil
}

// OpShape implements [compute.Builder].
func (b *Builder) OpShape(op compute.Value) (shapes.Shape, error) {
	v, ok := op.(*value)
	if !ok {
		return shapes.Invalid(), errors.Errorf("vec: OpShape: %T is no value of this backend", op)
	}
	return v.shape, nil
}

// Function implements [compute.Function]: a list of operations in the order they were added.
type Function struct {
	notimplemented.Function
	builder  *Builder
	parent   *Function // of a closure
	name     string
	shadow   compute.Function
	params   []*value
	names    []string
	nodes    []*node
	outputs  []*value
	returned bool
}

var _ compute.Function = (*Function)(nil)

func newFunction(b *Builder, parent *Function, name string, shadow compute.Function) *Function {
	return &Function{
		Function: notimplemented.Function{ErrFn: notImplemented},
		builder:  b, parent: parent, name: name, shadow: shadow,
	}
}

// value is a result of a node, or a parameter (no node).
type value struct {
	fn     *Function
	node   *node
	shape  shapes.Shape
	shadow compute.Value
}

// node is one recorded operation.
type node struct {
	op   compute.OpType
	attr any         // everything besides the operands, printable: two nodes that print the same compute the same
	in   []*value    // operands; nil where an optional one is absent
	subs []*Function // closures
	out  []*value
	emit emitter
}

// emitter adds the operation to a function of any backend, given its operands and closures there.
type emitter func(f compute.Function, in []compute.Value, subs []compute.Function) ([]compute.Value, error)

// flat is a constant's values.
type flat struct{ values any }

// String prints a constant so that different values print differently.
func (c flat) String() string {
	return fmt.Sprintf("%T%d%x", c.values, reflect.ValueOf(c.values).Len(), sha256.Sum256(dtypes.UnsafeByteSliceFromAny(c.values)))
}

// record adds an operation, by way of the shadow.
func (f *Function) record(op compute.OpType, attr any, in []compute.Value, subs []compute.Function, emit emitter) ([]compute.Value, error) {
	if f.builder.compiled {
		return nil, errors.Errorf("vec: %s: builder %q was compiled already", op, f.builder.name)
	}
	if f.returned {
		return nil, errors.Errorf("vec: %s: function %q has returned already", op, f.name)
	}
	n := &node{op: op, attr: attr, emit: emit, in: make([]*value, len(in)), subs: make([]*Function, len(subs))}
	shadows := make([]compute.Value, len(in))
	for i, operand := range in {
		if operand == nil {
			continue
		}
		v, ok := operand.(*value)
		if !ok || v.fn.builder != f.builder {
			return nil, errors.Errorf("vec: %s: operand %d is no value of builder %q", op, i, f.builder.name)
		}
		n.in[i], shadows[i] = v, v.shadow
	}
	shadowSubs := make([]compute.Function, len(subs))
	for i, sub := range subs {
		s, ok := sub.(*Function)
		if !ok || s.parent != f {
			return nil, errors.Errorf("vec: %s: function %d is no closure of function %q", op, i, f.name)
		}
		n.subs[i], shadowSubs[i] = s, s.shadow
	}
	outs, err := emit(f.shadow, shadows, shadowSubs)
	if err != nil {
		return nil, err
	}
	f.nodes = append(f.nodes, n)
	results := make([]compute.Value, len(outs))
	for i, out := range outs {
		shape, err := f.shadow.Shape(out)
		if err != nil {
			return nil, err
		}
		v := &value{fn: f, node: n, shape: shape, shadow: out}
		n.out = append(n.out, v)
		results[i] = v
	}
	return results, nil
}

// one records an operation with one result and no closure.
func (f *Function) one(op compute.OpType, attr any, emit func(f compute.Function, in []compute.Value) (compute.Value, error), in ...compute.Value) (compute.Value, error) {
	outs, err := f.record(op, attr, in, nil, func(g compute.Function, in []compute.Value, _ []compute.Function) ([]compute.Value, error) {
		out, err := emit(g, in)
		return []compute.Value{out}, err
	})
	if err != nil {
		return nil, err
	}
	return outs[0], nil
}

func (f *Function) unary(op compute.OpType, method func(compute.Function, compute.Value) (compute.Value, error), x compute.Value) (compute.Value, error) {
	return f.one(op, nil, func(g compute.Function, in []compute.Value) (compute.Value, error) { return method(g, in[0]) }, x)
}

func (f *Function) binary(op compute.OpType, method func(compute.Function, compute.Value, compute.Value) (compute.Value, error), x, y compute.Value) (compute.Value, error) {
	return f.one(op, nil, func(g compute.Function, in []compute.Value) (compute.Value, error) { return method(g, in[0], in[1]) }, x, y)
}

func (f *Function) reduce(op compute.OpType, method func(compute.Function, compute.Value, ...int) (compute.Value, error), x compute.Value, axes []int) (compute.Value, error) {
	axes = slices.Clone(axes)
	return f.one(op, axes, func(g compute.Function, in []compute.Value) (compute.Value, error) { return method(g, in[0], axes...) }, x)
}

// Name implements [compute.Function].
func (f *Function) Name() string { return f.name }

// Builder implements [compute.Function].
func (f *Function) Builder() compute.Builder { return f.builder }

// Parent implements [compute.Function].
func (f *Function) Parent() compute.Function {
	if f.parent == nil {
		return nil
	}
	return f.parent
}

// Closure implements [compute.Function].
func (f *Function) Closure() (compute.Function, error) {
	shadow, err := f.shadow.Closure()
	if err != nil {
		return nil, err
	}
	return newFunction(f.builder, f, "", shadow), nil
}

// Shape implements [compute.Function].
func (f *Function) Shape(v compute.Value) (shapes.Shape, error) { return f.builder.OpShape(v) }

// Parameter implements [compute.Function].
func (f *Function) Parameter(name string, shape shapes.Shape, sharding *compute.ShardingSpec) (compute.Value, error) {
	if shape.IsDynamic() {
		return nil, errors.Errorf("vec: parameter %q has the dynamic shape %s: this backend has static shapes only", name, shape)
	}
	if f.returned || f.builder.compiled {
		return nil, errors.Errorf("vec: parameter %q: function %q has returned already", name, f.name)
	}
	shadow, err := f.shadow.Parameter(name, shape, sharding)
	if err != nil {
		return nil, err
	}
	v := &value{fn: f, shape: shape.Clone(), shadow: shadow}
	f.params = append(f.params, v)
	f.names = append(f.names, name)
	return v, nil
}

// Constant implements [compute.Function].
func (f *Function) Constant(values any, dims ...int) (compute.Value, error) {
	t := reflect.TypeOf(values)
	if t == nil || t.Kind() != reflect.Slice {
		return nil, errors.Errorf("vec: Constant: values of type %T given, expected a slice", values)
	}
	dtype := dtypes.FromGoType(t.Elem())
	if !f.builder.backend.caps.DTypes[dtype] {
		return nil, errors.Errorf("vec: Constant: values of type %T are of no data type of this backend", values)
	}
	shape := shapes.Make(dtype, dims...)
	if err := checkFlat("Constant", values, shape); err != nil {
		return nil, err
	}
	c := flat{dtypes.MakeAnySlice(dtype, shape.Size())}
	dtypes.CopyAnySlice(c.values, values)
	return f.one(compute.OpTypeConstant, c, func(g compute.Function, _ []compute.Value) (compute.Value, error) {
		if g == f.shadow && f.parent == nil {
			// The shadow needs the shape only, and comparing constants is slow there.
			return g.Parameter(fmt.Sprintf("constant %d", len(f.nodes)), shape, nil)
		}
		return g.Constant(c.values, shape.Dimensions...)
	})
}

// Return implements [compute.Function].
func (f *Function) Return(outputs []compute.Value, shardings []*compute.ShardingSpec) error {
	switch {
	case f.returned:
		return errors.Errorf("vec: function %q has returned already", f.name)
	case len(outputs) == 0:
		return errors.Errorf("vec: function %q returns nothing, expected one value at least", f.name)
	case len(shardings) != 0:
		return errors.Wrapf(compute.ErrNotImplemented, "vec: function %q: sharded outputs", f.name)
	}
	shadows := make([]compute.Value, len(outputs))
	for i, out := range outputs {
		v, ok := out.(*value)
		if !ok || v.fn.builder != f.builder {
			return errors.Errorf("vec: function %q: output %d is no value of builder %q", f.name, i, f.builder.name)
		}
		if f.parent == nil && v.fn != f {
			return errors.Errorf("vec: function %q: output %d belongs to function %q", f.name, i, v.fn.name)
		}
		f.outputs = append(f.outputs, v)
		shadows[i] = v.shadow
	}
	f.returned = true
	if f.parent != nil { // an operation of the shadow will take it
		return f.shadow.Return(shadows, nil)
	}
	return nil
}

// emit adds nodes of f to the function g of any backend; env holds, and is given, the values of f there.
func emit(g compute.Function, nodes []*node, env map[*value]compute.Value) error {
	for _, n := range nodes {
		in := make([]compute.Value, len(n.in))
		for i, v := range n.in {
			if v != nil {
				in[i] = env[v]
			}
		}
		subs := make([]compute.Function, len(n.subs))
		for i, sub := range n.subs {
			h, err := g.Closure()
			if err != nil {
				return err
			}
			for j, p := range sub.params {
				if env[p], err = h.Parameter(sub.names[j], p.shape, nil); err != nil {
					return err
				}
			}
			if err := emit(h, sub.nodes, env); err != nil {
				return err
			}
			outs := make([]compute.Value, len(sub.outputs))
			for j, v := range sub.outputs {
				outs[j] = env[v]
			}
			if err := h.Return(outs, nil); err != nil {
				return err
			}
			subs[i] = h
		}
		outs, err := n.emit(g, in, subs)
		if err != nil {
			return err
		}
		for i, v := range n.out {
			env[v] = outs[i]
		}
	}
	return nil
}

// operands calls f for every value that n needs from its own function: its inputs and what its closures capture.
func (n *node) operands(f func(v *value)) {
	for _, v := range n.in {
		if v != nil {
			f(v)
		}
	}
	for _, sub := range n.subs {
		inside := map[*Function]bool{}
		sub.captures(inside, f)
	}
}

// captures calls f for every value that fn and its closures use of the functions around fn.
func (fn *Function) captures(inside map[*Function]bool, f func(v *value)) {
	inside[fn] = true
	outer := func(v *value) {
		if v != nil && !inside[v.fn] {
			f(v)
		}
	}
	for _, n := range fn.nodes {
		for _, v := range n.in {
			outer(v)
		}
		for _, sub := range n.subs {
			sub.captures(inside, f)
		}
	}
	for _, v := range fn.outputs {
		outer(v)
	}
}

// Call implements [compute.Function]: the callee's operations become the caller's.
func (f *Function) Call(callee compute.Function, inputs ...compute.Value) ([]compute.Value, error) {
	g, ok := callee.(*Function)
	if !ok || g.builder != f.builder || g.parent != nil {
		return nil, errors.Errorf("vec: Call: expected a function of builder %q", f.builder.name)
	}
	if !g.returned {
		return nil, errors.Errorf("vec: Call: function %q has not returned yet", g.name)
	}
	if len(inputs) != len(g.params) {
		return nil, errors.Errorf("vec: Call: function %q takes %d values, %d given", g.name, len(g.params), len(inputs))
	}
	env := map[*value]compute.Value{}
	for i, p := range g.params {
		shape, err := f.Shape(inputs[i])
		if err != nil {
			return nil, err
		}
		if !shape.Equal(p.shape) {
			return nil, errors.Errorf("vec: Call: parameter %q of function %q has shape %s, %s given", g.names[i], g.name, p.shape, shape)
		}
		env[p] = inputs[i]
	}
	if err := emit(f, g.nodes, env); err != nil {
		return nil, errors.WithMessagef(err, "vec: Call of function %q", g.name)
	}
	outs := make([]compute.Value, len(g.outputs))
	for i, v := range g.outputs {
		outs[i] = env[v]
	}
	return outs, nil
}

// Sort implements [compute.Function].
func (f *Function) Sort(comparator compute.Function, axis int, isStable bool, inputs ...compute.Value) ([]compute.Value, error) {
	return f.record(compute.OpTypeSort, []any{axis, isStable}, inputs, []compute.Function{comparator},
		func(g compute.Function, in []compute.Value, subs []compute.Function) ([]compute.Value, error) {
			return g.Sort(subs[0], axis, isStable, in...)
		})
}

// While implements [compute.Function].
func (f *Function) While(cond, body compute.Function, initialState ...compute.Value) ([]compute.Value, error) {
	return f.record(compute.OpTypeWhile, nil, initialState, []compute.Function{cond, body},
		func(g compute.Function, in []compute.Value, subs []compute.Function) ([]compute.Value, error) {
			return g.While(subs[0], subs[1], in...)
		})
}

// If implements [compute.Function].
func (f *Function) If(pred compute.Value, trueBranch, falseBranch compute.Function) ([]compute.Value, error) {
	return f.record(compute.OpTypeIf, nil, []compute.Value{pred}, []compute.Function{trueBranch, falseBranch},
		func(g compute.Function, in []compute.Value, subs []compute.Function) ([]compute.Value, error) {
			return g.If(in[0], subs[0], subs[1])
		})
}
