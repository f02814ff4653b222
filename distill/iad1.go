package distill

import (
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
)

// IAD1Settings are IAD-I's settings.
type IAD1Settings struct {
	Threat      threat.Model
	SearchMode  classifier.Mode
	Temperature float64   // τ of the teacher's divergence; the authors use 1
	Beta        float64   // how sharply the teacher's confidence decides; the authors use 0.1
	Begin       int       // epochs before the student's own answers count; the authors use 60
	Reduction   Reduction // BatchMean in the authors' code
	// ForwardClean forwards the perturbed images a second time in train mode and the clean ones once more, as the authors'
	// code does for numbers that it does not use.
	ForwardClean bool
}

// IAD1 is introspective adversarial distillation with a robust teacher: where the teacher is not sure of the label
// under the student's attack, the student follows its own answers on clean images instead (Zhu et al., Reliable Adversarial
// Distillation with Unreliable Teachers, ICLR 2022):
//
//	x' = argmax over |x'-x| <= eps of CE(S(x'), y)
//	a = (softmax T(x'))_y ^ β
//	loss = τ² KL(T(x)/τ || S(x')/τ) + (1-a) KL(S(x) || S(x'))      the second term from epoch Begin on
//
// The gradient flows through both sides of the second term. The student forwards x', then x for the second term; in the
// authors' code x', x', x, then x for the second term.
func IAD1(s IAD1Settings) Method {
	follow := func(b *classifier.Batch) (perturbed, loss *Node) {
		tau := s.Temperature
		perturbed = study(b, b.XAdv)
		if s.ForwardClean {
			study(b, b.XAdv)
			study(b, b.X)
		}
		return perturbed, MulScalar(KL(teach(b, b.X), perturbed, tau, s.Reduction), tau*tau)
	}
	return Method{
		Name: "iad-1", Teachers: 1, Threat: s.Threat, SearchMode: s.SearchMode, Begin: s.Begin,
		Search: searchCrossEntropy(s.SearchMode),
		WarmUp: func(b *classifier.Batch) *Node {
			_, loss := follow(b)
			return loss
		},
		Loss: func(b *classifier.Batch) *Node {
			perturbed, loss := follow(b)
			return Add(loss, introspection(b, study(b, b.X), perturbed, s.Beta, s.Reduction))
		},
	}
}

// introspection is (1-a) KL(S(x) || S(x')) with a = (softmax T(x'))_y ^ β.
func introspection(b *classifier.Batch, clean, perturbed *Node, beta float64, r Reduction) *Node {
	doubt := OneMinus(trust(teach(b, b.XAdv), b.Y, beta))
	return r.Reduce(Mul(doubt, Divergence(clean, perturbed, 1)), classes(clean))
}
