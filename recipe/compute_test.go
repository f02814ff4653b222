package recipe

import (
	"math"
	"testing"

	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/zoo"
)

// The radius grows in equal steps, whatever else changes at an epoch.
func TestRamp(t *testing.T) {
	p, err := Find("iad-1-cifar10-resnet20")
	if err != nil {
		t.Fatal(err)
	}
	p.Begin = 3
	m, err := p.BuildMethod()
	if err != nil {
		t.Fatal(err)
	}
	type phase struct {
		from int
		eps  float64
	}
	for ramp, want := range map[int][]phase{
		0: {{0, 8}, {3, 8}}, 1: {{0, 4}, {1, 8}, {3, 8}}, 3: {{0, 2}, {1, 4}, {2, 6}, {3, 8}}, 4: {{0, 1.6}, {1, 3.2}, {2, 4.8}, {3, 6.4}, {4, 8}},
	} {
		got := phases(m, ramp)
		if len(got) != len(want) {
			t.Fatalf("a ramp of %d epochs has %d phases, want %d", ramp, len(got), len(want))
		}
		for i, w := range want {
			o := got[i].Objective.Threat
			if got[i].From != w.from || math.Abs(o.Epsilon*255-w.eps) > 1e-9 || math.Abs(o.StepSize/o.Epsilon-m.Threat.StepSize/m.Threat.Epsilon) > 1e-9 {
				t.Errorf("a ramp of %d epochs has from epoch %d on eps %g/255 with steps of %g/255, want %g/255 from %d on",
					ramp, got[i].From, o.Epsilon*255, o.StepSize*255, w.eps, w.from)
			}
		}
	}
}

func TestSetEpochs(t *testing.T) {
	s := Settings{Epochs: 200, Begin: 60, AWPWarmUp: 10, WarmUp: 5}
	s.SetEpochs(40)
	if s.Epochs != 40 || s.Begin != 12 || s.AWPWarmUp != 2 || s.WarmUp != 1 {
		t.Errorf("200 epochs made 40 are %+v", s)
	}
}

// What a step computes follows from how often it passes which network: a pass that is differentiated by the images counts
// twice and one that is by the weights three times, but for the layer that sees the images.
func TestCompute(t *testing.T) {
	backend, err := vec.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	set, err := data.Open("shapes", "", data.Test, data.Options{})
	if err != nil {
		t.Fatal(err)
	}
	set = set.Subset(20, 0)
	size := [3]int{set.Height, set.Width, set.Channels}
	student, err := zoo.New("resnet8-w2", len(set.Classes), size)
	if err != nil {
		t.Fatal(err)
	}
	teacher, err := zoo.New("resnet8-w3", len(set.Classes), size)
	if err != nil {
		t.Fatal(err)
	}
	s, u, first, last := zoo.MACs(student), zoo.MACs(teacher), int64(32*32*27*2), int64(8*10)
	natural := 3*s - first
	for name, want := range map[string]int64{
		"natural-shapes-resnet8": natural,
		"kd-shapes-resnet8":      u + 2*natural - s, // two passes over the same images are one
		"pgd-at-shapes-resnet8":  2*s + natural,
		"adaad-cifar10-resnet8":  4*(s+u) + s - last + natural + u, // two search steps; the clean pass is for the statistics
		"rslad-cifar10-resnet8":  u + 4*s + 2*natural,
	} {
		p, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		p.Model, p.BatchSize = "resnet8-w2", 4
		takes, err := p.TeacherCount()
		if err != nil {
			t.Fatal(err)
		}
		var teachers []*classifier.Model
		for range takes {
			p.Teachers, teachers = append(p.Teachers, "teacher"), append(teachers, zoo.Init(teacher, 1))
		}
		job, err := Join(p.Settings, set, teachers)
		if err != nil {
			t.Fatal(err)
		}
		got, err := job.Compute(backend)
		if want := (Compute{want, want}); err != nil || got != want {
			t.Errorf("%s computes %+v for an image, want %+v (%v)", name, got, want, err)
		}
	}
	run := Settings{Epochs: 10, Begin: 4, BatchSize: 4}
	if got := run.MACs(Compute{Before: 1, Then: 10}, 11); got != 8*(4*1+6*10) {
		t.Errorf("the run computes %d", got)
	}
	run.Spend(2*run.MACs(Compute{Before: 1, Then: 10}, 11)+1, Compute{Before: 1, Then: 10}, 11)
	if run.Epochs != 20 || run.Begin != 8 {
		t.Errorf("with twice the budget the run has %d epochs and begins at %d", run.Epochs, run.Begin)
	}
	run.Spend(1, Compute{Before: 1, Then: 10}, 11)
	if run.Epochs != 1 {
		t.Errorf("with no budget the run has %d epochs", run.Epochs)
	}
}
