package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/adaad-go/adaad/recipe"
	"github.com/adaad-go/adaad/train"
)

type trainCmd struct {
	Recipe   string `help:"Start from this recipe; see adaad recipes." placeholder:"NAME" xor:"start"`
	Settings string `help:"Start from the settings of another run: its folder, or a file like its run.json." placeholder:"FILE" xor:"start"`
	Method   string `help:"Without a recipe: the method; see adaad methods." placeholder:"NAME"`
	Data     string `help:"Data set; see adaad datasets." placeholder:"NAME"`

	DataDir string   `help:"Folder the data set is in." placeholder:"DIR" env:"ADAAD_DATA_DIR"`
	Teacher []string `help:"Model file or run folder to learn from; again for a second one." placeholder:"FILE"`

	changes
	Eps       *recipe.Radius `help:"Radius of the search, such as 16/255; its step keeps the proportion." placeholder:"R"`
	Precision string         `help:"Of convolutions and matrix products: fp32 (the default) or bf16." placeholder:"P"`
	Set       []string       `help:"Change any other setting of run.json, such as lr=0.05 or search.steps=5." placeholder:"KEY=VALUE" sep:"none"`

	Out        string `help:"Run folder; made if it is not there." placeholder:"DIR" required:""`
	Resume     bool   `help:"Go on with the run in --out, with its settings."`
	Checkpoint string `help:"What to resume from: last, last.prev or best." default:"last" enum:"last,last.prev,best"`

	Minutes float64 `help:"Stop after so many minutes with everything saved, for --resume to go on; 0 trains to the end." placeholder:"M"`
}

// errTimeUp is why a run stopped that was to take only so long.
var errTimeUp = errors.New("its minutes are over")

// changes are the settings that have flags of their own, whatever is trained.
type changes struct {
	Model        string `help:"Network to train; see adaad models." placeholder:"NAME"`
	Epochs       *int   `help:"Passes over the training images; what is counted in epochs keeps its proportion." placeholder:"E"`
	BatchSize    *int   `help:"Images in a step." placeholder:"N"`
	TrainSamples *int   `help:"Train on a class-balanced subset of so many images." placeholder:"N"`
}

func (c changes) apply(s *recipe.Settings) {
	if c.Model != "" {
		s.Model = c.Model
	}
	if c.Epochs != nil {
		s.SetEpochs(*c.Epochs)
	}
	if c.BatchSize != nil {
		s.BatchSize = *c.BatchSize
	}
	if c.TrainSamples != nil {
		s.TrainSamples = *c.TrainSamples
	}
}

func (trainCmd) Help() string {
	return `Examples:
  adaad train --recipe pgd-at-cifar10-resnet20 --data-dir data --out runs/teacher
  adaad train --recipe adaad-cifar10-resnet20 --data-dir data --teacher runs/teacher --out runs/student
  adaad train --resume --data-dir data --out runs/student --minutes 25
  adaad train --settings runs/student/run.json --seed 2 --data-dir data --out runs/second`
}

func (c *trainCmd) Run(ctx context.Context, g *globals) error {
	if !(c.Minutes >= 0) {
		return usage(fmt.Errorf("--minutes is %g, expected 0 (to the end) or more", c.Minutes))
	}
	if c.Minutes > 0 {
		var done context.CancelFunc
		ctx, done = context.WithTimeoutCause(ctx, time.Duration(c.Minutes*float64(time.Minute)), errTimeUp)
		defer done()
	}
	settings, err := c.asked(g)
	if err != nil {
		return usage(err)
	}
	job, err := recipe.Prepare(settings, c.DataDir)
	if err != nil {
		return usage(explainData(err, c.DataDir))
	}
	g.tell(job.Assumed)
	backend, err := g.open()
	if err != nil {
		return err
	}
	defer backend.Finalize()
	options := recipe.Options{Dir: c.Out, Reporter: train.NewReporter(g.env.Stderr, g.Quiet), Version: g.env.Version}
	if c.Resume {
		options.Resume = c.Checkpoint
	}
	result, err := job.Run(ctx, backend, options)
	var refused *train.Refused
	switch {
	case errors.As(err, &refused):
		return usage(err)
	case errors.Is(err, errTimeUp):
		fmt.Fprintf(g.env.Stdout, "%v; go on with: %s\n", err, c.goOn())
		return nil
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%w; go on with: %s", err, c.goOn())
	case err != nil:
		return err
	}
	fmt.Fprintf(g.env.Stdout, "epoch %d of %d chosen (%s): %s; in %s\n", result.Chosen.Epoch, settings.Epochs,
		job.Selection(), held(result.Chosen.Score), c.Out)
	page, err := writePage(c.Out)
	if err != nil {
		return err
	}
	fmt.Fprintf(g.env.Stdout, "report: %s\n", page)
	fmt.Fprintf(g.env.Stdout, "next: adaad evaluate --model %s%s\n", c.Out, dataDirFlag(c.DataDir))
	return g.writeJSON(result.Chosen)
}

// goOn is the command that resumes the run.
func (c *trainCmd) goOn() string {
	return "adaad train --resume --out " + c.Out + dataDirFlag(c.DataDir)
}

// asked are the settings of the recipe, the method, the file or the resumed run, with what the flags change.
func (c *trainCmd) asked(g *globals) (s recipe.Settings, err error) {
	switch {
	case c.Resume:
		s, err = recipe.ReadSettings(c.Out)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("--resume: %s holds no run to go on with", c.Out)
		}
	case c.Settings != "":
		s, err = recipe.ReadSettings(c.Settings)
	case c.Recipe != "":
		var p recipe.Preset
		p, err = recipe.Find(c.Recipe)
		s = p.Settings
	case c.Method != "":
		s, err = recipe.Defaults(c.Method)
	default:
		err = errors.New("what to train is missing: name a --recipe (see adaad recipes) or a --method with --model and --data")
	}
	if err != nil {
		return s, err
	}
	if c.Method != "" {
		s.Method = c.Method
	}
	if c.Data != "" {
		s.Data = c.Data
	}
	if c.Precision != "" {
		s.Precision = c.Precision
	}
	c.changes.apply(&s)
	if len(c.Teacher) > 0 {
		s.Teachers = c.Teacher
	}
	if c.Eps != nil {
		s.SetEpsilon(*c.Eps)
	}
	if g.Seed != nil {
		s.Seed = *g.Seed
	}
	return s, set(&s, "--set", c.Set)
}

// set changes settings by KEY=VALUE, given with a flag.
func set(s *recipe.Settings, flag string, assignments []string) error {
	for _, kv := range assignments {
		key, value, ok := strings.Cut(kv, "=")
		if !ok {
			return fmt.Errorf("%s %s: expected KEY=VALUE, such as lr=0.05", flag, kv)
		}
		if err := s.Set(key, value); err != nil {
			return fmt.Errorf("%s: %w", flag, err)
		}
	}
	return nil
}

// held writes what the held-out images said of a checkpoint.
func held(s *train.Score) string {
	switch {
	case s == nil:
		return "not measured"
	case s.Attack != "":
		return fmt.Sprintf("clean %.2f%%, %s %.2f%%", 100*s.Clean, s.Attack, 100*s.Robust)
	}
	return fmt.Sprintf("clean %.2f%%", 100*s.Clean)
}

func dataDirFlag(dir string) string {
	if dir == "" {
		return ""
	}
	return " --data-dir " + dir
}

// writeJSON writes a result to where --json asks.
func (g *globals) writeJSON(v any) error {
	if g.JSON == "" {
		return nil
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return g.writeText(append(text, '\n'))
}
