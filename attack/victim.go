package attack

import (
	"context"
	"fmt"

	"github.com/adaad-go/adaad/classifier"
	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Victim is a network of this program as a Differentiable: graphs over it, compiled on one backend. Its parameters are
// inputs of the graphs, so that new values need no new compilation. It is not safe for concurrent use.
type Victim struct {
	backend  compute.Backend
	net      classifier.Network
	state    []*tensors.Tensor
	programs map[program]*graph.Exec
	asked    map[program]int // how often a program would have been the fitting one
}

// program is a compiled graph: the logits, or the gradient of a loss too.
type program struct {
	size     int
	gradient bool
	loss     Loss
}

// NewVictim makes a victim of a model.
func NewVictim(backend compute.Backend, model *classifier.Model) *Victim {
	return &Victim{backend, model.Network, model.State, map[program]*graph.Exec{}, map[program]int{}}
}

// SetState gives the network other values for its parameters, in the order of its Params.
func (v *Victim) SetState(state []*tensors.Tensor) { v.state = state }

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

// run pads a batch by repeating its last image, computes a program on it and returns what belongs to the images.
func (v *Victim) run(ctx context.Context, p program, images []float32, goals []Goal) ([][]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h, w, c := v.net.Input()
	n := len(images) / (h * w * c)
	p.size = v.size(p, n)
	for range p.size - n {
		images = append(images, images[(n-1)*h*w*c:n*h*w*c]...)
	}
	inputs := []*tensors.Tensor{tensors.FromFlatDataAndDimensions(images, p.size, h, w, c)}
	if p.gradient {
		labels, targets := make([]int32, p.size), make([]int32, p.size)
		for i, goal := range goals {
			labels[i], targets[i] = int32(goal.Label), int32(goal.Target)
		}
		inputs = append(inputs, tensors.FromFlatDataAndDimensions(labels, p.size), tensors.FromFlatDataAndDimensions(targets, p.size))
	}
	exec := v.programs[p]
	if exec == nil {
		var err error
		if exec, err = graph.NewExec(v.backend, func(args []*graph.Node) []*graph.Node { return v.build(p, args) }); err != nil {
			return nil, fmt.Errorf("preparing a graph over %s: %w", v.net.Name(), err)
		}
		v.programs[p] = exec
	}
	var args []any
	for _, t := range append(inputs, v.state...) {
		args = append(args, t)
	}
	out, err := exec.Call(args...)
	for _, t := range inputs {
		t.MustFinalizeAll()
	}
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
	for key, exec := range v.programs {
		exec.Finalize()
		delete(v.programs, key)
	}
}
