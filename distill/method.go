// Package distill holds the training methods, one file each: what the inner search maximises and what the student
// minimises, as graph functions. S is the student, T the teacher, x a clean image, x' the result of the search in the
// ball around it; KL(q||p) has target q and prediction p.
package distill

import (
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
)

// Method is a training method with its settings filled in.
type Method struct {
	Name     string
	Teachers int // how many frozen networks it learns from

	// Threat is the ball and the inner search; Steps 0 trains on clean images.
	Threat threat.Model
	// SearchMode is the student's batch-norm mode in the search. In train mode every step of the search moves the
	// running statistics, as it does in PyTorch.
	SearchMode classifier.Mode
	// Search is what the inner search raises: a scalar, summed over images so that one image's gradient does not
	// depend on the others. nil without a search.
	Search func(b *classifier.Batch) *Node
	// Loss is what the student minimises: a scalar. The order of its forward passes in train mode is the order in which
	// they move the running statistics.
	Loss func(b *classifier.Batch) *Node
}

// searchCrossEntropy is the search of the methods that attack the label: max CE(S(x'), y).
func searchCrossEntropy(mode classifier.Mode) func(*classifier.Batch) *Node {
	return func(b *classifier.Batch) *Node {
		return CrossEntropy(b.Student.Logits(b.XAdv, mode), b.Y, Sum)
	}
}

// teach is the teacher's logits at x, in eval mode.
func teach(b *classifier.Batch, x *Node) *Node { return b.Teachers[0].Logits(x, classifier.Eval) }

// study is the student's logits at x, in train mode: this forward pass moves its running statistics.
func study(b *classifier.Batch, x *Node) *Node { return b.Student.Logits(x, classifier.Train) }
