package vec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/adaad-go/adaad/internal/rng"
)

// program is a graph with its inputs.
type example struct {
	name   string
	inputs []*input
	build  func(in []*graph.Node) []*graph.Node
}

type input struct {
	dims   []int
	values []float32
}

func randomInput(r *rand.Rand, dims ...int) *input {
	in := &input{dims: dims, values: make([]float32, prod(dims))}
	for i := range in.values {
		in.values[i] = float32(r.NormFloat64())
	}
	return in
}

// execute runs the example on a backend and returns the results as float64.
func (e *example) execute(t *testing.T, b compute.Backend, dtype dtypes.DType) [][]float64 {
	t.Helper()
	exec, err := graph.NewExec(b, func(in []*graph.Node) []*graph.Node { return e.build(in) })
	if err != nil {
		t.Fatalf("%s: %+v", e.name, err)
	}
	defer exec.Finalize()
	args := make([]any, len(e.inputs))
	for i, in := range e.inputs {
		if dtype == dtypes.Float64 {
			wide := make([]float64, len(in.values))
			for j, x := range in.values {
				wide[j] = float64(x)
			}
			args[i] = tensors.FromFlatDataAndDimensions(wide, in.dims...)
		} else {
			args[i] = tensors.FromFlatDataAndDimensions(slices.Clone(in.values), in.dims...)
		}
	}
	outs, err := exec.Call(args...)
	if err != nil {
		t.Fatalf("%s on %s: %+v", e.name, b.Name(), err)
	}
	var results [][]float64
	for _, out := range outs {
		var flat []float64
		out.MustConstFlatData(func(values any) {
			switch values := values.(type) {
			case []float32:
				for _, x := range values {
					flat = append(flat, float64(x))
				}
			case []float64:
				flat = append(flat, values...)
			case []bool:
				for _, x := range values {
					flat = append(flat, float64(truth(x)))
				}
			default:
				t.Fatalf("%s: result of type %T", e.name, values)
			}
		})
		results = append(results, flat)
	}
	return results
}

// compare fails where two results differ by more than tolerance times the largest magnitude of the wanted one.
func compare(t *testing.T, name string, got, want [][]float64, tolerance float64) {
	t.Helper()
	for i := range want {
		if len(got[i]) != len(want[i]) {
			t.Fatalf("%s: output %d has %d elements, expected %d", name, i, len(got[i]), len(want[i]))
		}
		scale := 1.0
		for _, x := range want[i] {
			if !math.IsInf(x, 0) && !math.IsNaN(x) {
				scale = max(scale, math.Abs(x))
			}
		}
		for j, x := range want[i] {
			y := got[i][j]
			if x == y || math.IsNaN(x) && math.IsNaN(y) || math.Abs(x-y) <= tolerance*scale {
				continue
			}
			t.Fatalf("%s: output %d, element %d: got %g, expected %g (magnitudes up to %g)", name, i, j, y, x, scale)
		}
	}
}

