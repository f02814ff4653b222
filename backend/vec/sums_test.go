package vec

import (
	"fmt"
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/adaad-go/adaad/internal/rng"
)

// sumTolerance bounds the error of a sum, relative to the sum of the magnitudes of its terms, however many there are.
const sumTolerance = 3e-6

// TestSums adds up many numbers, over all kinds of axes, by themselves and in the pass that computes them. Equal numbers are
// the hardest: all roundings then go the same way.
func TestSums(t *testing.T) {
	if testing.Short() {
		t.Skip("adds up tens of millions of numbers")
	}
	r := rng.New(1, "vec test")
	for _, c := range []struct {
		dims, axes []int
	}{
		{[]int{1 << 20}, nil}, {[]int{7, 99991}, []int{1}}, {[]int{60000, 16}, []int{0}}, {[]int{16, 61, 67, 24}, []int{0, 1, 2}},
		{[]int{3, 200, 201, 10}, []int{1, 2}}, {[]int{5000, 10}, []int{1}}, {[]int{900, 1111}, []int{0, 1}}, {[]int{40000, 3}, []int{0}},
	} {
		for _, equal := range []bool{true, false} {
			in := &input{dims: c.dims, values: make([]float32, prod(c.dims))}
			sum := 0.0
			for i := range in.values {
				in.values[i] = 1. / 3
				if !equal {
					in.values[i] = r.Float32()
				}
				sum += float64(in.values[i])
			}
			e := &example{name: fmt.Sprintf("sum of %v over %v, equal %v", c.dims, c.axes, equal), inputs: []*input{in}}
			e.build = func(in []*graph.Node) []*graph.Node {
				s := graph.ReduceSum(in[0], c.axes...)
				return []*graph.Node{s, graph.ReduceSum(graph.Mul(in[0], graph.AddScalar(in[0], 0.25)), c.axes...)}
			}
			// The exact sums, element by element of the result.
			over := make([]bool, len(c.dims))
			for i := range over {
				over[i] = len(c.axes) == 0
			}
			for _, axis := range c.axes {
				over[axis] = true
			}
			kept, size := make([]int, len(c.dims)), 1
			for i := len(c.dims) - 1; i >= 0; i-- {
				if !over[i] {
					kept[i] = size
					size *= c.dims[i]
				}
			}
			want := [2][]float64{make([]float64, size), make([]float64, size)}
			for i, v := range in.values {
				at, rest := 0, i
				for axis := len(c.dims) - 1; axis >= 0; axis-- {
					at += rest % c.dims[axis] * kept[axis]
					rest /= c.dims[axis]
				}
				want[0][at] += float64(v)
				want[1][at] += float64(v * (v + 0.25)) // rounded as the program does
			}
			forEachSet(t, func(t *testing.T, b *Backend) {
				for k, got := range e.execute(t, b, dtypes.Float32) {
					worst := 0.0
					for i, v := range got {
						worst = max(worst, math.Abs(v-want[k][i])/want[k][i])
					}
					if !(worst <= sumTolerance) {
						t.Errorf("%s, output %d: off by %.2g of the sum", e.name, k, worst)
					}
				}
			})
		}
	}
}
