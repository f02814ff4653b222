package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/recipe"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
)

type evaluateCmd struct {
	Model     string        `help:"Model file or run folder." placeholder:"FILE" required:""`
	Data      string        `help:"Data set to test on; by default the one the model was trained on." placeholder:"NAME"`
	DataDir   string        `help:"Folder the data set is in." placeholder:"DIR" env:"ADAAD_DATA_DIR"`
	Attacks   string        `help:"Attacks, with commas between; see adaad attacks. By default clean,fgsm,pgd-20, and square too with --int8." placeholder:"NAMES" aliases:"attack"`
	Samples   int           `help:"Test on a class-balanced subset of so many images; 0 takes all." placeholder:"N"`
	Until     percent       `help:"Stop when no 95% interval reaches further than this from its accuracy, such as 0.5%; takes the images at random." placeholder:"P"`
	Norm      string        `help:"Norm of the attacks: linf or l2." enum:"linf,l2" default:"linf" placeholder:"NAME"`
	Eps       recipe.Radius `help:"Radius of the attacks; by default 8/255, and 0.5 for l2." placeholder:"R"`
	StepSize  recipe.Radius `help:"Step of PGD, CW and MIM; by default each one's own." default:"0" placeholder:"R"`
	INT8      string        `name:"int8" help:"ONNX file of the same model in int8, attacked beside it." placeholder:"FILE"`
	Surrogate string        `help:"Model file or run folder that the attack transfer searches on." placeholder:"FILE"`
	MatchGap  bool          `help:"Measure how well the model matches its teacher around the images, in place of attacking it."`
	Teacher   string        `help:"Model file or run folder of the teacher; by default the one that the run was trained with." placeholder:"FILE"`
	BatchSize int           `help:"Images at once, down to a power of two; changes speed, not results. 128 suits CPUs." default:"128" placeholder:"N"`
	Precision string        `help:"Of convolutions and matrix products: fp32 (the default) or bf16." placeholder:"P"`
	Resume    bool          `help:"Go on with the record of an evaluation that was stopped."`
	Check     bool          `help:"Measure every accuracy in the model's card again and say which agree; exit code 1 where one does not."`
}

func (evaluateCmd) Help() string {
	return `Every image gets a line in a record: RUN/evaluation.jsonl for a run folder, the file that --json names
otherwise. The record grows as images are done, and --resume goes on with it. adaad compare shows what two differ in.
Accuracies go into the model's card too, if it has one, and a run folder gets RUN/report.html, a page with everything
that is known of the run.

Examples:
  adaad evaluate --model runs/student --data-dir data --samples 1000
  adaad evaluate --model student.safetensors --data cifar10 --data-dir data --attacks clean,cw --json out.jsonl
  adaad evaluate --model runs/student --data-dir data --attacks autoattack --until 1%
  adaad evaluate --model runs/student --data-dir data --samples 500 --match-gap --teacher runs/teacher
  adaad evaluate --model runs/student --int8 student-int8.onnx --data-dir data --samples 1000
  adaad evaluate --model student.safetensors --data-dir data --check`
}

// percent is a share that is written as a percentage: "0.5%" is 0.005.
type percent float64

// UnmarshalText reads "0.5%".
func (p *percent) UnmarshalText(text []byte) error {
	number, isPercent := strings.CutSuffix(string(text), "%")
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !isPercent || !(v > 0 && v < 100) {
		return fmt.Errorf("%q is no percentage above 0%% and below 100%%, such as 0.5%%", text)
	}
	*p = percent(v / 100)
	return nil
}

func (c *evaluateCmd) Run(ctx context.Context, g *globals) error {
	backend, err := g.open()
	if err != nil {
		return err
	}
	defer backend.Finalize()
	if c.Check && c.MatchGap {
		return usage(errors.New("--check and --match-gap are two different measurements, expected one of them"))
	}
	if c.Check {
		return c.check(ctx, g, backend)
	}
	e, card, err := c.prepare(g, backend)
	if err != nil {
		return usage(err)
	}
	teacher, err := c.teacher(g, e.Set)
	if err != nil {
		return usage(err)
	}
	if c.MatchGap {
		return c.matchGap(ctx, g, backend, e, teacher)
	}
	all := []*eval.Evaluation{e}
	if c.INT8 != "" {
		beside, err := c.beside(e)
		if err != nil {
			return usage(fmt.Errorf("--int8: %w", err))
		}
		all = append(all, beside)
	}
	var results []*eval.Result
	for i, e := range all {
		result, err := c.run(ctx, g, backend, e)
		if err == nil && i == 0 && card != nil && c.Until == 0 && zoo.Precision(c.Precision) != zoo.BF16 {
			err = record(c.Model, card, result, c.StepSize)
		}
		if err != nil {
			return err
		}
		results = append(results, result)
	}
	if g.JSON == "-" {
		for _, r := range results {
			if err := r.Write(g.env.Stdout); err != nil {
				return err
			}
		}
		return nil
	}
	table := report.Attacks(e.Model.Name(), conditions(results[0]), e.Selection, withStages(results[0]))
	if c.INT8 != "" {
		var models []report.Model
		for i, e := range all {
			models = append(models, report.Model{Name: e.Model.Name(), Accuracies: accuracies(results[i]), Selection: e.Selection})
		}
		table = report.Models("float32 and int8", conditions(results[0]), models)
	}
	if err := table.Text(g.env.Stdout); err != nil || g.JSON != "" || e.Ledger == "" {
		return err
	}
	if err := showExamples(ctx, backend, *e, teacher, c.Model); err != nil {
		return err
	}
	return c.writePage(g)
}

