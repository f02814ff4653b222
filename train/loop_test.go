package train

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/weights"
	. "github.com/gomlx/gomlx/core/graph"
)

// small is a run of 4 epochs of 3 batches with everything in it that has state: two phases, momentum, an average that is
// settled, a search in train mode, an objective that remembers, weights that are perturbed from epoch 3 on, augmentation,
// and a validation that depends on the weights.
func small(dir string) Config {
	return Config{
		Dir: dir, Backend: backend(), Student: tinyModel(5, 1), Teachers: []*classifier.Model{tinyModel(7, 2)},
		Phases: []Phase{{0, remembering(distilled(ball, classifier.Train))}, {1, remembering(distilled(ball, classifier.Eval))}},
		Images: tinySet(26), Augmentation: data.Augmentation{Pad: 1, Flip: true}, Epochs: 4, BatchSize: 8,
		Optimizer: SGD{Momentum: 0.9, WeightDecay: 1e-3},
		Schedule:  WarmUp{0.2, Cosine{LR: 0.5, Final: 0.01}},
		Average:   SWA{From: 1}, AWP: AWP{Gamma: 0.01, WarmUp: 2}, Clip: 5, Seed: 11,
		Validate: validate,
		Settings: map[string]any{"method": "adaad", "search": map[string]any{"epsilon": "8/255"}},
	}
}

// validate is a score that any change of any weight changes.
func validate(_ context.Context, m *classifier.Model) (Score, error) {
	sum := 0.0
	for _, t := range m.State {
		for i, v := range values(t) {
			sum += math.Abs(float64(v)) * float64(i%7+1)
		}
	}
	_, f := math.Modf(sum)
	return Score{Clean: 0.5, Robust: f, Images: 9}, nil
}

// outcome is everything that must not depend on stops: the final student and average, the chosen model and the log's
// epochs.
func outcome(t *testing.T, dir string) string {
	t.Helper()
	last := must[*checkpoint](t)(loadCheckpoint(filepath.Join(dir, Last)))
	var log []string
	for _, l := range must[[]Line](t)(ReadLog(dir)) {
		if l.Event == "epoch" {
			l.Seconds, l.ImagesPerSecond, l.CompileSeconds = 0, 0, 0
			text := must[[]byte](t)(json.Marshal(l))
			log = append(log, string(text))
		}
	}
	model := must[[]byte](t)(os.ReadFile(filepath.Join(dir, Final)))
	best := must[*checkpoint](t)(loadCheckpoint(filepath.Join(dir, Best)))
	sum := func(c *checkpoint) string {
		c.position = position{} // holds times
		return must[*weights.File](t)(c.file()).Metadata[sealKey]
	}
	return fmt.Sprintf("last %s\nbest %s\nmodel %x\nlog %s", sum(last), sum(best), sha256.Sum256(model), strings.Join(log, "\n"))
}

// straight is the outcome of the small run without a stop.
func straight(t *testing.T) string {
	t.Helper()
	cfg := small(t.TempDir())
	must[*Result](t)(Run(context.Background(), cfg))
	return outcome(t, cfg.Dir)
}

