package distill

import (
	"fmt"

	"github.com/adaad-go/adaad/classifier"
	. "github.com/gomlx/gomlx/core/graph"
)

// Reduction is how a loss of B images and C classes becomes one number. Papers leave it unsaid and it changes results:
// Mean makes a KL divergence C times smaller than BatchMean.
type Reduction int

const (
	// Sum adds over images and classes.
	Sum Reduction = iota
	// BatchMean divides the sum by B: PyTorch's "batchmean".
	BatchMean
	// Mean divides the sum by B·C for a KL divergence, by B for a cross-entropy: PyTorch's "mean".
	Mean
)

var reductionNames = [...]string{"sum", "batchmean", "mean"}

func (r Reduction) String() string { return reductionNames[r] }

// ParseReduction reads "sum", "batchmean" or "mean".
func ParseReduction(s string) (Reduction, error) {
	for i, name := range reductionNames {
		if s == name {
			return Reduction(i), nil
		}
	}
	return 0, fmt.Errorf("%q is no KL reduction; expected sum, batchmean or mean", s)
}

// Reduce makes one number of the losses [B] of B images, each summed over so many classes.
func (r Reduction) Reduce(perImage *Node, classes int) *Node {
	sum := ReduceAllSum(perImage)
	images := perImage.Shape().Dimensions[0]
	switch r {
	case BatchMean:
		return DivScalar(sum, float64(images))
	case Mean:
		return DivScalar(sum, float64(images*classes))
	}
	return sum
}

// CrossEntropy is -log softmax(logits)_y, reduced over the batch to a scalar. logits is [B,C], labels int32 [B].
func CrossEntropy(logits, labels *Node, r Reduction) *Node {
	return r.Reduce(classifier.CrossEntropy(logits, labels), 1)
}

// KL is KL(softmax(target/τ) || softmax(prediction/τ)) = Σ q (log q - log p), reduced to a scalar; gradients flow
// through both. target and prediction are logits [B,C], τ the temperature (> 0). The factor τ² that keeps gradients
// comparable between temperatures (Hinton et al. 2015, section 2.1) is the caller's.
func KL(target, prediction *Node, temperature float64, r Reduction) *Node {
	return r.Reduce(Divergence(target, prediction, temperature), classes(target))
}

// Divergence is KL's value for each image, [B].
func Divergence(target, prediction *Node, temperature float64) *Node {
	if temperature != 1 {
		target, prediction = DivScalar(target, temperature), DivScalar(prediction, temperature)
	}
	logQ, logP := LogSoftmax(target), LogSoftmax(prediction)
	q := Exp(logQ)
	sum := ReduceSum(Mul(q, Sub(logQ, logP)), 1)
	return Add(sum, StopGradient(Sub(divergence(q, logQ, logP), sum)))
}

// divergence is the same number to all its digits. Where the distributions nearly agree, as softened ones do, Σ q (log q
// - log p) is the little that is left of terms that cancel. With d = log p - log q it is also Σ q (exp(d) - 1 - d), whose
// terms are all positive; where d is large, so that exp might overflow, a term is written p - q - q d.
func divergence(q, logQ, logP *Node) *Node {
	d := Sub(logP, logQ)
	one := ScalarOne(d.Graph(), d.DType())
	small := Min(d, one)
	terms := Where(LessThan(d, one), Mul(q, Sub(Expm1(small), small)), Sub(Sub(Exp(logP), q), Mul(q, d)))
	return ReduceSum(terms, 1)
}

// offsetKL is Σ q (log(q + 1e-5) - log p), which RSLAD's authors and those who built on their code take for KL. The
// gradient by the prediction is KL's; the value is a little larger.
func offsetKL(target, prediction *Node, r Reduction) *Node {
	q := Softmax(target, 1)
	return r.Reduce(ReduceSum(Mul(q, Sub(Log(AddScalar(q, 1e-5)), LogSoftmax(prediction))), 1), classes(target))
}

// trust is softmax(logits)_y to the power beta, [B]: how far a teacher who gives these logits is to be believed.
func trust(logits, labels *Node, beta float64) *Node {
	return Exp(MulScalar(classifier.CrossEntropy(logits, labels), -beta))
}

func classes(logits *Node) int { return logits.Shape().Dimensions[1] }
