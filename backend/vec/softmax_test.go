package vec

import (
	"fmt"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/adaad-go/adaad/internal/rng"
)

// BenchmarkLogSoftmax is that of a batch of logits, with its gradient.
func BenchmarkLogSoftmax(b *testing.B) {
	for _, dims := range [][2]int{{256, 10}, {256, 100}} {
		b.Run(fmt.Sprint(dims), func(b *testing.B) {
			backend := newBackend(b, "")
			in := randomInput(rng.New(1, "vec test"), dims[0], dims[1])
			x := tensors.FromFlatDataAndDimensions(in.values, in.dims...)
			exec := graph.MustNewExec(backend, func(x *graph.Node) []*graph.Node {
				y := graph.LogSoftmax(x)
				return []*graph.Node{y, graph.Gradient(graph.ReduceAllSum(graph.Mul(y, y)), x)[0]}
			})
			exec.MustCall(x)
			for b.Loop() {
				for _, t := range exec.MustCall(x) {
					t.FinalizeAll()
				}
			}
		})
	}
}