func TestRunWritesItsFolder(t *testing.T) {
	cfg := small(filepath.Join(t.TempDir(), "deep", "run"))
	cfg.InstructionSet = "avx2"
	cfg.LogEvery = time.Nanosecond
	result := must[*Result](t)(Run(context.Background(), cfg))

	record := must[*Record](t)(ReadRecord(cfg.Dir))
	if !record.Complete || record.Seed != 11 || record.InstructionSet != "avx2" || record.Seconds <= 0 || record.Versions["go"] == "" {
		t.Errorf("run.json says %+v", record)
	}
	if record.Training["optimizer"] != "SGD, momentum 0.9, weight decay 0.001" {
		t.Errorf("run.json says the optimizer is %v", record.Training["optimizer"])
	}
	if *record.Chosen.Score != *result.Chosen.Score || record.Chosen.Epoch != result.Chosen.Epoch {
		t.Errorf("run.json says the best is %+v, the run %+v", record.Chosen, result.Chosen)
	}

	// One line per step and per epoch; the best epoch is the one with the highest robust accuracy.
	lines := must[[]Line](t)(ReadLog(cfg.Dir))
	steps, epochs, bestRobust, bestEpoch := 0, 0, -1.0, 0
	for _, l := range lines {
		switch l.Event {
		case "steps":
			steps++
			if l.Step != steps || l.LR != cfg.Schedule.At(steps-1, 12) {
				t.Errorf("line %+v: want step %d, rate %g", l, steps, cfg.Schedule.At(steps-1, 12))
			}
		case "epoch":
			epochs++
			if l.Epoch != epochs || l.Step != 3*epochs {
				t.Errorf("line %+v: want epoch %d, step %d", l, epochs, 3*epochs)
			}
			if l.Robust > bestRobust {
				bestRobust, bestEpoch = l.Robust, l.Epoch
			}
		}
	}
	if steps != 12 || epochs != 4 {
		t.Errorf("the log has %d steps and %d epochs, want 12 and 4", steps, epochs)
	}
	if result.Chosen.Epoch != bestEpoch || result.Chosen.Robust != bestRobust {
		t.Errorf("the run chose %+v, the log's best is epoch %d with %g", result.Chosen, bestEpoch, bestRobust)
	}

	// The chosen model is the one that had that score, and the one that was saved.
	if s, _ := validate(context.Background(), result.Model); s.Robust != bestRobust {
		t.Errorf("the result's model scores %g, want %g", s.Robust, bestRobust)
	}
	saved := must[*classifier.Model](t)(weights.LoadAs(cfg.Dir, tiny{5}))
	requireSame(t, "model.safetensors", saved, result.Model)
	if card := must[*weights.Card](t)(weights.LoadCard(cfg.Dir)); card.Seed != 11 || !strings.Contains(card.Selection, "held-out") {
		t.Errorf("the model's card is %+v", card)
	}
	found := must[[]string](t)(filepath.Glob(filepath.Join(cfg.Dir, "*")))
	if len(found) != 7 {
		t.Errorf("the folder holds %v, want run.json, log.jsonl, last, last.prev, best, model.safetensors, model.json", found)
	}

	if _, err := Run(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "already holds a run") {
		t.Errorf("a second run in the same folder: %v", err)
	}
	// Resuming a finished run gives its result once more.
	cfg.Resume = Last
	again := must[*Result](t)(Run(context.Background(), cfg))
	requireSame(t, "resumed after the end", again.Model, result.Model)
}

// The loss goes down: what is left of the tiny task after 20 epochs of plain training.
func TestRunLearns(t *testing.T) {
	cfg := small(t.TempDir())
	cfg.Phases = []Phase{{0, plain()}}
	cfg.Teachers, cfg.Average, cfg.Epochs, cfg.Augmentation = nil, nil, 20, data.Augmentation{}
	for _, o := range []Optimizer{SGD{Momentum: 0.9}, Adam{0.9, 0.999, 1e-8, 0}} {
		cfg.Dir, cfg.Optimizer, cfg.Schedule = t.TempDir(), o, Constant(0.1)
		must[*Result](t)(Run(context.Background(), cfg))
		lines := must[[]Line](t)(ReadLog(cfg.Dir))
		if first, last := lines[0], lines[len(lines)-1]; last.Loss > 0.1*first.Loss || last.Accuracy < 0.95 {
			t.Errorf("%v: loss from %g to %g, accuracy from %g to %g", o, first.Loss, last.Loss, first.Accuracy, last.Accuracy)
		}
	}
}

// What a run computes depends on neither the frequency of checkpoints and log lines nor on who watches.
func TestCheckpointsDoNotChangeTheRun(t *testing.T) {
	want := straight(t)
	cfg := small(t.TempDir())
	cfg.CheckpointEvery, cfg.LogEvery, cfg.Reporter = time.Nanosecond, time.Nanosecond, &Lines{W: new(strings.Builder)}
	must[*Result](t)(Run(context.Background(), cfg))
	if got := outcome(t, cfg.Dir); got != want {
		t.Errorf("with a checkpoint at every step:\n%s\nwant\n%s", got, want)
	}
	cfg = small(t.TempDir())
	cfg.Seed++
	must[*Result](t)(Run(context.Background(), cfg))
	if outcome(t, cfg.Dir) == want {
		t.Error("another seed gave the same run")
	}
}

// stopper cancels a run after a number of steps of its start.
type stopper struct {
	silent
	after int
	stop  func()
}

func (s *stopper) Step(Status) {
	if s.after--; s.after == 0 {
		s.stop()
	}
}

// stopAndGoOn runs a run that is cancelled after every so many steps, and in every validation, and says how often.
func stopAndGoOn(t *testing.T, cfg Config, every int) (stops int) {
	t.Helper()
	for ; ; stops++ {
		ctx, cancel := context.WithCancel(context.Background())
		cfg.Reporter, cfg.LogEvery = &stopper{after: every, stop: cancel}, time.Nanosecond
		_, err := Run(ctx, cfg)
		cancel()
		cfg.Resume = Last
		if err == nil {
			return stops
		}
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), filepath.Join(cfg.Dir, Last)) {
			t.Fatalf("start %d: %v", stops, err)
		}
		if stops > 20 {
			t.Fatal("the run does not get on")
		}
	}
}

