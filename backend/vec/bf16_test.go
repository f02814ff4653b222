package vec

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/adaad-go/adaad/internal/rng"
)

// What is convolved in bfloat16, and its gradients, differ from float32 by the rounding; where there are kernels for it nothing is
// converted, and nothing goes to the Go backend.
func TestBFloat16Convolutions(t *testing.T) {
	forEachSet(t, func(t *testing.T, b *Backend) {
		rnd := rng.New(5, "vec test")
		for _, c := range []struct {
			name                          string
			size, in, out, kernel, stride int
		}{
			{"Winograd", 8, 32, 48, 3, 1}, {"weights transformed late", 4, 256, 288, 3, 1}, {"phases", 16, 16, 32, 3, 2}, {"1x1", 6, 24, 40, 1, 1},
			{"odd channels", 5, 7, 9, 3, 2}, {"first layer", 8, 3, 16, 3, 1},
		} {
			x := tensors.FromFlatDataAndDimensions(randomInput(rnd, 2*c.size*c.size*c.in).values, 2, c.size, c.size, c.in)
			k := tensors.FromFlatDataAndDimensions(randomInput(rnd, c.kernel*c.kernel*c.in*c.out).values, c.kernel, c.kernel, c.in, c.out)
			run := func(dtype dtypes.DType) (results [][]float32, instructions []string) {
				exec := graph.MustNewExec(b, func(x, k *graph.Node) []*graph.Node {
					y := graph.Convolve(graph.ConvertDType(x, dtype), graph.ConvertDType(k, dtype)).Strides(c.stride).
						PaddingPerDim([][2]int{{c.kernel / 2, c.kernel / 2}, {c.kernel / 2, c.kernel / 2}}).Done()
					y = graph.ConvertDType(y, dtypes.Float32)
					return append(graph.Gradient(graph.ReduceAllSum(graph.Square(y)), x, k), y)
				})
				b.observe = func(in *instruction, _ time.Duration) { instructions = append(instructions, in.name) }
				defer func() { b.observe = nil }()
				for _, out := range exec.MustCall(x, k) {
					results = append(results, tensors.MustCopyFlatData[float32](out))
				}
				return results, instructions
			}
			want, _ := run(dtypes.Float32)
			got, instructions := run(dtypes.BFloat16)
			for i, what := range []string{"gradient by input", "gradient by kernel", "result"} {
				var off, all float64
				for j, w := range want[i] {
					off += math.Pow(float64(got[i][j]-w), 2)
					all += math.Pow(float64(w), 2)
				}
				if off = math.Sqrt(off / all); !(off < 0.03) || off == 0 && b.set.BF16() == nil {
					t.Errorf("%s: the %s is off by %g of float32's", c.name, what, off)
				}
			}
			for _, name := range instructions {
				if b.set.BF16() != nil && (strings.Contains(name, compute.OpTypeConvertDType.String()) || strings.Contains(name, "RoundBF16")) {
					t.Errorf("%s: %s", c.name, name)
				}
			}
		}
	})
}

// Without products there is only the rounding.
func TestRoundingToBFloat16(t *testing.T) {
	forEachSet(t, func(t *testing.T, b *Backend) {
		x := []float32{1, 1 + 0x1p-8, 1 + 3*0x1p-8, -3.1415927, 1e-40, float32(math.Inf(1))}
		out := graph.MustExecOnce(b, func(x *graph.Node) *graph.Node {
			return graph.ConvertDType(graph.ConvertDType(x, dtypes.BFloat16), dtypes.Float32)
		}, tensors.FromValue(x))
		want := []float32{1, 1, 1 + 0x1p-6, -3.140625, 9.18355e-41, float32(math.Inf(1))}
		for i, v := range tensors.MustCopyFlatData[float32](out) {
			if math.Abs(float64(v-want[i])) > 1e-44 {
				t.Errorf("%g rounded is %g, want %g", x[i], v, want[i])
			}
		}
	})
}
