package vec

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/zoo"
)

// The count of a forward pass is that of a walk over the layers. A gradient by the images is as much again, and one by the
// weights twice as much, but for the layer that sees the images.
func TestMACs(t *testing.T) {
	type nodes = []*graph.Node
	for _, c := range []struct {
		model string
		input [3]int
		first int64 // multiply-adds of the first layer
	}{
		{"resnet8-w4", [3]int{32, 32, 3}, 32 * 32 * 27 * 4},
		{"mobilenet-v2", [3]int{8, 8, 3}, 8 * 8 * 27 * 32},
	} {
		net, err := zoo.New(c.model, 10, c.input)
		if err != nil {
			t.Fatal(err)
		}
		const images = 3
		forward := images * zoo.MACs(net)
		for name, g := range map[string]struct {
			build func(logits, x *graph.Node, weights nodes) nodes
			want  int64
		}{
			"forward": {func(logits, _ *graph.Node, _ nodes) nodes { return nodes{logits} }, forward},
			"images": {func(logits, x *graph.Node, _ nodes) nodes {
				return graph.Gradient(graph.ReduceAllSum(graph.Square(logits)), x)
			}, 2 * forward},
			"weights": {func(logits, _ *graph.Node, w nodes) nodes {
				return graph.Gradient(graph.ReduceAllSum(graph.Square(logits)), w...)
			},
				3*forward - images*c.first},
		} {
			backend := newBackend(t, "")
			exec := graph.MustNewExec(backend, func(in nodes) nodes {
				x, params := in[0], in[1:]
				logits := classifier.Bind(net, params).Logits(x, classifier.Eval)
				var weights nodes
				for i, p := range net.Params() {
					if p.Kind.Trainable() {
						weights = append(weights, params[i])
					}
				}
				return g.build(logits, x, weights)
			})
			args := []any{tensors.FromShape(shapes.Make(dtypes.Float32, images, c.input[0], c.input[1], c.input[2]))}
			for _, s := range zoo.Init(net, 1).State {
				args = append(args, s)
			}
			for range 2 { // it counts what runs, not what is built
				exec.MustCall(args...)
			}
			if got := backend.MACs(); got != 2*g.want {
				t.Errorf("%s, %s: %d multiply-adds, want %d", c.model, name, got, 2*g.want)
			}
		}
	}
}
