package train

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"iter"
	"maps"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/internal/share"
	"github.com/adaad-go/adaad/weights"
	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
)

// ErrDiverged is the error of a run whose loss, gradient or weights became NaN or infinite.
var ErrDiverged = errors.New("training diverged")

// Refused is the error of a run that was not started, because what was asked for does not fit or the folder's run cannot
// be resumed. No step was taken.
type Refused struct{ Err error }

func (r *Refused) Error() string { return r.Err.Error() }

// Unwrap is the reason.
func (r *Refused) Unwrap() error { return r.Err }

// Score is what a validation on held-out images found: shares in [0,1].
type Score struct {
	Clean  float64 `json:"clean"`  // right on the images as they are
	Robust float64 `json:"robust"` // right under attack; 0 without one
	Images int     `json:"images"` // how many were tried

	Attack string `json:"attack,omitempty"` // what Robust was measured with, such as "pgd-10 eps 8/255"; empty without one
}

// Config is a run.
type Config struct {
	// Dir is the run folder. It is made if it is not there.
	Dir string
	// Resume names the checkpoint to go on from, one of Last, LastPrev and Best. A run that was stopped before its first
	// checkpoint starts again. Empty starts a new run, in a folder that holds none.
	Resume string

	Backend  compute.Backend
	Student  *classifier.Model // with its initial weights
	Teachers []*classifier.Model
	Phases   []Phase

	Images       *data.Set
	Augmentation data.Augmentation
	Epochs       int
	BatchSize    int

	Optimizer Optimizer
	Schedule  Schedule
	Average   Average // nil keeps none
	AWP       AWP     // the zero value perturbs no weights
	Clip      float64 // largest global gradient norm; 0 for no limit
	Seed      uint64

	// Validate measures a model on held-out training images, after every epoch. The best checkpoint is the one with the
	// highest Robust, then the highest Clean, then the earliest. If it is nil, the last epoch is the best. It must not
	// see the test set: a checkpoint chosen there makes every number reported from it too good.
	Validate func(ctx context.Context, m *classifier.Model) (Score, error)
	// Save writes the chosen model at the end, to Dir/model.safetensors. nil writes it with a card that says what the
	// loop knows.
	Save func(path string, m *classifier.Model, chosen Chosen) error

	// Settings are written to run.json, and a run is resumed only with the same.
	Settings       any
	InstructionSet string // which kernels the backend uses, for run.json

	CheckpointEvery time.Duration // beside the checkpoint after every epoch; 0 is 5 minutes
	LogEvery        time.Duration // between two lines of the log inside an epoch; 0 is 10 seconds
	Reporter        Reporter      // nil reports nothing
	Now             func() time.Time
}

// Result is what a finished run gives.
type Result struct {
	Model   *classifier.Model // of the best checkpoint
	Chosen  Chosen
	Seconds float64 // over all stops
}

// Run trains a student, or goes on doing so. When ctx is done it finishes the step under way, writes a checkpoint and
// returns an error that is ctx's cause; a run resumed from it, or after being killed at any moment, ends with the same bits
// as one that was never stopped.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	r, err := open(cfg)
	if err != nil {
		return nil, &Refused{err}
	}
	defer r.log.f.Close()
	defer r.cfg.Reporter.End()
	defer r.source.finalize()
	r.cfg.Reporter.Begin(Plan{Dir: cfg.Dir, Epochs: cfg.Epochs, Batches: r.source.count(), BatchSize: r.source.size, Step: r.at.Step})
	for r.at.Epoch < cfg.Epochs {
		if err := r.epoch(ctx); err != nil {
			return nil, err
		}
	}
	return r.finish()
}

// run is a run under way.
type run struct {
	cfg     Config
	source  source
	total   int // updates in the whole run
	stepper *Stepper
	phase   int
	record  *Record
	log     *logFile
	at      position
	saved   int // the step at which last was written

	began, logged, checkpointed, read time.Time

	before    float64       // seconds spent before it was resumed
	first     int           // the step it was started or resumed at
	taken     []taken       // steps whose metrics are not read yet
	sum       Line          // sums since the last line of the log
	summed    int           // steps in them
	compiling time.Duration // that was told
}

