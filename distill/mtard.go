package distill

import (
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
)

// MTARDSettings are MTARD's settings.
type MTARDSettings struct {
	Threat     threat.Model
	SearchMode classifier.Mode
	Beta       float64   // how sharply the slower loss is favoured; the authors use 1
	WeightRate float64   // how fast the weights move; the authors use 0.025
	Drops      []float64 // shares of the run after which WeightRate drops tenfold, with the learning rate
	Reduction  Reduction // Mean in the authors' code
}

// MTARD learns from a robust teacher T on attacked images and a naturally trained one N on clean ones, and gives more
// weight to the one it is slower to learn from (Zhao et al., Enhanced Accuracy and Robustness via Multi-Teacher Adversarial
// Distillation, ECCV 2022):
//
//	x' = argmax over |x'-x| <= eps of CE(S(x'), y)
//	loss = (1-w) La + w Ln       La = KL(T(x') || S(x'))     Ln = KL(N(x) || S(x))
//	w = w - r (w - (Ln/Ln0)^β / ((La/La0)^β + (Ln/Ln0)^β))      each step, before the loss; w = 1/2 at first
//
// with La0 and Ln0 the losses of the first step of the run. The student forwards x', then x. The losses have RSLAD's
// log(q + 1e-5).
func MTARD(s MTARDSettings) Method {
	return Method{
		Name: "mtard", Teachers: 2, Threat: s.Threat, SearchMode: s.SearchMode,
		Search: searchCrossEntropy(s.SearchMode),
		Memory: []classifier.Cell{
			{Name: "natural_weight", Start: []float32{0.5}},
			{Name: "first_losses", Start: []float32{0, 0}}, // 0 until there was a step
		},
		Loss: func(b *classifier.Batch) *Node {
			perturbed := offsetKL(teach(b, b.XAdv), study(b, b.XAdv), s.Reduction)
			clean := offsetKL(teachNaturally(b, b.X), study(b, b.X), s.Reduction)

			losses := StopGradient(Stack([]*Node{perturbed, clean}, 0))
			first := b.Memory.Get("first_losses")
			first = Where(Equal(first, ZerosLike(first)), losses, first)
			b.Memory.Set("first_losses", first)

			rates := Pow(Div(losses, first), Scalar(b.X.Graph(), losses.DType(), s.Beta))
			share := Div(Slice(rates, AxisRange(1, 2)), Reshape(ReduceAllSum(rates), 1))
			natural := b.Memory.Get("natural_weight")
			natural = Sub(natural, Mul(weightRate(b, s), Sub(natural, share)))
			b.Memory.Set("natural_weight", natural)

			w := Reshape(b.Memory.Get("natural_weight"))
			return Add(Mul(OneMinus(w), perturbed), Mul(w, clean))
		},
	}
}

// weightRate is how fast the weights move in this epoch: Progress counts the epoch under way, so that an epoch comes after
// a share of the run if its Progress is larger.
func weightRate(b *classifier.Batch, s MTARDSettings) *Node {
	rate := Scalar(b.X.Graph(), b.Progress.DType(), s.WeightRate)
	for _, share := range s.Drops {
		later := GreaterThan(b.Progress, Scalar(b.X.Graph(), b.Progress.DType(), share+1e-6))
		rate = Where(later, MulScalar(rate, 0.1), rate)
	}
	return rate
}
