package train

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
)

// Average keeps a second set of weights, a mean over the student's past ones, and it is this set that is validated,
// checkpointed as the model and saved. After every step each trained value moves by
//
//	avg = (1-a) avg + a w
//
// with a given by the rule. Running statistics are not averaged: they are copied from the student, as PyTorch's
// AveragedModel does by default.
type Average interface {
	// Rate is a after the given step: batch number batch of batches, in epoch epoch; all count from 0.
	Rate(epoch, batch, batches int) float64
	fmt.Stringer
}

// EMA is the exponential moving average with a = 1 - Decay at every step, started from the initial weights.
type EMA struct{ Decay float64 }

// Rate is 1 - Decay.
func (e EMA) Rate(_, _, _ int) float64 { return 1 - e.Decay }

func (e EMA) String() string { return fmt.Sprintf("EMA with decay %g", e.Decay) }

// SWA is the plain mean of the weights at the end of each epoch from epoch From (counted from 0) on; before, it is the
// student itself (Izmailov et al., UAI 2018). The mean of weights has statistics of its own, so after each epoch that
// enters it one pass in train mode over the epoch's clean images, starting from the student's running statistics,
// finds them (section 3.1 there; here with the network's momentum).
type SWA struct{ From int }

// Rate is 1 before epoch From, 1/(number of epochs averaged) at the end of each later epoch, and 0 in between.
func (s SWA) Rate(epoch, batch, batches int) float64 {
	switch {
	case epoch < s.From:
		return 1
	case batch == batches-1:
		return 1 / float64(epoch-s.From+1)
	}
	return 0
}

func (s SWA) String() string { return fmt.Sprintf("SWA from epoch %d", s.From+1) }

// lerp is (1-a) avg + a w: exactly avg at a = 0 and w at a = 1.
func lerp(avg, w, a *Node) *Node {
	return Add(Mul(OneMinus(a), avg), Mul(a, w))
}
