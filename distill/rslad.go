package distill

import (
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
)

// RSLADSettings are RSLAD's settings.
type RSLADSettings struct {
	Threat     threat.Model
	SearchMode classifier.Mode
	Alpha      float64   // weight of the perturbed images; the authors use 5/6
	Scale      float64   // of the whole loss; the authors use 1 on CIFAR-10, 10 on CIFAR-100
	Reduction  Reduction // Mean in the authors' code
}

// RSLAD puts the teacher's soft labels of the clean images everywhere a label stood (Zi et al., Revisiting
// Adversarial Robustness Distillation, ICCV 2021):
//
//	x' = argmax over |x'-x| <= eps of KL(T(x) || S(x'))
//	loss = α KL(T(x) || S(x')) + (1-α) KL(T(x) || S(x))
//
// The student forwards x', then x. The reported loss has the authors' log(q + 1e-5); the gradient is that of KL.
func RSLAD(s RSLADSettings) Method {
	return Method{
		Name: "rslad", Teachers: 1, Threat: s.Threat, SearchMode: s.SearchMode,
		Search: func(b *classifier.Batch) *Node {
			return KL(teach(b, b.X), b.Student.Logits(b.XAdv, s.SearchMode), 1, Sum)
		},
		Loss: func(b *classifier.Batch) *Node {
			perturbed := offsetKL(teach(b, b.X), study(b, b.XAdv), s.Reduction)
			clean := offsetKL(teach(b, b.X), study(b, b.X), s.Reduction)
			return MulScalar(Add(MulScalar(perturbed, s.Alpha), MulScalar(clean, 1-s.Alpha)), s.Scale)
		},
	}
}
