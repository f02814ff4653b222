package attack

import (
	"fmt"
	"math"
	"slices"

	"github.com/adaad-go/adaad/threat"
)

// CW is the CW-inf attack of the adversarial training papers: the margin loss of Carlini and Wagner (S&P 2017, section
// V.A, f6 with κ = 50) under PGD: 30 steps of a quarter of the radius, 2/255 at 8/255, from a uniform start.
func CW(norm threat.Norm, eps float64) PGD {
	a := NewPGD(norm, eps, 30)
	a.Label, a.Loss = "cw", Margin
	return a
}

// CWL2 is the L2 attack of Carlini and Wagner (S&P 2017, section VI.A): with x' = (tanh(w) + 1) / 2, which is in [0,1],
// Adam lowers
//
//	|x' - x|² + c · max(z_y - max_{i≠y} z_i, 0)
//
// over w, and the nearest x' on the way that is answered wrong is what it finds.
type CWL2 struct {
	Epsilon float64 // where it may stop: nearer is broken
	C       float64
	Steps   int
	Rate    float64 // Adam's learning rate
}

// NewCWL2 is CWL2 as the adversarial training papers take it: c 0.1, 1000 steps, rate 0.01, no search for c.
func NewCWL2(eps float64) CWL2 { return CWL2{eps, 0.1, 1000, 0.01} }

// Name is the attack's name.
func (a CWL2) Name() string { return "cw-l2" }

func (a CWL2) String() string {
	return fmt.Sprintf("L2 eps %s, c %g, %d steps, rate %g", threat.Format(a.Epsilon), a.C, a.Steps, a.Rate)
}

// Cost is a gradient for every step.
func (a CWL2) Cost(int) Cost { return Cost{Gradients: a.Steps} }

// Perturb proposes the nearest point found, projected onto the ball where it lies outside.
func (a CWL2) Perturb(im *Image) ([]float32, error) {
	adv, err := a.nearest(im)
	if err != nil {
		return nil, err
	}
	threat.L2.ProjectPoint(im.X, adv, a.Epsilon)
	return adv, nil
}

// nearest is the nearest point found, or the first within the ball; the last one where none was answered wrong.
func (a CWL2) nearest(im *Image) ([]float32, error) {
	const beta1, beta2, stable = 0.9, 0.999, 1e-8 // of Adam
	const inside = 0.999999                       // keeps w finite
	n := len(im.X)
	w, mean, square := make([]float64, n), make([]float64, n), make([]float64, n)
	for i, v := range im.X {
		w[i] = math.Atanh((2*float64(v) - 1) * inside)
	}
	var best []float32
	distance := math.Inf(1)
	adv := make([]float32, n)
	for step := 1; step <= a.Steps; step++ {
		for i := range adv {
			adv[i] = float32((math.Tanh(w[i]) + 1) / 2)
		}
		logits, grad, err := im.Gradient(adv, Goal{Loss: Margin, Label: im.Label})
		if err != nil {
			return nil, err
		}
		prediction, margin := Answer(logits, im.Label)
		if prediction != im.Label {
			if d := threat.L2.Distance(adv, im.X); d < distance {
				best, distance = slices.Clone(adv), d
			}
			if distance <= a.Epsilon {
				return best, nil
			}
		}
		c := a.C
		if margin <= 0 {
			c = 0
		}
		for i, g := range grad {
			t := math.Tanh(w[i])
			slope := (2*(float64(adv[i])-float64(im.X[i])) - c*float64(g)) * (1 - t*t) / 2
			mean[i] = beta1*mean[i] + (1-beta1)*slope
			square[i] = beta2*square[i] + (1-beta2)*slope*slope
			m, s := mean[i]/(1-math.Pow(beta1, float64(step))), square[i]/(1-math.Pow(beta2, float64(step)))
			w[i] -= a.Rate * m / (math.Sqrt(s) + stable)
		}
	}
	if best == nil {
		return adv, nil
	}
	return best, nil
}
