package distill

import (
	"github.com/adaad-go/adaad/classifier"
	. "github.com/gomlx/gomlx/core/graph"
)

// IGDM adds indirect gradient matching to another method (Lee et al., Indirect Gradient Matching for Adversarial Robust
// Distillation, ICLR 2025): the student is to change along the perturbation d = x' - x as the teacher does,
//
//	loss = base + λ p KL(softmax(T(x+d) - T(x-d)) || softmax(S(x+d) - S(x-d)))      mean over the images
//
// with p the progress of the run, so that the weight grows with the epoch up to λ: the authors use 1 on CIFAR-10 and 10 on
// CIFAR-100. The base must forward x' in train mode. x-d is not clipped to [0,1]. The student forwards x-d after all
// that the base forwards, and S(x+d) is the base's own S(x').
func IGDM(base Method, lambda float64) Method {
	match := func(loss func(*classifier.Batch) *Node) func(*classifier.Batch) *Node {
		if loss == nil {
			return nil
		}
		return func(b *classifier.Batch) *Node {
			first := loss(b)
			return Add(first, Mul(MulScalar(b.Progress, lambda), ReduceAllMean(gradientGap(b))))
		}
	}
	base.Name, base.Teachers = "igdm", max(1, base.Teachers)
	base.Loss, base.WarmUp = match(base.Loss), match(base.WarmUp)
	return base
}

// gradientGap is KL(softmax(T(x+d) - T(x-d)) || softmax(S(x+d) - S(x-d))) of each image, [B]. The student has forwarded
// x+d = x' before.
func gradientGap(b *classifier.Batch) *Node {
	opposite := Sub(MulScalar(b.X, 2), b.XAdv)
	student := Sub(b.Student.Last(b.XAdv), study(b, opposite))
	teacher := Sub(teach(b, b.XAdv), teach(b, opposite))
	return Divergence(teacher, student, 1)
}
