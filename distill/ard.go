package distill

import (
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
)

// ARDSettings are ARD's settings.
type ARDSettings struct {
	Threat       threat.Model
	SearchMode   classifier.Mode
	Alpha        float64   // weight of the teacher; the authors use 1
	Temperature  float64   // τ; the authors use 30
	Reduction    Reduction // Mean in the authors' code
	ForwardClean bool      // forward the clean images in train mode, after the perturbed ones, even if alpha is 1
}

// ARD distils a robust teacher's answers on clean images into the student's on attacked ones (Goldblum et al.,
// Adversarially Robust Distillation, AAAI 2020):
//
//	x' = argmax over |x'-x| <= eps of CE(S(x'), y)
//	loss = α τ² KL(T(x)/τ || S(x')/τ) + (1-α) CE(S(x), y)
func ARD(s ARDSettings) Method {
	tau := s.Temperature
	return Method{
		Name: "ard", Teachers: 1, Threat: s.Threat, SearchMode: s.SearchMode,
		Search: searchCrossEntropy(s.SearchMode),
		Loss: func(b *classifier.Batch) *Node {
			loss := MulScalar(KL(teach(b, b.X), study(b, b.XAdv), tau, s.Reduction), s.Alpha*tau*tau)
			var clean *Node
			if s.ForwardClean || s.Alpha < 1 {
				clean = study(b, b.X)
			}
			if s.Alpha == 1 {
				return loss
			}
			return Add(loss, MulScalar(CrossEntropy(clean, b.Y, Mean), 1-s.Alpha))
		},
	}
}
