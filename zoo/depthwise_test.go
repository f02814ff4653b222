package zoo

import (
	"math"
	"testing"

	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// The gradients of <v, depthwise(x, k)> are sums over the definition, for odd and even sizes, strides and kernels.
func TestDepthwiseGradients(t *testing.T) {
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	const n, channels = 2, 3
	for _, c := range []struct{ h, w, size, stride int }{{6, 5, 3, 1}, {6, 5, 3, 2}, {7, 8, 5, 2}, {1, 1, 3, 2}, {4, 4, 1, 1}} {
		conv := conv{out: channels, size: c.size, stride: c.stride, depthwise: true}
		pad, _ := conv.padding()
		oh, ow := (c.h+2*pad-c.size)/c.stride+1, (c.w+2*pad-c.size)/c.stride+1
		x, k, v := ramp(n*c.h*c.w*channels, 7), ramp(channels*c.size*c.size, 5), ramp(n*oh*ow*channels, 11)
		wantX, wantK := make([]float64, len(x)), make([]float64, len(k))
		for b := range n {
			for y := range oh * ow * c.size * c.size * channels {
				ch, j, i, ox, oy := y%channels, y/channels%c.size, y/channels/c.size%c.size, y/channels/c.size/c.size%ow, y/channels/c.size/c.size/ow
				row, col := oy*c.stride+i-pad, ox*c.stride+j-pad
				if row < 0 || row >= c.h || col < 0 || col >= c.w {
					continue
				}
				xi, ki, vi := ((b*c.h+row)*c.w+col)*channels+ch, (ch*c.size+i)*c.size+j, ((b*oh+oy)*ow+ox)*channels+ch
				wantX[xi] += float64(v[vi]) * float64(k[ki])
				wantK[ki] += float64(v[vi]) * float64(x[xi])
			}
		}
		nodes := 0
		results := MustExecOnceN(backend, func(x, k, v *Node) []*Node {
			grads := Gradient(ReduceAllSum(Mul(v, conv.apply(x, k, FP32))), x, k)
			nodes = len(x.Graph().Nodes())
			return grads
		}, tensors.FromFlatDataAndDimensions(x, n, c.h, c.w, channels),
			tensors.FromFlatDataAndDimensions(k, channels, 1, c.size, c.size),
			tensors.FromFlatDataAndDimensions(v, n, oh, ow, channels))
		for r, want := range [][]float64{wantX, wantK} {
			for i, got := range tensors.MustCopyFlatData[float32](results[r]) {
				if math.Abs(float64(got)-want[i]) > 1e-4 {
					t.Fatalf("%+v: gradient %d at %d is %g, want %g", c, r, i, got, want[i])
				}
			}
		}
		if nodes > 30 {
			t.Errorf("%+v: a graph of %d nodes: the gradient went group by group", c, nodes)
		}
	}
}

func ramp(n, step int) []float32 {
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(i*step%13)/13 - 0.4
	}
	return values
}
