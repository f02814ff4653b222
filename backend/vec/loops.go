package vec

import (
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"
)

// closure is a function inside another as a program of its own. It takes the function's parameters, then what it captures.
type closure struct {
	exec     *Executable
	captured []*value
	tensors  []*tensor // of captured
}

// compileClosure compiles f with those outputs that keep says.
func (c *compiler) compileClosure(f *Function, keep func(i int) bool) (*closure, error) {
	b := c.backend.Builder(c.program.name).(*Builder)
	k := &closure{}
	env := map[*value]compute.Value{}
	var fault error
	declare := func(v *value) {
		if fault == nil {
			env[v], fault = b.main.Parameter(fmt.Sprintf("input %d", len(b.main.params)), v.shape, nil)
		}
	}
	for _, v := range f.params {
		declare(v)
	}
	f.captures(map[*Function]bool{}, func(v *value) {
		switch _, known := env[v]; {
		case known || fault != nil:
		case v.node != nil && v.node.op == compute.OpTypeConstant:
			fault = emit(b.main, []*node{v.node}, env)
		default:
			declare(v)
			k.captured, k.tensors = append(k.captured, v), append(k.tensors, c.tensor(v))
		}
	})
	if fault != nil {
		return nil, fault
	}
	if err := emit(b.main, f.nodes, env); err != nil {
		return nil, err
	}
	var outputs []compute.Value
	for i, v := range f.outputs {
		if keep(i) {
			outputs = append(outputs, env[v])
		}
	}
	if err := b.main.Return(outputs, nil); err != nil {
		return nil, err
	}
	e, err := b.Compile()
	if err != nil {
		return nil, err
	}
	k.exec = e.(*Executable)
	c.program.closures = append(c.program.closures, k.exec)
	return k, nil
}

// view is a buffer over memory that is not its own: it must not be released.
func (b *Backend) view(mem []byte, shape shapes.Shape) *Buffer {
	return &Buffer{backend: b, shape: shape, mem: mem, id: lastID.Add(1)}
}

// inputs appends what k captures to a list of buffers.
func (k *closure) inputs(b *Backend, r *run, before []compute.Buffer) []compute.Buffer {
	all := before[:len(before):len(before)]
	for i, v := range k.captured {
		all = append(all, b.view(r.mem[k.tensors[i].id], v.shape))
	}
	return all
}

// lowerLoop adds the instruction of a While: its condition and its body are programs, and what the body makes of the state
// goes into it again, memory and all. What the body returns as it got it stays where it lies.
func (c *compiler) lowerLoop(n *node) error {
	b, body := c.backend, n.subs[1]
	moves := func(i int) bool { return body.outputs[i] != body.params[i] }
	test, err := c.compileClosure(n.subs[0], func(int) bool { return true })
	if err != nil {
		return errors.WithMessage(err, "the condition of a loop")
	}
	step, err := c.compileClosure(body, moves)
	if err != nil {
		return errors.WithMessage(err, "the body of a loop")
	}
	in := instruction{name: n.op.String()}
	var starts, results []*tensor
	for i, v := range n.in {
		starts, results = append(starts, c.tensor(v)), append(results, c.tensor(n.out[i]))
	}
	in.in = append(append(append(in.in, starts...), test.tensors...), step.tensors...)
	in.out = results
	in.run = func(r *run) error {
		state := make([]compute.Buffer, len(starts))
		for i, t := range starts {
			state[i] = b.view(r.mem[t.id], n.in[i].shape)
		}
		for donate := []bool(nil); ; {
			ok, err := test.exec.Execute(test.inputs(b, r, state), nil, 0)
			if err != nil {
				return err
			}
			more := ok[0].(*Buffer).mem[0] != 0
			ok[0].(*Buffer).release()
			if !more {
				break
			}
			next, err := step.exec.Execute(step.inputs(b, r, state), donate, 0)
			if err != nil {
				return err
			}
			// What moves is the loop's own from now on; the rest and what is captured never is.
			donate = make([]bool, len(state)+len(step.captured))
			for i := range state {
				if moves(i) {
					state[i], next, donate[i] = next[0], next[1:], true
				}
			}
		}
		for i, t := range results {
			s := state[i].(*Buffer)
			copy(r.mem[t.id], s.mem)
			if !sameMemory(s.mem, r.mem[starts[i].id]) {
				s.release()
			}
		}
		return nil
	}
	c.add(in)
	return nil
}