// open checks the configuration and brings the run to where it starts or goes on.
func open(cfg Config) (*run, error) {
	r := &run{cfg: cfg}
	if err := r.configure(); err != nil {
		return nil, err
	}
	var resumed *checkpoint
	old, err := ReadRecord(cfg.Dir)
	switch {
	case cfg.Resume == "" && err == nil:
		return nil, fmt.Errorf("%s already holds a run; resume it or choose another folder", cfg.Dir)
	case cfg.Resume == "" && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case cfg.Resume != "" && errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s holds no run to resume: there is no %s", cfg.Dir, RunFile)
	case cfg.Resume != "" && err != nil:
		return nil, err
	case cfg.Resume != "":
		if err := r.record.differs(old); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(cfg.Dir, RunFile), err)
		}
		if old.InstructionSet != cfg.InstructionSet || !maps.Equal(old.Versions, r.record.Versions) {
			r.cfg.Reporter.Note(fmt.Sprintf("the run was started with another build or on another machine (see %s): it may not end with the same bits as without the stop",
				filepath.Join(cfg.Dir, RunFile)))
		}
		if resumed, err = find(cfg.Dir, cfg.Resume); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err != nil && cfg.Resume != Last {
			return nil, err
		}
	}

	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	r.at = position{Network: cfg.Student.Name(), Seed: cfg.Seed}
	if resumed != nil {
		if resumed.position.Seed != cfg.Seed {
			return nil, fmt.Errorf("checkpoint %s is of a run with seed %d, expected %d", filepath.Join(cfg.Dir, cfg.Resume), resumed.position.Seed, cfg.Seed)
		}
		if err := r.stepper.restore(resumed); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(cfg.Dir, cfg.Resume), err)
		}
		r.at = resumed.position
		// What last holds, if it is not what the run goes on from, must not come back.
		if cfg.Resume != Last {
			if err := resumed.save(filepath.Join(cfg.Dir, Last)); err != nil {
				return nil, err
			}
		}
	}
	sweep(cfg.Dir)
	if r.log, err = openLog(cfg.Dir, r.at.Log); err != nil {
		return nil, err
	}
	r.began = r.cfg.Now()
	r.logged, r.checkpointed = r.began, r.began
	r.before, r.first, r.saved = r.at.Seconds, r.at.Step, r.at.Step
	r.record.Seconds = r.before
	if resumed == nil {
		err = errors.Join(r.record.write(cfg.Dir), r.save(false))
	}
	if err != nil {
		r.log.f.Close()
		return nil, err
	}
	return r, nil
}

