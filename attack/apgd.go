package attack

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/adaad-go/adaad/threat"
)

// APGD is Auto-PGD (Croce and Hein, ICML 2020, section 4): gradient ascent with momentum in the ball,
//
//	z  = P(x' + η · sign(∇ loss))
//	x' <- P(x' + 0.75 (z - x') + 0.25 (x' - x'_before))
//
// from a point on the sphere, with a step η of twice the radius that is halved at checkpoints where the loss has stopped
// to rise; the search then goes on from the best point so far. It stops at the first point that is answered wrong.
type APGD struct {
	Label    string
	Norm     threat.Norm
	Epsilon  float64
	Steps    int
	Loss     Loss
	Targets  int // most target classes that a targeted loss tries, the likeliest first
	Restarts int // from other starting points
	Samples  int // gradients averaged at every point, for classifiers that answer at random
}

const (
	momentum = 0.75
	rising   = 0.75 // ρ: the share of steps that must have raised the loss
)

// APGDCE, APGDDLR and APGDT are Auto-PGD with the settings of AutoAttack.
func APGDCE(norm threat.Norm, eps float64) APGD {
	return APGD{Label: "apgd-ce", Norm: norm, Epsilon: eps, Steps: 100, Loss: CrossEntropy, Restarts: 1, Samples: 1}
}

// APGDDLR raises the difference of logits ratio.
func APGDDLR(norm threat.Norm, eps float64) APGD {
	a := APGDCE(norm, eps)
	a.Label, a.Loss = "apgd-dlr", DLR
	return a
}

// APGDT raises the targeted difference of logits ratio for nine targets.
func APGDT(norm threat.Norm, eps float64) APGD {
	a := APGDCE(norm, eps)
	a.Label, a.Loss, a.Targets = "apgd-t", TargetedDLR, mostTargets
	return a
}

// mostTargets is how many target classes AutoAttack tries.
const mostTargets = 9

// Name is the attack's name.
func (a APGD) Name() string { return a.Label }

func (a APGD) String() string {
	s := fmt.Sprintf("%s eps %s, %d steps, %s", a.Norm, threat.Format(a.Epsilon), a.Steps, a.Loss)
	if a.Targets > 0 {
		s += fmt.Sprintf(", %d targets", a.Targets)
	}
	if a.Restarts > 1 {
		s += fmt.Sprintf(", %d restarts", a.Restarts)
	}
	if a.Samples > 1 {
		s += fmt.Sprintf(", mean of %d gradients", a.Samples)
	}
	return s
}

// Cost is a gradient for every step and one at each start.
func (a APGD) Cost(classes int) Cost {
	each := Cost{Gradients: (a.Steps + 1) * a.Samples * a.Restarts}
	if a.Targets > 0 {
		return each.Times(min(a.Targets, classes-1)).Add(Cost{Forwards: 1})
	}
	return each
}

// Limits says what does not work with so few classes, or nothing.
func (a APGD) Limits(classes int) string {
	if loss := a.Loss.with(classes); loss != a.Loss {
		return fmt.Sprintf("%s: the %s takes more than %d classes; the %s is raised instead", a.Label, a.Loss, classes, loss)
	}
	return fewerTargets(a.Label, a.Targets, classes)
}

// fewerTargets says that there are fewer classes to aim at than an attack would.
func fewerTargets(name string, want, classes int) string {
	if want < classes {
		return ""
	}
	return fmt.Sprintf("%s: %d classes leave %d targets; it would try %d", name, classes, classes-1, want)
}

// Perturb proposes a point that is answered wrong or, where it finds none, that with the lowest margin among the best
// points of its searches.
func (a APGD) Perturb(im *Image) ([]float32, error) {
	goals, err := a.goals(im)
	if err != nil {
		return nil, err
	}
	var best found
	for t, goal := range goals {
		for r := range a.Restarts {
			f, err := a.search(im, goal, im.Rand(a.Label, t*a.Restarts+r))
			if err != nil || f.fooled {
				return f.x, err
			}
			if best.x == nil || f.margin < best.margin {
				best = f
			}
		}
	}
	return best.x, nil
}

// goals are what to raise, one after the other: the loss itself, or that of every target.
func (a APGD) goals(im *Image) ([]Goal, error) {
	loss := a.Loss.with(im.Classifier().Classes())
	if a.Targets == 0 {
		return []Goal{{Loss: loss, Label: im.Label}}, nil
	}
	classes, err := targets(im, a.Targets)
	var goals []Goal
	for _, t := range classes {
		goals = append(goals, Goal{Loss: loss, Label: im.Label, Target: t})
	}
	return goals, err
}

