package vec

import (
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/pkg/errors"
)

// lower turns clusters into instructions.
func (c *compiler) lower(order []*cluster) error {
	p := c.program
	p.parameter = make([]*tensor, len(c.fn.params))
	for i, v := range c.fn.params {
		p.params = append(p.params, v.shape)
		if c.uses[v] > 0 {
			t := c.tensor(v)
			t.kind, t.index, t.trained = isParameter, i, c.trained[v]
			p.parameter[i] = t
		}
	}
	for i, v := range c.fn.outputs {
		t := c.tensor(v)
		if t.kind == inArena {
			t.kind, t.index = isOutput, i
		}
		p.outputs = append(p.outputs, v.shape)
		p.output = append(p.output, t)
	}
	for i := 0; i < len(order); {
		if order[i].fallback {
			j := i
			var group []*node
			for ; j < len(order) && order[j].fallback; j++ {
				group = append(group, order[j].nodes...)
			}
			if err := c.lowerFallback(group); err != nil {
				return err
			}
			i = j
			continue
		}
		k := order[i]
		switch {
		case k.size > 0:
			c.lowerElementwise(k)
		case k.conv != nil:
			c.lowerConvolution(k.conv)
		case k.nodes[0].op == compute.OpTypeWhile:
			if err := c.lowerLoop(k.nodes[0]); err != nil {
				return err
			}
		default:
			c.lowerNative(k.nodes[0])
		}
		i++
	}
	return nil
}

func (c *compiler) add(in instruction) {
	in.position = len(c.program.instructions)
	c.program.instructions = append(c.program.instructions, &in)
}

// lowerFallback makes one instruction of nodes, in order: a program of the Go backend. Operands are copied into its
// buffers and results out of them.
func (c *compiler) lowerFallback(group []*node) error {
	golang := c.backend.golang
	b := golang.Builder(c.program.name)
	f := b.Main()
	inside := map[*node]bool{}
	for _, n := range group {
		inside[n] = true
	}
	env := map[*value]compute.Value{}
	var inputs []*value
	var fault error
	// need makes v known to the Go program: a constant, a reshape of what it computes, or a parameter.
	var need func(v *value)
	need = func(v *value) {
		if _, ok := env[v]; ok || fault != nil || v.node != nil && inside[v.node] {
			return
		}
		r := root(v)
		switch {
		case r.node != nil && r.node.op == compute.OpTypeConstant && r == v:
			fault = emit(f, []*node{r.node}, env)
		case r != v:
			need(r)
			if fault == nil {
				env[v], fault = f.Reshape(env[r], v.shape.Dimensions...)
			}
		default:
			env[v], fault = f.Parameter("input", v.shape, nil)
			inputs = append(inputs, v)
		}
	}
	name := ""
	for _, n := range group {
		n.operands(need)
		if fault != nil {
			return fault
		}
		if err := emit(f, []*node{n}, env); err != nil {
			return err
		}
		if name != "" {
			name += " "
		}
		name += n.op.String()
	}
	var outputs []compute.Value
	in := instruction{name: "go: " + name}
	for _, v := range inputs {
		in.in = append(in.in, c.tensor(v))
	}
	var results []*value
	for _, n := range group {
		for _, v := range n.out {
			if c.usedOutside(v, inside) {
				results = append(results, v)
				outputs = append(outputs, env[v])
				in.out = append(in.out, c.tensor(v))
			}
		}
	}
	if err := f.Return(outputs, nil); err != nil {
		return err
	}
	program, err := b.Compile()
	if err != nil {
		return err
	}
	donate := make([]bool, len(inputs))
	for i := range donate {
		donate[i] = true
	}
	in.run = func(r *run) error {
		buffers := make([]compute.Buffer, len(inputs))
		for i, v := range inputs {
			buffer, data, err := golang.NewSharedBuffer(0, v.shape)
			if err != nil {
				return err
			}
			copy(dtypes.UnsafeByteSliceFromAny(data), r.mem[in.in[i].id])
			buffers[i] = buffer
		}
		outs, err := program.Execute(buffers, donate, 0)
		if err != nil {
			return err
		}
		for i, out := range outs {
			data, err := out.Data()
			if err != nil {
				return err
			}
			shape, err := out.Shape()
			if err != nil {
				return err
			}
			if !shape.Equal(results[i].shape) {
				return errors.Errorf("the Go backend returned shape %s, expected %s", shape, results[i].shape)
			}
			copy(r.mem[in.out[i].id], dtypes.UnsafeByteSliceFromAny(data))
			if err := out.Finalize(); err != nil {
				return err
			}
		}
		return nil
	}
	c.add(in)
	return nil
}

// usedOutside reports whether an output or a node outside reads v, or a reshape of it.
func (c *compiler) usedOutside(v *value, inside map[*node]bool) bool {
	if slices.Contains(c.fn.outputs, v) {
		return true
	}
	for _, n := range c.readers[v] {
		if isReshape(n) {
			if c.usedOutside(n.out[0], inside) {
				return true
			}
		} else if !inside[n] {
			return true
		}
	}
	return false
}
