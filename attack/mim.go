package attack

import (
	"fmt"
	"slices"

	"github.com/adaad-go/adaad/threat"
)

// MIM is the momentum iterative method (Dong et al., CVPR 2018, section 3.1): from the image itself
//
//	g  <- g + ∇CE(f(x'), y) / |∇CE(f(x'), y)|_1
//	x' <- P(x' + step · sign(g))
//
// with a decay of 1. Its authors take 10 steps of a tenth of the radius.
type MIM struct {
	Threat threat.Model
}

// NewMIM is MIM as its authors take it.
func NewMIM(norm threat.Norm, eps float64) MIM {
	return MIM{threat.Model{Norm: norm, Epsilon: eps, StepSize: eps / 10, Steps: 10, Start: threat.FromImage}}
}

// Name is the attack's name.
func (a MIM) Name() string { return "mim" }

func (a MIM) String() string { return fmt.Sprintf("%s, cross-entropy, decay 1", a.Threat) }

// Cost is a gradient for every step.
func (a MIM) Cost(int) Cost { return Cost{Gradients: a.Threat.Steps} }

// Perturb runs the search on an image.
func (a MIM) Perturb(im *Image) ([]float32, error) {
	adv, momentum := slices.Clone(im.X), make([]float32, len(im.X))
	for range a.Threat.Steps {
		_, grad, err := im.Gradient(adv, Goal{Loss: CrossEntropy, Label: im.Label})
		if err != nil {
			return nil, err
		}
		var sum float64
		for _, g := range grad {
			sum += max(float64(g), -float64(g))
		}
		for i, g := range grad {
			momentum[i] += float32(float64(g) / (sum + tiny))
		}
		a.Threat.Norm.AscendPoint(adv, momentum, a.Threat.StepSize)
		a.Threat.Norm.ProjectPoint(im.X, adv, a.Threat.Epsilon)
	}
	return adv, nil
}
