package attack

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// Loss is what an attack raises.
type Loss int

const (
	// CrossEntropy is -log softmax(z)_y.
	CrossEntropy Loss = iota
	// Margin is min(max_{i≠y} z_i - z_y, 50): above 0 where the answer is wrong.
	Margin
)

// confidence is where Margin stops rewarding (κ of Carlini and Wagner).
const confidence = 50

func (l Loss) String() string { return [...]string{"cross-entropy", "margin"}[l] }

// PerImage is the loss of every image, [N], from logits [N, classes] and labels int32 [N].
func (l Loss) PerImage(logits, labels *Node) *Node {
	oneHot := OneHot(labels, logits.Shape().Dimensions[1], logits.DType())
	if l == CrossEntropy {
		return Neg(ReduceSum(Mul(oneHot, LogSoftmax(logits)), 1))
	}
	g := logits.Graph()
	// The true class leaves the maximum by being put at the lowest value there is.
	others := Where(GreaterThan(oneHot, ScalarZero(g, oneHot.DType())), Infinity(g, logits.DType(), -1), logits)
	margin := Sub(ReduceMax(others, 1), ReduceSum(Mul(oneHot, logits), 1))
	return Min(margin, Scalar(g, margin.DType(), confidence))
}
