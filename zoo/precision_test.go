package zoo

import (
	"math"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

func newVec(t *testing.T) compute.Backend {
	b, err := vec.New("")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// In bfloat16 a network's logits are those of float32 but for the rounding, and its gradients point the same way and are
// as long: rounding moves some activations over a ReLU's corner. Everything that goes in and comes out stays float32.
func TestBFloat16IsNearFloat32(t *testing.T) {
	backend := newVec(t)
	const n, size = 4, 16
	for _, c := range []struct {
		name string
		mode classifier.Mode
	}{{"resnet8-w4", classifier.Train}, {"wrn-10-1", classifier.Train}, {"small-cnn", classifier.Eval}} {
		net, err := New(c.name, 10, [3]int{size, size, 3})
		if err != nil {
			t.Fatal(err)
		}
		state := Init(net, 1).State
		r := rng.New(1, "test precision")
		x := make([]float32, n*size*size*3)
		for i := range x {
			x[i] = r.Float32()
		}
		results := map[Precision][][]float32{}
		for _, p := range []Precision{FP32, BF16} {
			net, err := InPrecision(net, p)
			if err != nil {
				t.Fatal(err)
			}
			exec := MustNewExec(backend, func(in []*Node) []*Node {
				b := classifier.Bind(net, in[1:])
				logits := b.Logits(in[0], c.mode)
				return append(Gradient(ReduceAllSum(Square(logits)), in[0], in[1]), logits)
			})
			args := []any{tensors.FromFlatDataAndDimensions(x, n, size, size, 3)}
			for _, s := range state {
				args = append(args, s)
			}
			for i, out := range exec.MustCall(args...) {
				if out.DType() != dtypes.Float32 {
					t.Fatalf("%s in %s: result %d is %s", c.name, p, i, out.DType())
				}
				results[p] = append(results[p], tensors.MustCopyFlatData[float32](out))
			}
		}
		for i, what := range []string{"gradient by the images", "gradient by the first kernel", "logits"} {
			var off, same, was, is float64
			for k, w := range results[FP32][i] {
				want, got := float64(w), float64(results[BF16][i][k])
				off, same, was, is = off+(got-want)*(got-want), same+got*want, was+want*want, is+got*got
			}
			off, cosine, length := math.Sqrt(off/was), same/math.Sqrt(was*is), math.Sqrt(is/was)
			t.Logf("%s, %s: relative error %.2g, cosine %.4f, length %.4f", c.name, what, off, cosine, length)
			switch {
			case off < 1e-5:
				t.Errorf("%s, %s: relative error %g: nothing was rounded", c.name, what, off)
			case what == "logits" && !(off < 0.03):
				t.Errorf("%s: the logits are off by %g, expected the rounding of 8 bits", c.name, off)
			case !(cosine > 0.93 && math.Abs(length-1) < 0.1):
				t.Errorf("%s, %s: cosine %g and length %g of float32's, expected near 1", c.name, what, cosine, length)
			}
		}
	}
}

// A convolution of bfloat16 numbers is that in float32, rounded or not; where numbers have more bits it is that of the rounded ones,
// but for what rounding them elsewhere, or not at all, may change.
func TestBFloat16Convolution(t *testing.T) {
	backend := newVec(t)
	r := rng.New(2, "test precision")
	draw := func(n int) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	x, k := tensors.FromFlatDataAndDimensions(draw(2*6*6*3), 2, 6, 6, 3), tensors.FromFlatDataAndDimensions(draw(5*3*3*3), 5, 3, 3, 3)
	rounded := func(x *Node) *Node { return ConvertDType(ConvertDType(x, dtypes.BFloat16), dtypes.Float32) }
	c := conv{out: 5, size: 3, stride: 1}
	out := MustExecOnceN(backend, func(x, k *Node) []*Node {
		rx, rk := rounded(x), rounded(k)
		return []*Node{c.apply(rx, rk, BF16), c.apply(x, k, BF16), rounded(c.apply(rx, rk, FP32)), c.apply(Abs(x), Abs(k), FP32)}
	}, x, k)
	var results [4][]float32
	for i, o := range out {
		results[i] = tensors.MustCopyFlatData[float32](o)
	}
	for i, want := range results[2] {
		// The order of the sum may move a result over the border between two bfloat16 numbers.
		if got := results[0][i]; math.Abs(float64(got-want)) > math.Abs(float64(want))/128+1e-6 {
			t.Fatalf("value %d of bfloat16 numbers is %g, want %g", i, got, want)
		}
		// Two roundings by up to 2⁻⁸, and that of the result.
		if got := results[1][i]; math.Abs(float64(got-want)) > float64(results[3][i])*3/256 {
			t.Fatalf("value %d is %g, want %g", i, got, want)
		}
	}
}

func TestUnknownPrecision(t *testing.T) {
	net, err := New("resnet8", 10, [3]int{32, 32, 3})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := InPrecision(net, "fp8"); err == nil || !strings.Contains(err.Error(), `"fp8", expected fp32 or bf16`) {
		t.Errorf("precision fp8: %v", err)
	}
}
