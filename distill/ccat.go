package distill

import (
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
)

// CCATSettings are CCAT's settings.
type CCATSettings struct {
	Threat     threat.Model
	SearchMode classifier.Mode
	Power      float64 // ρ: how fast confidence is to fall with the perturbation; the authors use 10
	CleanShare float64 // share of each batch that stays clean; the authors use 0.5
}

// CCAT trains for low confidence away from the images rather than for the right answer there, so that perturbed images can
// be rejected (Stutz et al., Confidence-Calibrated Adversarial Training, ICML 2020):
//
//	x' = argmax over |x'-x| <= eps of max over k != y of p_k(x')
//	y' = λ y + (1-λ) / C      λ = (1 - min(1, |x'-x| / eps))^ρ
//	loss = CE(S(x), y) on the first images of the batch, CE(S(x'), y') on the others, mean over all
//
// The student forwards the mixed batch once. The authors search with momentum and backtracking; here it is plain PGD,
// which ends on the ball's surface, where λ is 0, more often. A CCAT model is measured by what it rejects: without a
// threshold on its confidence it is not robust, and is not meant to be.
func CCAT(s CCATSettings) Method {
	return Method{
		Name: "ccat", Threat: s.Threat, SearchMode: s.SearchMode,
		Search: func(b *classifier.Batch) *Node {
			p := Softmax(b.Student.Logits(b.XAdv, s.SearchMode), 1)
			others := Mul(p, OneMinus(oneHot(b.Y, p)))
			return ReduceAllSum(ReduceMax(others, 1))
		},
		Loss: func(b *classifier.Batch) *Node {
			images := b.X.Shape().Dimensions[0]
			clean := int(s.CleanShare * float64(images))
			mixed := b.XAdv
			if clean > 0 {
				mixed = Concatenate([]*Node{Slice(b.X, AxisRange(0, clean)), Slice(b.XAdv, AxisRange(clean))}, 0)
			}
			logits := study(b, mixed)
			size := MulScalar(s.Threat.Size(b.X, mixed), 1/s.Threat.Epsilon)
			near := OneMinus(Min(size, ScalarOne(size.Graph(), size.DType())))
			confidence := ExpandDims(Pow(near, Scalar(size.Graph(), size.DType(), s.Power)), 1)
			target := Add(Mul(confidence, oneHot(b.Y, logits)), MulScalar(OneMinus(confidence), 1/float64(classes(logits))))
			return DivScalar(Neg(ReduceAllSum(Mul(target, LogSoftmax(logits)))), float64(images))
		},
	}
}
