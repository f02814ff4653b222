package attack

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Program builds the graph of something computed on a batch: from the network, bound to its parameters, and the inputs.
type Program func(net *classifier.Bound, in []*Node) []*Node

// Victim is a classifier under attack: graphs over it, compiled on one backend for one batch size. Its parameters are
// inputs of the graphs, so that new values need no new compilation. It is not safe for concurrent use.
type Victim struct {
	backend  compute.Backend
	net      classifier.Network
	state    []*tensors.Tensor
	size     int
	programs map[any]*Exec
}

// NewVictim makes a victim that takes batchSize images at a time.
func NewVictim(backend compute.Backend, model *classifier.Model, batchSize int) (*Victim, error) {
	if batchSize < 1 {
		return nil, fmt.Errorf("batch size is %d, expected at least 1", batchSize)
	}
	return &Victim{backend, model.Network, model.State, batchSize, map[any]*Exec{}}, nil
}

// SetState gives the network other values for its parameters, in the order of its Params.
func (v *Victim) SetState(state []*tensors.Tensor) { v.state = state }

// Network is the architecture under attack.
func (v *Victim) Network() classifier.Network { return v.net }

// BatchSize is how many images go through at once.
func (v *Victim) BatchSize() int { return v.size }

// Run computes a program on inputs, and compiles it where none was compiled under this key before. The key holds
// every setting that the program depends on: the attack's own value serves. The caller finalizes what comes back.
// Run fails once the context is done, which makes every attack that loops over it stop.
func (v *Victim) Run(ctx context.Context, key any, p Program, inputs ...*tensors.Tensor) ([]*tensors.Tensor, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	exec := v.programs[key]
	if exec == nil {
		n := len(inputs)
		var err error
		exec, err = NewExec(v.backend, func(args []*Node) []*Node {
			return p(classifier.Bind(v.net, args[n:]), args[:n])
		})
		if err != nil {
			return nil, fmt.Errorf("preparing a graph over %s: %w", v.net.Name(), err)
		}
		v.programs[key] = exec
	}
	args := make([]any, 0, len(inputs)+len(v.state))
	for _, t := range inputs {
		args = append(args, t)
	}
	for _, t := range v.state {
		args = append(args, t)
	}
	out, err := exec.Call(args...)
	if err != nil {
		return nil, fmt.Errorf("attacking %s: %w", v.net.Name(), err)
	}
	return out, nil
}

// Logits are the victim's answers to float32 [N,H,W,C] images, [N, classes], image by image.
func (v *Victim) Logits(ctx context.Context, x *tensors.Tensor) ([][]float32, error) {
	out, err := v.Run(ctx, "logits", func(net *classifier.Bound, in []*Node) []*Node {
		return []*Node{net.Logits(in[0], classifier.Eval)}
	}, x)
	if err != nil {
		return nil, err
	}
	return Rows(out[0])
}

// Rows copies a float32 [N, values] tensor, row by row, and finalizes it.
func Rows(t *tensors.Tensor) ([][]float32, error) {
	defer t.MustFinalizeAll()
	flat, err := tensors.CopyFlatData[float32](t)
	if err != nil {
		return nil, fmt.Errorf("reading results: %w", err)
	}
	dims := t.Shape().Dimensions
	rows := make([][]float32, dims[0])
	for i := range rows {
		rows[i] = flat[i*dims[1] : (i+1)*dims[1] : (i+1)*dims[1]]
	}
	return rows, nil
}

// Finalize frees what was compiled.
func (v *Victim) Finalize() {
	for key, exec := range v.programs {
		exec.Finalize()
		delete(v.programs, key)
	}
}

// Batch is images under attack. It always holds as many as the victim takes at once; those beyond the keys are blank
// and what is computed for them is ignored.
type Batch struct {
	X    *tensors.Tensor // clean images, float32 [N,H,W,C] in [0,1]
	Y    *tensors.Tensor // labels, int32 [N]
	Keys []int           // each image's index in its data set: what its random draws are keyed by
	Seed uint64

	pixels []float32 // what is in X
}

// NewBatch makes a batch of up to BatchSize images: pixels in [0,1], laid out N,H,W,C, a label and a key for each.
func (v *Victim) NewBatch(pixels []float32, labels []int32, keys []int, seed uint64) (*Batch, error) {
	h, w, c := v.net.Input()
	switch n := len(keys); {
	case n > v.size:
		return nil, fmt.Errorf("%d images in a batch of %d", n, v.size)
	case len(labels) != n || len(pixels) != n*h*w*c:
		return nil, fmt.Errorf("%d images of %dx%dx%d need %d labels and %d values, found %d and %d",
			n, h, w, c, n, n*h*w*c, len(labels), len(pixels))
	}
	padded := make([]float32, v.size*h*w*c)
	copy(padded, pixels)
	y := make([]int32, v.size)
	copy(y, labels)
	return &Batch{
		X:      tensors.FromFlatDataAndDimensions(padded, v.size, h, w, c),
		Y:      tensors.FromFlatDataAndDimensions(y, v.size),
		Keys:   keys,
		Seed:   seed,
		pixels: padded,
	}, nil
}

// Rand is the stream of random numbers of the batch's i-th image for one restart of one attack.
func (b *Batch) Rand(attack string, i, restart int) *rand.Rand {
	return rng.New(b.Seed, rng.Attack, rng.Key(attack), uint64(b.Keys[i]), uint64(restart))
}

// Start is where the search m of an attack begins, float32 [N,H,W,C], in a new tensor.
func (b *Batch) Start(m threat.Model, attack string, restart int) *tensors.Tensor {
	dims := b.X.Shape().Dimensions
	size := len(b.pixels) / dims[0]
	start := make([]float32, len(b.pixels))
	for i := range b.Keys {
		m.Begin(b.Rand(attack, i, restart), b.pixels[i*size:(i+1)*size], start[i*size:(i+1)*size])
	}
	return tensors.FromFlatDataAndDimensions(start, dims...)
}

// Finalize frees the batch's tensors.
func (b *Batch) Finalize() {
	b.X.MustFinalizeAll()
	b.Y.MustFinalizeAll()
}
