package eval

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/adaad-go/adaad/attack"
)

// check looks, on the first images of the set, for signs that attacks will be weaker than they look (after the checks of
// Croce and Hein's AutoAttack): answers that are random, logits that are probabilities already, gradients that are zero,
// classes too few for what is to be run. It returns a sentence for each.
func (h *harness) check(ctx context.Context) ([]string, error) {
	n := min(h.batch, h.set.Len())
	images := make([]int, n)
	for i := range images {
		images[i] = i
	}
	pixels := make([]float32, n*h.set.ImageSize())
	h.set.Batch(pixels, make([]int32, n), images)
	logits, err := h.classifier.Logits(ctx, slices.Clone(pixels))
	if err != nil {
		return nil, err
	}
	var found []string
	for range 4 { // the original asks five times in all
		again, err := h.classifier.Logits(ctx, slices.Clone(pixels))
		if err != nil {
			return nil, err
		}
		if differ(logits, again) {
			found = append(found, "the classifier answers the same images in different ways: its answers are random, "+
				"and the attacks are misled; autoattack-rand is made for that")
			break
		}
	}
	if classes := h.classifier.Classes(); len(logits) == n*classes && areDistributions(logits, classes) {
		found = append(found, "the outputs are all probabilities: the model seems to end in a softmax, "+
			"which flattens its gradients and weakens the attacks")
	}
	if d, ok := h.classifier.(attack.Differentiable); ok {
		goals := make([]attack.Goal, n)
		for i := range goals {
			goals[i] = attack.Goal{Loss: attack.CrossEntropy, Label: h.set.Labels[i]}
		}
		_, gradient, err := d.Gradient(ctx, pixels, goals)
		if err != nil {
			return nil, err
		}
		flat := 0
		for g := range slices.Chunk(gradient, h.set.ImageSize()) {
			if !slices.ContainsFunc(g, func(v float32) bool { return v != 0 }) {
				flat++
			}
		}
		if flat > 0 {
			found = append(found, fmt.Sprintf("%d of %d images have a gradient of exactly zero: attacks that follow "+
				"the gradient cannot move there, and robust accuracy may be overestimated", flat, n))
		}
	}
	for _, s := range h.suites {
		for _, a := range s.Attacks {
			if limited, ok := a.(interface{ Limits(classes int) string }); ok {
				if text := limited.Limits(h.classifier.Classes()); text != "" && !slices.Contains(found, text) {
					found = append(found, text)
				}
			}
		}
	}
	return found, nil
}

// differ reports whether two answers to the same images differ by more than 1e-4 of their length.
func differ(a, b []float32) bool {
	var apart, size float64
	for i, v := range a {
		d := float64(v) - float64(b[i])
		apart, size = apart+d*d, size+float64(v)*float64(v)
	}
	return math.Sqrt(apart) > 1e-4*math.Sqrt(size)
}

// areDistributions reports whether every image's numbers are at least 0 and sum to 1.
func areDistributions(logits []float32, classes int) bool {
	for z := range slices.Chunk(logits, classes) {
		var sum float64
		for _, v := range z {
			if !(v >= 0) {
				return false
			}
			sum += float64(v)
		}
		if math.Abs(sum-1) > 1e-4 {
			return false
		}
	}
	return true
}

// outsiders are the attacks that proposed points outside of the ball.
type outsiders map[string]*struct {
	images int
	excess float32
}

func (o outsiders) add(r record) {
	for name, excess := range r.outside {
		if o[name] == nil {
			o[name] = new(struct {
				images int
				excess float32
			})
		}
		o[name].images++
		o[name].excess = max(o[name].excess, excess)
	}
}

// squareGain is the share of images that Square may break after attacks that follow gradients: the original's threshold.
const squareGain = 0.002

// warnings are the signs of trouble in what was measured.
func warnings(outside outsiders, r *Result) []string {
	var found []string
	var names []string
	for name := range outside {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		found = append(found, fmt.Sprintf("%s proposed points outside of the ball for %d images, by up to %.3g; "+
			"they were clipped to it", name, outside[name].images, outside[name].excess))
	}
	notFinite := 0
	for _, row := range r.Rows {
		if row.Prediction == -1 || slices.ContainsFunc(row.Attacks, func(o Outcome) bool { return o.Prediction == -1 }) {
			notFinite++
		}
	}
	if notFinite > 0 {
		found = append(found, fmt.Sprintf("%d of %d images have logits that are not finite, and count as wrong there",
			notFinite, len(r.Rows)))
	}
	for i, a := range r.Header.Attacks {
		if slices.Index(a.Stages, "square") < 1 {
			continue
		}
		broken := 0
		for _, row := range r.Rows {
			if len(row.Attacks) > 0 && row.Attacks[i].Broken && row.Attacks[i].Attack == "square" {
				broken++
			}
		}
		if float64(broken) > squareGain*float64(len(r.Rows)) {
			found = append(found, fmt.Sprintf("square broke %d of %d images that the attacks before it in %s could not: "+
				"following gradients does not work well here, and robust accuracy may be overestimated", broken, len(r.Rows), a.Name))
		}
	}
	return found
}
