package train

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
)

// AWP is adversarial weight perturbation (Wu et al., Adversarial Weight Perturbation Helps Robust Generalization, NeurIPS
// 2020): each update lowers the loss not at the weights w but at the worst weights nearby, found with one step up the
// loss L of the same batch,
//
//	v = γ |w| ∇L(w) / |∇L(w)|        per layer, with its L2 norms
//	w = step(w + v, ∇L(w + v)) - v
//
// Biases and batch norm are left alone. As in the authors' code the pass that finds v moves no running statistics, and
// weight decay acts on w + v. It doubles the cost of an update, not that of the search.
type AWP struct {
	Gamma  float64 // γ; the authors use 0.005 with TRADES, 0.01 with PGD-AT
	WarmUp int     // epochs without it at the start; 10 with TRADES, 0 with PGD-AT
}

func (a AWP) String() string { return fmt.Sprintf("AWP gamma %g from epoch %d", a.Gamma, a.WarmUp+1) }

// phases splits phases where AWP sets in.
func (a AWP) phases(all []Phase) []Phase {
	var out []Phase
	for i, p := range all {
		if p.From < a.WarmUp {
			out = append(out, p)
			if i+1 < len(all) && all[i+1].From <= a.WarmUp {
				continue
			}
			p.From = a.WarmUp
		}
		p.Objective.Gamma = a.Gamma
		out = append(out, p)
	}
	return out
}

// perturb is v for one layer, given its weights and their gradient.
func perturb(w, grad *Node, gamma float64) *Node {
	norm := func(x *Node) *Node { return Sqrt(ReduceAllSum(Square(x))) }
	return Mul(MulScalar(Div(norm(w), AddScalar(norm(grad), 1e-20)), gamma), grad)
}
