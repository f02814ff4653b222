package distill

import (
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
)

// AdaADSettings are AdaAD's settings.
type AdaADSettings struct {
	Threat       threat.Model
	SearchMode   classifier.Mode
	Alpha        float64   // weight of the perturbed images; the authors use 1
	Temperature  float64   // τ of both divergences; the authors use 1
	Reduction    Reduction // the authors use Mean on CIFAR-10 and BatchMean on CIFAR-100
	ForwardClean bool      // forward the clean images in train mode, before the perturbed ones, even if alpha is 1
}

// AdaAD trains the student to agree with the teacher where, in the ball around each image, the two disagree most
// (Huang et al., CVPR 2023, equations 6 and 7):
//
//	x' = argmax over |x'-x| <= eps of KL(T(x') || S(x'))
//	loss = α τ² KL(T(x')/τ || S(x')/τ) + (1-α) τ² KL(T(x)/τ || S(x)/τ)
//
// Both networks move with x' and the search differentiates through both. The authors' code forwards the clean images
// first, in train mode, whatever α is: the running statistics mix clean and perturbed images.
func AdaAD(s AdaADSettings) Method {
	tau := s.Temperature
	return Method{
		Name: "adaad", Teachers: 1, Threat: s.Threat, SearchMode: s.SearchMode,
		Search: searchDisagreement(s.SearchMode),
		Loss: func(b *classifier.Batch) *Node {
			var clean *Node
			if s.ForwardClean || s.Alpha < 1 {
				clean = study(b, b.X)
			}
			loss := MulScalar(KL(teach(b, b.XAdv), study(b, b.XAdv), tau, s.Reduction), s.Alpha*tau*tau)
			if s.Alpha == 1 {
				return loss
			}
			return Add(loss, MulScalar(KL(teach(b, b.X), clean, tau, s.Reduction), (1-s.Alpha)*tau*tau))
		},
	}
}