// randomConvolution is a convolution with random sizes, layouts, strides, paddings, dilations and groups, and its gradients.
func randomConvolution(r *rand.Rand) *example {
	rank := 2
	if r.IntN(6) == 0 {
		rank = 1
	}
	groups := 1
	cin, cout := 1+r.IntN(9), 1+r.IntN(9)
	switch r.IntN(5) {
	case 0:
		groups = 2 + r.IntN(2)
		cin, cout = groups*(1+r.IntN(3)), groups*(1+r.IntN(3))
	case 1: // depthwise
		groups = 1 + r.IntN(8)
		cin, cout = groups, groups
	}
	n := 1 + r.IntN(3)
	dilated := r.IntN(3) == 0 // GoMLX allows strides or dilations, not both
	var size, kernel, stride, dilation []int
	var pad [][2]int
	for range rank {
		k := 1 + r.IntN(4)
		s, d := 1, 1
		switch {
		case dilated:
			d = 1 + r.IntN(2)
		case r.IntN(2) == 0:
			s = 2 + r.IntN(2)
		}
		reach := (k-1)*d + 1
		// GoMLX's gradient accepts paddings smaller than the kernel only.
		p := [2]int{r.IntN((reach-1)/2*2 + 1), r.IntN((reach-1)/2*2 + 1)}
		kernel, stride, dilation, pad = append(kernel, k), append(stride, s), append(dilation, d), append(pad, p)
		size = append(size, max(1, reach-p[0]-p[1])+r.IntN(8))
	}
	xDims, xAxes := layout(r, append(append([]int{n}, size...), cin), rank)
	wDims, wAxes := layout(r, append(append([]int{cout}, kernel...), cin/groups), rank)
	// GoMLX has gradients only where the result lies like the input.
	yAxes, differentiable := xAxes, r.IntN(4) > 0
	if !differentiable {
		_, yAxes = layout(r, make([]int, rank+2), rank)
	}
	axes := compute.ConvolveAxesConfig{
		InputBatch: xAxes[0], InputSpatial: xAxes[1 : rank+1], InputChannels: xAxes[rank+1],
		KernelOutputChannels: wAxes[0], KernelSpatial: wAxes[1 : rank+1], KernelInputChannels: wAxes[rank+1],
		OutputBatch: yAxes[0], OutputSpatial: yAxes[1 : rank+1], OutputChannels: yAxes[rank+1],
	}
	reversed, bias, relu := r.IntN(4) == 0, r.IntN(2) == 0, r.IntN(2) == 0
	return &example{
		name: fmt.Sprintf("convolution of %v by %v, axes %+v, strides %v, paddings %v, dilations %v, groups %d, reversed %v, bias %v, relu %v, differentiable %v",
			xDims, wDims, axes, stride, pad, dilation, groups, reversed, bias, relu, differentiable),
		inputs: []*input{randomInput(r, xDims...), randomInput(r, wDims...), randomInput(r, cout)},
		build: func(in []*graph.Node) []*graph.Node {
			x, w, b := in[0], in[1], in[2]
			k := w
			if reversed {
				k = graph.Reverse(w, wAxes[1])
			}
			y := graph.ConvGeneral(x, k, axes, stride, pad, nil, dilation, groups, 1)
			if bias {
				dims := slices.Repeat([]int{1}, rank+2)
				dims[yAxes[rank+1]] = cout
				y = graph.Add(y, graph.Reshape(b, dims...))
			}
			if relu {
				y = graph.Max(y, graph.ScalarZero(y.Graph(), y.DType()))
			}
			if !differentiable {
				return []*graph.Node{y}
			}
			weighted := graph.Mul(y, graph.Sin(graph.Iota(y.Graph(), y.Shape(), 0)))
			gradients := graph.Gradient(graph.ReduceAllSum(weighted), x, w, b)
			return append([]*graph.Node{y}, gradients...)
		},
	}
}

// randomBlocks is a chain of residual blocks, as in a ResNet, in train or eval mode, and its gradients.
func randomBlocks(r *rand.Rand) *example {
	n, size, c := 1+r.IntN(3), 4+r.IntN(9), 1+r.IntN(12)
	blocks := 1 + r.IntN(3)
	train, short := r.IntN(2) == 0, r.IntN(2) == 0
	e := &example{name: fmt.Sprintf("%d residual blocks of %d channels over [%d %d %d %d], batch norm by batch %v, one convolution each %v", blocks, c, n, size, size, c, train, short)}
	e.inputs = append(e.inputs, randomInput(r, n, size, size, c))
	for range 2 * blocks {
		e.inputs = append(e.inputs, randomInput(r, c, c, 3, 3), randomInput(r, c), randomInput(r, c))
	}
	axes := compute.ConvolveAxesConfig{
		InputBatch: 0, InputSpatial: []int{1, 2}, InputChannels: 3,
		KernelOutputChannels: 0, KernelInputChannels: 1, KernelSpatial: []int{2, 3},
		OutputBatch: 0, OutputSpatial: []int{1, 2}, OutputChannels: 3,
	}
	e.build = func(in []*graph.Node) []*graph.Node {
		layer := func(x *graph.Node, i int) *graph.Node {
			w, scale, shift := in[3*i+1], in[3*i+2], in[3*i+3]
			if !train {
				w = graph.Mul(w, graph.Reshape(scale, c, 1, 1, 1))
			}
			w = graph.MulScalar(w, 0.3)
			y := graph.Convolve(x, w).AxesConfig(axes).PadSame().Done()
			if train {
				y = graph.Sub(y, graph.Reshape(graph.ReduceMean(y, 0, 1, 2), 1, 1, 1, c))
				deviation := graph.Sqrt(graph.AddScalar(graph.ReduceMean(graph.Square(y), 0, 1, 2), 0.1))
				y = graph.Mul(y, graph.Reshape(graph.Div(scale, deviation), 1, 1, 1, c))
			}
			return graph.Add(y, graph.Reshape(shift, 1, 1, 1, c))
		}
		relu := func(x *graph.Node) *graph.Node { return graph.Max(graph.ScalarZero(x.Graph(), x.DType()), x) }
		x := in[0]
		for b := range blocks {
			y := layer(x, 2*b)
			if !short {
				y = layer(relu(y), 2*b+1)
			}
			x = relu(graph.Add(y, x))
		}
		loss := graph.ReduceAllMean(graph.Mul(x, graph.Sin(graph.Iota(x.Graph(), x.Shape(), 3))))
		wrt := in[:1+6*blocks]
		if short {
			wrt = in[:4]
		}
		return append([]*graph.Node{x, loss}, graph.Gradient(loss, wrt...)...)
	}
	return e
}

