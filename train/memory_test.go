package train

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Memory is carried through searches, updates and ends of epochs, and written to checkpoints.
func TestMemoryIsKept(t *testing.T) {
	cfg := small(t.TempDir())
	must[*Result](t)(Run(context.Background(), cfg))
	last := must[*checkpoint](t)(loadCheckpoint(filepath.Join(cfg.Dir, Last)))
	const epochs, batches = 4, 3
	if got := values(last.tensors["memory.steps"]); !slices.Equal(got, []float32{1 + epochs*batches}) {
		t.Errorf("memory.steps is %v, want %d", got, 1+epochs*batches)
	}
	want := float32(2)
	for range epochs {
		want = (want + float32(batches*ball.Steps)) / 2
	}
	if got := values(last.tensors["memory.searched"]); !slices.Equal(got, []float32{want, want, want}) {
		t.Errorf("memory.searched is %v, want %g for each class", got, want)
	}
}

// The loss sees what the search left in the memory, and the progress that was set.
func TestLossSeesMemoryAndProgress(t *testing.T) {
	plain := newStepper(t, distilled(ball, classifier.Eval), SGD{}, 0, false)
	s := newStepper(t, remembering(distilled(ball, classifier.Eval)), SGD{}, 0, false)
	s.SetProgress(0.25)
	b := firstBatch(t, 4, ball)
	xAdv := must[*tensors.Tensor](t)(s.Search(b.x, b.start, b.y))
	base := must[*Derivatives](t)(plain.Derivatives(b.x, xAdv, b.y)).Loss
	want := base * 0.25 * 0.01 * (2 + classes*float64(2+ball.Steps))
	for range 2 { // Derivatives changes nothing
		if got := must[*Derivatives](t)(s.Derivatives(b.x, xAdv, b.y)).Loss; math.Abs(got-want) > 1e-5*want {
			t.Errorf("the loss is %g, want %g", got, want)
		}
	}
	if got := read(t)(s.Update(b.x, xAdv, b.y, 0.1, 0)).Loss; math.Abs(got-want) > 1e-5*want {
		t.Errorf("the update's loss is %g, want %g", got, want)
	}
}

// Progress is an input of the compiled steps: the epochs of a run share them.
func TestProgressCompilesNothing(t *testing.T) {
	passes := 0
	student := tinyModel(5, 1)
	student.Network = counted{student.Network, &passes}
	teachers := []*classifier.Model{tinyModel(7, 2)}
	o := remembering(distilled(ball, classifier.Eval))
	s := must[*Stepper](t)(NewStepper(backend(), student, teachers, o, SGD{}, 0, false))
	b := firstBatch(t, 4, ball)
	built := 0
	var losses []float64
	for epoch := range 3 {
		s.SetProgress(float64(epoch+1) / 3)
		losses = append(losses, read(t)(s.Step(b.x, b.start, b.y, 0, 0)).Loss)
		if err := s.EndEpoch(); err != nil {
			t.Fatal(err)
		}
		if epoch == 0 {
			built = passes
		}
	}
	if passes != built || built == 0 {
		t.Errorf("%d forward passes were built in the first epoch, %d in all", built, passes)
	}
	if losses[0] == losses[1] || losses[1] == losses[2] {
		t.Errorf("the losses do not change with the progress: %v", losses)
	}
}

