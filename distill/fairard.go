package distill

import (
	"github.com/adaad-go/adaad/classifier"
	. "github.com/gomlx/gomlx/core/graph"
)

// FairARDSettings are Fair-ARD's settings.
type FairARDSettings struct {
	ARDSettings
	Beta float64 // how sharply hard classes are favoured; the authors use 2
}

// FairARD is ARD with more weight on the classes that are easy to attack (Yue et al., Revisiting Adversarial Robustness
// Distillation from the Perspective of Robust Fairness, NeurIPS 2023):
//
//	loss = mean of w_y [α τ² KL(T(x)/τ || S(x')/τ) + (1-α) CE(S(x), y)]
//	w_c = κ_c^-β / mean of κ^-β, clipped to [5/6, 5/2]; 1 in the first epoch
//
// κ_c is how many of the points that the search stepped from were still answered right, per image of class c, in the epoch
// before. The student forwards x', then x.
func FairARD(s FairARDSettings) Method {
	m := ARD(s.ARDSettings)
	m.Name = "fair-ard"
	m.Memory = []classifier.Cell{
		{Name: "weights", PerClass: true, Start: []float32{1}},
		{Name: "right", PerClass: true, Start: []float32{0}},
		{Name: "images", PerClass: true, Start: []float32{0}},
	}
	tau := s.Temperature
	m.Search = func(b *classifier.Batch) *Node {
		logits := b.Student.Logits(b.XAdv, s.SearchMode)
		label := oneHot(b.Y, logits)
		right := ConvertDType(Equal(ArgMax(logits, 1, b.Y.DType()), b.Y), logits.DType())
		b.Memory.Set("right", Add(b.Memory.Get("right"), ReduceSum(Mul(label, ExpandDims(right, 1)), 0)))
		return CrossEntropy(logits, b.Y, Sum)
	}
	m.Loss = func(b *classifier.Batch) *Node {
		perturbed := study(b, b.XAdv)
		label := oneHot(b.Y, perturbed)
		b.Memory.Set("images", Add(b.Memory.Get("images"), ReduceSum(label, 0)))
		weight := ReduceSum(Mul(label, ExpandDims(b.Memory.Get("weights"), 0)), 1)

		soft := Mul(weight, Divergence(teach(b, b.X), perturbed, tau))
		loss := MulScalar(s.Reduction.Reduce(soft, classes(perturbed)), s.Alpha*tau*tau)
		var clean *Node
		if s.ForwardClean || s.Alpha < 1 {
			clean = study(b, b.X)
		}
		if s.Alpha == 1 {
			return loss
		}
		hard := Mean.Reduce(Mul(weight, classifier.CrossEntropy(clean, b.Y)), 1)
		return Add(loss, MulScalar(hard, 1-s.Alpha))
	}
	m.EndEpoch = func(m *classifier.Memory) {
		one := ScalarOne(m.Get("right").Graph(), m.Get("right").DType())
		kappa := Div(m.Get("right"), Max(m.Get("images"), one))
		hard := Pow(AddScalar(kappa, 1e-5), Scalar(one.Graph(), one.DType(), -s.Beta))
		m.Set("weights", ClipScalar(Div(hard, ReduceAllMean(hard)), 5./6, 5./2))
		m.Set("right", ZerosLike(kappa))
		m.Set("images", ZerosLike(kappa))
	}
	return m
}
