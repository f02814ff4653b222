package distill

import (
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
)

// SAADSettings are SAAD's settings.
type SAADSettings struct {
	Threat       threat.Model
	SearchMode   classifier.Mode
	Correction   float64 // how far the search's target follows the teacher's gradient; the authors use 1
	EntropyScale float64 // of an image's weight; the authors use 5
	Beta         float64 // weight of the clean images; the authors use 0
	Lambda       float64 // IGDM's λ at the end of the run; 1 on CIFAR-10, 10 on CIFAR-100
}

// SAAD weights images by how sure it is that an attack on the student moves the teacher too, read off the entropy H of
// the teacher's answer, on top of IGDM (Lee and Chung, Sample-wise Adaptive Weighting for Transfer Consistency in
// Adversarial Distillation, TMLR 2026):
//
//	x' = argmax over |x'-x| <= eps of KL(T~ || S(x'))      T~ = T(x), but for the label T_y(x) + c <∇T_y(x), x'-x>
//	w = s (H(T(x')) - min H)       w~ = w scaled to [0,1]      min and scale over the batch
//	loss = mean of w [KL(T(x') || S(x')) + λ p KL(dT || dS)] + β (1-w~) KL(T(x) || S(x))
//
// with p the progress of the run and df = f(x') - f(2x-x') through a softmax, as in IGDM. The search's target is linear
// in x', so the teacher's gradient is computed once per batch. The student forwards x', 2x-x', then x.
func SAAD(s SAADSettings) Method {
	return Method{
		Name: "saad", Teachers: 1, Threat: s.Threat, SearchMode: s.SearchMode,
		Before: func(b *classifier.Batch) []*Node {
			logits := teach(b, b.X)
			return Gradient(ReduceAllSum(Mul(oneHot(b.Y, logits), logits)), b.X)
		},
		Search: func(b *classifier.Batch) *Node {
			logits := teach(b, b.X)
			moved := ExpandDims(ReduceSum(Mul(b.Before[0], Sub(b.XAdv, b.X)), 1, 2, 3), 1)
			target := Add(logits, MulScalar(Mul(oneHot(b.Y, logits), moved), s.Correction))
			return KL(target, b.Student.Logits(b.XAdv, s.SearchMode), 1, Sum)
		},
		Loss: func(b *classifier.Batch) *Node {
			follow := Divergence(teach(b, b.XAdv), study(b, b.XAdv), 1)
			gap := gradientGap(b)
			clean := Divergence(teach(b, b.X), study(b, b.X), 1)

			entropy := entropy(teach(b, b.XAdv))
			weight := MulScalar(Sub(entropy, ReduceAllMin(entropy)), s.EntropyScale)
			scaled := Div(weight, AddScalar(ReduceAllMax(weight), 1e-8))

			loss := Mul(weight, Add(follow, Mul(MulScalar(b.Progress, s.Lambda), gap)))
			return ReduceAllMean(Add(loss, MulScalar(Mul(OneMinus(scaled), clean), s.Beta)))
		},
	}
}

// entropy is Shannon's entropy of softmax(logits), in nats, [B].
func entropy(logits *Node) *Node {
	log := LogSoftmax(logits)
	return Neg(ReduceSum(Mul(Exp(log), log), 1))
}
