package attack

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/adaad-go/adaad/classifier"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Victim is a network of this program as a Differentiable: graphs over it, compiled on one backend. Its parameters are
// inputs of the graphs, so that new values need no new compilation. It is not safe for concurrent use.
type Victim struct {
	backend  compute.Backend
	net      classifier.Network
	state    []*tensors.Tensor
	loaded   []*tensors.Tensor // the state on the backend, once it is there
	programs map[program]*compiled
	asked    map[program]int // how often a program would have been the fitting one
}

// program says which graph: the logits of some images, or the gradient of a loss too.
type program struct {
	size     int
	gradient bool
	loss     Loss
}

// compiled is a program that can run, and the inputs that every run fills anew: images and, for a gradient, labels and
// targets.
type compiled struct {
	exec   *graph.Exec
	inputs []*tensors.Tensor
}

// NewVictim makes a victim of a model.
func NewVictim(backend compute.Backend, model *classifier.Model) *Victim {
	return &Victim{backend: backend, net: model.Network, state: model.State, programs: map[program]*compiled{}, asked: map[program]int{}}
}

// SetState gives the network other values for its parameters, in the order of its Params. Without it they are those that
// were there when the first question came.
func (v *Victim) SetState(state []*tensors.Tensor) {
	v.unload()
	v.state = state
}

// load brings the parameters to the backend, in memory that nobody else can write: then a backend that keeps what it makes
// of them need not look whether they are still the same.
func (v *Victim) load() error {
	if v.loaded != nil {
		return nil
	}
	var loaded []*tensors.Tensor
	for _, t := range v.state {
		if !t.IsOnAnyDevice() {
			var err error
			if t, err = t.LocalClone(); err == nil {
				err = t.MaterializeOnDevice(v.backend, false, 0)
			}
			if err != nil {
				return fmt.Errorf("loading %s: %w", v.net.Name(), err)
			}
			t.FinalizeLocal()
		}
		loaded = append(loaded, t)
	}
	v.loaded = loaded
	return nil
}

// unload frees what load made.
func (v *Victim) unload() {
	for i, t := range v.loaded {
		if t != v.state[i] {
			t.MustFinalizeAll()
		}
	}
	v.loaded = nil
}

// Input is the size of the images the network takes.
func (v *Victim) Input() (height, width, channels int) { return v.net.Input() }

// Classes is the number of logits.
func (v *Victim) Classes() int { return v.net.Classes() }

// Logits implements Classifier.
func (v *Victim) Logits(ctx context.Context, images []float32) ([]float32, error) {
	out, err := v.run(ctx, program{}, images, nil)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// Gradient implements Differentiable.
func (v *Victim) Gradient(ctx context.Context, images []float32, goals []Goal) (logits, gradient []float32, err error) {
	out, err := v.run(ctx, program{gradient: true, loss: goals[0].Loss}, images, goals)
	if err != nil {
		return nil, nil, err
	}
	return out[0], out[1], nil
}

// run computes a program on a batch and returns what belongs to its images. What else the program takes keeps the values of
// the batch before.
func (v *Victim) run(ctx context.Context, p program, images []float32, goals []Goal) ([][]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := v.load(); err != nil {
		return nil, err
	}
	h, w, c := v.net.Input()
	n := len(images) / (h * w * c)
	p.size = v.size(p, n)
	x, err := v.compiled(p)
	if err != nil {
		return nil, err
	}
	if err := x.fill(images, goals); err != nil {
		return nil, err
	}
	var args []any
	for _, t := range slices.Concat(x.inputs, v.loaded) {
		args = append(args, t)
	}
	out, err := x.exec.Call(args...)
	if err != nil {
		return nil, fmt.Errorf("attacking %s: %w", v.net.Name(), err)
	}
	results := make([][]float32, len(out))
	for i, t := range out {
		flat, err := tensors.CopyFlatData[float32](t)
		t.MustFinalizeAll()
		if err != nil {
			return nil, fmt.Errorf("reading results: %w", err)
		}
		results[i] = flat[:len(flat)/p.size*n]
	}
	return results, nil
}

// compiled is a program, compiled the first time that it is asked for.
func (v *Victim) compiled(p program) (*compiled, error) {
	if x := v.programs[p]; x != nil {
		return x, nil
	}
	exec, err := graph.NewExec(v.backend, func(args []*graph.Node) []*graph.Node { return v.build(p, args) })
	if err != nil {
		return nil, fmt.Errorf("preparing a graph over %s: %w", v.net.Name(), err)
	}
	h, w, c := v.net.Input()
	x := &compiled{exec: exec, inputs: []*tensors.Tensor{tensors.FromShape(shapes.Make(dtypes.Float32, p.size, h, w, c))}}
	if p.gradient {
		for range 2 {
			x.inputs = append(x.inputs, tensors.FromShape(shapes.Make(dtypes.Int32, p.size)))
		}
	}
	v.programs[p] = x
	return x, nil
}

// fill writes a batch into the inputs.
func (x *compiled) fill(images []float32, goals []Goal) error {
	err := tensors.MutableFlatData(x.inputs[0], func(flat []float32) { copy(flat, images) })
	for k, class := range []func(Goal) int{func(g Goal) int { return g.Label }, func(g Goal) int { return g.Target }} {
		if len(x.inputs) == 1 {
			break
		}
		err = errors.Join(err, tensors.MutableFlatData(x.inputs[1+k], func(flat []int32) {
			for i, g := range goals {
				flat[i] = int32(class(g))
			}
		}))
	}
	return err
}

// usual is how often a number of images has to be asked about before a graph is compiled for it.
const usual = 32

// size is how many images the program for n of them takes: the next power of two, so that few graphs are compiled as images
// fall; for numbers that stay, the next multiple of four or, of more than 64 images, at most an eighth more.
func (v *Victim) size(p program, n int) int {
	power := 1
	for power < n {
		power *= 2
	}
	step := max(4, power/16)
	p.size = min(power, (n+step-1)/step*step)
	if v.asked[p]++; v.asked[p] < usual {
		return power
	}
	return p.size
}

// build is the graph of a program. The losses of the images are summed, so that no image's gradient depends on how many
// there are.
func (v *Victim) build(p program, args []*graph.Node) []*graph.Node {
	x := args[0]
	if !p.gradient {
		return []*graph.Node{classifier.Bind(v.net, args[1:]).Logits(x, classifier.Eval)}
	}
	logits := classifier.Bind(v.net, args[3:]).Logits(x, classifier.Eval)
	loss := graph.ReduceAllSum(p.loss.PerImage(logits, args[1], args[2]))
	return []*graph.Node{logits, graph.Gradient(loss, x)[0]}
}

// Finalize frees what was compiled.
func (v *Victim) Finalize() {
	for key, x := range v.programs {
		x.exec.Finalize()
		for _, t := range x.inputs {
			t.MustFinalizeAll()
		}
		delete(v.programs, key)
	}
	v.unload()
}
