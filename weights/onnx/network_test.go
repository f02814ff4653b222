package onnx_test

import (
	"math"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/golden"
	"github.com/adaad-go/adaad/weights/onnx"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// gradients are a network's logits and the gradients, by images [N,C,H,W], of the logits weighted with fixed numbers.
func gradients(t *testing.T, m *classifier.Model, pixels []float32) (logits, gradient []float32) {
	t.Helper()
	h, w, c := m.Input()
	weights := make([]float32, len(pixels)/(h*w*c)*m.Classes())
	for i, u := range golden.U("weights", len(weights)) {
		weights[i] = float32(u)
	}
	return weightedGradients(t, m, pixels, weights)
}

func weightedGradients(t *testing.T, m *classifier.Model, pixels, weights []float32) (logits, gradient []float32) {
	t.Helper()
	h, w, c := m.Input()
	n := len(pixels) / (h * w * c)
	exec, err := NewExec(backend, func(nodes []*Node) []*Node {
		last := len(nodes) - 1
		x := nodes[last]
		logits := classifier.Bind(m.Network, nodes[:last]).Logits(x, classifier.Eval)
		loss := ReduceAllSum(Mul(logits, Const(x.Graph(), tensors.FromFlatDataAndDimensions(weights, n, m.Classes()))))
		return []*Node{logits, TransposeAllAxes(Gradient(loss, x)[0], 0, 3, 1, 2)}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Finalize()
	var args []any
	for _, s := range m.State {
		args = append(args, s)
	}
	results, err := exec.Call(append(args, golden.NHWC(pixels, n, c, h, w))...)
	if err != nil {
		t.Fatal(err)
	}
	return tensors.MustCopyFlatData[float32](results[0]), tensors.MustCopyFlatData[float32](results[1])
}

func random(name string, n int) []float32 {
	values := make([]float32, n)
	for i, u := range golden.U(name, n) {
		values[i] = float32(u+1) / 2
	}
	return values
}

// near holds numbers to others by the largest magnitude among those.
func near(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d numbers, expected %d", what, len(got), len(want))
	}
	var scale, worst float64
	for i := range want {
		scale = max(scale, math.Abs(float64(want[i])))
		worst = max(worst, math.Abs(float64(got[i])-float64(want[i])))
	}
	t.Logf("%s: largest difference %.2g of %.3g", what, worst, scale)
	if !(worst <= tolerance*scale) {
		t.Errorf("%s differ by %.3g, expected at most %g of the largest, %.3g", what, worst, tolerance, scale)
	}
}

var families = []struct {
	name  string
	input [3]int
}{
	{"resnet8", [3]int{16, 16, 3}}, {"resnet18-w8", [3]int{16, 16, 3}}, {"preact-resnet18", [3]int{16, 16, 3}}, {"mobilenet-v2", [3]int{16, 16, 3}},
	{"wrn-10-2-ltd-sub1", [3]int{16, 16, 3}}, {"small-cnn", [3]int{28, 28, 1}},
	{"wrn-10-1-dm", [3]int{16, 16, 3}}, {"resnet8-normalised", [3]int{16, 16, 3}},
}

// A network that is written and read again has the same logits and the same gradients by the images.
func TestRoundTrip(t *testing.T) {
	for _, c := range families {
		m := model(t, c.name, c.input)
		pixels := random("images", 4*c.input[0]*c.input[1]*c.input[2])
		logits, gradient := gradients(t, m, pixels)
		for _, keep := range []bool{false, true} {
			f, err := onnx.Export(m, onnx.Options{KeepBatchNorm: keep})
			if err != nil {
				t.Fatal(err)
			}
			back, err := onnx.Load(save(t, f))
			if err != nil {
				t.Fatal(err)
			}
			if back.Name() != "model.onnx" || back.Classes() != 10 {
				t.Errorf("%s came back as %s with %d classes", c.name, back.Name(), back.Classes())
			}
			gotLogits, gotGradient := gradients(t, back, pixels)
			near(t, c.name+": logits", gotLogits, logits, 1e-5)
			near(t, c.name+": gradients", gotGradient, gradient, 1e-4)
		}
	}
}
