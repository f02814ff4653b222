package distill

import (
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
)

// IAD2Settings are IAD-II's settings.
type IAD2Settings struct {
	Threat        threat.Model
	SearchMode    classifier.Mode
	Alpha         float64   // weight of the robust teacher and of introspection; the authors use 0.5
	NaturalWeight float64   // weight of the naturally trained teacher; the authors use 0.25, and the label has the rest
	Temperature   float64   // τ of the teachers' divergences; the authors use 1
	Beta          float64   // how sharply the robust teacher's confidence decides; the authors use 0.1
	Begin         int       // epochs before the student's own answers count; the authors use 40
	Reduction     Reduction // BatchMean in the authors' code
}

// IAD2 is introspective adversarial distillation with two teachers, a robust one T and a naturally trained one N, in the
// ICLR 2022 paper's second form (Zhu et al., section 3; the authors' IAD-II):
//
//	x' = argmax over |x'-x| <= eps of CE(S(x'), y)
//	a = (softmax T(x'))_y ^ β, and 1 before epoch Begin
//	loss = (1-α-ν) CE(S(x'), y) + α [a τ² KL(T(x')/τ || S(x')/τ) + (1-a) τ² KL(S(x) || S(x'))] + ν τ² KL(N(x')/τ || S(x')/τ)
//
// The student forwards x', and from epoch Begin on x after it; the gradient flows through both.
func IAD2(s IAD2Settings) Method {
	loss := func(b *classifier.Batch, introspect bool) *Node {
		tau := s.Temperature
		perturbed := study(b, b.XAdv)
		robust := Divergence(teach(b, b.XAdv), perturbed, tau)
		if introspect {
			a := trust(teach(b, b.XAdv), b.Y, s.Beta)
			robust = Add(Mul(a, robust), Mul(OneMinus(a), Divergence(study(b, b.X), perturbed, 1)))
		}
		natural := KL(teachNaturally(b, b.XAdv), perturbed, tau, s.Reduction)
		label := CrossEntropy(perturbed, b.Y, Mean)
		return Add(MulScalar(label, 1-s.Alpha-s.NaturalWeight),
			Add(MulScalar(s.Reduction.Reduce(robust, classes(perturbed)), s.Alpha*tau*tau), MulScalar(natural, s.NaturalWeight*tau*tau)))
	}
	return Method{
		Name: "iad-2", Teachers: 2, Threat: s.Threat, SearchMode: s.SearchMode, Begin: s.Begin,
		Search: searchCrossEntropy(s.SearchMode),
		WarmUp: func(b *classifier.Batch) *Node { return loss(b, false) },
		Loss:   func(b *classifier.Batch) *Node { return loss(b, true) },
	}
}
