package distill

import (
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
)

// TRADESSettings are TRADES' settings.
type TRADESSettings struct {
	Threat       threat.Model
	SearchMode   classifier.Mode
	Beta         float64   // weight of the disagreement (1/λ in the paper); 6
	Reduction    Reduction // BatchMean in the authors' code
	ForwardClean bool      // forward the clean images in train mode once more, at the end, as the authors' code does
}

// TRADES trades accuracy for smoothness around the images, without a teacher (Zhang et al., Theoretically
// Principled Trade-off between Robustness and Accuracy, ICML 2019):
//
//	x' = argmax over |x'-x| <= eps of KL(S(x) || S(x'))
//	loss = CE(S(x), y) + β KL(S(x) || S(x'))
//
// The gradient flows through both sides of the divergence. The student forwards x, then x'; the authors' code forwards x
// a third time for the divergence's target.
func TRADES(s TRADESSettings) Method {
	return Method{
		Name: "trades", Threat: s.Threat, SearchMode: s.SearchMode,
		Search: func(b *classifier.Batch) *Node {
			return KL(b.Student.Logits(b.X, s.SearchMode), b.Student.Logits(b.XAdv, s.SearchMode), 1, Sum)
		},
		Loss: func(b *classifier.Batch) *Node {
			clean, perturbed := study(b, b.X), study(b, b.XAdv)
			if s.ForwardClean {
				study(b, b.X)
			}
			return Add(CrossEntropy(clean, b.Y, Mean), MulScalar(KL(clean, perturbed, 1, s.Reduction), s.Beta))
		},
	}
}
