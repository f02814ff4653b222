package train

import (
	"math"
	"slices"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// remotes open devices with memory of their own: vec as one, and with -tags xla a plugin.
var remotes = map[string]func(t *testing.T) compute.Backend{
	"vec": func(t *testing.T) compute.Backend {
		b, _ := onDevices(t, 1)
		return b
	},
}

// onRemotes runs a test on each.
func onRemotes(t *testing.T, test func(t *testing.T, remote compute.Backend)) {
	for name, open := range remotes {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// On a device of its own a search is one program. It finds what the search step by step finds on the Go backend, and updates
// after it come out the same, whatever the search moves on its way.
func TestSearchInOneProgram(t *testing.T) { onRemotes(t, testSearchInOneProgram) }

func testSearchInOneProgram(t *testing.T, remote compute.Backend) {
	sharing := Objective{
		Threat: ball,
		Search: func(b *classifier.Batch) *Node {
			return kl(b.Teachers[0].Logits(b.X, classifier.Eval), b.Student.Logits(b.XAdv, classifier.Eval))
		},
		Loss: func(b *classifier.Batch) *Node {
			return kl(b.Teachers[0].Logits(b.X, classifier.Eval), b.Student.Logits(b.XAdv, classifier.Train))
		},
	}
	for _, c := range []struct {
		name string
		o    Objective
	}{
		{"eval", distilled(ball, classifier.Eval)},
		{"train", distilled(ball, classifier.Train)},
		{"remembering", remembering(distilled(ball, classifier.Train))},
		{"sharing", sharing},
		{"no search", plain()},
	} {
		t.Run(c.name, func(t *testing.T) {
			var numbers [2][]float64
			var found [2][]float32
			for i, on := range []compute.Backend{backend(), remote} {
				b := firstBatch(t, 8, c.o.Threat)
				s := must[*Stepper](t)(NewStepper(on, tinyModel(5, 1), []*classifier.Model{tinyModel(7, 2)}, c.o, SGD{Momentum: 0.9}, 1, true))
				s.SetProgress(0.5)
				found[i] = values(must[*tensors.Tensor](t)(s.Search(b.x, b.start, b.y)))
				if c.o.Threat.Steps > 0 && slices.Equal(found[i], values(b.x)) {
					t.Error("the search moved nothing")
				}
				for range 2 {
					m := read(t)(s.Step(b.x, b.start, b.y, 0.1, 0.5))
					numbers[i] = append(numbers[i], m.Loss, m.Accuracy, m.GradNorm)
				}
				for _, name := range []string{"student.bn.running_mean", "average.head.weight", "optimizer.0.hidden.weight"} {
					for _, v := range values(*s.names()[name]) {
						numbers[i] = append(numbers[i], float64(v))
					}
				}
				if s.Compiling() == 0 {
					t.Error("no time was spent compiling")
				}
			}
			for k, want := range numbers[0] {
				if got := numbers[1][k]; !(math.Abs(got-want) < 1e-4*(1+math.Abs(want))) {
					t.Errorf("number %d is %g there, %g on the Go backend", k, got, want)
				}
			}
			for k, want := range found[0] {
				if got := found[1][k]; !(math.Abs(float64(got-want)) < 1e-4) {
					t.Fatalf("pixel %d of what the search found is %g there, %g on the Go backend", k, got, want)
				}
			}
		})
	}
}

// A run on a device that is stopped again and again ends as one that was not.
func TestRunOnADevice(t *testing.T) { onRemotes(t, testRunOnADevice) }

func testRunOnADevice(t *testing.T, remote compute.Backend) {
	cfg := small(t.TempDir())
	cfg.Backend = remote
	must[*Result](t)(Run(t.Context(), cfg))
	want := outcome(t, cfg.Dir)
	cfg = small(t.TempDir())
	cfg.Backend = remote
	stops := stopAndGoOn(t, cfg, 5)
	if got := outcome(t, cfg.Dir); got != want {
		t.Errorf("after %d stops:\n%s\nwant\n%s", stops, got, want)
	}
}
