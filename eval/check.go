package eval

import (
	"context"
	"fmt"
	"math"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/classifier"
	. "github.com/gomlx/gomlx/core/graph"
)

// check looks, on the first batch of the set, for signs that attacks will be weaker than they look (after the checks of
// Croce and Hein's AutoAttack): logits that are probabilities already, gradients that are zero. It returns a sentence
// for each. Answers that are random need no check: a network here is a graph, and a function of its input.
func (h *harness) check(ctx context.Context) ([]string, error) {
	images := make([]int, h.victim.BatchSize())
	for i := range images {
		images[i] = i
	}
	b, err := h.batch(images)
	if err != nil {
		return nil, err
	}
	defer b.Finalize()
	logits, err := h.victim.Logits(ctx, b.X)
	if err != nil {
		return nil, err
	}
	out, err := h.victim.Run(ctx, "steepest slope", steepest, b.X, b.Y)
	if err != nil {
		return nil, err
	}
	slopes, err := attack.Rows(out[0])
	if err != nil {
		return nil, err
	}
	var probabilities, flat int
	for i, z := range logits {
		if isDistribution(z) {
			probabilities++
		}
		if slopes[i][0] == 0 {
			flat++
		}
	}
	var warnings []string
	n := len(images)
	if probabilities == n {
		warnings = append(warnings, "the outputs are all probabilities: the model seems to end in a softmax, "+
			"which flattens its gradients and weakens the attacks")
	}
	if flat > 0 {
		warnings = append(warnings, fmt.Sprintf("%d of %d images have a gradient of exactly zero: attacks that follow "+
			"the gradient cannot move there, and robust accuracy may be overestimated", flat, n))
	}
	return warnings, nil
}

// steepest is the largest absolute value in each image's gradient of the cross-entropy, [N,1].
func steepest(net *classifier.Bound, in []*Node) []*Node {
	x, y := in[0], in[1]
	loss := ReduceAllSum(attack.CrossEntropy.PerImage(net.Logits(x, classifier.Eval), y))
	return []*Node{ExpandAxes(ReduceMax(Abs(Gradient(loss, x)[0]), 1, 2, 3), -1)}
}

// isDistribution reports whether values are at least 0 and sum to 1.
func isDistribution(z []float32) bool {
	var sum float64
	for _, v := range z {
		if !(v >= 0) {
			return false
		}
		sum += float64(v)
	}
	return math.Abs(sum-1) < 1e-4
}

// warnings are the signs of trouble in what was measured.
func (h *harness) warnings(rows []Row) []string {
	var warnings []string
	for _, s := range h.stages {
		if s.outside > 0 {
			warnings = append(warnings, fmt.Sprintf("%s proposed points outside of the ball for %d images, by up to %.3g; "+
				"they were clipped to it", s.attack.Name(), s.outside, s.excess))
		}
	}
	notFinite := 0
	for _, r := range rows {
		bad := r.Prediction == -1
		for _, o := range r.Attacks {
			bad = bad || o.Prediction == -1
		}
		if bad {
			notFinite++
		}
	}
	if notFinite > 0 {
		warnings = append(warnings, fmt.Sprintf("%d of %d images have logits that are not finite, and count as wrong there", notFinite, len(rows)))
	}
	return warnings
}