// A run cancelled after every single step ends as one that was never stopped.
func TestCancelAndResume(t *testing.T) {
	want := straight(t)
	for _, every := range []int{1, 2, 5} {
		cfg := small(t.TempDir())
		stopAndGoOn(t, cfg, every)
		if got := outcome(t, cfg.Dir); got != want {
			t.Fatalf("stopped every %d steps:\n%s\nwant\n%s", every, got, want)
		}
	}
}

// A run whose loss becomes NaN says at which step, and leaves a checkpoint from before; so does one whose weights
// overflow while the loss is still finite.
func TestDivergence(t *testing.T) {
	nan := plain()
	nan.Loss = func(b *classifier.Batch) *Node { return Log(Neg(Square(plain().Loss(b)))) }
	cfg := small(t.TempDir())
	cfg.Phases = []Phase{{0, plain()}, {1, nan}}
	_, err := Run(context.Background(), cfg)
	for _, want := range []string{"step 4 (epoch 2, batch 1)", "the loss is NaN", filepath.Join(cfg.Dir, Last), "after step 3"} {
		if !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
	requireSound(t, cfg.Dir, 3)

	cfg = small(t.TempDir())
	cfg.Phases = []Phase{{0, plain()}}
	cfg.Clip, cfg.Optimizer = 0, SGD{}
	cfg.Schedule = Piecewise{LR: 0.1, Factor: 1e45, Milestones: []int{5}, Of: 12} // step 6, the last of its epoch
	if _, err = Run(context.Background(), cfg); !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), "after step 6") ||
		!strings.Contains(err.Error(), "is not finite") {
		t.Errorf("error %v, want one that says the weights are not finite after step 6", err)
	}
	requireSound(t, cfg.Dir, 3)
}

func requireSound(t *testing.T, dir string, step int) {
	t.Helper()
	c := must[*checkpoint](t)(loadCheckpoint(filepath.Join(dir, Last)))
	if c.position.Step != step {
		t.Errorf("last is from step %d, want %d", c.position.Step, step)
	}
	for name, v := range c.tensors {
		for _, f := range values(v) {
			if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
				t.Fatalf("last holds %g in %s", f, name)
			}
		}
	}
}

// A run resumes with the settings it was started with, or not at all.
func TestResumeRefusesOtherSettings(t *testing.T) {
	dir := t.TempDir()
	cfg := small(dir)
	cfg.Epochs = 1
	cfg.Phases = cfg.Phases[:1]
	cfg.Settings.(map[string]any)["seed"] = uint64(1<<63 + 1) // no float64
	base := cfg
	must[*Result](t)(Run(context.Background(), cfg))
	cfg.Resume = Last
	must[*Result](t)(Run(context.Background(), cfg))
	for want, change := range map[string]func(c *Config){
		`settings.search.epsilon is "4/255", but the run was started with "8/255"`: func(c *Config) {
			c.Settings = map[string]any{"method": "adaad", "seed": uint64(1<<63 + 1), "search": map[string]any{"epsilon": "4/255"}}
		},
		"settings.alpha is 1, but the run was started with unset": func(c *Config) {
			c.Settings = map[string]any{"method": "adaad", "alpha": 1, "seed": uint64(1<<63 + 1), "search": map[string]any{"epsilon": "8/255"}}
		},
		"settings.seed is 9223372036854775808, but the run was started with 9223372036854775809": func(c *Config) {
			c.Settings = map[string]any{"method": "adaad", "seed": uint64(1 << 63), "search": map[string]any{"epsilon": "8/255"}}
		},
		"seed is 12, but the run was started with 11": func(c *Config) { c.Seed = 12 },
		"training.epochs is 3, but":                   func(c *Config) { c.Epochs = 3 },
		"training.batch_size":                         func(c *Config) { c.BatchSize = 4 },
		"training.optimizer":                          func(c *Config) { c.Optimizer = SGD{Momentum: 0.8, WeightDecay: 1e-3} },
		"training.schedule":                           func(c *Config) { c.Schedule = Constant(0.1) },
		"training.average is unset":                   func(c *Config) { c.Average = nil },
		"training.images.count":                       func(c *Config) { c.Images = tinySet(27) },
		"training.images.crc32": func(c *Config) {
			c.Images = tinySet(26)
			c.Images.Pixels[5]++
		},
		"training.teachers[0].crc32": func(c *Config) { c.Teachers = []*classifier.Model{tinyModel(7, 3)} },
		"training.network":           func(c *Config) { c.Student = tinyModel(6, 1) },
		"training.searches[0].steps": func(c *Config) {
			m := ball
			m.Steps = 4
			c.Phases = []Phase{{0, distilled(m, classifier.Train)}}
		},
	} {
		cfg := base
		cfg.Resume = Last
		change(&cfg)
		_, err := Run(context.Background(), cfg)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), filepath.Join(dir, RunFile)) {
			t.Errorf("error %v, want one that names run.json and says %s", err, want)
		}
	}
	cfg = small(t.TempDir())
	cfg.Resume = Last
	if _, err := Run(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), "no run to resume") {
		t.Errorf("resuming an empty folder: %v", err)
	}
}