// configure fills in defaults, builds the stepper and the record, and refuses what cannot be meant.
func (r *run) configure() (err error) {
	c := &r.cfg
	if c.CheckpointEvery == 0 {
		c.CheckpointEvery = 5 * time.Minute
	}
	if c.LogEvery == 0 {
		c.LogEvery = 10 * time.Second
	}
	if c.Reporter == nil {
		c.Reporter = silent{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	switch {
	case c.Dir == "":
		return errors.New("there is no run folder")
	case c.Resume != "" && c.Resume != Last && c.Resume != LastPrev && c.Resume != Best:
		return fmt.Errorf("a run is resumed from %q, expected %s, %s or %s", c.Resume, Last, LastPrev, Best)
	case c.Backend == nil:
		return errors.New("there is no backend")
	case c.Student == nil:
		return errors.New("there is no student")
	case c.Epochs < 1:
		return fmt.Errorf("epochs is %d, expected at least 1", c.Epochs)
	case !(c.Clip >= 0) || math.IsInf(c.Clip, 0):
		return fmt.Errorf("the gradient norm limit is %g, expected at least 0", c.Clip)
	}
	if err := validatePhases(c.Phases); err != nil {
		return err
	}
	if c.AWP.WarmUp < 0 {
		return fmt.Errorf("the warm-up of the weight perturbation is %d epochs, expected at least 0", c.AWP.WarmUp)
	}
	if c.AWP.Gamma != 0 {
		c.Phases = c.AWP.phases(c.Phases)
		if err := validatePhases(c.Phases); err != nil {
			return err
		}
	}
	if r.source, err = newSource(c.Images, c.Augmentation, c.BatchSize, c.Seed); err != nil {
		return err
	}
	if d := share.Devices(c.Backend); r.source.size%d != 0 {
		return fmt.Errorf("a batch has %d images, expected a multiple of the %d devices that share it", r.source.size, d)
	}
	h, w, ch := c.Student.Input()
	if s := c.Images; s.Height != h || s.Width != w || s.Channels != ch || len(s.Classes) != c.Student.Classes() {
		return fmt.Errorf("%s has %dx%dx%d images of %d classes, but %s takes %dx%dx%d of %d", s.Name, s.Height, s.Width, s.Channels,
			len(s.Classes), c.Student.Name(), h, w, ch, c.Student.Classes())
	}
	if isRemote(c.Backend) {
		if r.source.resident, err = newResident(c.Backend, c.Images); err != nil {
			return err
		}
	}
	r.total = c.Epochs * r.source.count()
	if err := validateSchedule(c.Schedule, r.total); err != nil {
		return err
	}
	r.record = r.describe()
	if c.Save == nil {
		card := weights.Card{Classes: c.Images.Classes, Data: c.Images.Name, Seed: c.Seed, Selection: r.record.Choice}
		c.Save = func(path string, m *classifier.Model, _ Chosen) error { return weights.Save(path, m, card) }
	}
	r.stepper, err = NewStepper(c.Backend, c.Student, c.Teachers, c.Phases[0].Objective, c.Optimizer, c.Clip, c.Average != nil)
	return err
}

// describe is the run's record before anything is known of its outcome.
func (r *run) describe() *Record {
	c := r.cfg
	training := map[string]any{
		"network":      c.Student.Name(),
		"epochs":       c.Epochs,
		"batch_size":   c.BatchSize,
		"optimizer":    fmt.Sprint(c.Optimizer),
		"schedule":     c.Schedule.String(),
		"clip":         c.Clip,
		"augmentation": map[string]any{"pad": c.Augmentation.Pad, "flip": c.Augmentation.Flip},
		"images":       map[string]any{"set": c.Images.Name, "count": c.Images.Len(), "crc32": digestImages(c.Images)},
	}
	if c.Average != nil {
		training["average"] = c.Average.String()
	}
	if c.AWP.Gamma != 0 {
		training["awp"] = c.AWP.String()
	}
	var teachers, searches []any
	for _, t := range c.Teachers {
		teachers = append(teachers, map[string]any{"network": t.Name(), "crc32": digest(t.State)})
	}
	for _, p := range c.Phases {
		m := p.Objective.Threat
		searches = append(searches, map[string]any{
			"from": p.From, "norm": m.Norm.String(), "epsilon": m.Epsilon, "step_size": m.StepSize, "steps": m.Steps,
			"start": m.Start.String(), "batch_norm": p.Objective.SearchMode.String(),
		})
	}
	training["teachers"], training["searches"] = teachers, searches
	choice := "the epoch with the highest robust accuracy on held-out training images, then the highest clean accuracy"
	if c.Validate == nil {
		choice = "the last epoch: no images were held out"
	}
	return &Record{Settings: c.Settings, Training: training, Seed: c.Seed, Versions: versions(), InstructionSet: c.InstructionSet, Choice: choice}
}

// digest is the CRC-32C of weights, to tell that a teacher is the same file's as before the stop.
func digest(state []*tensors.Tensor) string {
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	for _, t := range state {
		t.ConstBytes(func(b []byte) { h.Write(b) })
	}
	return fmt.Sprintf("%08x", h.Sum32())
}

func digestImages(s *data.Set) string {
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	h.Write(s.Pixels)
	for i, label := range s.Labels {
		binary.Write(h, binary.LittleEndian, [2]int64{int64(label), int64(s.Index[i])})
	}
	return fmt.Sprintf("%08x", h.Sum32())
}

// epoch runs what is left of the epoch under way.
func (r *run) epoch(ctx context.Context) error {
	if p := phaseAt(r.cfg.Phases, r.at.Epoch); p != r.phase {
		if err := r.stepper.SetObjective(r.cfg.Phases[p].Objective); err != nil {
			return err
		}
		r.phase = p
	}
	r.stepper.SetProgress(float64(r.at.Epoch+1) / float64(r.cfg.Epochs))
	began, from := r.cfg.Now(), r.at.Batch
	if err := r.updates(ctx); err != nil {
		return err
	}
	if r.at.Batch < r.source.count() {
		return r.stop(ctx)
	}
	rate := perSecond((r.at.Batch-from)*r.source.size, r.cfg.Now().Sub(began))
	return r.endEpoch(ctx, rate)
}

// updates takes the epoch's steps until the run is to stop.
func (r *run) updates(ctx context.Context) error {
	threat := r.cfg.Phases[r.phase].Objective.Threat
	for b := range r.source.epoch(r.at.Epoch, r.at.Batch, threat) {
		if b.err != nil {
			return b.err
		}
		if ctx.Err() != nil {
			b.finalize()
			break
		}
		lr := r.cfg.Schedule.At(r.at.Step, r.total)
		outcome, err := r.stepper.Step(b.x, b.start, b.y, lr, r.rate(b.number))
		b.finalize()
		if err != nil {
			return fmt.Errorf("step %d (epoch %d, batch %d): %w", r.at.Step+1, r.at.Epoch+1, b.number+1, err)
		}
		r.at.Batch++
		r.at.Step++
		r.taken = append(r.taken, taken{outcome, r.at.Step, r.at.Batch, lr})
		now := r.cfg.Now()
		if now.Sub(r.read) < min(readEvery, r.cfg.LogEvery, r.cfg.CheckpointEvery) {
			continue
		}
		if err := r.readMetrics(); err != nil {
			return err
		}
		if now.Sub(r.checkpointed) >= r.cfg.CheckpointEvery {
			if err := r.save(false); err != nil {
				return err
			}
		}
	}
	return r.readMetrics()
}

// readEvery is the time after which metrics are read: reading them waits for the device, and holds up what it could do next.
const readEvery = 100 * time.Millisecond

// taken is a step whose metrics are not read yet.
type taken struct {
	outcome     *Outcome
	step, batch int // counted from 1
	lr          float64
}

// readMetrics reads the metrics of the steps taken since the last reading, and refuses those that are not finite.
func (r *run) readMetrics() error {
	r.read = r.cfg.Now()
	steps := r.taken
	r.taken = nil
	for _, s := range steps {
		m, err := s.outcome.Read()
		if err != nil {
			return err
		}
		for _, v := range []struct {
			name  string
			value float64
		}{{"loss", m.Loss}, {"gradient norm", m.GradNorm}} {
			if math.IsNaN(v.value) || math.IsInf(v.value, 0) {
				return r.lastGood(fmt.Errorf("step %d (epoch %d, batch %d): %w: the %s is %g", s.step, r.at.Epoch+1, s.batch, ErrDiverged, v.name, v.value))
			}
		}
		r.at.Loss += m.Loss
		r.at.Right += m.Accuracy
		if err := r.tell(m, s); err != nil {
			return err
		}
	}
	return nil
}

// compiled is the time spent compiling since it was last asked for. It is reported where it was long.
func (r *run) compiled() float64 {
	took := r.stepper.Compiling() - r.compiling
	r.compiling += took
	if took >= time.Second {
		r.cfg.Reporter.Note(fmt.Sprintf("compiling took %s", took.Round(100*time.Millisecond)))
	}
	return took.Seconds()
}

// lastGood adds to the error of a run that broke where it was still good.
func (r *run) lastGood(err error) error {
	return fmt.Errorf("%w; the last good checkpoint is %s, after step %d", err, filepath.Join(r.cfg.Dir, Last), r.saved)
}

// broken tells an error in reading the state, which may be that the state is none to go on from.
func (r *run) broken(err error) error {
	if errors.Is(err, ErrDiverged) {
		return r.lastGood(fmt.Errorf("after step %d: %w", r.at.Step, err))
	}
	return err
}

// rate is how far the average moves after the epoch's batch.
func (r *run) rate(batch int) float64 {
	if r.cfg.Average == nil {
		return 0
	}
	return r.cfg.Average.Rate(r.at.Epoch, batch, r.source.count())
}

// tell reports and logs a step.
func (r *run) tell(m Metrics, s taken) error {
	r.sum.Loss += m.Loss
	r.sum.Accuracy += m.Accuracy
	r.summed++
	now := r.cfg.Now()
	elapsed, done := now.Sub(r.began), s.step-r.first
	r.cfg.Reporter.Step(Status{
		Epoch: r.at.Epoch + 1, Epochs: r.cfg.Epochs, Batch: s.batch, Batches: r.source.count(), Loss: r.sum.Loss / float64(r.summed),
		ImagesPerSecond: perSecond(done*r.source.size, elapsed), Elapsed: elapsed,
		Remaining: time.Duration(float64(elapsed) / float64(done) * float64(r.total-s.step)),
	})
	since := now.Sub(r.logged)
	if since < r.cfg.LogEvery {
		return nil
	}
	n := float64(r.summed)
	line := Line{Event: "steps", Epoch: r.at.Epoch + 1, Step: s.step, Loss: r.sum.Loss / n, Accuracy: r.sum.Accuracy / n, GradNorm: m.GradNorm,
		LR: s.lr, ImagesPerSecond: perSecond(r.summed*r.source.size, since), CompileSeconds: r.compiled(), Seconds: r.seconds()}
	r.sum, r.summed, r.logged = Line{}, 0, now
	return r.log.write(line)
}

// endEpoch settles, validates, logs and writes checkpoints. It is done over from its beginning if it is interrupted.
func (r *run) endEpoch(ctx context.Context, rate float64) error {
	if swa, averaging := r.cfg.Average.(SWA); averaging && r.at.Epoch >= swa.From {
		if err := r.settle(ctx); err != nil {
			return r.interrupted(ctx, err)
		}
	}
	chosen := &Chosen{Epoch: r.at.Epoch + 1}
	if r.cfg.Validate != nil {
		r.cfg.Reporter.Validating(chosen.Epoch)
		model, err := r.stepper.Model()
		if err != nil {
			return r.broken(err)
		}
		score, err := r.cfg.Validate(ctx, model)
		if err != nil {
			return r.interrupted(ctx, fmt.Errorf("validating epoch %d: %w", chosen.Epoch, err))
		}
		if !(score.Clean >= 0 && score.Clean <= 1 && score.Robust >= 0 && score.Robust <= 1) {
			return fmt.Errorf("validating epoch %d: accuracies of %g and %g, expected shares from 0 to 1", chosen.Epoch, score.Clean, score.Robust)
		}
		chosen.Score = &score
	}
	best := chosen.beats(r.at.Best)
	if best {
		r.at.Best = chosen
	}
	n := float64(r.source.count())
	line := Line{Event: "epoch", Epoch: chosen.Epoch, Step: r.at.Step, Loss: r.at.Loss / n, Accuracy: r.at.Right / n,
		LR: r.cfg.Schedule.At(r.at.Step-1, r.total), ImagesPerSecond: rate, CompileSeconds: r.compiled(), Score: chosen.Score, Best: best,
		Seconds: r.seconds()}
	if err := r.log.write(line); err != nil {
		return err
	}
	r.cfg.Reporter.Epoch(line)
	if err := r.stepper.EndEpoch(); err != nil {
		return err
	}
	r.at.Epoch, r.at.Batch, r.at.Loss, r.at.Right = r.at.Epoch+1, 0, 0, 0
	if err := r.save(best); err != nil {
		return err
	}
	r.record.Chosen, r.record.Seconds = r.at.Best, r.at.Seconds
	return r.record.write(r.cfg.Dir)
}

// settle finds the running statistics of averaged weights on the epoch's images.
func (r *run) settle(ctx context.Context) error {
	m := r.cfg.Phases[r.phase].Objective.Threat
	m.Steps = 0 // clean images
	next, stop := iter.Pull(r.source.epoch(r.at.Epoch, 0, m))
	defer stop()
	var last batch
	defer func() { last.finalize() }()
	return r.stepper.Settle(func() (*tensors.Tensor, error) {
		last.finalize()
		var more bool
		if last, more = next(); !more || ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return last.x, last.err
	})
}

// beats is whether an epoch is a better choice than the best so far. Without scores the later epoch is.
func (c *Chosen) beats(best *Chosen) bool {
	switch {
	case best == nil || c.Score == nil || best.Score == nil:
		return true
	case c.Robust != best.Robust:
		return c.Robust > best.Robust
	}
	return c.Clean > best.Clean
}

// interrupted tells an error that a stop caused from any other.
func (r *run) interrupted(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return r.stop(ctx)
}

// stop saves an interrupted run.
func (r *run) stop(ctx context.Context) error {
	where := fmt.Sprintf("stopped in epoch %d of %d after batch %d of %d", r.at.Epoch+1, r.cfg.Epochs, r.at.Batch, r.source.count())
	if err := r.save(false); err != nil {
		return fmt.Errorf("%s (%w), and the checkpoint could not be written: %w", where, context.Cause(ctx), err)
	}
	return fmt.Errorf("%s; %s holds the run as it is: %w", where, filepath.Join(r.cfg.Dir, Last), context.Cause(ctx))
}

// save writes the newest checkpoint, and the best one if it is that too.
func (r *run) save(best bool) error {
	// The log must be on the disk to the length that the checkpoint says it has.
	if err := r.log.f.Sync(); err != nil {
		return err
	}
	r.at.Log, r.at.Seconds = r.log.size, r.seconds()
	c, err := r.stepper.snapshot(r.at)
	if err != nil {
		return r.broken(err)
	}
	// best goes first: a last that knows of a best is never without it.
	if best {
		if err := c.save(filepath.Join(r.cfg.Dir, Best)); err != nil {
			return err
		}
	}
	if err := c.saveLast(r.cfg.Dir); err != nil {
		return err
	}
	r.saved, r.checkpointed = r.at.Step, r.cfg.Now()
	return nil
}

// finish writes the chosen model and the record of the whole run.
func (r *run) finish() (*Result, error) {
	path := filepath.Join(r.cfg.Dir, Best)
	c, err := loadCheckpoint(path)
	if err != nil {
		return nil, err
	}
	if best := c.position.Best; best == nil || best.Epoch != r.at.Best.Epoch {
		return nil, fmt.Errorf("checkpoint %s is not that of epoch %d, which %s says is the best", path, r.at.Best.Epoch, Last)
	}
	model, err := c.model(r.cfg.Student.Network)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := r.cfg.Save(filepath.Join(r.cfg.Dir, Final), model, *r.at.Best); err != nil {
		return nil, err
	}
	r.record.Chosen, r.record.Seconds, r.record.Complete = r.at.Best, r.at.Seconds, true
	if err := r.record.write(r.cfg.Dir); err != nil {
		return nil, err
	}
	return &Result{Model: model, Chosen: *r.at.Best, Seconds: r.at.Seconds}, nil
}

// seconds is the time spent so far, over all stops.
func (r *run) seconds() float64 { return r.before + r.cfg.Now().Sub(r.began).Seconds() }

func perSecond(n int, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}
