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
// paper's second form (Zhu et al., Reliable Adversarial Distillation with Unreliable Teachers, ICLR 2022):
//
//	x' = argmax over |x'-x| <= eps of CE(S(x'), y)
//	a = (softmax T(x'))_y ^ β, and 1 before epoch Begin
//	loss = (1-α-ν) CE(S(x'), y) + ν τ² KL(N(x')/τ || S(x')/τ)
//	     + α τ² [a KL(T(x')/τ || S(x')/τ) + (1-a) KL(S(x) || S(x'))]
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
		natural := Divergence(teachNaturally(b, b.XAdv), perturbed, tau)
		teachers := Add(MulScalar(robust, s.Alpha*tau*tau), MulScalar(natural, s.NaturalWeight*tau*tau))
		label := MulScalar(CrossEntropy(perturbed, b.Y, Mean), 1-s.Alpha-s.NaturalWeight)
		return Add(label, s.Reduction.Reduce(teachers, classes(perturbed)))
	}
	return Method{
		Name: "iad-2", Teachers: 2, Threat: s.Threat, SearchMode: s.SearchMode, Begin: s.Begin,
		Search: searchCrossEntropy(s.SearchMode),
		WarmUp: func(b *classifier.Batch) *Node { return loss(b, false) },
		Loss:   func(b *classifier.Batch) *Node { return loss(b, true) },
	}
}
