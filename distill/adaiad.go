package distill

import (
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
)

// AdaIADSettings are AdaIAD's settings.
type AdaIADSettings struct {
	Threat       threat.Model
	SearchMode   classifier.Mode
	Temperature  float64   // τ of the teacher's divergence; the authors use 30
	Beta         float64   // how sharply the teacher's confidence decides; the authors use 0.1
	Begin        int       // epochs before the student's own answers count; the authors use 60
	Reduction    Reduction // BatchMean in the authors' code
	ForwardClean bool      // forward the clean images in train mode before and after the perturbed ones
}

// AdaIAD is AdaAD with the introspection of IAD (Huang et al., CVPR 2023):
//
//	x' = argmax over |x'-x| <= eps of KL(T(x') || S(x'))
//	a = (softmax T(x'))_y ^ β
//	loss = τ² KL(T(x')/τ || S(x')/τ) + (1-a) KL(S(x) || S(x'))      the second term from epoch Begin on
//
// As in the authors' code the first term is not weighted by a, and the gradient flows through both sides of the second.
// The student forwards x', then x for the second term; in the authors' code x, x', x, then x for the second term.
func AdaIAD(s AdaIADSettings) Method {
	follow := func(b *classifier.Batch) (perturbed, loss *Node) {
		tau := s.Temperature
		if s.ForwardClean {
			study(b, b.X)
		}
		perturbed = study(b, b.XAdv)
		if s.ForwardClean {
			study(b, b.X)
		}
		return perturbed, MulScalar(KL(teach(b, b.XAdv), perturbed, tau, s.Reduction), tau*tau)
	}
	return Method{
		Name: "adaiad", Teachers: 1, Threat: s.Threat, SearchMode: s.SearchMode, Begin: s.Begin,
		Search: searchDisagreement(s.SearchMode),
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
