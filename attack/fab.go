package attack

import (
	"fmt"
	"math"
	"slices"

	"github.com/adaad-go/adaad/threat"
)

// FAB is the fast adaptive boundary attack (Croce and Hein, ICML 2020, "Minimally distorted adversarial examples"): it
// looks for the nearest point that is answered wrong, whatever the radius. In every step the boundary to a class t is
// taken for the hyperplane where z_t - z_y, linearised at x', is 0; d' and d are the shortest ways there within [0,1]
// from x' and from the image, and
//
//	x' <- clip((1 - α) (x' + 1.05 d') + α (x + 1.05 d)),    α = min(|d'| / (|d'| + |d|), 0.1)
//
// Where x' is answered wrong the search has crossed the boundary, and goes back to x + 0.9 (x' - x). Targeted, it tries
// one class after the other; untargeted, the class whose hyperplane is nearest in every step, which takes a gradient
// for each.
type FAB struct {
	Label    string
	Norm     threat.Norm
	Epsilon  float64 // where it may stop: nearer is broken
	Steps    int
	Targets  int // most target classes, the likeliest first; 0 is untargeted
	Restarts int // all but the first from a random point at half the radius
}

const (
	fabBias      = 0.1  // alpha_max
	fabOvershoot = 1.05 // eta
	fabBack      = 0.9  // beta
)

// FABT is targeted FAB with the settings of AutoAttack.
func FABT(norm threat.Norm, eps float64) FAB {
	return FAB{Label: "fab-t", Norm: norm, Epsilon: eps, Steps: 100, Targets: mostTargets, Restarts: 1}
}

// NewFAB is untargeted FAB with the settings of AutoAttack's "plus".
func NewFAB(norm threat.Norm, eps float64) FAB {
	return FAB{Label: "fab", Norm: norm, Epsilon: eps, Steps: 100, Restarts: 5}
}

// Name is the attack's name.
func (a FAB) Name() string { return a.Label }

func (a FAB) String() string {
	s := fmt.Sprintf("%s eps %s, %d steps", a.Norm, threat.Format(a.Epsilon), a.Steps)
	if a.Targets > 0 {
		s += fmt.Sprintf(", %d targets", a.Targets)
	}
	if a.Restarts > 1 {
		s += fmt.Sprintf(", %d restarts", a.Restarts)
	}
	return s
}

// Cost is, for every step, a forward pass and a gradient for each hyperplane.
func (a FAB) Cost(classes int) Cost {
	each := Cost{Gradients: 1, Forwards: 1}.Times(a.Steps * a.Restarts)
	if a.Targets > 0 {
		return each.Times(min(a.Targets, classes-1)).Add(Cost{Forwards: 1})
	}
	each.Gradients *= classes - 1
	return each
}

// Limits says what does not work with so few classes, or nothing.
func (a FAB) Limits(classes int) string { return fewerTargets(a.Label, a.Targets, classes) }

// Perturb proposes the nearest point found, projected onto the ball where it lies outside.
func (a FAB) Perturb(im *Image) ([]float32, error) {
	adv, err := a.nearest(im)
	if err != nil {
		return nil, err
	}
	a.Norm.ProjectPoint(im.X, adv, a.Epsilon)
	return adv, nil
}

// nearest is the nearest point found, or the first within the ball; the image itself where none was found.
func (a FAB) nearest(im *Image) ([]float32, error) {
	rivals := [][]int{nil} // the classes of one search after the other
	if a.Targets > 0 {
		classes, err := targets(im, a.Targets)
		if err != nil {
			return nil, err
		}
		rivals = nil
		for _, t := range classes {
			rivals = append(rivals, []int{t})
		}
	} else {
		for t := range im.Classifier().Classes() {
			if t != im.Label {
				rivals[0] = append(rivals[0], t)
			}
		}
	}
	best, distance := slices.Clone(im.X), math.Inf(1)
	for t, classes := range rivals {
		for r := range a.Restarts {
			adv := slices.Clone(im.X)
			if r > 0 {
				adv = sphere(im.Rand(a.Label, t*a.Restarts+r), a.Norm, im.X, a.Epsilon/2)
			}
			for range a.Steps {
				fooled, err := a.step(im, adv, classes)
				if err != nil {
					return nil, err
				}
				if !fooled {
					continue
				}
				if d := a.Norm.Distance(adv, im.X); d < distance {
					best, distance = slices.Clone(adv), d
				}
				if distance <= a.Epsilon {
					return best, nil
				}
				for i, v := range im.X {
					adv[i] = v + (adv[i]-v)*fabBack
				}
			}
		}
	}
	return best, nil
}

