package attack

import (
	"github.com/adaad-go/adaad/classifier"
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
	if l == CrossEntropy {
		return classifier.CrossEntropy(logits, labels)
	}
	margin := ReduceMax(classifier.Rivals(logits, labels), 1)
	return Min(margin, Scalar(logits.Graph(), margin.DType(), confidence))
}
