package recipe

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/distill"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/train"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
)

// Job is a run that is ready to start: everything was opened and checked, nothing was written.
type Job struct {
	Settings Settings
	Student  *classifier.Model // with its initial weights
	Teachers []*classifier.Model
	Train    *data.Set
	Held     *data.Set // held out of the training images; it chooses the checkpoint
	Assumed  []string  // what the teachers' files leave open and was taken, a sentence each

	method    distill.Method
	augment   data.Augmentation
	optimizer train.Optimizer
	schedule  train.Schedule
	average   train.Average
	validate  threat.Model
}

// Prepare opens what the settings name and checks that it fits together. Its errors are the user's to mend.
func Prepare(s Settings, dataDir string) (*Job, error) {
	j, err := plan(s)
	if err != nil {
		return nil, err
	}
	var teachers []*classifier.Model
	for _, path := range s.Teachers {
		teacher, assumed, err := weights.LoadAssuming(path)
		if err != nil {
			return nil, fmt.Errorf("--teacher: %w", err)
		}
		teachers, j.Assumed = append(teachers, teacher), append(j.Assumed, assumed...)
	}
	set, err := data.Open(s.Data, dataDir, data.Train, data.Options{})
	if err != nil {
		return nil, err
	}
	return j.join(set, teachers)
}

// Join is Prepare with images and teachers that are open already: all training images of the data set, and the teachers
// that the settings name, in order.
func Join(s Settings, images *data.Set, teachers []*classifier.Model) (*Job, error) {
	j, err := plan(s)
	if err != nil {
		return nil, err
	}
	return j.join(images, teachers)
}

