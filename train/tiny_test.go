package train

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

var backend = sync.OnceValue(func() compute.Backend {
	// In parallel, nodes that split their own work can take every worker and wait for one another for ever.
	b, err := gobackend.New("ops_sequential")
	if err != nil {
		panic(err)
	}
	return b
})

const (
	side    = 4
	classes = 3
)

// tiny is a network small enough to compute by hand: batch norm of the 4x4x1 pixels, a hidden layer and a head.
type tiny struct{ hidden int }

func (n tiny) Name() string         { return fmt.Sprintf("tiny-%d", n.hidden) }
func (n tiny) Input() (h, w, c int) { return side, side, 1 }
func (n tiny) Classes() int         { return classes }
func (n tiny) Params() []classifier.Param {
	return []classifier.Param{
		{Name: "bn.weight", Shape: []int{side * side}, Kind: classifier.NormWeight},
		{Name: "bn.bias", Shape: []int{side * side}, Kind: classifier.NormBias},
		{Name: "bn.running_mean", Shape: []int{side * side}, Kind: classifier.RunningMean},
		{Name: "bn.running_var", Shape: []int{side * side}, Kind: classifier.RunningVar},
		{Name: "hidden.weight", Shape: []int{n.hidden, side * side}, Kind: classifier.LinearWeight},
		{Name: "head.weight", Shape: []int{classes, n.hidden}, Kind: classifier.LinearWeight},
		{Name: "head.bias", Shape: []int{classes}, Kind: classifier.Bias},
	}
}

// Forward uses momentum 0.1 and the biased variance, which is all these tests need.
func (n tiny) Forward(b *classifier.Bound, x *Node) *Node {
	h := Reshape(x, x.Shape().Dimensions[0], side*side)
	mean, variance := b.Param("bn.running_mean"), b.Param("bn.running_var")
	if b.Mode() == classifier.Train {
		m := ReduceMean(h, 0)
		v := ReduceMean(Square(Sub(h, ExpandDims(m, 0))), 0)
		b.SetParam("bn.running_mean", Add(MulScalar(mean, 0.9), MulScalar(m, 0.1)))
		b.SetParam("bn.running_var", Add(MulScalar(variance, 0.9), MulScalar(v, 0.1)))
		mean, variance = m, v
	}
	h = Div(Sub(h, ExpandDims(mean, 0)), ExpandDims(Sqrt(AddScalar(variance, 1e-5)), 0))
	h = Add(Mul(h, ExpandDims(b.Param("bn.weight"), 0)), ExpandDims(b.Param("bn.bias"), 0))
	h = Tanh(Dot(h, Transpose(b.Param("hidden.weight"), 0, 1)).MatMul())
	return Add(Dot(h, Transpose(b.Param("head.weight"), 0, 1)).MatMul(), ExpandDims(b.Param("head.bias"), 0))
}

func tinyModel(hidden int, seed uint64) *classifier.Model {
	net := tiny{hidden}
	var state []*tensors.Tensor
	for i, p := range net.Params() {
		v := make([]float32, p.Size())
		r := rng.New(seed, rng.Init, uint64(i))
		for j := range v {
			switch p.Kind {
			case classifier.NormWeight, classifier.RunningVar:
				v[j] = 1
			case classifier.LinearWeight:
				v[j] = float32(r.NormFloat64() / math.Sqrt(float64(p.Shape[1])))
			}
		}
		state = append(state, tensors.FromFlatDataAndDimensions(v, p.Shape...))
	}
	m, err := classifier.NewModel(net, state)
	if err != nil {
		panic(err)
	}
	return m
}

// tinySet is n images of noise, brighter in one third of the rows for each class.
func tinySet(n int) *data.Set {
	s := &data.Set{Name: "tiny", Height: side, Width: side, Channels: 1, Classes: []string{"a", "b", "c"}}
	for i := range n {
		r := rng.New(7, rng.Draw, uint64(i))
		for p := range side * side {
			v := r.IntN(120)
			if p%classes == i%classes {
				v += 100
			}
			s.Pixels = append(s.Pixels, uint8(v))
		}
		s.Labels = append(s.Labels, i%classes)
		s.Index = append(s.Index, 1000+i)
	}
	return s
}

