package train

import (
	"math"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

func newStepper(t *testing.T, o Objective, opt Optimizer, clip float64, averaged bool) *Stepper {
	t.Helper()
	return must[*Stepper](t)(NewStepper(backend(), tinyModel(5, 1), []*classifier.Model{tinyModel(7, 2)}, o, opt, clip, averaged))
}

// The search of a loss that grows with every pixel runs straight to the upper face of the ball, and stays in [0,1].
func TestSearchClimbsToTheFaceOfTheBall(t *testing.T) {
	m := threat.Model{Norm: threat.Linf, Epsilon: 0.1, StepSize: 0.04, Steps: 3, Start: threat.FromImage}
	o := Objective{
		Threat: m,
		Search: func(b *classifier.Batch) *Node { return ReduceAllSum(Mul(b.XAdv, b.XAdv)) },
		Loss:   plain().Loss,
	}
	s := newStepper(t, o, SGD{}, 0, false)
	b := firstBatch(t, 4, m)
	x := values(b.x)
	got := values(must[*tensors.Tensor](t)(s.Search(b.x, b.start, b.y)))
	for i, v := range got {
		want := math.Min(1, float64(x[i])+0.1)
		if x[i] == 0 {
			want = 0 // the gradient 2x is 0 there, and so is its sign
		}
		if math.Abs(float64(v)-want) > 1e-6 {
			t.Fatalf("pixel %d went from %g to %g, want %g", i, x[i], v, want)
		}
	}
}

// A search in train mode moves the running statistics once per step and pass; one in eval mode leaves them.
func TestSearchModeDecidesRunningStatistics(t *testing.T) {
	for _, mode := range []classifier.Mode{classifier.Eval, classifier.Train} {
		m := ball
		m.StepSize = 1e-12 // the images stay where they are, so that the statistics have a closed form
		m.Epsilon = 1e-12
		m.Start = threat.FromImage
		s := newStepper(t, distilled(m, mode), SGD{}, 0, false)
		b := firstBatch(t, 4, m)
		x := values(b.x)
		if _, err := s.Search(b.x, b.start, b.y); err != nil {
			t.Fatal(err)
		}
		got := values(must[*classifier.Model](t)(s.Student()).State[2])
		for j := range side * side {
			mean := 0.0
			for i := range 4 {
				mean += float64(x[i*side*side+j]) / 4
			}
			want := 0.0
			if mode == classifier.Train {
				want = mean * (1 - math.Pow(0.9, float64(m.Steps)))
			}
			if math.Abs(float64(got[j])-want) > 1e-6 {
				t.Fatalf("%v mode: running mean %d is %g, want %g", mode, j, got[j], want)
			}
		}
	}
}

// TRADES and RSLAD search against logits of the clean images. Those are computed once for all steps; the result must be
// the one of computing them at every step.
func TestCleanLogitsAreSharedOverTheSearch(t *testing.T) {
	passes := 0
	count := func(n classifier.Network) classifier.Network { return counted{n, &passes} }
	objective := func(clean func(b *classifier.Batch) *Node) Objective {
		return Objective{
			Threat: ball,
			Search: func(b *classifier.Batch) *Node {
				target := Add(b.Teachers[0].Logits(clean(b), classifier.Eval), b.Student.Logits(clean(b), classifier.Eval))
				return kl(target, b.Student.Logits(b.XAdv, classifier.Eval))
			},
			Loss: func(b *classifier.Batch) *Node {
				return kl(b.Teachers[0].Logits(b.X, classifier.Eval), b.Student.Logits(b.XAdv, classifier.Train))
			},
		}
	}
	b := firstBatch(t, 4, ball)
	var found [2][]float32
	var models [2]*classifier.Model
	for i, clean := range []func(b *classifier.Batch) *Node{
		func(b *classifier.Batch) *Node { return b.X },
		func(b *classifier.Batch) *Node { return Identity(b.X) }, // the same images, not known to be
	} {
		student, teacher := tinyModel(5, 1), tinyModel(7, 2)
		teacher.Network = count(teacher.Network)
		s := must[*Stepper](t)(NewStepper(backend(), student, []*classifier.Model{teacher}, objective(clean), SGD{Momentum: 0.9}, 0, false))
		passes = 0
		found[i] = values(must[*tensors.Tensor](t)(s.Search(b.x, b.start, b.y)))
		// Building the graph of the shared logits forwards the teacher once; the search's own graph must not. Not
		// shared, the search's graph does.
		if passes != 1 {
			t.Errorf("variant %d forwards the teacher in %d graphs, want 1", i, passes)
		}
		if shared := s.shared(); shared != 2*(1-i) {
			t.Errorf("variant %d shares %d sets of logits, want %d", i, shared, 2*(1-i))
		}
		read(t)(s.Step(b.x, b.start, b.y, 0.1, 0))
		models[i] = must[*classifier.Model](t)(s.Student())
	}
	for i := range found[0] {
		if math.Abs(float64(found[0][i]-found[1][i])) > 1e-6 {
			t.Fatalf("pixel %d is %g with shared logits, %g without", i, found[0][i], found[1][i])
		}
	}
	for i := range models[0].State {
		a, b := values(models[0].State[i]), values(models[1].State[i])
		for j := range a {
			if math.Abs(float64(a[j]-b[j])) > 1e-5 {
				t.Fatalf("%s differs after a step: %g and %g", models[0].Params()[i].Name, a[j], b[j])
			}
		}
	}
}

type counted struct {
	classifier.Network
	passes *int
}

func (c counted) Forward(b *classifier.Bound, x *Node) *Node {
	*c.passes++
	return c.Network.Forward(b, x)
}

// Gradients flow through a frozen teacher: a search that follows the teacher alone still moves.
func TestSearchDifferentiatesThroughTheTeacher(t *testing.T) {
	o := Objective{
		Threat: ball,
		Search: func(b *classifier.Batch) *Node {
			return crossEntropy(b.Teachers[0].Logits(b.XAdv, classifier.Eval), b.Y)
		},
		Loss: plain().Loss,
	}
	s := newStepper(t, o, SGD{}, 0, false)
	b := firstBatch(t, 4, ball)
	x, start, got := values(b.x), values(b.start), values(must[*tensors.Tensor](t)(s.Search(b.x, b.start, b.y)))
	moved := 0
	for i := range x {
		if d := math.Abs(float64(got[i] - x[i])); d > ball.Epsilon+1e-6 || got[i] < 0 || got[i] > 1 {
			t.Fatalf("pixel %d left the ball or the range: %g from %g", i, got[i], x[i])
		}
		if got[i] != start[i] {
			moved++
		}
	}
	if moved < len(x)/2 {
		t.Errorf("%d of %d pixels moved", moved, len(x))
	}
}

// The gradients are those of finite differences of the loss, and one update with plain SGD is p - lr g.
func TestDerivativesAndUpdate(t *testing.T) {
	o := distilled(ball, classifier.Eval)
	s := newStepper(t, o, SGD{Momentum: 0.9}, 0, false)
	b := firstBatch(t, 8, ball)
	xAdv := must[*tensors.Tensor](t)(s.Search(b.x, b.start, b.y))
	before := must[*classifier.Model](t)(s.Student())
	d := must[*Derivatives](t)(s.Derivatives(b.x, xAdv, b.y))

	lossAt := func(param, i int, delta float32) float64 {
		m := tinyModel(5, 1)
		tensors.MustMutableFlatData(m.State[param], func(v []float32) { v[i] += delta })
		p := must[*Stepper](t)(NewStepper(backend(), m, []*classifier.Model{tinyModel(7, 2)}, o, SGD{}, 0, false))
		return must[*Derivatives](t)(p.Derivatives(b.x, xAdv, b.y)).Loss
	}
	for param, p := range s.params {
		if !p.Kind.Trainable() {
			continue
		}
		const h = 1e-2
		want := (lossAt(param, 1, h) - lossAt(param, 1, -h)) / (2 * h)
		if got := float64(values(d.Grads[p.Name])[1]); math.Abs(got-want) > 2e-3 {
			t.Errorf("gradient of %s[1] is %g, finite differences give %g", p.Name, got, want)
		}
	}

	m := read(t)(s.Update(b.x, xAdv, b.y, 0.1, 0))
	if math.Abs(m.Loss-d.Loss) > 1e-6 {
		t.Errorf("the update's loss is %g, the derivatives' %g", m.Loss, d.Loss)
	}
	after := must[*classifier.Model](t)(s.Student())
	var squares float64
	for i, p := range s.params {
		was, is := values(before.State[i]), values(after.State[i])
		for j := range was {
			want := float64(was[j])
			if p.Kind.Trainable() {
				g := float64(values(d.Grads[p.Name])[j])
				squares += g * g
				want -= 0.1 * g
			} else {
				want = float64(values(d.Running[p.Name])[j])
			}
			if math.Abs(float64(is[j])-want) > 1e-6 {
				t.Fatalf("%s[%d] is %g after the update, want %g", p.Name, j, is[j], want)
			}
		}
	}
	if math.Abs(m.GradNorm-math.Sqrt(squares)) > 1e-4 {
		t.Errorf("gradient norm %g, want %g", m.GradNorm, math.Sqrt(squares))
	}
}

// The accuracy of an update is that of the logits on the perturbed images.
func TestUpdateCountsRightAnswers(t *testing.T) {
	for _, label := range []int32{0, 1, 2} {
		o := distilled(ball, classifier.Eval)
		s := newStepper(t, o, SGD{}, 0, false)
		b := firstBatch(t, 8, ball)
		y := tensors.FromFlatDataAndDimensions([]int32{label, label, label, label, label, label, label, label}, 8)
		exec := must[*Exec](t)(NewExec(backend(), func(in []*Node) []*Node {
			n := len(in) - 1
			return []*Node{ArgMax(classifier.Bind(s.net, in[:n]).Logits(in[n], classifier.Train), 1)}
		}))
		predicted := tensors.MustCopyFlatData[int32](must[[]*tensors.Tensor](t)(exec.Call(append(asAny(must[*classifier.Model](t)(s.Student()).State), b.start)...))[0])
		want := 0.0
		for _, p := range predicted {
			if p == label {
				want += 1. / 8
			}
		}
		if m := read(t)(s.Update(b.x, b.start, y, 0.1, 0)); m.Accuracy != want {
			t.Errorf("label %d: accuracy %g, want %g (predictions %v)", label, m.Accuracy, want, predicted)
		}
	}
}

// Parameters a loss does not touch pass through an update unchanged, and the averages of both kinds too.
func TestUntouchedParametersPassThrough(t *testing.T) {
	o := Objective{Loss: func(b *classifier.Batch) *Node {
		return ReduceAllSum(Square(b.Student.Logits(b.X, classifier.Eval)))
	}}
	s := newStepper(t, o, SGD{}, 0, true)
	before := must[*classifier.Model](t)(s.Student())
	b := firstBatch(t, 4, threat.Model{})
	for range 3 {
		read(t)(s.Update(b.x, b.x, b.y, 0, 0.5))
	}
	requireSame(t, "student", must[*classifier.Model](t)(s.Student()), before)
	requireSame(t, "average", must[*classifier.Model](t)(s.Model()), before)
}

func TestStepperRefuses(t *testing.T) {
	good := plain()
	for _, c := range []struct {
		name     string
		teachers []*classifier.Model
		o        Objective
		opt      Optimizer
		want     string
	}{
		{"no loss", nil, Objective{}, SGD{}, "no loss"},
		{"no search", nil, Objective{Loss: good.Loss, Threat: ball}, SGD{}, "3 search steps"},
		{"eps", nil, Objective{Loss: good.Loss, Threat: threat.Model{Epsilon: 8}}, SGD{}, "8/255"},
		{"no optimizer", nil, good, nil, "no optimizer"},
		{"missing teacher", nil, distilled(ball, classifier.Eval), SGD{}, "building the search"},
	} {
		_, err := NewStepper(backend(), tinyModel(5, 1), c.teachers, c.o, c.opt, 0, false)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one that says %q", c.name, err, c.want)
		}
	}
	// A search that moves the running statistics behind the loop's back.
	o := distilled(ball, classifier.Train)
	o.SearchMode = classifier.Eval
	s := newStepper(t, o, SGD{}, 0, false)
	b := firstBatch(t, 4, ball)
	if _, err := s.Search(b.x, b.start, b.y); err == nil || !strings.Contains(err.Error(), "bn.running_mean") {
		t.Errorf("error %v, want one that names bn.running_mean", err)
	}
}