// join takes the images and the teachers and makes the student.
func (j *Job) join(images *data.Set, teachers []*classifier.Model) (*Job, error) {
	s := j.Settings
	// Teachers are shared by jobs, which may want them in different precisions.
	j.Teachers = nil
	for _, t := range teachers {
		own := *t
		j.Teachers = append(j.Teachers, &own)
	}
	j.Train, j.Held = images.HoldOut(s.HeldOut, s.Seed)
	j.Train = j.Train.Subset(s.TrainSamples, s.Seed)
	j.Held = j.Held.Subset(s.ValidationSamples, s.Seed)
	if s.Augment {
		for _, info := range data.Infos() {
			if info.Name == s.Data {
				j.augment = info.Augment
			}
		}
	}
	for i, t := range j.Teachers {
		if err := eval.Fits(t.Network, j.Train); err != nil {
			return nil, fmt.Errorf("teacher %s: %w", s.Teachers[i], err)
		}
	}
	net, err := zoo.New(s.Model, len(j.Train.Classes), [3]int{j.Train.Height, j.Train.Width, j.Train.Channels})
	if err != nil {
		return nil, err
	}
	j.Student = zoo.Init(net, s.Seed)
	for _, m := range append(j.Teachers, j.Student) {
		if m.Network, err = zoo.InPrecision(m.Network, zoo.Precision(s.Precision)); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// plan builds the method and reads the settings of the training. It opens nothing.
func plan(s Settings) (*Job, error) {
	j := &Job{Settings: s}
	var err error
	if j.method, err = s.BuildMethod(); err != nil {
		return nil, err
	}
	if want := j.method.Teachers; len(s.Teachers) != want {
		takes := [...]string{"no teacher", "1 teacher", "2 teachers, the robust one first, then the naturally trained one"}[want]
		return nil, fmt.Errorf("method %s takes %s; found %d: name each with --teacher FILE", s.Method, takes, len(s.Teachers))
	}
	return j, j.readTraining()
}

// readTraining reads the settings of the optimizer, its schedule, the average and the validation.
func (j *Job) readTraining() error {
	s := j.Settings
	switch {
	case s.Epochs < 1:
		return fmt.Errorf("epochs is %d, expected at least 1", s.Epochs)
	case s.BatchSize < 1:
		return fmt.Errorf("batch_size is %d, expected at least 1", s.BatchSize)
	case !(s.HeldOut >= 0 && s.HeldOut < 1):
		return fmt.Errorf("held_out is %g, expected a share from 0 to less than 1", s.HeldOut)
	case s.TrainSamples < 0:
		return fmt.Errorf("train_samples is %d, expected 0 (all) or more", s.TrainSamples)
	case !(s.LR > 0) || math.IsInf(s.LR, 0):
		return fmt.Errorf("lr is %g, expected more than 0", s.LR)
	case !(s.WeightDecay >= 0):
		return fmt.Errorf("weight_decay is %g, expected at least 0", s.WeightDecay)
	case !(s.Clip >= 0):
		return fmt.Errorf("clip is %g, expected 0 (no clipping) or more", s.Clip)
	case !(s.Momentum >= 0 && s.Momentum < 1):
		return fmt.Errorf("momentum is %g, expected 0 to less than 1", s.Momentum)
	case !(s.EMA >= 0 && s.EMA < 1):
		return fmt.Errorf("ema is %g, expected a decay from 0 to less than 1", s.EMA)
	case !(s.SWA >= 0 && s.SWA < 1):
		return fmt.Errorf("swa is %g, expected a share of the run from 0 to less than 1", s.SWA)
	case !(s.WarmUp >= 0 && s.WarmUp <= float64(s.Epochs)):
		return fmt.Errorf("warm_up is %g epochs, expected 0 to the %d of the run", s.WarmUp, s.Epochs)
	case s.EMA > 0 && s.SWA > 0:
		return errors.New("ema and swa are both set; a run keeps one average")
	case !(s.AWP >= 0 && s.AWP < 1):
		return fmt.Errorf("awp is %g, expected a share of each layer's norm from 0 (none) to less than 1", s.AWP)
	case s.AWPWarmUp < 0:
		return fmt.Errorf("awp_warm_up is %d epochs, expected at least 0", s.AWPWarmUp)
	case s.AWP > 0 && s.AWPWarmUp >= s.Epochs:
		return fmt.Errorf("awp_warm_up is %d, but the run has %d epochs: no weights would be perturbed", s.AWPWarmUp, s.Epochs)
	case s.Search.Ramp < 0 || s.Search.Ramp >= s.Epochs:
		return fmt.Errorf("search.ramp is %d epochs, expected 0 to less than the %d of the run", s.Search.Ramp, s.Epochs)
	case s.Begin >= s.Epochs:
		return fmt.Errorf("begin is %d, but the run has %d epochs: %s would never begin", s.Begin, s.Epochs, s.Method)
	case s.ValidationSteps < 0:
		return fmt.Errorf("validation_steps is %d, expected at least 0", s.ValidationSteps)
	case s.ValidationSteps > 0 && !(s.AttackedAt() > 0):
		return fmt.Errorf("validation_steps is %d, but search.epsilon is 0: there is no ball to validate in", s.ValidationSteps)
	}
	switch s.Optimizer {
	case "sgd":
		j.optimizer = train.SGD{Momentum: s.Momentum, WeightDecay: s.WeightDecay, Nesterov: s.Nesterov}
	case "adam":
		if s.Nesterov {
			return errors.New("nesterov is set, but the optimizer is adam; expected sgd")
		}
		j.optimizer = train.Adam{Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, WeightDecay: s.WeightDecay}
	default:
		return fmt.Errorf("optimizer is %q, expected sgd or adam", s.Optimizer)
	}
	switch s.Schedule {
	case "constant":
		j.schedule = train.Constant(s.LR)
	case "cosine":
		j.schedule = train.Cosine{LR: s.LR}
	case "one-cycle":
		j.schedule = train.OneCycle{Max: s.LR, Rise: 0.3, Div: 25, FinalDiv: 1e4}
	case "piecewise":
		if s.MilestonesOf < 1 {
			return fmt.Errorf("milestones_of is %d, expected the number of epochs that milestones count in", s.MilestonesOf)
		}
		j.schedule = train.Piecewise{LR: s.LR, Factor: 0.1, Milestones: s.Milestones, Of: s.MilestonesOf}
	default:
		return fmt.Errorf("schedule is %q, expected piecewise, cosine, one-cycle or constant", s.Schedule)
	}
	if s.WarmUp > 0 {
		j.schedule = train.WarmUp{Share: s.WarmUp / float64(s.Epochs), Then: j.schedule}
	}
	switch {
	case s.EMA > 0:
		j.average = train.EMA{Decay: s.EMA}
	case s.SWA > 0:
		j.average = train.SWA{From: int(math.Ceil(s.SWA * float64(s.Epochs)))}
	}
	j.validate = validation(float64(s.AttackedAt()), s.ValidationSteps)
	return j.validate.Validate()
}

// AttackedAt is the radius that a run is judged at: that of its validation.
func (s Settings) AttackedAt() Radius {
	if s.ValidationEpsilon > 0 {
		return s.ValidationEpsilon
	}
	return s.Search.Epsilon
}

// Options are where a job runs and who watches.
type Options struct {
	Dir      string // the run folder
	Resume   string // the checkpoint in Dir to go on from (train.Last, ...); empty starts a new run
	Reporter train.Reporter
	Version  string
}

// attack names the attack of the validation, as tables do; it is empty without one.
func (j *Job) attack() string {
	if j.validate.Steps == 0 {
		return ""
	}
	return fmt.Sprintf("pgd-%d eps %s", j.validate.Steps, threat.Format(j.validate.Epsilon))
}

// Selection says how a job's checkpoint is chosen, as every number from it is quoted with.
func (j *Job) Selection() string {
	switch {
	case j.Held.Len() == 0:
		return "last epoch"
	case j.validate.Steps == 0:
		return fmt.Sprintf("best clean accuracy on %d held-out training images", j.Held.Len())
	}
	return fmt.Sprintf("best PGD-%d accuracy (%s, eps %s) on %d held-out training images",
		j.validate.Steps, j.validate.Norm, threat.Format(j.validate.Epsilon), j.Held.Len())
}

// Run trains the student and leaves the run folder: settings, log, checkpoints, and the chosen model with its card.
func (j *Job) Run(ctx context.Context, backend compute.Backend, o Options) (*train.Result, error) {
	cfg := train.Config{
		Dir: o.Dir, Backend: backend, Student: j.Student, Teachers: j.Teachers,
		Phases: phases(j.method, j.Settings.Search.Ramp), AWP: train.AWP{Gamma: j.Settings.AWP, WarmUp: j.Settings.AWPWarmUp},
		Images: j.Train, Augmentation: j.augment, Epochs: j.Settings.Epochs, BatchSize: j.Settings.BatchSize,
		Optimizer: j.optimizer, Schedule: j.schedule, Average: j.average, Clip: j.Settings.Clip, Seed: j.Settings.Seed,
		Settings: j.Settings, InstructionSet: backend.Description(), Reporter: o.Reporter,
		Resume: o.Resume,
		Save: func(path string, m *classifier.Model, chosen train.Chosen) error {
			card := j.card(o.Version)
			card.Accuracies = j.measured(chosen)
			return weights.Save(path, m, card)
		},
	}
	if j.Held.Len() > 0 {
		scorer, err := eval.NewScorer(backend, j.Student.Network, j.Held, j.validate, 0, j.Settings.Seed)
		if err != nil {
			return nil, err
		}
		defer scorer.Finalize()
		cfg.Validate = func(ctx context.Context, m *classifier.Model) (train.Score, error) {
			clean, robust, err := scorer.Score(ctx, m.State)
			return train.Score{Clean: clean.Value(), Robust: robust.Value(), Images: j.Held.Len(), Attack: j.attack()}, err
		}
	}
	return train.Run(ctx, cfg)
}

// phases are a method's objectives, and when each takes over: its warm-up before it begins, and smaller radii while the
// search's grows.
func phases(m distill.Method, ramp int) []train.Phase {
	full := train.Objective{
		Threat: m.Threat, SearchMode: m.SearchMode, Before: m.Before, Search: m.Search, Loss: m.Loss,
		Memory: m.Memory, EndEpoch: m.EndEpoch,
	}
	begin := 0
	if m.WarmUp != nil {
		begin = m.Begin
	}
	var all []train.Phase
	for epoch := range max(begin, ramp) + 1 {
		if epoch > 0 && epoch > ramp && epoch != begin {
			continue // as the epoch before
		}
		o := full
		if epoch < begin {
			o.Loss = m.WarmUp
		}
		if share := float64(epoch+1) / float64(ramp+1); share < 1 {
			o.Threat.Epsilon, o.Threat.StepSize = o.Threat.Epsilon*share, o.Threat.StepSize*share
		}
		all = append(all, train.Phase{From: epoch, Objective: o})
	}
	return all
}

// card is the model card of what the job makes, without measurements.
func (j *Job) card(version string) weights.Card {
	return weights.Card{
		Classes: j.Train.Classes, Data: j.Settings.Data, Method: j.Settings.Method, Recipe: j.Settings.Recipe,
		Seed: j.Settings.Seed, HeldOut: j.Settings.HeldOut, Version: version, Selection: j.Selection(),
	}
}

// measured are the held-out accuracies that a checkpoint was chosen by.
func (j *Job) measured(c train.Chosen) []weights.Measured {
	if c.Score == nil {
		return nil
	}
	all := []weights.Measured{{Attack: "clean", Images: c.Images, Of: weights.HeldOutImages, Accuracy: c.Clean}}
	if v := j.validate; v.Steps > 0 {
		all = append(all, weights.Measured{
			Attack: fmt.Sprintf("pgd-%d", v.Steps), Norm: v.Norm.String(), Epsilon: threat.Format(v.Epsilon),
			Images: c.Images, Of: weights.HeldOutImages, Accuracy: c.Robust,
		})
	}
	return all
}