// targets are the classes that an image is answered with most likely, but for its own: n of them, or all.
func targets(im *Image, n int) ([]int, error) {
	logits, err := im.Logits(im.X)
	if err != nil {
		return nil, err
	}
	classes := slices.DeleteFunc(descending(logits), func(i int) bool { return i == im.Label })
	return classes[:min(n, len(classes))], nil
}

// found is the outcome of a search.
type found struct {
	x      []float32
	fooled bool
	margin float32
}

// search is one run of Auto-PGD.
func (a APGD) search(im *Image, goal Goal, r *rand.Rand) (found, error) {
	x := im.X
	adv := sphere(r, a.Norm, x, a.Epsilon)
	logits, grad, err := a.gradient(im, adv, goal)
	if err != nil {
		return found{}, err
	}
	best, value := a.judge(adv, logits, im.Label), goal.Value(logits)
	if best.fooled {
		return best, nil
	}
	bestValue, bestGrad := value, slices.Clone(grad)
	eta, rises, halved := 2*a.Epsilon, 0, true
	checkpoint, gap, valueThen := a.first(), a.first(), bestValue
	before, next := slices.Clone(adv), make([]float32, len(adv))
	best.x = slices.Clone(adv)
	for step := 1; step <= a.Steps; step++ {
		weight := float32(momentum)
		if step == 1 {
			weight = 1
		}
		copy(next, adv)
		a.Norm.AscendPoint(next, grad, eta)
		a.Norm.ProjectPoint(x, next, a.Epsilon)
		for i, z := range next {
			next[i] = adv[i] + weight*(z-adv[i]) + (1-weight)*(adv[i]-before[i])
		}
		a.Norm.ProjectPoint(x, next, a.Epsilon)
		before, adv, next = adv, next, before

		if logits, grad, err = a.gradient(im, adv, goal); err != nil {
			return found{}, err
		}
		f, last := a.judge(adv, logits, im.Label), value
		if f.fooled {
			return f, nil
		}
		if value = goal.Value(logits); value > last {
			rises++
		}
		if value > bestValue {
			copy(best.x, adv)
			copy(bestGrad, grad)
			best.margin, bestValue = f.margin, value
		}
		if step == checkpoint {
			stuck := !halved && bestValue <= valueThen
			if halved = stuck || float64(rises) <= rising*float64(gap); halved {
				eta /= 2
				copy(adv, best.x)
				grad = bestGrad
			}
			valueThen, rises = bestValue, 0
			gap = a.gap(gap)
			checkpoint += gap
		}
	}
	return best, nil
}

// first is the first checkpoint, after 22% of the steps, and gap the distance from one to the next after another: 3% of the
// steps less, but at least 6%. With 100 steps they come after 22, 41, 57, 70, 80, 87, 93 and 99.
func (a APGD) first() int { return max(a.Steps*22/100, 1) }

func (a APGD) gap(last int) int { return max(last-max(a.Steps*3/100, 1), max(a.Steps*6/100, 1)) }

// sphere is a random point on the sphere around x, clipped to [0,1]: x + radius t/|t| with t from U(-1,1) for Linf and
// from N(0,1) for L2.
func sphere(r *rand.Rand, norm threat.Norm, x []float32, radius float64) []float32 {
	t := make([]float32, len(x))
	for i := range t {
		if norm == threat.L2 {
			t[i] = float32(r.NormFloat64())
		} else {
			t[i] = float32(2*r.Float64() - 1)
		}
	}
	scale := radius / (norm.Length(t) + tiny)
	for i, v := range t {
		t[i] = max(0, min(x[i]+float32(scale*float64(v)), 1))
	}
	return t
}

// gradient is the mean of as many gradients as are to be averaged; the logits are the last.
func (a APGD) gradient(im *Image, adv []float32, goal Goal) (logits, grad []float32, err error) {
	if a.Samples == 1 {
		return im.Gradient(adv, goal)
	}
	mean := make([]float32, len(adv))
	for range a.Samples {
		if logits, grad, err = im.Gradient(adv, goal); err != nil {
			return nil, nil, err
		}
		for i, g := range grad {
			mean[i] += g / float32(a.Samples)
		}
	}
	return logits, mean, nil
}

func (a APGD) judge(adv, logits []float32, label int) found {
	prediction, margin := Answer(logits, label)
	return found{x: adv, fooled: prediction != label, margin: margin}
}
