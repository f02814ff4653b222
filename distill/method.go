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
	Teachers int // how many frozen networks it learns from: the robust one first, then the naturally trained one

	// Threat is the ball and the inner search; Steps 0 trains on clean images.
	Threat threat.Model
	// SearchMode is the student's batch-norm mode in the search. In train mode every step of the search moves the
	// running statistics, as it does in PyTorch.
	SearchMode classifier.Mode
	// Before, where it is not nil, computes from X and Y what stays the same over the steps of a search; Search and Loss
	// find it in the batch.
	Before func(b *classifier.Batch) []*Node
	// Search is what the inner search raises: a scalar, summed over images so that one image's gradient does not
	// depend on the others. nil without a search.
	Search func(b *classifier.Batch) *Node
	// Loss is what the student minimises: a scalar. The order of its forward passes in train mode is the order in which
	// they move the running statistics.
	Loss func(b *classifier.Batch) *Node

	// WarmUp, where it is not nil, is what the student minimises in the first Begin epochs; Loss takes over after them.
	WarmUp func(b *classifier.Batch) *Node
	Begin  int

	// Memory is what the method keeps from step to step; Search and Loss read and replace it, and EndEpoch, where it is
	// not nil, does so after every epoch.
	Memory   []classifier.Cell
	EndEpoch func(m *classifier.Memory)
}

// searchCrossEntropy is the search of the methods that attack the label: max CE(S(x'), y).
func searchCrossEntropy(mode classifier.Mode) func(*classifier.Batch) *Node {
	return func(b *classifier.Batch) *Node {
		return CrossEntropy(b.Student.Logits(b.XAdv, mode), b.Y, Sum)
	}
}

// searchDisagreement is AdaAD's search: max KL(T(x') || S(x')), through both networks.
func searchDisagreement(mode classifier.Mode) func(*classifier.Batch) *Node {
	return func(b *classifier.Batch) *Node {
		return KL(teach(b, b.XAdv), b.Student.Logits(b.XAdv, mode), 1, Sum)
	}
}

// teach is the robust teacher's logits at x, in eval mode.
func teach(b *classifier.Batch, x *Node) *Node { return answer(b.Teachers[0], x) }

// teachNaturally is the naturally trained teacher's logits at x, in eval mode.
func teachNaturally(b *classifier.Batch, x *Node) *Node { return answer(b.Teachers[1], x) }

// answer is a frozen network's logits at x, computed once per graph.
func answer(teacher *classifier.Bound, x *Node) *Node {
	if logits := teacher.Last(x); logits != nil {
		return logits
	}
	return teacher.Logits(x, classifier.Eval)
}

// oneHot is 1 at the labels and 0 elsewhere, [B,C] like logits.
func oneHot(labels, logits *Node) *Node { return OneHot(labels, classes(logits), logits.DType()) }

// study is the student's logits at x, in train mode: this forward pass moves its running statistics.
func study(b *classifier.Batch, x *Node) *Node { return b.Student.Logits(x, classifier.Train) }
