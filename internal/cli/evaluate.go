package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/recipe"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/weights"
)

// ledgerName is the file in a run folder that holds its evaluation.
const ledgerName = "evaluation.jsonl"

type evaluateCmd struct {
	Model     string        `help:"Model file or run folder." placeholder:"FILE" required:""`
	Data      string        `help:"Data set to test on; by default the one the model was trained on." placeholder:"NAME"`
	DataDir   string        `help:"Folder the data set is in." placeholder:"DIR" env:"ADAAD_DATA_DIR"`
	Attacks   string        `help:"Attacks, with commas between; see adaad attacks." default:"clean,fgsm,pgd-20" placeholder:"NAMES"`
	Samples   int           `help:"Test on a class-balanced subset of so many images; 0 takes all." placeholder:"N"`
	Eps       recipe.Radius `help:"Radius of the attacks." default:"8/255" placeholder:"R"`
	StepSize  recipe.Radius `help:"Step of iterated attacks; by default a quarter of the radius." default:"0" placeholder:"R"`
	BatchSize int           `help:"Images at once; changes speed, not results." default:"128" placeholder:"N"`
	Resume    bool          `help:"Go on with the record of an evaluation that was stopped."`
}

func (evaluateCmd) Help() string {
	return `Every image gets a line in a record: RUN/evaluation.jsonl for a run folder, the file that --json names
otherwise. The record grows as images are done, and --resume goes on with it.

Examples:
  adaad evaluate --model runs/student --data-dir data --samples 1000
  adaad evaluate --model student.safetensors --data cifar10 --data-dir data --attacks clean,cw --json out.jsonl`
}

func (c *evaluateCmd) Run(ctx context.Context, g *globals) error {
	e, err := c.prepare(g)
	if err != nil {
		return usage(err)
	}
	backend, err := g.open()
	if err != nil {
		return err
	}
	defer backend.Finalize()
	if e.Ledger != g.JSON && !c.Resume {
		// A run folder holds one evaluation, the newest.
		if err := os.Remove(e.Ledger); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	progress, end := g.attackProgress()
	e.Progress = progress
	result, err := eval.Run(ctx, backend, *e)
	end()
	if errors.Is(err, context.Canceled) && e.Ledger != "" {
		return fmt.Errorf("%w; go on with the same command and --resume", err)
	}
	if err != nil {
		return err
	}
	for _, w := range result.Warnings {
		fmt.Fprintln(g.env.Stderr, "warning:", w)
	}
	table := report.Attacks(e.Model.Name(), conditions(result), e.Selection, accuracies(result))
	return table.Text(g.env.Stdout)
}

// prepare opens what the flags name and checks that it fits together.
func (c *evaluateCmd) prepare(g *globals) (*eval.Evaluation, error) {
	if c.Samples < 0 {
		return nil, fmt.Errorf("--samples is %d, expected 0 (all) or more", c.Samples)
	}
	model, err := weights.Load(c.Model)
	if err != nil {
		return nil, fmt.Errorf("--model: %w", err)
	}
	card, err := weights.LoadCard(c.Model)
	if errors.Is(err, fs.ErrNotExist) {
		card, err = &weights.Card{}, nil
	}
	if err != nil {
		return nil, err
	}
	if c.Data == "" {
		c.Data = card.Data
	}
	if c.Data == "" {
		return nil, fmt.Errorf("--data is missing, and %s has no card that names the data it was trained on", c.Model)
	}
	search := threat.Model{Epsilon: float64(c.Eps), StepSize: float64(c.StepSize)}
	suites, err := attack.Parse(c.Attacks, search)
	if err != nil {
		return nil, fmt.Errorf("--attacks: %w", err)
	}
	set, err := data.Open(c.Data, c.DataDir, data.Test, data.Options{})
	if err != nil {
		return nil, explainData(err, c.DataDir)
	}
	e := &eval.Evaluation{
		Model: model, Set: set.Subset(c.Samples, g.seed()), Norm: search.Norm, Epsilon: search.Epsilon, Suites: suites,
		Seed: g.seed(), BatchSize: c.BatchSize, Selection: card.Selection, Ledger: g.JSON, Resume: c.Resume,
	}
	if err := e.Validate(); err != nil {
		return nil, err
	}
	if info, err := os.Stat(c.Model); err == nil && info.IsDir() && g.JSON == "" {
		e.Ledger = filepath.Join(c.Model, ledgerName)
	}
	if c.Resume && e.Ledger == "" {
		return nil, errors.New("--resume needs a record to go on with: a run folder as --model, or --json FILE")
	}
	return e, nil
}

// conditions and accuracies put a measurement in the words of package report.
func conditions(r *eval.Result) report.Conditions {
	return report.Conditions{
		Data: r.Header.Data + " test", Images: len(r.Rows), Norm: r.Header.Norm, Epsilon: threat.Format(r.Header.Epsilon),
	}
}

func accuracies(r *eval.Result) []report.Accuracy {
	var all []report.Accuracy
	for _, a := range r.Accuracies() {
		low, high := a.Wilson()
		out := report.Accuracy{Attack: a.Name, Hits: a.Hits, Total: a.Total, Low: low, High: high}
		if worst := a.WorstClass(); worst >= 0 {
			out.WorstClass, out.WorstAccuracy = r.Header.Classes[worst], a.Classes[worst].Value()
		}
		all = append(all, out)
	}
	return all
}
