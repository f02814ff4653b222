// Package train is the training loop: an inner search that perturbs each batch, one compiled update of the student, the
// schedules, averages and checkpoints around them, and runs that can be stopped at any moment and go on to the same
// bits. It knows no method: the caller gives it an [Objective].
//
// # Run folder
//
// [Run] writes run.json (settings, seed, versions, how the checkpoint was chosen), log.jsonl (a line every few seconds
// and one per epoch), the checkpoints last, last.prev and best, and the chosen model, model.safetensors. Files appear
// whole or not at all: each is written beside its place, synced and renamed.
//
// # The same seed, the same bits
//
// Every random number is keyed by what it is for (seed, purpose, epoch, image), so the position inside an epoch is all
// the random state there is. How often checkpoints are written, and whether the run was stopped in between, changes
// nothing. Another machine, backend or thread count may round sums otherwise.
package train

import (
	"errors"
	"fmt"
	"slices"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
)

// Objective is what a training method asks of a batch. Teachers are frozen and in eval mode, and gradients flow through
// them to the images.
type Objective struct {
	// Threat is the ball around each image and the search in it. With Steps 0 there is no search: Batch.XAdv is Batch.X.
	Threat threat.Model
	// SearchMode is the student's batch-norm mode in the search. In train mode every step of the search moves its
	// running statistics, as it does in PyTorch.
	SearchMode classifier.Mode
	// Before, where it is not nil, computes what depends on the clean images and labels alone and stays the same over the
	// steps of a search; Search and Loss find it in Batch.Before. It moves no running statistics.
	Before func(b *classifier.Batch) []*Node
	// Search is what the inner search raises over Batch.XAdv: a scalar, summed over the images.
	Search func(b *classifier.Batch) *Node
	// Loss is what an update lowers over the student's trainable parameters: a scalar.
	Loss func(b *classifier.Batch) *Node

	// Memory are the tensors the objective keeps from step to step, in checkpoints too. Search and Loss read and replace
	// them through Batch.Memory. All phases of a run have the same.
	Memory []classifier.Cell
	// EndEpoch, where it is not nil, changes the memory at the end of every epoch.
	EndEpoch func(m *classifier.Memory)

	// Gamma is the size of the adversarial weight perturbation, relative to each layer's norm; see [AWP]. 0 is none.
	Gamma float64
}

func (o Objective) validate() error {
	if err := o.Threat.Validate(); err != nil {
		return err
	}
	switch {
	case o.Loss == nil:
		return errors.New("the objective has no loss")
	case o.Threat.Steps > 0 && o.Search == nil:
		return fmt.Errorf("the objective takes %d search steps but says nothing to search for", o.Threat.Steps)
	case !(o.Gamma >= 0 && o.Gamma < 1):
		return fmt.Errorf("the weight perturbation is %g, expected a share of each layer's norm from 0 to less than 1", o.Gamma)
	}
	seen := map[string]bool{}
	for _, c := range o.Memory {
		if c.Name == "" || len(c.Start) == 0 || seen[c.Name] {
			return fmt.Errorf("the objective's memory has a cell %q of %d values, expected names of their own and at least one value",
				c.Name, len(c.Start))
		}
		seen[c.Name] = true
	}
	return nil
}

// sameMemory is whether two objectives keep the same cells.
func sameMemory(a, b Objective) bool {
	return slices.EqualFunc(a.Memory, b.Memory, func(x, y classifier.Cell) bool {
		return x.Name == y.Name && x.PerClass == y.PerClass && slices.Equal(x.Start, y.Start)
	})
}

// Phase is an objective and the epoch, from 0, at which it takes over. Its graphs are compiled when it does.
type Phase struct {
	From      int
	Objective Objective
}

// phaseAt is the index of the phase that an epoch belongs to.
func phaseAt(phases []Phase, epoch int) int {
	at := 0
	for i, p := range phases {
		if p.From <= epoch {
			at = i
		}
	}
	return at
}

func validatePhases(phases []Phase) error {
	if len(phases) == 0 {
		return errors.New("there is no objective to train on")
	}
	for i, p := range phases {
		if i == 0 && p.From != 0 {
			return fmt.Errorf("the first objective starts at epoch %d, expected 0", p.From)
		}
		if i > 0 && p.From <= phases[i-1].From {
			return fmt.Errorf("objective %d starts at epoch %d, not after the one before it", i, p.From)
		}
		if err := p.Objective.validate(); err != nil {
			return err
		}
		if !sameMemory(p.Objective, phases[0].Objective) {
			return fmt.Errorf("objective %d keeps other tensors than the first", i)
		}
	}
	return nil
}

// watched is a network whose forward passes are looked at while a graph is built. Two things are worth knowing: whether
// an objective needs the logits of the clean images in eval mode, which stay the same over the steps of a search and so
// are computed once for all of them; and the logits of the perturbed images, for the accuracy in the log.
type watched struct {
	classifier.Network
	clean, perturbed *Node // the images of the batch
	given            *Node // eval-mode logits of the clean images, or nil to compute them in place
	asked            bool  // the objective took the eval-mode logits of the clean images
	logits           *Node // of the last pass over the perturbed images; failing that, of the last pass
	sawPerturbed     bool
}

func (w *watched) Forward(b *classifier.Bound, x *Node) *Node {
	if x == w.clean && x != w.perturbed && b.Mode() == classifier.Eval {
		w.asked = true
		if w.given != nil {
			return w.given
		}
	}
	logits := w.Network.Forward(b, x)
	if x == w.perturbed || !w.sawPerturbed {
		w.logits, w.sawPerturbed = logits, x == w.perturbed
	}
	return logits
}