// What an objective computes before the search is the same as computing it in every step.
func TestBeforeIsComputedOnce(t *testing.T) {
	gradient := func(b *classifier.Batch) []*Node {
		return Gradient(crossEntropy(b.Teachers[0].Logits(b.X, classifier.Eval), b.Y), b.X)
	}
	objective := func(before func(b *classifier.Batch) []*Node, get func(b *classifier.Batch) *Node) Objective {
		return Objective{
			Threat: ball, Before: before,
			Search: func(b *classifier.Batch) *Node {
				return Add(crossEntropy(b.Student.Logits(b.XAdv, classifier.Eval), b.Y), ReduceAllSum(Mul(get(b), b.XAdv)))
			},
			Loss: func(b *classifier.Batch) *Node {
				return Add(crossEntropy(b.Student.Logits(b.XAdv, classifier.Train), b.Y), ReduceAllSum(Square(get(b))))
			},
		}
	}
	b := firstBatch(t, 4, ball)
	var found [2][]float32
	var loss [2]float64
	for i, o := range []Objective{
		objective(gradient, func(b *classifier.Batch) *Node { return b.Before[0] }),
		objective(nil, func(b *classifier.Batch) *Node {
			again := *b
			again.X = Identity(b.X) // not known to be the clean images, so not replaced by their shared logits
			return gradient(&again)[0]
		}),
	} {
		s := newStepper(t, o, SGD{}, 0, false)
		xAdv := must[*tensors.Tensor](t)(s.Search(b.x, b.start, b.y))
		found[i] = values(xAdv)
		loss[i] = must[*Derivatives](t)(s.Derivatives(b.x, xAdv, b.y)).Loss
	}
	for i := range found[0] {
		if math.Abs(float64(found[0][i]-found[1][i])) > 1e-6 {
			t.Fatalf("pixel %d is %g and %g", i, found[0][i], found[1][i])
		}
	}
	if math.Abs(loss[0]-loss[1]) > 1e-5*loss[0] {
		t.Errorf("the loss is %g and %g", loss[0], loss[1])
	}
}

func TestRefusesMemory(t *testing.T) {
	two := remembering(distilled(ball, classifier.Eval))
	for name, c := range map[string]struct {
		phases []Phase
		want   string
	}{
		"phases differ": {[]Phase{{0, two}, {1, distilled(ball, classifier.Eval)}}, "other tensors"},
		"no value":      {[]Phase{{0, Objective{Loss: plain().Loss, Memory: []classifier.Cell{{Name: "a"}}}}}, `"a" of 0 values`},
		"weights":       {[]Phase{{0, Objective{Loss: plain().Loss, Gamma: 1}}}, "weight perturbation is 1"},
	} {
		if err := validatePhases(c.phases); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one that says %q", name, err, c.want)
		}
	}
	// A checkpoint without the memory is no checkpoint of this run.
	cfg := small(t.TempDir())
	cfg.Epochs, cfg.AWP = 1, AWP{}
	cfg.Schedule = Constant(0.1)
	cfg.Phases = cfg.Phases[:1]
	forgetful := cfg
	forgetful.Phases = []Phase{{0, distilled(ball, classifier.Train)}}
	must[*Result](t)(Run(context.Background(), forgetful))
	cfg.Resume = Last
	if _, err := Run(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "memory.") {
		t.Errorf("resuming without the memory: %v", err)
	}
}