func TestRunRefuses(t *testing.T) {
	for want, change := range map[string]func(c *Config){
		"no run folder":            func(c *Config) { c.Dir = "" },
		`from "newest"`:            func(c *Config) { c.Resume = "newest" },
		"no backend":               func(c *Config) { c.Backend = nil },
		"no student":               func(c *Config) { c.Student = nil },
		"epochs is 0":              func(c *Config) { c.Epochs = 0 },
		"batch size is 0":          func(c *Config) { c.BatchSize = 0 },
		"norm limit is -1":         func(c *Config) { c.Clip = -1 },
		"no objective":             func(c *Config) { c.Phases = nil },
		"first objective starts":   func(c *Config) { c.Phases = c.Phases[1:] },
		"not after the one before": func(c *Config) { c.Phases = []Phase{c.Phases[0], c.Phases[0]} },
		"no training images":       func(c *Config) { c.Images = &data.Set{} },
		"takes 4x4x1 of 3": func(c *Config) {
			c.Images = tinySet(9)
			c.Images.Classes = []string{"a", "b"}
		},
		"no learning-rate schedule": func(c *Config) { c.Schedule = nil },
		"no optimizer":              func(c *Config) { c.Optimizer = nil },
		"expected shares from 0 to 1": func(c *Config) {
			c.Validate = func(context.Context, *classifier.Model) (Score, error) { return Score{Robust: math.NaN()}, nil }
		},
	} {
		cfg := small(t.TempDir())
		change(&cfg)
		if _, err := Run(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
}

// Batches: images left over are dropped, a small set is one batch, and what an image looks like depends on the epoch and
// the image alone, not on the batch it is in.
func TestBatches(t *testing.T) {
	count := func(n, size int) int {
		return must[source](t)(newSource(tinySet(n), data.Augmentation{}, size, 1)).count()
	}
	if count(26, 8) != 3 || count(24, 8) != 3 || count(5, 8) != 1 {
		t.Errorf("26, 24 and 5 images are %d, %d and %d batches of 8, want 3, 3 and 1", count(26, 8), count(24, 8), count(5, 8))
	}
	const n = 24
	seen := map[int]map[int][]float32{} // by batch size and image
	for _, size := range []int{3, 8} {
		s := must[source](t)(newSource(tinySet(n), data.Augmentation{Pad: 1, Flip: true}, size, 5))
		seen[size] = map[int][]float32{}
		order := data.Order(n, 5, 2)
		for b := range s.epoch(2, 0, ball) {
			x, start := values(b.x), values(b.start)
			for k := range size {
				at, end := k*side*side, (k+1)*side*side
				seen[size][order[b.number*size+k]] = append(append([]float32(nil), x[at:end]...), start[at:end]...)
				for i := at; i < end; i++ {
					if d := math.Abs(float64(start[i] - x[i])); d > ball.Epsilon+1e-6 {
						t.Fatalf("the search starts %g from its image", d)
					}
				}
			}
		}
	}
	for i := range n {
		a, b := seen[3][i], seen[8][i]
		if len(a) == 0 || fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("image %d is not the same in batches of 3 and 8", i)
		}
	}
	// Starting in the middle gives the batches of the middle.
	s := must[source](t)(newSource(tinySet(n), data.Augmentation{Pad: 1}, 8, 5))
	whole, rest := map[int][]float32{}, 0
	for b := range s.epoch(1, 0, threat.Model{}) {
		whole[b.number] = values(b.x)
	}
	for b := range s.epoch(1, 1, threat.Model{}) {
		rest++
		if fmt.Sprint(whole[b.number]) != fmt.Sprint(values(b.x)) || b.number != rest {
			t.Fatalf("batch %d is not the same after a resume", b.number)
		}
	}
	if rest != 2 {
		t.Fatalf("%d batches are left of 3 after the first", rest)
	}
}
