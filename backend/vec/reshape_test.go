package vec

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/adaad-go/adaad/internal/rng"
)

// TestReshapesOfReshapes moves axes of length 1 and adds some to what was reshaped from another rank before.
func TestReshapesOfReshapes(t *testing.T) {
	r := rng.New(1, "vec test")
	e := &example{name: "reshapes of reshapes", inputs: []*input{randomInput(r, 6, 5), randomInput(r, 5)}, build: func(in []*graph.Node) []*graph.Node {
		x := graph.Reshape(in[0], 6, 1, 1, 5)
		moved := graph.TransposeAllAxes(x, 1, 0, 3, 2)
		wide := graph.BroadcastToDims(graph.Reshape(in[1], 1, 5, 1), 1, 5, 1)
		again := graph.TransposeAllAxes(graph.Reshape(moved, 1, 30, 1), 2, 1, 0)
		return []*graph.Node{graph.Mul(moved, graph.Reshape(wide, 1, 1, 5, 1)), again, graph.Reshape(graph.Exp(again), 5, 6), graph.ReduceSum(moved, 1)}
	}}
	golang, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	want := e.execute(t, golang, dtypes.Float64)
	forEachSet(t, func(t *testing.T, b *Backend) { compare(t, e.name, e.execute(t, b, dtypes.Float32), want, 1e-6) })
}

// randomReshapes gives a few numbers one shape after another, most with axes of length 1, with sums and elementwise
// operations in between.
func randomReshapes(r *rand.Rand) *example {
	e := &example{name: "random reshapes", inputs: []*input{randomInput(r, 12), randomInput(r, 3, 1, 4), randomInput(r, 1, 4, 1)}}
	state := r.Uint64()
	e.build = func(in []*graph.Node) []*graph.Node {
		r := rng.New(state, "reshapes")
		nodes := append([]*graph.Node(nil), in...)
		for range 14 {
			x := nodes[r.IntN(len(nodes))]
			dims := x.Shape().Dimensions
			switch r.IntN(7) {
			case 0, 1: // another shape of the same size
				var to []int
				for rest := x.Shape().Size(); rest > 1; {
					d := 1
					for _, p := range []int{2, 3} {
						if rest%p == 0 && r.IntN(2) == 0 {
							d *= p
							rest /= p
						}
					}
					to = append(to, d)
				}
				for range r.IntN(3) {
					to = slices.Insert(to, r.IntN(len(to)+1), 1)
				}
				x = graph.Reshape(x, to...)
			case 2, 3:
				x = graph.TransposeAllAxes(x, r.Perm(len(dims))...)
			case 4: // repeated along an axis of length 1
				if i := slices.Index(dims, 1); i >= 0 && x.Shape().Size() < 200 {
					to := slices.Clone(dims)
					to[i] = 1 + r.IntN(3)
					x = graph.BroadcastToDims(x, to...)
				}
			case 5:
				x = graph.Add(graph.Sin(x), graph.Reshape(x, dims...))
			case 6:
				if len(dims) > 0 {
					x = graph.ReduceAndKeep(x, graph.ReduceSum, r.IntN(len(dims)))
				}
			}
			nodes = append(nodes, x)
		}
		return append(nodes[3:], graph.Gradient(graph.ReduceAllSum(graph.Mul(nodes[16], nodes[16])), in...)...)
	}
	return e
}

// TestRandomReshapes compares them with the Go backend.
func TestRandomReshapes(t *testing.T) {
	golang, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	b := newBackend(t, "")
	for i := range 300 {
		e := randomReshapes(rng.New(1, "vec test", uint64(i)))
		e.name += fmt.Sprint(" ", i)
		compare(t, e.name, e.execute(t, b, dtypes.Float32), e.execute(t, golang, dtypes.Float64), 2e-5)
	}
}
