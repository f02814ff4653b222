package attack

import (
	"context"
	"fmt"
	"strconv"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
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

// Perturb runs the search on a batch.
func (a PGD) Perturb(ctx context.Context, v *Victim, b *Batch) (*tensors.Tensor, error) {
	adv := b.Start(a.Threat, a.Label, 0)
	for range a.Threat.Steps {
		next, err := v.Run(ctx, a, a.step, b.X, adv, b.Y)
		adv.MustFinalizeAll()
		if err != nil {
			return nil, err
		}
		adv = next[0]
	}
	return adv, nil
}

// step is the graph of one step. The losses of the images are summed, so that no image's gradient depends on how many
// there are.
func (a PGD) step(net *classifier.Bound, in []*Node) []*Node {
	x, adv, y := in[0], in[1], in[2]
	loss := ReduceAllSum(a.Loss.PerImage(net.Logits(adv, classifier.Eval), y))
	return []*Node{a.Threat.Ascend(x, adv, Gradient(loss, adv)[0])}
}
