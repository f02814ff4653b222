// Package speed measures what a backend makes of the work that training consists of: convolutions in their three
// directions and matrix products, in floating point operations a second.
package speed

import (
	"fmt"
	"slices"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/adaad-go/adaad/zoo"
)

// Direction is one of the three forms of a convolution.
type Direction string

const (
	Forward  Direction = "forward"
	ByInput  Direction = "input"  // the gradient by its input
	ByKernel Direction = "kernel" // the gradient by its kernel
)

// Kernel is one piece of work. With Size 0 it is the product of an M×K and a K×N matrix; else a convolution of N images
// of Size×Size pixels and Cin channels with Cout kernels of Kernel×Kernel, padded by half of it.
type Kernel struct {
	Name      string
	Direction Direction
	M, N, K   int

	Size, Cin, Cout, Kernel, Stride int
	Depthwise                       bool
}

// Kernels are the layers of the networks here, images of 32x32 pixels in batches of 32, and large matrix products.
func Kernels() []Kernel {
	var list []Kernel
	for _, n := range []int{1024, 2048} {
		list = append(list, Kernel{Name: fmt.Sprintf("matrix product %d", n), M: n, N: n, K: n})
	}
	layer := func(size, cin, cout, kernel, stride int, depthwise bool) {
		for _, d := range []Direction{Forward, ByInput, ByKernel} {
			name := fmt.Sprintf("%dx%d", kernel, kernel)
			if depthwise {
				name += " depthwise"
			}
			if stride > 1 {
				name += fmt.Sprintf(" stride %d", stride)
			}
			name += fmt.Sprintf(", %d to %d at %dx%d", cin, cout, size, size)
			list = append(list, Kernel{Name: name, N: 32, Size: size, Cin: cin, Cout: cout, Kernel: kernel, Stride: stride, Depthwise: depthwise, Direction: d})
		}
	}
	for _, l := range [][2]int{{32, 16}, {16, 32}, {32, 64}, {16, 128}, {8, 256}, {4, 512}} {
		layer(l[0], l[1], l[1], 3, 1, false)
	}
	layer(32, 64, 128, 3, 2, false)
	layer(8, 256, 512, 3, 2, false)
	layer(32, 3, 64, 3, 1, false)
	layer(32, 24, 144, 1, 1, false)
	layer(8, 384, 64, 1, 1, false)
	layer(4, 160, 960, 1, 1, false)
	layer(32, 144, 144, 3, 1, true)
	layer(8, 384, 384, 3, 1, true)
	layer(16, 192, 192, 3, 2, true)
	return list
}

// FLOPs counts two operations for every multiply-add of the definition, those with padding included.
func (k Kernel) FLOPs() float64 {
	if k.Size == 0 {
		return 2 * float64(k.M) * float64(k.N) * float64(k.K)
	}
	out, per := (k.Size+k.Stride-1)/k.Stride, k.Cin
	if k.Depthwise {
		per = 1
	}
	return 2 * float64(k.N*out*out*k.Cout) * float64(k.Kernel*k.Kernel*per)
}

// graph is the work as a graph function, and the shapes it takes.
func (k Kernel) graph() (f func(in []*Node) *Node, in []shapes.Shape) {
	shape := func(dims ...int) shapes.Shape { return shapes.Make(dtypes.Float32, dims...) }
	if k.Size == 0 {
		return func(in []*Node) *Node { return MatMul(in[0], in[1]) }, []shapes.Shape{shape(k.M, k.K), shape(k.K, k.N)}
	}
	per := k.Cin
	if k.Depthwise {
		per = 1
	}
	out := (k.Size + k.Stride - 1) / k.Stride
	x, w, dy := shape(k.N, k.Size, k.Size, k.Cin), shape(k.Cout, per, k.Kernel, k.Kernel), shape(k.N, out, out, k.Cout)
	convolve := func(x, w *Node) *Node { return zoo.Conv2D(x, w, k.Stride, k.Depthwise) }
	if k.Direction == Forward {
		return func(in []*Node) *Node { return convolve(in[0], in[1]) }, []shapes.Shape{x, w}
	}
	return func(in []*Node) *Node {
		by := in[0]
		if k.Direction == ByKernel {
			by = in[1]
		}
		return Gradient(ReduceAllSum(Mul(convolve(in[0], in[1]), in[2])), by)[0]
	}, []shapes.Shape{x, w, dy}
}

// Measure times the work on a backend.
func (k Kernel) Measure(backend compute.Backend, budget time.Duration) (time.Duration, error) {
	run, done, err := k.Prepare(backend)
	if err != nil {
		return 0, err
	}
	defer done()
	return Time(run, budget)
}

// Time runs work again and again for about the given time and returns the median of how long a run took.
func Time(run func() error, budget time.Duration) (time.Duration, error) {
	// The first runs compile, allocate and wake up.
	var took []time.Duration
	for start := time.Now(); len(took) < 4 || time.Since(start) < budget; {
		begin := time.Now()
		if err := run(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begin))
	}
	took = took[1:]
	slices.Sort(took)
	return took[len(took)/2], nil
}

// Latency is the median time of one forward pass over one image, with weights that never change.
func Latency(backend compute.Backend, model *classifier.Model, budget time.Duration) (time.Duration, error) {
	h, w, c := model.Input()
	work, err := Logits(backend, model, Images{X: tensors.FromShape(shapes.Make(dtypes.Float32, 1, h, w, c))})
	if err != nil {
		return 0, err
	}
	return Time(func() error { _, err := work(); return err }, budget)
}

// Prepare puts operands on the backend; each call of run does the work once, and done frees what it holds.
func (k Kernel) Prepare(backend compute.Backend) (run func() error, done func(), err error) {
	f, in := k.graph()
	exec, err := NewExec(backend, func(in []*Node) *Node { return f(in) })
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", k.Name, err)
	}
	var args []any
	r := rng.New(1, "speed")
	for _, s := range in {
		flat := make([]float32, s.Size())
		for i := range flat {
			flat[i] = r.Float32() - 0.5
		}
		t := tensors.FromFlatDataAndDimensions(flat, s.Dimensions...)
		if err := t.MaterializeOnDevice(backend, false, 0); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", k.Name, err)
		}
		args = append(args, t)
	}
	run = func() error {
		outs, err := exec.Call(args...)
		if err != nil {
			return fmt.Errorf("%s: %w", k.Name, err)
		}
		for _, t := range outs {
			t.FinalizeAll()
		}
		return nil
	}
	done = func() {
		for _, a := range args {
			a.(*tensors.Tensor).FinalizeAll()
		}
		exec.Finalize()
	}
	return run, done, nil
}