// One perturbed update against two plain gradients and the formula, in float64.
func TestAWP(t *testing.T) {
	const gamma, lr, decay = 0.05, 0.3, 0.01
	b := firstBatch(t, 8, ball)
	teachers := []*classifier.Model{tinyModel(7, 2)}
	o := distilled(ball, classifier.Eval)
	at := func(m *classifier.Model, o Objective) *Stepper {
		return must[*Stepper](t)(NewStepper(backend(), m, teachers, o, SGD{WeightDecay: decay}, 0, false))
	}
	start := tinyModel(5, 1)
	first := must[*Derivatives](t)(at(start, o).Derivatives(b.x, b.start, b.y))
	perturbed := tinyModel(5, 1)
	shift := map[string][]float64{}
	for i, p := range start.Params() {
		if !p.Kind.Trainable() || len(p.Shape) < 2 {
			continue
		}
		g, w := values(first.Grads[p.Name]), values(start.State[i])
		scale := gamma * l2(w) / l2(g)
		tensors.MustMutableFlatData(perturbed.State[i], func(v []float32) {
			for j := range v {
				shift[p.Name] = append(shift[p.Name], scale*float64(g[j]))
				v[j] += float32(shift[p.Name][j])
			}
		})
	}
	if len(shift) != 2 {
		t.Fatalf("%d layers are perturbed, want hidden and head", len(shift))
	}
	second := must[*Derivatives](t)(at(perturbed, o).Derivatives(b.x, b.start, b.y))

	o.Gamma = gamma
	s := at(start, o)
	if d := must[*Derivatives](t)(s.Derivatives(b.x, b.start, b.y)); math.Abs(d.Loss-second.Loss) > 1e-5 {
		t.Errorf("the loss is %g, at the perturbed weights %g", d.Loss, second.Loss)
	}
	read(t)(s.Update(b.x, b.start, b.y, lr, 0))
	after := must[*classifier.Model](t)(s.Student())
	for i, p := range start.Params() {
		got, w := values(after.State[i]), values(start.State[i])
		for j := range got {
			want := float64(w[j])
			if p.Kind.Trainable() {
				v := 0.0
				if shift[p.Name] != nil {
					v = shift[p.Name][j]
				}
				want = want + v - lr*(float64(values(second.Grads[p.Name])[j])+decay*(want+v)) - v
			} else {
				want = float64(values(second.Running[p.Name])[j])
			}
			if math.Abs(float64(got[j])-want) > 2e-6 {
				t.Fatalf("%s[%d] is %g, want %g", p.Name, j, got[j], want)
			}
		}
	}
	if second.Loss <= first.Loss {
		t.Errorf("the perturbation took the loss from %g to %g, want it to rise", first.Loss, second.Loss)
	}
}

func l2(v []float32) float64 {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum)
}

func TestAWPSetsInAfterItsWarmUp(t *testing.T) {
	o := plain()
	for _, c := range []struct {
		warmUp int
		from   []int // of the phases without it
		want   map[int]float64
	}{
		{0, []int{0}, map[int]float64{0: 1}},
		{10, []int{0}, map[int]float64{0: 0, 10: 1}},
		{10, []int{0, 60}, map[int]float64{0: 0, 10: 1, 60: 1}},
		{60, []int{0, 60}, map[int]float64{0: 0, 60: 1}},
		{80, []int{0, 60}, map[int]float64{0: 0, 60: 0, 80: 1}},
	} {
		var phases []Phase
		for _, from := range c.from {
			phases = append(phases, Phase{from, o})
		}
		got := map[int]float64{}
		for _, p := range (AWP{Gamma: 1, WarmUp: c.warmUp}).phases(phases) {
			got[p.From] = p.Objective.Gamma
		}
		if len(got) != len(c.want) {
			t.Errorf("warm-up %d with phases %v: %v, want %v", c.warmUp, c.from, got, c.want)
		}
		for from, gamma := range c.want {
			if g, found := got[from]; !found || g != gamma {
				t.Errorf("warm-up %d with phases %v: %v, want %v", c.warmUp, c.from, got, c.want)
			}
		}
	}
}

// Frozen mode sees the batch as train mode does, and leaves no trace.
func TestFrozenMode(t *testing.T) {
	m := tinyModel(5, 1)
	b := firstBatch(t, 4, threat.Model{})
	exec := must[*Exec](t)(NewExec(backend(), func(in []*Node) []*Node {
		n := len(in) - 1
		bound := classifier.Bind(m.Network, in[:n])
		frozen := bound.Logits(in[n], classifier.Frozen)
		if !slices.Equal(bound.Nodes(), in[:n]) {
			t.Error("a pass in frozen mode moved the running statistics")
		}
		if bound.Last(in[n]) != frozen {
			t.Error("the last logits are not those of the last pass")
		}
		train := bound.Logits(in[n], classifier.Train)
		if slices.Equal(bound.Nodes(), in[:n]) {
			t.Error("a pass in train mode did not move the running statistics")
		}
		return []*Node{ReduceAllMax(Abs(Sub(frozen, train)))}
	}))
	out := must[[]*tensors.Tensor](t)(exec.Call(append(asAny(m.State), b.x)...))
	if d := tensors.ToScalar[float32](out[0]); d != 0 {
		t.Errorf("logits in frozen and train mode differ by %g", d)
	}
}
