package attack

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/share"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/distributed"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Victim is a network of this program as a Differentiable: graphs over it, compiled on one backend. Its parameters are
// inputs of the graphs, so that new values need no new compilation. It is not safe for concurrent use.
type Victim struct {
	backend  compute.Backend
	net      classifier.Network
	state    []*tensors.Tensor
	loaded   []*tensors.Tensor // the state on the backend, once it is there
	inputs   []*tensors.Tensor // images, bases, labels and targets, which every call fills anew
	programs map[program]*graph.Graph
	asked    map[program]int // how often a program would have been the fitting one
}

// program is a compiled graph: the logits, perhaps as changes of those of bases, or the gradient of a loss too.
type program struct {
	size     int
	near     bool
	gradient bool
	loss     Loss
}

// recaller is a backend that can compute results as changes of those of bases, images that a program takes as a parameter of
// that name and does not read.
type recaller interface{ BaseParameter() string }

// compiler is a backend that may compile a graph in less time than it computes one for a few images.
type compiler interface{ CompilesFast() bool }

// inputsOf says which of a victim's inputs a program takes, under which names.
func (v *Victim) inputsOf(p program) (names []string, at []int) {
	switch {
	case p.gradient:
		return []string{"images", "labels", "targets"}, []int{0, 2, 3}
	case p.near:
		return []string{"images", v.backend.(recaller).BaseParameter()}, []int{0, 1}
	}
	return []string{"images"}, []int{0}
}

// NewVictim makes a victim of a model.
func NewVictim(backend compute.Backend, model *classifier.Model) *Victim {
	return &Victim{backend: backend, net: model.Network, state: model.State, programs: map[program]*graph.Graph{}, asked: map[program]int{}}
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
	out, err := v.run(ctx, program{}, images, nil, nil)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// LogitsNear implements Incremental.
func (v *Victim) LogitsNear(ctx context.Context, images, bases []float32) ([]float32, error) {
	_, near := v.backend.(recaller)
	out, err := v.run(ctx, program{near: near}, images, bases, nil)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// Gradient implements Differentiable.
func (v *Victim) Gradient(ctx context.Context, images []float32, goals []Goal) (logits, gradient []float32, err error) {
	out, err := v.run(ctx, program{gradient: true, loss: goals[0].Loss}, images, nil, goals)
	if err != nil {
		return nil, nil, err
	}
	return out[0], out[1], nil
}

// run computes a program on a batch and returns what belongs to its images. What else the program takes keeps the values of
// the batch before.
func (v *Victim) run(ctx context.Context, p program, images, bases []float32, goals []Goal) ([][]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := v.load(); err != nil {
		return nil, err
	}
	h, w, c := v.net.Input()
	n := len(images) / (h * w * c)
	p.size = v.size(p, n)
	if err := v.fill(p.size, images, bases, goals); err != nil {
		return nil, err
	}
	g := v.programs[p]
	if g == nil {
		var err error
		if g, err = v.compile(p); err != nil {
			return nil, fmt.Errorf("preparing a graph over %s: %w", v.net.Name(), err)
		}
		v.programs[p] = g
	}
	var args []any
	_, at := v.inputsOf(p)
	for _, i := range at {
		args = append(args, v.inputs[i])
	}
	for _, t := range v.loaded {
		args = append(args, t)
	}
	var out []*tensors.Tensor
	if err := exceptions.TryCatch[error](func() { out = g.Run(args...) }); err != nil {
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

// compile makes the graph of a program, for the inputs there are.
func (v *Victim) compile(p program) (*graph.Graph, error) {
	g := graph.NewGraph(v.backend, "attack on "+v.net.Name())
	err := exceptions.TryCatch[error](func() {
		rows := share.Graph(g)
		var in, state []*graph.Node
		names, at := v.inputsOf(p)
		for i, name := range names {
			in = append(in, graph.ShardedParameter(g, name, v.inputs[at[i]].Shape(), rows))
		}
		for i, t := range v.loaded {
			state = append(state, graph.Parameter(g, fmt.Sprintf("state %d", i), t.Shape()))
		}
		out := v.build(p, in, state)
		var specs []*distributed.ShardingSpec
		if rows != nil {
			specs = slices.Repeat([]*distributed.ShardingSpec{rows}, len(out))
		}
		if err := g.CompileWithSharding(out, specs); err != nil {
			panic(err)
		}
	})
	if err != nil {
		g.Finalize()
		return nil, err
	}
	return g, nil
}

// fill writes a batch into inputs of a size.
func (v *Victim) fill(size int, images, bases []float32, goals []Goal) error {
	if v.inputs == nil || v.inputs[0].Shape().Dimensions[0] != size {
		v.drop()
		h, w, c := v.net.Input()
		pixels, numbers := shapes.Make(dtypes.Float32, size, h, w, c), shapes.Make(dtypes.Int32, size)
		v.inputs = []*tensors.Tensor{tensors.FromShape(pixels), tensors.FromShape(pixels), tensors.FromShape(numbers), tensors.FromShape(numbers)}
	}
	return errors.Join(
		tensors.MutableFlatData(v.inputs[0], func(x []float32) { copyTogether(x, images) }),
		tensors.MutableFlatData(v.inputs[1], func(x []float32) { copyTogether(x, bases) }),
		tensors.MutableFlatData(v.inputs[2], func(labels []int32) {
			for i, g := range goals {
				labels[i] = int32(g.Label)
			}
		}),
		tensors.MutableFlatData(v.inputs[3], func(targets []int32) {
			for i, g := range goals {
				targets[i] = int32(g.Target)
			}
		}))
}

// copyTogether copies pixels on all processors.
func copyTogether(to, from []float32) {
	const piece = 64 << 10
	together((len(from)+piece-1)/piece, func(i int) { copy(to[i*piece:], from[i*piece:min(len(from), (i+1)*piece)]) })
}

// drop frees the inputs.
func (v *Victim) drop() {
	for _, t := range v.inputs {
		t.MustFinalizeAll()
	}
	v.inputs = nil
}

// How often a number of images has to be asked about before a graph is compiled that nearly or just fits it.
const (
	usual   = 32
	settled = 1000
	again   = 2 // settled, where compiling takes no time
)

// size is how many images the program for n of them takes: the next power of two, so that few graphs are compiled as images
// fall; for numbers that stay at most a sixteenth more than n, if n is more than 32, and for those that stay long, or that
// come again where a backend compiles fast, n.
func (v *Victim) size(p program, n int) int {
	power := 1
	for power < n {
		power *= 2
	}
	p.size = n
	v.asked[p]++
	fast, ok := v.backend.(compiler)
	switch step := max(1, power/32); {
	case v.asked[p] >= settled, v.asked[p] >= again && ok && fast.CompilesFast():
		return n
	case v.asked[p] >= usual:
		return min(power, (n+step-1)/step*step)
	}
	return power
}

// build is the graph of a program. The losses of the images are summed, so that no image's gradient depends on how many
// there are.
func (v *Victim) build(p program, in, state []*graph.Node) []*graph.Node {
	logits := classifier.Bind(v.net, state).Logits(in[0], classifier.Eval)
	if !p.gradient {
		return []*graph.Node{logits}
	}
	loss := graph.ReduceAllSum(p.loss.PerImage(logits, in[1], in[2]))
	return []*graph.Node{logits, graph.Gradient(loss, in[0])[0]}
}

// Finalize frees what was compiled.
func (v *Victim) Finalize() {
	for key, g := range v.programs {
		g.Finalize()
		delete(v.programs, key)
	}
	v.drop()
	v.unload()
}
