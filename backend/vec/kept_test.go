package vec

import (
	"slices"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/adaad-go/adaad/zoo"
)

// Programs over the same weights pack them once, see every change of them, and never one another's.
func TestProgramsSharePackedWeights(t *testing.T) {
	b := newBackend(t, "")
	net, err := zoo.New("resnet8-w16", 10, [3]int{8, 8, 3})
	if err != nil {
		t.Fatal(err)
	}
	state := func(seed uint64) []any {
		var args []any
		for _, x := range zoo.Init(net, seed).State {
			if err := x.MaterializeOnDevice(b, false, 0); err != nil {
				t.Fatal(err)
			}
			x.FinalizeLocal()
			args = append(args, x)
		}
		return args
	}
	r := rng.New(1, "kept test")
	pixels := make([]float32, 3*8*8*3)
	for i := range pixels {
		pixels[i] = r.Float32()
	}
	x := tensors.FromFlatDataAndDimensions(pixels, 3, 8, 8, 3)
	program := func(scale float64) func(args []any) []float32 {
		exec := graph.MustNewExec(b, func(in []*graph.Node) *graph.Node {
			return graph.MulScalar(classifier.Bind(net, in[1:]).Logits(in[0], classifier.Eval), scale)
		})
		t.Cleanup(exec.Finalize)
		return func(args []any) []float32 {
			return tensors.MustCopyFlatData[float32](exec.MustCall(append([]any{x}, args...)...)[0])
		}
	}
	cells := func() (n int) {
		b.cells.mu.Lock()
		defer b.cells.mu.Unlock()
		return len(b.cells.all)
	}
	first, second := state(1), state(2)
	one, two := program(1), program(2)
	want := [2][]float32{one(first), nil}
	count := cells()
	if count == 0 {
		t.Fatal("no packed weights are kept")
	}
	double := func(x []float32) []float32 {
		y := slices.Clone(x)
		for i := range y {
			y[i] *= 2
		}
		return y
	}
	if got := two(first); !slices.Equal(got, double(want[0])) {
		t.Error("the second program computes something else with the weights that the first packed")
	}
	if n := cells(); n != count {
		t.Errorf("two programs over the same weights keep %d packed weights, one keeps %d", n, count)
	}
	want[1] = program(1)(second)
	for i, args := range [][]any{second, first, first, second, first} {
		expected := want[[]int{1, 0, 0, 1, 0}[i]]
		if got := one(args); !slices.Equal(got, expected) {
			t.Errorf("call %d: the first program did not see that its weights changed", i)
		}
		if got := two(first); !slices.Equal(got, double(want[0])) {
			t.Errorf("call %d: the second program saw the first's weights change", i)
		}
	}
}

// Weights that are constants are packed once and for all.
func TestConstantWeights(t *testing.T) {
	b := newBackend(t, "")
	net, err := zoo.New("resnet8-w16", 10, [3]int{8, 8, 3})
	if err != nil {
		t.Fatal(err)
	}
	model := zoo.Init(net, 3)
	x := tensors.FromScalarAndDimensions(float32(0.5), 2, 8, 8, 3)
	args := []any{x}
	for _, w := range model.State {
		args = append(args, w)
	}
	want := graph.MustNewExec(b, func(in []*graph.Node) *graph.Node {
		return classifier.Bind(net, in[1:]).Logits(in[0], classifier.Eval)
	}).MustCall(args...)[0]
	exec := graph.MustNewExec(b, func(x *graph.Node) *graph.Node {
		var weights []*graph.Node
		for _, w := range model.State {
			weights = append(weights, graph.ConstTensor(x.Graph(), w))
		}
		return classifier.Bind(net, weights).Logits(x, classifier.Eval)
	})
	for call := range 3 {
		got := exec.MustCall(x)[0]
		if !slices.Equal(tensors.MustCopyFlatData[float32](got), tensors.MustCopyFlatData[float32](want)) {
			t.Errorf("call %d: constant weights give other logits than the same ones as inputs", call)
		}
	}
}
