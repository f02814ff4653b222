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

// CrossEntropy is -log softmax(logits)_y, reduced over the batch to a scalar. logits is [B,C], labels int32 [B].
func CrossEntropy(logits, labels *Node, r Reduction) *Node {
	sum := ReduceAllSum(classifier.CrossEntropy(logits, labels))
	if r == Sum {
		return sum
	}
	return DivScalar(sum, float64(logits.Shape().Dimensions[0]))
}

// KL is KL(softmax(target/τ) || softmax(prediction/τ)) = Σ q (log q - log p), reduced to a scalar; gradients flow
// through both. target and prediction are logits [B,C], τ the temperature (> 0). The factor τ² that keeps gradients
// comparable between temperatures (Hinton et al. 2015, section 2.1) is the caller's.
func KL(target, prediction *Node, temperature float64, r Reduction) *Node {
	if temperature != 1 {
		target, prediction = DivScalar(target, temperature), DivScalar(prediction, temperature)
	}
	logQ, logP := LogSoftmax(target), LogSoftmax(prediction)
	sum := ReduceAllSum(Mul(Exp(logQ), Sub(logQ, logP)))
	dims := target.Shape().Dimensions
	switch r {
	case BatchMean:
		return DivScalar(sum, float64(dims[0]))
	case Mean:
		return DivScalar(sum, float64(dims[0]*dims[1]))
	}
	return sum
}
