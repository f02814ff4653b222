package distill

import (
	"github.com/adaad-go/adaad/classifier"
	. "github.com/gomlx/gomlx/core/graph"
)

// KDSettings are KD's settings.
type KDSettings struct {
	Alpha       float64 // weight of the teacher; 0.9 is common
	Temperature float64 // τ; 4 is common
	Reduction   Reduction
}

// KD is plain knowledge distillation on clean images (Hinton et al. 2015, section 2):
//
//	loss = α τ² KL(T(x)/τ || S(x)/τ) + (1-α) CE(S(x), y)
//
// Each term has a forward pass of its own, as in the common code: the running statistics move twice a step.
func KD(s KDSettings) Method {
	tau := s.Temperature
	return Method{
		Name: "kd", Teachers: 1,
		Loss: func(b *classifier.Batch) *Node {
			soft := KL(teach(b, b.X), study(b, b.X), tau, s.Reduction)
			hard := CrossEntropy(study(b, b.X), b.Y, Mean)
			return Add(MulScalar(soft, s.Alpha*tau*tau), MulScalar(hard, 1-s.Alpha))
		},
	}
}