// step moves adv and says whether it is answered wrong there.
func (a FAB) step(im *Image, adv []float32, classes []int) (fooled bool, err error) {
	var w []float32 // of the nearest hyperplane, z_t - z_y = rise + w·(v - adv)
	var rise float64
	nearest := math.Inf(1)
	for _, t := range classes {
		goal := Goal{Loss: Difference, Label: im.Label, Target: t}
		logits, grad, err := im.Gradient(adv, goal)
		if err != nil {
			return false, err
		}
		value := goal.Value(logits)
		if d := math.Abs(value) / (tiny + a.dual(grad)); w == nil || d < nearest {
			w, rise, nearest = grad, value, d
		}
	}
	gap := rise // z_t - z_y of the hyperplane's model at the image
	for i, v := range w {
		gap += float64(v) * (float64(im.X[i]) - float64(adv[i]))
	}
	here, clean := a.toPlane(adv, w, rise), a.toPlane(im.X, w, gap)
	near, far := max(a.Norm.Length(here), 1e-8), max(a.Norm.Length(clean), 1e-8)
	alpha := float32(min(near/(near+far), fabBias))
	for i, v := range im.X {
		p := (adv[i]+fabOvershoot*here[i])*(1-alpha) + (v+fabOvershoot*clean[i])*alpha
		adv[i] = max(0, min(p, 1))
	}
	logits, err := im.Logits(adv)
	if err != nil {
		return false, err
	}
	prediction, _ := Answer(logits, im.Label)
	return prediction != im.Label, nil
}

// dual is the norm of a hyperplane's weights that makes |value| / dual its distance: L1 for Linf, L2 for L2.
func (a FAB) dual(w []float32) float64 {
	if a.Norm == threat.L2 {
		return a.Norm.Length(w)
	}
	var sum float64
	for _, v := range w {
		sum += math.Abs(float64(v))
	}
	return sum
}

// toPlane is the shortest d that takes point p to the hyperplane, where value + w·d = 0, with p + d in [0,1]; where the
// plane is out of reach, the d that comes nearest to it.
//
// With s = -sign(value) the sign in which value has to change, every pixel can move by up to room_i in the direction of
// s·w_i. For Linf every pixel moves by min(λ, room_i), for L2 by min(λ|w_i|, room_i), with the λ for which the sum of
// |w_i| times that is |value|. The sum is concave in λ, so Newton's method from 0 rises to the solution without passing
// it, and lands on it once all pixels that are held by the border are known.
func (a FAB) toPlane(p, w []float32, value float64) []float32 {
	const mostSteps = 100 // never near: a step that adds no held pixel is the last
	s := float32(1)
	if value > 0 {
		s = -1
	}
	size := func(v float32) (size, rate float64) {
		if size = math.Abs(float64(v)); a.Norm == threat.L2 {
			return size, size
		}
		return size, 1
	}
	d := make([]float32, len(p)) // at first the room
	for i, v := range w {
		upDown := [2]float32{1 - p[i], p[i]}
		d[i] = upDown[math.Float32bits(s*v)>>31]
	}
	lambda := 0.0
	for range mostSteps {
		held, slope := 0.0, 0.0 // the sum is held + λ·slope
		for i, v := range w {
			size, rate := size(v)
			if room := float64(d[i]); rate*lambda < room {
				slope += size * rate
			} else {
				held += size * room
			}
		}
		if slope == 0 {
			break
		}
		next := (math.Abs(value) - held) / slope
		if !(next > lambda*(1+1e-12)) {
			break
		}
		lambda = next
	}
	for i, v := range w {
		_, rate := size(v)
		move := float32(min(rate*lambda, float64(d[i])))
		if v == 0 {
			move = 0
		}
		d[i] = float32(math.Copysign(float64(move), float64(s*v)))
	}
	return d
}
