package attack

import (
	"math"
	"slices"

	"github.com/adaad-go/adaad/classifier"
	"github.com/gomlx/gomlx/core/graph"
)

// Loss is what an attack raises: a function of an image's logits z, its label y and, for some, a target class t. Below,
// π1, π2 ... are the classes from the highest logit down.
type Loss int

const (
	// CrossEntropy is -log softmax(z)_y.
	CrossEntropy Loss = iota
	// Margin is min(max_{i≠y} z_i - z_y, 50): above 0 where the answer is wrong.
	Margin
	// DLR is (max_{i≠y} z_i - z_y) / (z_π1 - z_π3), the difference of logits ratio of Croce and Hein (ICML 2020, section
	// 5): unlike the margin it does not change when all logits are scaled. It takes three classes.
	DLR
	// TargetedDLR is (z_t - z_y) / (z_π1 - (z_π3 + z_π4)/2) (section 5.1 there). It takes four classes.
	TargetedDLR
	// Difference is z_t - z_y.
	Difference
)

const (
	// confidence is where Margin stops rewarding (κ of Carlini and Wagner).
	confidence = 50
	// tiny keeps the ratios finite where logits are equal.
	tiny = 1e-12
)

func (l Loss) String() string {
	return [...]string{"cross-entropy", "margin", "DLR", "targeted DLR", "logit difference"}[l]
}

// PerImage is the loss of every image, [N], from logits [N, classes], labels and targets int32 [N].
func (l Loss) PerImage(logits, labels, targets *graph.Node) *graph.Node {
	at := func(class *graph.Node) *graph.Node {
		return graph.ReduceSum(graph.Mul(graph.OneHot(class, logits.Shape().Dimensions[1], logits.DType()), logits), 1)
	}
	switch l {
	case CrossEntropy:
		return classifier.CrossEntropy(logits, labels)
	case Margin:
		return graph.MinScalar(graph.ReduceMax(classifier.Rivals(logits, labels), 1), confidence)
	case Difference:
		return graph.Sub(at(targets), at(labels))
	case DLR:
		top := highest(logits, 3)
		scale := graph.Sub(top[0], top[2])
		return graph.Div(graph.ReduceMax(classifier.Rivals(logits, labels), 1), graph.AddScalar(scale, tiny))
	default:
		top := highest(logits, 4)
		scale := graph.Sub(top[0], graph.MulScalar(graph.Add(top[2], top[3]), 0.5))
		return graph.Div(graph.Sub(at(targets), at(labels)), graph.AddScalar(scale, tiny))
	}
}

// highest are the k highest logits of each image, each [N].
func highest(logits *graph.Node, k int) []*graph.Node {
	g, dtype := logits.Graph(), logits.DType()
	left := logits
	var values []*graph.Node
	for range k {
		first := graph.OneHot(graph.ArgMax(left, 1), logits.Shape().Dimensions[1], dtype)
		values = append(values, graph.ReduceSum(graph.Mul(first, logits), 1))
		left = graph.Where(graph.GreaterThan(first, graph.ScalarZero(g, dtype)), graph.Infinity(g, dtype, -1), left)
	}
	return values
}

// Goal is the loss to raise for one image.
type Goal struct {
	Loss          Loss
	Label, Target int
}

// Value is the loss at an image's logits.
func (g Goal) Value(z []float32) float64 {
	own := float64(z[g.Label])
	switch g.Loss {
	case CrossEntropy:
		top := g.rival(z)
		var sum float64
		for i, v := range z {
			if i != g.Label {
				sum += math.Exp(float64(v) - float64(z[top]))
			}
		}
		gap := float64(z[top]) - own + math.Log(sum) // log Σ_{i≠y} exp(z_i - z_y)
		return max(gap, 0) + math.Log1p(math.Exp(-math.Abs(gap)))
	case Margin:
		return min(float64(z[g.rival(z)])-own, confidence)
	case Difference:
		return float64(z[g.Target]) - own
	case DLR:
		return (float64(z[g.rival(z)]) - own) / g.scale(z)
	default:
		return (float64(z[g.Target]) - own) / g.scale(z)
	}
}

// Slope is the gradient of the loss by the logits: the cotangent that a Differentiable passes back through the network.
func (g Goal) Slope(z []float32) []float32 {
	slope := make([]float32, len(z))
	against := func(class int, weight float64) {
		slope[class] += float32(weight)
		slope[g.Label] -= float32(weight)
	}
	switch g.Loss {
	case CrossEntropy:
		top := max(z[g.rival(z)], z[g.Label])
		var sum float64
		for _, v := range z {
			sum += math.Exp(float64(v - top))
		}
		for i, v := range z {
			if i != g.Label {
				against(i, math.Exp(float64(v-top))/sum)
			}
		}
	case Margin:
		if rival := g.rival(z); z[rival]-z[g.Label] < confidence {
			against(rival, 1)
		}
	case Difference:
		against(g.Target, 1)
	default:
		scale, class, order := g.scale(z), g.Target, descending(z)
		if g.Loss == DLR {
			class = g.rival(z)
		}
		against(class, 1/scale)
		turn := -g.Value(z) / scale // of the ratio by its denominator
		slope[order[0]] += float32(turn)
		if g.Loss == DLR {
			slope[order[2]] -= float32(turn)
		} else {
			slope[order[2]] -= float32(turn / 2)
			slope[order[3]] -= float32(turn / 2)
		}
	}
	return slope
}

// scale is the denominator of the two ratios.
func (g Goal) scale(z []float32) float64 {
	order := descending(z)
	low := float64(z[order[2]])
	if g.Loss == TargetedDLR {
		low = (low + float64(z[order[3]])) / 2
	}
	return float64(z[order[0]]) - low + tiny
}

// rival is the class with the highest logit but for the label's.
func (g Goal) rival(z []float32) int {
	rival := -1
	for i, v := range z {
		if i != g.Label && (rival < 0 || v > z[rival]) {
			rival = i
		}
	}
	return rival
}

// descending are the classes from the highest logit down; of equal ones the first comes first.
func descending(z []float32) []int {
	order := make([]int, len(z))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case z[a] > z[b]:
			return -1
		case z[a] < z[b]:
			return 1
		}
		return 0
	})
	return order
}

// with is the loss where there are enough classes for it, else the nearest that has enough.
func (l Loss) with(classes int) Loss {
	switch {
	case l == TargetedDLR && classes < 4:
		return Difference
	case l == DLR && classes < 3:
		return Margin
	}
	return l
}
