package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/recipe"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/train"
	"github.com/adaad-go/adaad/weights"
	"github.com/gomlx/compute"
)

type demoCmd struct {
	Out string `help:"Folder for the three runs; made if it is not there." default:"runs/demo" placeholder:"DIR"`
}

func (demoCmd) Help() string {
	return `Trains a small teacher to be robust (PGD-AT), distils a smaller student from it with AdaAD and, for
contrast, one with plain KD, and attacks all three. The images are drawn by the program.

Example:
  adaad demo`
}

// The demo's attack: enough images for an interval of a few percent.
const demoImages = 500

// stages are the demo's three runs, in order.
var stages = []struct{ name, recipe, about string }{
	{"teacher", "pgd-at-shapes-resnet8", "a teacher, trained on attacked images (PGD-AT)"},
	{"adaad", "adaad-shapes-resnet8", "a student of half the width, distilled with AdaAD"},
	{"kd", "kd-shapes-resnet8", "the same student, distilled without attacks (KD)"},
}

func (c *demoCmd) Run(ctx context.Context, g *globals) error {
	for _, s := range stages {
		dir := filepath.Join(c.Out, s.name)
		switch _, err := train.ReadRecord(dir); {
		case err == nil:
			return usage(fmt.Errorf("%s holds a demo already; remove it or choose another folder with --out", c.Out))
		case !errors.Is(err, fs.ErrNotExist):
			return usage(err)
		}
	}
	backend, err := g.open()
	if err != nil {
		return err
	}
	defer backend.Finalize()

	test, err := data.Open("shapes", "", data.Test, data.Options{})
	if err != nil {
		return err
	}
	test = test.Subset(demoImages, g.seed())
	var models []report.Model
	var runs []string
	var last *eval.Result
	for i, s := range stages {
		if !g.Quiet {
			fmt.Fprintf(g.env.Stderr, "\n%d/%d  %s\n", i+1, len(stages), s.about)
		}
		dir := filepath.Join(c.Out, s.name)
		job, result, err := c.train(ctx, g, backend, s.recipe, dir)
		if err != nil {
			return err
		}
		if last, err = attackRun(ctx, g, backend, dir, test, job.Selection()); err != nil {
			return err
		}
		runs = append(runs, dir)
		spent := time.Duration(result.Seconds * float64(time.Second))
		models = append(models, *describe(s.name+" "+job.Settings.Model, job.Student.Network, last, spent, job.Selection()))
	}
	page, err := comparison("The demo: a teacher, and two students", c.Out, models, runs, last)
	if err != nil {
		return err
	}
	path := filepath.Join(c.Out, pageName)
	if err := weights.WriteFile(path, page.HTML); err != nil {
		return err
	}
	fmt.Fprintln(g.env.Stderr)
	table := report.Models("", conditions(last), models)
	if g.JSON != "-" {
		if err := table.Text(g.env.Stdout); err != nil {
			return err
		}
		fmt.Fprintf(g.env.Stdout, `
The runs are in %s.
Each has its settings in run.json, its curves in log.jsonl, every attacked image in %s.

Next, the real job:
  adaad datasets --download cifar10 --data-dir data
  adaad train --recipe pgd-at-cifar10-resnet20 --data-dir data --out runs/teacher
  adaad train --recipe adaad-cifar10-resnet20 --data-dir data --teacher runs/teacher \
      --out runs/student
  adaad evaluate --model runs/student --data-dir data --samples 1000

All of it to look at: %s
`, c.Out, ledgerName, path)
	}
	return g.writeJSON(models)
}

// train makes one of the demo's runs; students learn from the first.
func (c *demoCmd) train(ctx context.Context, g *globals, backend compute.Backend, name, dir string) (*recipe.Job, *train.Result, error) {
	p, err := recipe.Find(name)
	if err != nil {
		return nil, nil, err
	}
	s := p.Settings
	s.Seed = g.seed()
	if p.Needs != "" {
		s.Teachers = []string{filepath.Join(c.Out, stages[0].name)}
	}
	job, err := recipe.Prepare(s, "")
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return nil, nil, err
	}
	result, err := job.Run(ctx, backend, recipe.Options{Dir: dir, Reporter: train.NewReporter(g.env.Stderr, g.Quiet), Version: g.env.Version})
	if errors.Is(err, context.Canceled) {
		err = fmt.Errorf("%w; the demo starts anew in another --out, or go on with this run: adaad train --resume --out %s", err, dir)
	}
	return job, result, err
}

// attackRun attacks the model of a run folder with PGD-20 and leaves the record there, and the accuracies in its card.
func attackRun(ctx context.Context, g *globals, backend compute.Backend, dir string, test *data.Set, selection string) (*eval.Result, error) {
	model, err := weights.Load(dir)
	if err != nil {
		return nil, err
	}
	suites, err := attack.Parse("clean,pgd-20", threat.Model{Epsilon: 8.0 / 255}, nil)
	if err != nil {
		return nil, err
	}
	e := eval.Evaluation{
		Model: model, Set: test, Epsilon: 8.0 / 255, Suites: suites, Seed: g.seed(),
		Selection: selection, Ledger: filepath.Join(dir, ledgerName),
	}
	progress, end := g.attackProgress()
	e.Progress = progress
	result, err := eval.Run(ctx, backend, e)
	end()
	if err != nil {
		return nil, err
	}
	card, err := weights.LoadCard(dir)
	if err != nil {
		return nil, err
	}
	if err := record(dir, card, result, 0); err != nil {
		return nil, err
	}
	if err := showExamples(ctx, backend, e, teacherOf(dir, test), dir); err != nil {
		return nil, err
	}
	_, err = writePage(dir)
	return result, err
}
