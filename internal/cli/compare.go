package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/train"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
)

type compareCmd struct {
	Runs   []string `arg:"" help:"Run folders that were evaluated." name:"run"`
	Format string   `help:"How to write the table: text, markdown or csv." enum:"text,markdown,csv" default:"text"`
}

func (compareCmd) Help() string {
	return "Examples:\n  adaad compare runs/teacher runs/student\n  adaad compare runs/* --format markdown > table.md"
}

func (c *compareCmd) Run(g *globals) error {
	var models []report.Model
	var first *eval.Result
	for _, dir := range c.Runs {
		model, result, err := readRun(dir)
		if err != nil {
			return usage(err)
		}
		if first == nil {
			first = result
		}
		if err := sameConditions(first, result); err != nil {
			return usage(fmt.Errorf("%s and %s cannot stand in one table: %w", c.Runs[0], dir, err))
		}
		models = append(models, *model)
	}
	table := report.Models("", conditions(first), models)
	write := table.Text
	switch c.Format {
	case "markdown":
		write = table.Markdown
	case "csv":
		write = table.CSV
	}
	if g.JSON != "-" {
		if err := write(g.env.Stdout); err != nil {
			return err
		}
	}
	return g.writeJSON(models)
}

// readRun reads what a run folder says of its model.
func readRun(dir string) (*report.Model, *eval.Result, error) {
	record, err := train.ReadRecord(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s is no run folder: it has no %s", dir, train.RunFile)
	}
	if err != nil {
		return nil, nil, err
	}
	m, err := weights.Load(dir)
	if err != nil {
		return nil, nil, err
	}
	card, err := weights.LoadCard(dir)
	if err != nil {
		return nil, nil, err
	}
	result, err := eval.Read(filepath.Join(dir, ledgerName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s was not evaluated yet; run: adaad evaluate --model %s", dir, dir)
	}
	if err != nil {
		return nil, nil, err
	}
	if len(result.Rows) < result.Header.Images {
		return nil, nil, fmt.Errorf("the evaluation of %s stopped after %d of %d images; run: adaad evaluate --model %s --resume",
			dir, len(result.Rows), result.Header.Images, dir)
	}
	name := fmt.Sprintf("%s %s (%s)", filepath.Base(filepath.Clean(dir)), m.Name(), card.Method)
	return describe(name, m.Network, result, time.Duration(record.Seconds*float64(time.Second)), card.Selection), result, nil
}

// describe is a model's line in a table.
func describe(name string, net classifier.Network, r *eval.Result, training time.Duration, selection string) *report.Model {
	return &report.Model{
		Name: name, Parameters: int64(classifier.Count(net)), MACs: zoo.MACs(net), Accuracies: accuracies(r),
		Training: training, Selection: selection,
	}
}

// sameConditions refuses to compare what was measured differently.
func sameConditions(a, b *eval.Result) error {
	attacks := func(h eval.Header) string {
		var all []string
		for _, x := range h.Attacks {
			all = append(all, x.Settings)
		}
		return strings.Join(all, ", ")
	}
	for _, c := range []struct{ what, a, b string }{
		{"data", a.Header.Data, b.Header.Data},
		{"images", fmt.Sprint(a.Header.Images), fmt.Sprint(b.Header.Images)},
		{"pixels", a.Header.Pixels, b.Header.Pixels},
		{"norm", a.Header.Norm, b.Header.Norm},
		{"eps", fmt.Sprint(a.Header.Epsilon), fmt.Sprint(b.Header.Epsilon)},
		{"attacks", attacks(a.Header), attacks(b.Header)},
	} {
		if c.a != c.b {
			return fmt.Errorf("%s is %s for one and %s for the other", c.what, c.a, c.b)
		}
	}
	return nil
}