// layout permutes the dimensions, given as batch, spatial axes, channels, and returns where each of them went. Half of
// the time they stay.
func layout(r *rand.Rand, dims []int, rank int) (permuted, axes []int) {
	axes = r.Perm(rank + 2)
	if r.IntN(2) == 0 {
		slices.Sort(axes)
	}
	permuted = make([]int, rank+2)
	for i, axis := range axes {
		permuted[axis] = dims[i]
	}
	return permuted, axes
}

// randomElementwise is a random graph of elementwise operations, broadcasts, reductions and changes of layout.
func randomElementwise(r *rand.Rand) *example {
	n, h, w, c := 1+r.IntN(4), 1+r.IntN(6), 1+r.IntN(6), 1+r.IntN(20)
	if r.IntN(4) == 0 {
		h, w = 16+r.IntN(17), 16+r.IntN(17)
	}
	full := []int{n, h, w, c}
	e := &example{name: fmt.Sprintf("elementwise over %v", full)}
	for _, dims := range [][]int{full, full, {c}, {n, 1, 1, 1}, {1, h, 1, c}, {}} {
		e.inputs = append(e.inputs, randomInput(r, dims...))
	}
	seed := r.Uint64()
	e.build = func(in []*graph.Node) []*graph.Node {
		r := rand.New(rand.NewPCG(seed, 1)) // the same graph at every call
		nodes := []*graph.Node{in[0], in[1], graph.BroadcastToDims(graph.Reshape(in[2], 1, 1, 1, c), full...),
			in[3], in[4], in[5], graph.BroadcastToDims(in[3], full...)}
		pick := func() *graph.Node { return nodes[r.IntN(len(nodes))] }
		whole := func() *graph.Node {
			x := pick()
			if x.Rank() == 0 || !slices.Equal(x.Shape().Dimensions, full) {
				x = graph.Add(x, in[r.IntN(2)])
			}
			return x
		}
		for range 12 + r.IntN(12) {
			var x *graph.Node
			switch r.IntN(16) {
			case 0, 1:
				x = graph.MulScalar(graph.Add(pick(), pick()), 0.5) // magnitudes stay near 1, so that errors do
			case 2, 3:
				x = graph.Mul(pick(), graph.Sin(pick()))
			case 4:
				x = graph.Sub(pick(), pick())
			case 5:
				x = graph.Max(pick(), pick())
			case 6:
				x = graph.Min(pick(), graph.Abs(pick()))
			case 7:
				x = graph.Div(pick(), graph.AddScalar(graph.Square(pick()), 1))
			case 8:
				x = graph.Tanh(pick())
			case 9:
				x = graph.Reciprocal(graph.Sqrt(graph.AddScalar(graph.Abs(pick()), 0.5)))
			case 10:
				a, b := whole(), whole()
				x = graph.Where(graph.GreaterThan(a, b), whole(), whole())
			case 11:
				x = graph.ConvertDType(graph.LessOrEqual(pick(), pick()), in[0].DType())
			case 12:
				x = graph.ReduceAndKeep(whole(), graph.ReduceMean, 0, 1, 2)
			case 13:
				x = graph.ReduceAndKeep(whole(), graph.ReduceMax, -1)
			case 14:
				x = graph.TransposeAllAxes(graph.TransposeAllAxes(whole(), 0, 3, 1, 2), 0, 2, 3, 1)
			case 15:
				x = graph.ClipScalar(pick(), -0.5, 0.75)
			}
			nodes = append(nodes, x)
		}
		last := whole()
		sum := graph.ReduceAllSum(graph.Tanh(last))
		outs := []*graph.Node{last, pick(), graph.Softmax(whole()), sum, graph.GreaterThan(pick(), in[5])}
		return append(outs, graph.Gradient(sum, in[0], in[2])...)
	}
	return e
}

