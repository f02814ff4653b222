package distill

import (
	"math"
	"testing"

	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

var (
	targets     = [][]float32{{1, 2, -1, 0.5}, {0, 0, 3, -2}, {30, 0, -30, 5}}
	predictions = [][]float32{{0.5, 1, 0, 0}, {-1, 2, 2, 0}, {0, 20, 1, 4}}
	labels      = []int32{1, 2, 0}
)

func softmax(z []float32, temperature float64) []float64 {
	var sum float64
	p := make([]float64, len(z))
	for i, v := range z {
		p[i] = math.Exp(float64(v) / temperature)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

func run(t *testing.T, f any, args ...any) []float64 {
	t.Helper()
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	exec, err := NewExec(backend, f.(func([]*Node) []*Node))
	if err != nil {
		t.Fatal(err)
	}
	results, err := exec.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	var values []float64
	for _, r := range results {
		for _, v := range tensors.MustCopyFlatData[float32](r) {
			values = append(values, float64(v))
		}
	}
	return values
}

// float32 against float64 sums: a relative 1e-5.
func near(got, want float64) bool { return math.Abs(got-want) <= 1e-5*math.Max(1e-3, math.Abs(want)) }

func TestKL(t *testing.T) {
	for _, temperature := range []float64{1, 4, 30} {
		var sum float64
		for b := range targets {
			q, p := softmax(targets[b], temperature), softmax(predictions[b], temperature)
			for i := range q {
				sum += q[i] * math.Log(q[i]/p[i])
			}
		}
		want := []float64{sum, sum / 3, sum / 12, 0}
		got := run(t, func(in []*Node) []*Node {
			var all []*Node
			for _, r := range []Reduction{Sum, BatchMean, Mean} {
				all = append(all, KL(in[0], in[1], temperature, r))
			}
			return append(all, KL(in[0], in[0], temperature, Sum))
		}, targets, predictions)
		for i := range want {
			if !near(got[i], want[i]) {
				t.Errorf("temperature %g: value %d is %v, expected %v", temperature, i, got[i], want[i])
			}
		}
	}
}

// Where two distributions nearly agree, the sum in the definition cancels in float32; where they are far apart, exp of their
// difference overflows. The divergence keeps five digits of both.
func TestDivergenceKeepsItsPrecision(t *testing.T) {
	for _, c := range []struct {
		q, p        []float32
		temperature float64
	}{
		{[]float32{1, 2, -1, 0.5}, []float32{1.5, 1.75, -1, 0.25}, 30},
		{[]float32{1, 2, -1, 0.5}, []float32{1.03125, 2, -1, 0.5}, 1},
		{[]float32{-150, 0, 3, 1}, []float32{150, 0, 1, 3}, 1},
		{[]float32{150, 0, 3, 1}, []float32{-150, 0, 1, 3}, 1},
	} {
		q, p := softmax(c.q, c.temperature), softmax(c.p, c.temperature)
		var want float64
		for i := range q {
			want += q[i] * math.Log(q[i]/p[i])
		}
		got := run(t, func(in []*Node) []*Node {
			d := Divergence(in[0], in[1], c.temperature)
			return []*Node{d, Gradient(ReduceAllSum(d), in[1])[0]}
		}, [][]float32{c.q}, [][]float32{c.p})
		if !(math.Abs(got[0]-want) <= 1e-5*want) {
			t.Errorf("KL(%v || %v) at temperature %g is %v, expected %v", c.q, c.p, c.temperature, got[0], want)
		}
		for i := range q {
			if slope := (p[i] - q[i]) / c.temperature; !(math.Abs(got[1+i]-slope) <= 1e-6) {
				t.Errorf("the gradient of KL(%v || %v) by logit %d is %v, expected %v", c.q, c.p, i, got[1+i], slope)
			}
		}
	}
}

func TestReductionNames(t *testing.T) {
	for _, r := range []Reduction{Sum, BatchMean, Mean} {
		if back, err := ParseReduction(r.String()); err != nil || back != r {
			t.Errorf("%v is read back as %v (%v)", r, back, err)
		}
	}
	if _, err := ParseReduction("batch-mean"); err == nil {
		t.Error("batch-mean was taken for a reduction")
	}
}

// The gradient of a cross-entropy is softmax - one-hot. On a label that is answered with probability 1 - 1e-13 the usual
// form has no correct digit of it in float32; this one keeps them all.
func TestCrossEntropyKeepsItsPrecision(t *testing.T) {
	logits := [][]float32{{1, 2, -1, 0.5}, {0, 0, 30, -2}, {30, 0, -30, 5}}
	got := run(t, func(in []*Node) []*Node {
		loss := CrossEntropy(in[0], in[1], Sum)
		return []*Node{loss, CrossEntropy(in[0], in[1], Mean), Gradient(loss, in[0])[0]}
	}, logits, labels)
	var sum float64
	for b, z := range logits {
		p := softmax(z, 1)
		var others float64
		for i := range p {
			if i != int(labels[b]) {
				others += p[i]
			}
		}
		sum += -math.Log1p(-others)
		for i := range p {
			want := p[i]
			if i == int(labels[b]) {
				want = -others
			}
			if v := got[2+4*b+i]; math.Abs(v-want) > 1e-5*math.Abs(want) {
				t.Errorf("image %d: gradient %d is %v, expected %v", b, i, v, want)
			}
		}
	}
	if !near(got[0], sum) || !near(got[1], sum/3) {
		t.Errorf("sum %v and mean %v, expected %v and %v", got[0], got[1], sum, sum/3)
	}
}
