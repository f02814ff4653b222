package train

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"
)

// Optimizer moves parameters against their gradients. A rule is a graph function; numbers that change from step to step
// enter the graph as inputs, so that nothing is compiled twice. Weight decay is L2, on every trainable parameter
// (biases and batch norm too), as PyTorch's optimizers do and the papers' code leaves it.
type Optimizer interface {
	// Slots is how many values it keeps per parameter value; they start at 0.
	Slots() int
	// Inputs are the numbers that step number step, counted from 1, takes at learning rate lr.
	Inputs(step int, lr float64) []float64
	// Step is the new value of a parameter p with gradient g, and of its slots.
	Step(p, g *Node, slots, inputs []*Node) (*Node, []*Node)
	fmt.Stringer
}

// SGD is stochastic gradient descent with momentum in PyTorch's convention (no dampening), with g' = g + λ p:
//
//	v = μ v + g'
//	p = p - lr v                  with Nesterov's momentum p - lr (g' + μ v)
type SGD struct {
	Momentum    float64 // μ
	WeightDecay float64 // λ
	Nesterov    bool
}

// Slots is 1: the velocity v.
func (o SGD) Slots() int { return 1 }

// Inputs are the learning rate.
func (o SGD) Inputs(_ int, lr float64) []float64 { return []float64{lr} }

// Step applies the rule to one parameter.
func (o SGD) Step(p, g *Node, slots, inputs []*Node) (*Node, []*Node) {
	g = decayed(p, g, o.WeightDecay)
	v := Add(MulScalar(slots[0], o.Momentum), g)
	step := v
	if o.Nesterov {
		step = Add(g, MulScalar(v, o.Momentum))
	}
	return Sub(p, Mul(inputs[0], step)), []*Node{v}
}

func (o SGD) String() string {
	if o.Nesterov {
		return fmt.Sprintf("SGD, Nesterov momentum %g, weight decay %g", o.Momentum, o.WeightDecay)
	}
	return fmt.Sprintf("SGD, momentum %g, weight decay %g", o.Momentum, o.WeightDecay)
}

// Adam is PyTorch's Adam (Kingma and Ba 2015, with L2 weight decay); t counts steps from 1:
//
//	g = g + λ p
//	m = β1 m + (1-β1) g
//	v = β2 v + (1-β2) g²
//	p = p - lr/(1-β1^t) m / (sqrt(v / (1-β2^t)) + ε)
type Adam struct {
	Beta1, Beta2, Epsilon float64 // PyTorch's defaults are 0.9, 0.999, 1e-8
	WeightDecay           float64 // λ
}

// Slots is 2: m and v.
func (o Adam) Slots() int { return 2 }

// Inputs are lr/(1-β1^t) and 1/sqrt(1-β2^t).
func (o Adam) Inputs(step int, lr float64) []float64 {
	t := float64(step)
	return []float64{lr / (1 - math.Pow(o.Beta1, t)), 1 / math.Sqrt(1-math.Pow(o.Beta2, t))}
}

// Step applies the rule to one parameter.
func (o Adam) Step(p, g *Node, slots, inputs []*Node) (*Node, []*Node) {
	g = decayed(p, g, o.WeightDecay)
	m := Add(MulScalar(slots[0], o.Beta1), MulScalar(g, 1-o.Beta1))
	v := Add(MulScalar(slots[1], o.Beta2), MulScalar(Square(g), 1-o.Beta2))
	d := Div(m, AddScalar(Mul(Sqrt(v), inputs[1]), o.Epsilon))
	return Sub(p, Mul(inputs[0], d)), []*Node{m, v}
}

func (o Adam) String() string {
	return fmt.Sprintf("Adam, betas %g and %g, epsilon %g, weight decay %g", o.Beta1, o.Beta2, o.Epsilon, o.WeightDecay)
}

func decayed(p, g *Node, decay float64) *Node {
	if decay == 0 {
		return g
	}
	return Add(g, MulScalar(p, decay))
}

// clip scales gradients so that their global L2 norm is at most limit, with factor min(1, limit/(norm + 1e-6)) as
// PyTorch's clip_grad_norm_ does, and returns them with the norm before. A limit of 0 leaves them as they are.
func clip(grads []*Node, limit float64) ([]*Node, *Node) {
	var sum *Node
	for _, g := range grads {
		if s := ReduceAllSum(Square(g)); sum == nil {
			sum = s
		} else {
			sum = Add(sum, s)
		}
	}
	norm := Sqrt(sum)
	if limit == 0 {
		return grads, norm
	}
	factor := Div(Scalar(norm.Graph(), norm.DType(), limit), AddScalar(norm, 1e-6))
	factor = Min(factor, ScalarOne(norm.Graph(), norm.DType()))
	clipped := make([]*Node, len(grads))
	for i, g := range grads {
		clipped[i] = Mul(g, factor)
	}
	return clipped, norm
}
