package distill

import (
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
)

// SCORESettings are SCORE's settings.
type SCORESettings struct {
	Threat         threat.Model
	SearchMode     classifier.Mode
	Beta           float64 // weight of the disagreement; the authors use 3 and 4
	LabelSmoothing float64 // share of the label's weight that goes to the other classes; the authors use 0
}

// SCORE is TRADES with squared distances of probabilities p = softmax S, which are metrics where KL is none, so that
// accuracy and robustness are not at odds by definition (Pang et al., Robustness and Accuracy Could Be Reconcilable by
// (Proper) Definition, ICML 2022):
//
//	x' = argmax over |x'-x| <= eps of |p(x') - p(x)|²
//	loss = |p(x) - y|² + β |p(x') - p(x)|²      mean over the images
//
// The gradient flows through both sides of the second term. The student forwards x, then x'. The authors' search runs on
// the batch's statistics and leaves the running ones alone ([classifier.Frozen]), from a uniform start clipped to [0,1].
func SCORE(s SCORESettings) Method {
	probabilities := func(b *classifier.Batch, x *Node, mode classifier.Mode) *Node {
		return Softmax(b.Student.Logits(x, mode), 1)
	}
	return Method{
		Name: "score", Threat: s.Threat, SearchMode: s.SearchMode,
		Before: func(b *classifier.Batch) []*Node {
			return []*Node{probabilities(b, b.X, s.SearchMode)}
		},
		Search: func(b *classifier.Batch) *Node {
			return ReduceAllSum(Square(Sub(probabilities(b, b.XAdv, s.SearchMode), b.Before[0])))
		},
		Loss: func(b *classifier.Batch) *Node {
			clean, perturbed := probabilities(b, b.X, classifier.Train), probabilities(b, b.XAdv, classifier.Train)
			others := s.LabelSmoothing / float64(classes(clean)-1)
			label := AddScalar(MulScalar(oneHot(b.Y, clean), 1-s.LabelSmoothing-others), others)
			right := ReduceSum(Square(Sub(clean, label)), 1)
			same := ReduceSum(Square(Sub(perturbed, clean)), 1)
			return ReduceAllMean(Add(right, MulScalar(same, s.Beta)))
		},
	}
}
