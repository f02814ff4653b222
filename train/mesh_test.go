package train

import (
	"math"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/backend/mesh"
	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/several"
	"github.com/gomlx/compute"
)

// onDevices are so many devices, each with memory of its own, as one.
func onDevices(t *testing.T, n int) (*mesh.Backend, *several.Backend) {
	t.Helper()
	b := must[compute.Backend](t)(vec.New(""))
	t.Cleanup(b.Finalize)
	devices := several.New(b, n)
	return must[*mesh.Backend](t)(mesh.New(devices, n)), devices
}

// A run on four devices that is stopped again and again ends with the bits of one on a single device: the devices are told
// of every program's batches, and what the update replaces stays the same on all.
func TestRunOnSeveralDevices(t *testing.T) {
	run := func(devices int) Config {
		cfg := small(t.TempDir())
		cfg.Backend, _ = onDevices(t, devices)
		return cfg
	}
	one := run(1)
	must[*Result](t)(Run(t.Context(), one))
	want := outcome(t, one.Dir)
	four := run(4)
	stops := stopAndGoOn(t, four, 5)
	if got := outcome(t, four.Dir); got != want || stops == 0 {
		t.Errorf("after %d stops:\n%s\nwant\n%s", stops, got, want)
	}
	odd := run(3) // batches of 8
	if _, err := Run(t.Context(), odd); err == nil || !strings.Contains(err.Error(), "multiple of the 3 devices") {
		t.Errorf("batches of 8 on 3 devices: %v", err)
	}
}

// A step on several devices is that of the Go backend, whatever its search keeps, and of the state nothing but the metrics
// goes through the host.
func TestStepOnSeveralDevices(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Objective
	}{
		{"eval", distilled(ball, classifier.Eval)},
		{"remembering", remembering(distilled(ball, classifier.Train))},
		{"no search", plain()},
	} {
		t.Run(c.name, func(t *testing.T) {
			on, devices := onDevices(t, 4)
			mine, theirs := firstBatch(t, 8, c.o.Threat), firstBatch(t, 8, c.o.Threat)
			here := must[*Stepper](t)(NewStepper(backend(), tinyModel(5, 1), []*classifier.Model{tinyModel(7, 2)}, c.o, SGD{Momentum: 0.9}, 1, true))
			there := must[*Stepper](t)(NewStepper(on, tinyModel(5, 1), []*classifier.Model{tinyModel(7, 2)}, c.o, SGD{Momentum: 0.9}, 1, true))
			for step := range 3 {
				copied := devices.Copied.Load()
				want, got := read(t)(here.Step(mine.x, mine.start, mine.y, 0.1, 0.5)), read(t)(there.Step(theirs.x, theirs.start, theirs.y, 0.1, 0.5))
				if !(math.Abs(got.Loss-want.Loss) < 1e-5*(1+math.Abs(want.Loss))) || got.Accuracy != want.Accuracy {
					t.Errorf("step %d: %+v, expected %+v", step, got, want)
				}
				// What goes there are a handful of scalars, to each of four devices, and the metrics come back.
				if copied = devices.Copied.Load() - copied; step > 0 && copied > 50 {
					t.Errorf("step %d copied %d numbers between host and devices", step, copied)
				}
			}
			m, w := must[*classifier.Model](t)(there.Model()), must[*classifier.Model](t)(here.Model())
			for i, p := range w.Params() {
				for k, want := range values(w.State[i]) {
					if got := values(m.State[i])[k]; !(math.Abs(float64(got-want)) < 1e-5) {
						t.Fatalf("%s[%d] is %g, expected %g", p.Name, k, got, want)
					}
				}
			}
		})
	}
}
