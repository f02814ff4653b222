package vec

import (
	"fmt"
	"math"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/adaad-go/adaad/zoo"
)

// TestBatchIndependence expects the logits of an image, the gradient by its pixels and a step along it to have the same bits
// in any batch and at any place in it: an attack's result may not depend on which images are attacked with it.
func TestBatchIndependence(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a program for every network, set and batch size")
	}
	const images, classes = 33, 10
	for _, c := range []struct {
		network   string
		size      int
		precision zoo.Precision
	}{{"resnet8-w8", 32, ""}, {"resnet8-w4", 20, ""}, {"small-cnn", 20, ""}, {"small-cnn", 16, ""}, {"mobilenet-v2", 8, ""}, {"wrn-10-1", 24, ""},
		{"resnet8-w32", 16, zoo.BF16}, {"mobilenet-v2", 8, zoo.BF16}} {
		size := c.size * c.size * 3
		net, err := zoo.New(c.network, classes, [3]int{c.size, c.size, 3})
		if err != nil {
			t.Fatal(err)
		}
		if net, err = zoo.InPrecision(net, c.precision); err != nil {
			t.Fatal(err)
		}
		r := rng.New(1, "vec test")
		pixels := make([]float32, images*size)
		for i := range pixels {
			pixels[i] = r.Float32()
		}
		t.Run(c.network+string(c.precision), func(t *testing.T) {
			forEachSet(t, func(t *testing.T, b *Backend) {
				state := zoo.Init(net, 1).State
				exec := graph.MustNewExec(b, func(in []*graph.Node) []*graph.Node {
					logits := classifier.Bind(net, in[2:]).Logits(in[0], classifier.Eval)
					loss := graph.ReduceAllSum(classifier.CrossEntropy(logits, in[1]))
					gradient := graph.Gradient(loss, in[0])[0]
					norm := graph.Sqrt(graph.ReduceAndKeep(graph.Square(gradient), graph.ReduceSum, 1, 2, 3))
					return []*graph.Node{logits, gradient, graph.Add(in[0], graph.Div(gradient, norm))}
				})
				// run returns the results of the images listed, one after the other.
				run := func(list []int) (logits, gradient, step []float32) {
					x, y := make([]float32, 0, len(list)*size), make([]int32, len(list))
					for i, image := range list {
						x = append(x, pixels[image*size:][:size]...)
						y[i] = int32(image % classes)
					}
					args := []any{tensors.FromFlatDataAndDimensions(x, len(list), c.size, c.size, 3), tensors.FromFlatDataAndDimensions(y, len(list))}
					for _, p := range state {
						args = append(args, p)
					}
					outs := exec.MustCall(args...)
					return tensors.MustCopyFlatData[float32](outs[0]), tensors.MustCopyFlatData[float32](outs[1]), tensors.MustCopyFlatData[float32](outs[2])
				}
				all := make([]int, images)
				for i := range all {
					all[i] = i
				}
				wantLogits, wantGradient, wantStep := run(all)
				for _, n := range []int{1, 2, 5, 16, images} {
					list := r.Perm(images)[:n]
					logits, gradient, step := run(list)
					for row, image := range list {
						where := fmt.Sprintf("%s, image %d as row %d of %d", c.network, image, row, n)
						sameBits(t, where+": logits", logits[row*classes:][:classes], wantLogits[image*classes:][:classes])
						sameBits(t, where+": gradient", gradient[row*size:][:size], wantGradient[image*size:][:size])
						sameBits(t, where+": step", step[row*size:][:size], wantStep[image*size:][:size])
					}
				}
			})
		})
	}
}

func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Errorf("%s[%d] = %v, in a batch of all %v", what, i, got[i], want[i])
			return
		}
	}
}