// beside is the same evaluation of the model in int8. Its record is beside that of the other.
func (c *evaluateCmd) beside(e *eval.Evaluation) (*eval.Evaluation, error) {
	model, err := weights.Load(c.INT8)
	if err != nil {
		return nil, err
	}
	b := *e
	b.Model = model
	if e.Ledger != "" {
		extension := filepath.Ext(e.Ledger)
		b.Ledger = strings.TrimSuffix(e.Ledger, extension) + "-int8" + extension
	}
	return &b, b.Validate()
}

// run measures one model and tells what is strange about the result.
func (c *evaluateCmd) run(ctx context.Context, g *globals, backend compute.Backend, e *eval.Evaluation) (*eval.Result, error) {
	if g.JSON == "" && !c.Resume {
		// A run folder holds one evaluation, the newest.
		if err := os.Remove(e.Ledger); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if !g.Quiet {
		cost := e.Cost()
		fmt.Fprintf(g.env.Stderr, "%s, %d images: at most %s gradients and %s forward passes, less for every image that falls\n",
			e.Model.Name(), e.Set.Len(), report.Count(int64(cost.Gradients)), report.Count(int64(cost.Forwards)))
	}
	progress, end := g.attackProgress()
	e.Progress = progress
	result, err := eval.Run(ctx, backend, *e)
	end()
	if errors.Is(err, context.Canceled) && e.Ledger != "" {
		return nil, fmt.Errorf("%w; go on with the same command and --resume", err)
	}
	if err != nil {
		return nil, err
	}
	for _, w := range result.Warnings {
		fmt.Fprintln(g.env.Stderr, "warning:", w)
	}
	if len(result.Warnings) > 0 {
		fmt.Fprintln(g.env.Stderr, "docs/evaluation.md says what a warning means and what to do.")
	}
	return result, nil
}

// writePage makes the page of the run folder and says where it is.
func (c *evaluateCmd) writePage(g *globals) error {
	path, err := writePage(c.Model)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(g.env.Stdout, "\nThe report is %s\n", path)
	return err
}

// teacher is the one that --teacher names, that of the run, or nil.
func (c *evaluateCmd) teacher(g *globals, set *data.Set) (*classifier.Model, error) {
	if c.Teacher == "" {
		return teacherOf(c.Model, set), nil
	}
	teacher, err := g.load(c.Teacher)
	if err == nil {
		err = eval.Fits(teacher.Network, set)
	}
	if err != nil {
		return nil, fmt.Errorf("--teacher: %w", err)
	}
	return teacher, nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// record puts what was measured in float32 into the card of a model, as far as --check can measure it again: all but the worst case
// and transfer, which takes a surrogate. An ONNX file holds its card and stays as it is.
func record(model string, card *weights.Card, r *eval.Result, stepSize recipe.Radius) error {
	if weights.IsONNX(model) {
		return nil
	}
	for _, a := range r.Accuracies() {
		if a.Name == eval.WorstCase || a.Name == "transfer" {
			continue
		}
		m := weights.Measured{Attack: a.Name, Images: a.Total, Of: weights.TestImages, Seed: r.Header.Seed, Accuracy: a.Value()}
		if a.Name != "clean" {
			m.Norm, m.Epsilon = r.Header.Norm, threat.Format(r.Header.Epsilon)
			if stepSize > 0 {
				m.StepSize = threat.Format(float64(stepSize))
			}
		}
		if r.Header.Data != card.Data {
			m.Data = r.Header.Data
		}
		card.Put(m)
	}
	return weights.SaveCard(model, card)
}

// prepare opens what the flags name and checks that it fits together. The card is nil where the model has none.
func (c *evaluateCmd) prepare(g *globals, backend compute.Backend) (*eval.Evaluation, *weights.Card, error) {
	switch {
	case c.MatchGap && (c.Resume || c.Until > 0):
		return nil, nil, errors.New("--match-gap takes neither --resume nor --until")
	case c.Samples < 0:
		return nil, nil, fmt.Errorf("--samples is %d, expected 0 (all) or more", c.Samples)
	}
	if c.Attacks == "" {
		if c.Attacks = "clean,fgsm,pgd-20"; c.INT8 != "" {
			c.Attacks += ",square" // which needs no gradient, so that none that is estimated decides alone
		}
	}
	model, err := g.load(c.Model)
	if err != nil {
		return nil, nil, fmt.Errorf("--model: %w", err)
	}
	if model.Network, err = zoo.InPrecision(model.Network, zoo.Precision(c.Precision)); err != nil {
		return nil, nil, fmt.Errorf("--precision: %w", err)
	}
	card, err := weights.LoadCard(c.Model)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	selection := ""
	if card != nil {
		c.Data, selection = cmp.Or(c.Data, card.Data), card.Selection
	}
	if c.Data == "" {
		return nil, nil, fmt.Errorf("--data is missing, and %s has no card that names the data it was trained on", c.Model)
	}
	search := threat.Model{Epsilon: float64(c.Eps), StepSize: float64(c.StepSize)}
	if c.Norm == "l2" {
		search.Norm = threat.L2
	}
	if search.Epsilon == 0 {
		search.Epsilon = map[threat.Norm]float64{threat.Linf: 8. / 255, threat.L2: 0.5}[search.Norm]
	}
	surrogate, err := c.surrogate(g, backend, model)
	if err != nil {
		return nil, nil, fmt.Errorf("--surrogate: %w", err)
	}
	suites, err := attack.Parse(c.Attacks, search, surrogate)
	if err != nil {
		return nil, nil, fmt.Errorf("--attacks: %w", err)
	}
	set, err := data.Open(c.Data, c.DataDir, data.Test, data.Options{})
	if err != nil {
		return nil, nil, explainData(err, c.DataDir)
	}
	if set = set.Subset(c.Samples, g.seed()); c.Until > 0 {
		set = set.Balanced(g.seed())
	}
	e := &eval.Evaluation{
		Model: model, Set: set, Norm: search.Norm, Epsilon: search.Epsilon, Suites: suites, Until: float64(c.Until),
		Seed: g.seed(), BatchSize: c.BatchSize, Precision: c.Precision, Selection: selection, Ledger: g.JSON, Resume: c.Resume,
	}
	if g.JSON == "-" {
		e.Ledger = ""
	}
	if err := e.Validate(); err != nil {
		return nil, nil, err
	}
	if g.JSON == "" && isFolder(c.Model) {
		e.Ledger = filepath.Join(c.Model, ledgerName)
	}
	if c.Resume && e.Ledger == "" {
		return nil, nil, errors.New("--resume needs a record to go on with: a run folder as --model, or --json FILE")
	}
	return e, card, nil
}

// surrogate opens the model that --surrogate names, or is nil where there is none.
func (c *evaluateCmd) surrogate(g *globals, backend compute.Backend, victim *classifier.Model) (*attack.Surrogate, error) {
	if c.Surrogate == "" {
		return nil, nil
	}
	model, err := g.load(c.Surrogate)
	if err != nil {
		return nil, err
	}
	h, w, channels := model.Input()
	if vh, vw, vc := victim.Input(); h != vh || w != vw || channels != vc || model.Classes() != victim.Classes() {
		return nil, fmt.Errorf("%s takes images of %dx%dx%d and tells %d classes apart, expected %dx%dx%d and %d",
			c.Surrogate, h, w, channels, model.Classes(), vh, vw, vc, victim.Classes())
	}
	hash, err := eval.Fingerprint(model)
	if err != nil {
		return nil, err
	}
	return &attack.Surrogate{Name: model.Name() + " " + hash[:12], Classifier: attack.NewVictim(backend, model)}, nil
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
		all = append(all, accuracy(r, a))
	}
	return all
}

// withStages are the accuracies, and before that of every suite of several attacks those after each of them.
func withStages(r *eval.Result) []report.Accuracy {
	var all []report.Accuracy
	for i, a := range r.Accuracies() {
		for _, stage := range r.Stages(i - 1) {
			all = append(all, accuracy(r, stage))
		}
		all = append(all, accuracy(r, a))
	}
	return all
}

func accuracy(r *eval.Result, a eval.Accuracy) report.Accuracy {
	low, high := a.Wilson()
	out := report.Accuracy{Attack: a.Name, Hits: a.Hits, Total: a.Total, Low: low, High: high}
	if worst := a.WorstClass(); worst >= 0 {
		out.WorstClass, out.WorstAccuracy = r.Header.Classes[worst], a.Classes[worst].Value()
	}
	return out
}