// crossEntropy is summed over the images.
func crossEntropy(logits, y *Node) *Node {
	return Neg(ReduceAllSum(Mul(OneHot(y, classes, dtypes.Float32), LogSoftmax(logits))))
}

// kl is KL(softmax(q) || softmax(p)), summed over the images.
func kl(q, p *Node) *Node {
	lq, lp := LogSoftmax(q), LogSoftmax(p)
	return ReduceAllSum(Mul(Exp(lq), Sub(lq, lp)))
}

var ball = threat.Model{Norm: threat.Linf, Epsilon: 8. / 255, StepSize: 3. / 255, Steps: 3, Start: threat.Uniform}

// distilled is the shape of AdaAD: the search and the loss both follow the teacher.
func distilled(m threat.Model, mode classifier.Mode) Objective {
	return Objective{
		Threat: m, SearchMode: mode,
		Search: func(b *classifier.Batch) *Node {
			return kl(b.Teachers[0].Logits(b.XAdv, classifier.Eval), b.Student.Logits(b.XAdv, mode))
		},
		Loss: func(b *classifier.Batch) *Node {
			b.Student.Logits(b.X, classifier.Train)
			n := float64(b.X.Shape().Dimensions[0])
			loss := kl(b.Teachers[0].Logits(b.XAdv, classifier.Eval), b.Student.Logits(b.XAdv, classifier.Train))
			return DivScalar(Add(loss, crossEntropy(b.Student.Logits(b.XAdv, classifier.Train), b.Y)), n)
		},
	}
}

// plain is cross-entropy on clean images.
func plain() Objective {
	return Objective{Loss: func(b *classifier.Batch) *Node {
		return DivScalar(crossEntropy(b.Student.Logits(b.X, classifier.Train), b.Y), float64(b.X.Shape().Dimensions[0]))
	}}
}

// remembering makes an objective depend on everything it can: on the progress of the run, and on what it kept from earlier
// searches, steps and epochs.
func remembering(o Objective) Objective {
	search, loss := o.Search, o.Loss
	o.Memory = []classifier.Cell{{Name: "steps", Start: []float32{1}}, {Name: "searched", PerClass: true, Start: []float32{2}}}
	o.Search = func(b *classifier.Batch) *Node {
		b.Memory.Set("searched", AddScalar(b.Memory.Get("searched"), 1))
		return search(b)
	}
	o.Loss = func(b *classifier.Batch) *Node {
		b.Memory.Set("steps", AddScalar(b.Memory.Get("steps"), 1))
		factor := Add(ReduceAllSum(b.Memory.Get("steps")), ReduceAllSum(b.Memory.Get("searched")))
		return Mul(loss(b), Mul(b.Progress, MulScalar(factor, 0.01)))
	}
	o.EndEpoch = func(m *classifier.Memory) { m.Set("searched", MulScalar(m.Get("searched"), 0.5)) }
	return o
}

func values(t *tensors.Tensor) []float32 { return tensors.MustCopyFlatData[float32](t) }

func requireSame(t *testing.T, what string, got, want *classifier.Model) {
	t.Helper()
	for i, p := range want.Params() {
		if g, w := values(got.State[i]), values(want.State[i]); !slices.Equal(g, w) {
			t.Fatalf("%s: %s is not the same, bit for bit: %v... and %v...", what, p.Name, g[:2], w[:2])
		}
	}
}

func firstBatch(t *testing.T, size int, m threat.Model) batch {
	t.Helper()
	s, err := newSource(tinySet(24), data.Augmentation{}, size, 1)
	if err != nil {
		t.Fatal(err)
	}
	return s.make(data.Order(24, 1, 0), 0, 0, m)
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// read is the metrics of a step.
func read(t *testing.T) func(o *Outcome, err error) Metrics {
	return func(o *Outcome, err error) Metrics {
		t.Helper()
		return must[Metrics](t)(must[*Outcome](t)(o, err).Read())
	}
}
