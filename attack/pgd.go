package attack

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/adaad-go/adaad/threat"
)

// PGD is projected gradient ascent on a loss (Madry et al., ICLR 2018, section 2.1): from a start in the ball,
//
//	x' <- P(x' + step · sign(∇ loss(f(x'), y)))
//
// as threat.Model takes it in its norm. It proposes the last point of the search.
type PGD struct {
	Label  string // its name
	Threat threat.Model
	Loss   Loss
}

// NewPGD is PGD on the cross-entropy from a uniform start; the step is a quarter of the radius, 2/255 at 8/255 (the
// "PGD-SAT" of the AdaAD paper, section 4.1, with 20 steps).
func NewPGD(norm threat.Norm, eps float64, steps int) PGD {
	return PGD{"pgd-" + strconv.Itoa(steps), threat.Model{
		Norm: norm, Epsilon: eps, StepSize: eps / 4, Steps: steps, Start: threat.Uniform,
	}, CrossEntropy}
}

// PGDTrades is PGD as TRADES evaluates with it (Zhang et al., ICML 2019): 20 steps of 0.003 at radius 8/255, in
// proportion at other radii, from a uniform start.
func PGDTrades(norm threat.Norm, eps float64) PGD {
	a := NewPGD(norm, eps, 20)
	a.Label, a.Threat.StepSize = "pgd-trades", 0.003*eps/(8./255)
	return a
}

// Name is the attack's name.
func (a PGD) Name() string { return a.Label }

func (a PGD) String() string { return fmt.Sprintf("%s, %s", a.Threat, a.Loss) }

// Cost is a gradient for every step.
func (a PGD) Cost(int) Cost { return Cost{Gradients: a.Threat.Steps} }

// Perturb runs the search on an image.
func (a PGD) Perturb(im *Image) ([]float32, error) {
	adv := slices.Clone(im.X)
	a.Threat.Begin(im.Rand(a.Label, 0), im.X, adv)
	for range a.Threat.Steps {
		_, grad, err := im.Gradient(adv, Goal{Loss: a.Loss, Label: im.Label})
		if err != nil {
			return nil, err
		}
		a.Threat.Norm.AscendPoint(adv, grad, a.Threat.StepSize)
		a.Threat.Norm.ProjectPoint(im.X, adv, a.Threat.Epsilon)
	}
	return adv, nil
}
