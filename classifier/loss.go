package classifier

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// Rivals is how far each logit is above that of the label, z_i - z_y, with -Inf at y itself: float [N, classes] from
// logits [N, classes] and labels int32 [N]. An image is answered wrong where its largest rival is above 0.
func Rivals(logits, labels *Node) *Node {
	g := logits.Graph()
	isLabel := OneHot(labels, logits.Shape().Dimensions[1], logits.DType())
	own := ReduceAndKeep(Mul(isLabel, logits), ReduceSum, 1)
	return Where(GreaterThan(isLabel, ScalarZero(g, logits.DType())), Infinity(g, logits.DType(), -1), Sub(logits, own))
}

// CrossEntropy is -log softmax(z)_y of each image, [N], computed as softplus(log Σ_{i≠y} exp(z_i - z_y)). Both it and its
// gradient keep their relative precision however sure the network is: the usual form subtracts numbers near 1 from 1,
// and in float32 an attack on a confident network then follows rounding errors.
func CrossEntropy(logits, labels *Node) *Node {
	rivals := Rivals(logits, labels)
	top := StopGradient(ReduceAndKeep(rivals, ReduceMax, 1))
	sum := ReduceSum(Exp(Sub(rivals, top)), 1)
	return Softplus(Add(Log(sum), Squeeze(top, 1)))
}
