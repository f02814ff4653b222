package recipe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/train"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
)

// Every method trains from its recipe, with its phases, its memory and its teachers. Those that remember go on to the same
// bits after a stop, and so does a run that perturbs weights.
func TestEveryMethodTrains(t *testing.T) {
	backend, err := vec.New("")
	if err != nil {
		t.Fatal(err)
	}
	set, err := data.Open("shapes", "", data.Test, data.Options{})
	if err != nil {
		t.Fatal(err)
	}
	set = set.Subset(64, 1)
	for _, m := range Methods() {
		t.Run(m.Name, func(t *testing.T) {
			change := func(s *Settings) {
				s.Begin = min(s.Begin, 1)
				if m.Name == "trades" {
					s.AWP, s.AWPWarmUp = 0.01, 1
				}
			}
			whole, stopped := t.TempDir(), t.TempDir()
			if _, err := tinyJob(t, m, set, change).Run(t.Context(), backend, Options{Dir: whole}); err != nil {
				t.Fatal(err)
			}
			if !slices.Contains([]string{"mtard", "fair-ard", "trades"}, m.Name) {
				return
			}
			stopAfter(t, tinyJob(t, m, set, change), backend, stopped, 3)
			if _, err := tinyJob(t, m, set, change).Run(t.Context(), backend, Options{Dir: stopped, Resume: train.Last}); err != nil {
				t.Fatal(err)
			}
			a, errA := os.ReadFile(filepath.Join(whole, train.Final))
			b, errB := os.ReadFile(filepath.Join(stopped, train.Final))
			if errA != nil || errB != nil || !bytes.Equal(a, b) {
				t.Errorf("the resumed run did not end with the same bits (%v, %v)", errA, errB)
			}
		})
	}
}

// tinyJob is a run of two short epochs.
func tinyJob(t *testing.T, m Method, set *data.Set, change func(*Settings)) *Job {
	t.Helper()
	s := smallSettings(m.Name, "shapes", "resnet8-w4")
	s.brief()
	s.Epochs, s.BatchSize, s.Seed = 2, 16, 3
	s.ValidationSteps, s.ValidationSamples = min(s.ValidationSteps, 1), 16
	change(&s)
	method, err := s.BuildMethod()
	if err != nil {
		t.Fatal(err)
	}
	j := &Job{Settings: s, method: method}
	if err := j.readTraining(); err != nil {
		t.Fatal(err)
	}
	j.Train, j.Held = set.HoldOut(0.25, s.Seed)
	net, err := zoo.New("resnet8-w4", len(set.Classes), [3]int{set.Height, set.Width, set.Channels})
	if err != nil {
		t.Fatal(err)
	}
	j.Student = zoo.Init(net, s.Seed)
	for i := range method.Teachers {
		j.Teachers = append(j.Teachers, zoo.Init(net, uint64(10+i)))
	}
	return j
}

// stopAfter runs a job and stops it after so many steps.
func stopAfter(t *testing.T, j *Job, backend compute.Backend, dir string, steps int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := &watcher{Reporter: train.NewReporter(io.Discard, true), stop: cancel, after: steps}
	if _, err := j.Run(ctx, backend, Options{Dir: dir, Reporter: watch}); !errors.Is(err, context.Canceled) {
		t.Fatalf("a run that is stopped after %d steps gives %v", steps, err)
	}
}

// watcher stops a run after so many steps.
type watcher struct {
	train.Reporter
	stop  context.CancelFunc
	after int
}

func (w *watcher) Step(train.Status) {
	if w.after--; w.after == 0 {
		w.stop()
	}
}