// randomPooling pools an image, with gradients.
func randomPooling(r *rand.Rand) *example {
	dims := []int{1 + r.IntN(3), 4 + r.IntN(6), 4 + r.IntN(6), 1 + r.IntN(9)}
	window, stride, pad := 1+r.IntN(3), 1+r.IntN(3), r.IntN(2)
	pad = min(pad, window-1)
	e := &example{name: fmt.Sprintf("pooling of %v, window %d, stride %d, padding %d", dims, window, stride, pad)}
	e.inputs = []*input{randomInput(r, dims...)}
	for i := range e.inputs[0].values {
		if r.IntN(3) == 0 {
			e.inputs[0].values[i] = 1 // ties
		}
	}
	e.build = func(in []*graph.Node) []*graph.Node {
		p := [][2]int{{pad, pad}, {pad, pad}}
		y := graph.MaxPool(in[0]).Window(window).Strides(stride).PaddingPerDim(p).Done()
		z := graph.SumPool(in[0]).Window(window).Strides(stride).PaddingPerDim(p).Done()
		loss := graph.ReduceAllSum(graph.Mul(y, graph.Sin(graph.Iota(y.Graph(), y.Shape(), 1))))
		return append([]*graph.Node{y, z}, graph.Gradient(loss, in[0])...)
	}
	return e
}

// randomLayout moves elements about and multiplies matrices.
func randomLayout(r *rand.Rand) *example {
	dims := []int{1 + r.IntN(5), 2 + r.IntN(6), 2 + r.IntN(6)}
	perm := r.Perm(3)
	pads := []compute.PadAxis{{Start: r.IntN(3), End: r.IntN(2)}, {Interior: r.IntN(3)}, {Start: r.IntN(2), Interior: r.IntN(2), End: r.IntN(3)}}
	k := 1 + r.IntN(9)
	return &example{
		name:   fmt.Sprintf("layouts of %v, permutation %v, padding %v, matrix %d", dims, perm, pads, k),
		inputs: []*input{randomInput(r, dims...), randomInput(r, dims...), randomInput(r, dims[2], k), randomInput(r)},
		build: func(in []*graph.Node) []*graph.Node {
			x := graph.TransposeAllAxes(in[0], perm...)
			y := graph.Reverse(graph.Concatenate([]*graph.Node{in[0], in[1], in[0]}, 1), 0, 2)
			z := graph.Pad(in[1], in[3], pads...)
			s := graph.Slice(in[0], graph.AxisRange(), graph.AxisRange(1).Stride(2), graph.AxisRange(0, -1))
			d := graph.DotGeneral(in[0], []int{2}, nil, in[2], []int{0}, nil)
			b := graph.DotGeneral(in[0], []int{1}, []int{0}, in[1], []int{1}, []int{0})
			f := graph.Reshape(graph.Mul(in[0], in[1]), -1)
			return []*graph.Node{x, y, z, s, d, b, graph.ReduceSum(f), graph.ReduceMin(x, 1), graph.ReduceSum(x, 0, 2),
				graph.Gradient(graph.ReduceAllSum(graph.Mul(d, d)), in[0], in[2])[0]}
		},
	}
}

// TestAgainstGoBackend compares random programs with the Go backend.
func TestAgainstGoBackend(t *testing.T) {
	golang, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	count := 60
	if testing.Short() {
		count = 15
	}
	kinds := []func(*rand.Rand) *example{randomConvolution, randomElementwise, randomLayout, randomBlocks, randomPooling}
	type checked struct {
		*example
		want [][]float64
	}
	var examples []checked
	for kind, random := range kinds {
		for i := range count {
			e := random(rng.New(1, "vec test", uint64(kind), uint64(i)))
			examples = append(examples, checked{e, e.execute(t, golang, dtypes.Float64)})
		}
	}
	forEachSet(t, func(t *testing.T, b *Backend) {
		for _, e := range examples {
			compare(t, e.name, e.execute(t, b, dtypes.Float32), e.want, 2e-5)
		}
	})
	t.Run("float64", func(t *testing.T) {
		b := newBackend(t, "")
		for i := 0; i < len(examples); i += 10 {
			e := examples[i]
			compare(t, e.name, e.execute(t, b, dtypes.Float64), e.execute(t, golang, dtypes.Float64), 1e-12)
		}
	})
}
