package train

import (
	"math"
	"testing"

	"github.com/adaad-go/adaad/internal/rng"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// drive runs an optimizer over several steps of given gradients, as one graph call per step.
func drive(t *testing.T, o Optimizer, p []float32, grads [][]float32, lr []float64) [][]float32 {
	t.Helper()
	exec := must[*Exec](t)(NewExec(backend(), func(in []*Node) []*Node {
		n := &nodes{in}
		p, g := n.take(1)[0], n.take(1)[0]
		p, slots := o.Step(p, g, n.take(o.Slots()), n.rest)
		return append([]*Node{p}, slots...)
	}))
	state := []*tensors.Tensor{tensors.FromFlatDataAndDimensions(p, len(p))}
	for range o.Slots() {
		state = append(state, tensors.FromFlatDataAndDimensions(make([]float32, len(p)), len(p)))
	}
	var path [][]float32
	for i, g := range grads {
		args := append([]any{state[0], tensors.FromFlatDataAndDimensions(g, len(g))}, asAny(state[1:])...)
		for _, v := range o.Inputs(i+1, lr[i]) {
			args = append(args, float32(v))
		}
		state = must[[]*tensors.Tensor](t)(exec.Call(args...))
		path = append(path, values(state[0]))
	}
	return path
}

// The rules in float64, written as PyTorch's documentation of torch.optim.SGD and torch.optim.Adam states them.
func TestOptimizersFollowPyTorch(t *testing.T) {
	const n, steps = 7, 6
	r := rng.New(3, rng.Init)
	p0 := make([]float32, n)
	for i := range p0 {
		p0[i] = float32(r.NormFloat64())
	}
	var grads [][]float32
	var lr []float64
	for k := range steps {
		g := make([]float32, n)
		for i := range g {
			g[i] = float32(r.NormFloat64())
		}
		grads, lr = append(grads, g), append(lr, 0.1/float64(k+1))
	}

	sgd := func(mu, wd float64, nesterov bool) [][]float64 {
		var path [][]float64
		p, buf := widen(p0), make([]float64, n)
		for k := range grads {
			for i := range p {
				g := float64(grads[k][i]) + wd*p[i]
				if k == 0 {
					buf[i] = g // PyTorch's buffer starts as the first gradient
				} else {
					buf[i] = mu*buf[i] + g
				}
				if nesterov {
					p[i] -= lr[k] * (g + mu*buf[i])
				} else {
					p[i] -= lr[k] * buf[i]
				}
			}
			path = append(path, append([]float64(nil), p...))
		}
		return path
	}
	adam := func(b1, b2, eps, wd float64) [][]float64 {
		var path [][]float64
		p, m, v := widen(p0), make([]float64, n), make([]float64, n)
		for k := range grads {
			for i := range p {
				g := float64(grads[k][i]) + wd*p[i]
				m[i] = b1*m[i] + (1-b1)*g
				v[i] = b2*v[i] + (1-b2)*g*g
				mHat := m[i] / (1 - math.Pow(b1, float64(k+1)))
				vHat := v[i] / (1 - math.Pow(b2, float64(k+1)))
				p[i] -= lr[k] * mHat / (math.Sqrt(vHat) + eps)
			}
			path = append(path, append([]float64(nil), p...))
		}
		return path
	}
	for _, c := range []struct {
		o    Optimizer
		want [][]float64
	}{
		{SGD{}, sgd(0, 0, false)},
		{SGD{Momentum: 0.9}, sgd(0.9, 0, false)},
		{SGD{Momentum: 0.9, WeightDecay: 5e-2}, sgd(0.9, 5e-2, false)},
		{SGD{Momentum: 0.9, WeightDecay: 5e-2, Nesterov: true}, sgd(0.9, 5e-2, true)},
		{Adam{0.9, 0.999, 1e-8, 0}, adam(0.9, 0.999, 1e-8, 0)},
		{Adam{0.8, 0.9, 1e-2, 5e-2}, adam(0.8, 0.9, 1e-2, 5e-2)},
	} {
		for k, got := range drive(t, c.o, p0, grads, lr) {
			for i := range got {
				if math.Abs(float64(got[i])-c.want[k][i]) > 2e-6 {
					t.Fatalf("%v: p[%d] after step %d is %g, want %g", c.o, i, k+1, got[i], c.want[k][i])
				}
			}
		}
	}
}

func widen(v []float32) []float64 {
	w := make([]float64, len(v))
	for i := range v {
		w[i] = float64(v[i])
	}
	return w
}

// clip_grad_norm_: gradients (3,4) and (12) have norm 13.
func TestClip(t *testing.T) {
	for _, c := range []struct{ limit, factor float64 }{{0, 1}, {100, 1}, {13, 13 / (13 + 1e-6)}, {1.3, 1.3 / (13 + 1e-6)}} {
		exec := must[*Exec](t)(NewExec(backend(), func(in []*Node) []*Node {
			clipped, norm := clip(in, c.limit)
			return append(clipped, norm)
		}))
		out := must[[]*tensors.Tensor](t)(exec.Call([]float32{3, 4}, []float32{12}))
		if norm := tensors.ToScalar[float32](out[2]); norm != 13 {
			t.Errorf("norm %g, want 13", norm)
		}
		got := append(values(out[0]), values(out[1])...)
		for i, g := range []float64{3, 4, 12} {
			if math.Abs(float64(got[i])-g*c.factor) > 1e-6 {
				t.Errorf("limit %g: gradient %g became %g, want %g", c.limit, g, got[i], g*c.factor)
			}
		}
	}
}
