package zoo

import (
	"math"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// In bfloat16 a network's logits, its gradient by the images and those by its weights are those of float32, but for what
// rounding to 8 bits makes of them; and everything that goes in and comes out stays float32.
func TestBFloat16IsNearFloat32(t *testing.T) {
	for _, name := range []string{"resnet8-w4", "mobilenet-v2", "wrn-10-1"} {
		net, err := New(name, 10, [3]int{32, 32, 3})
		if err != nil {
			t.Fatal(err)
		}
		state := Init(net, 1).State
		const n = 4
		r := rng.New(1, "test precision")
		x := make([]float32, n*32*32*3)
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
				logits := b.Logits(in[0], classifier.Train)
				first := b.Param(net.Params()[0].Name)
				return append(Gradient(ReduceAllSum(Square(logits)), in[0], first), logits, b.Logits(in[0], classifier.Eval))
			})
			args := []any{tensors.FromFlatDataAndDimensions(x, n, 32, 32, 3)}
			for _, s := range state {
				local, err := s.LocalClone()
				if err != nil {
					t.Fatal(err)
				}
				args = append(args, local)
			}
			for i, out := range exec.MustCall(args...) {
				if out.DType() != dtypes.Float32 {
					t.Fatalf("%s in %s: result %d is %s", name, p, i, out.DType())
				}
				results[p] = append(results[p], tensors.MustCopyFlatData[float32](out))
			}
		}
		for i, what := range []string{"gradient by the images", "gradient by the first kernel", "logits in train mode", "logits in eval mode"} {
			off, size := 0.0, 0.0
			for k, want := range results[FP32][i] {
				off += math.Pow(float64(results[BF16][i][k]-want), 2)
				size += math.Pow(float64(want), 2)
			}
			off = math.Sqrt(off / size)
			t.Logf("%s, %s: relative error %.2g", name, what, off)
			if !(off > 1e-5 && off < 0.1) {
				t.Errorf("%s, %s: relative error %g, expected that of 8 bits", name, what, off)
			}
		}
	}
}

// A convolution in bfloat16 is that of the rounded operands in float32, rounded.
func TestBFloat16Convolution(t *testing.T) {
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
		return []*Node{c.apply(x, k, BF16), rounded(c.apply(rounded(x), rounded(k), FP32))}
	}, x, k)
	got, want := tensors.MustCopyFlatData[float32](out[0]), tensors.MustCopyFlatData[float32](out[1])
	for i := range want {
		// The order of the sum may move a result over the border between two bfloat16 numbers.
		if d := math.Abs(float64(got[i] - want[i])); d > math.Abs(float64(want[i]))/128+1e-6 {
			t.Fatalf("value %d is %g, want %g", i, got[i], want[i])
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
