package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/internal/speed"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/train"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
)

type compareCmd struct {
	Runs   []string `arg:"" help:"Run folders that were evaluated, or records of evaluations (.jsonl)." name:"run"`
	Format string   `help:"How to write the table: text, markdown or csv." enum:"text,markdown,csv" default:"text"`
	Figure string   `help:"Draw clean against robust accuracy into this file, as SVG." placeholder:"FILE"`
	Page   string   `help:"Write all that is known of the runs into this file, as one HTML page." placeholder:"FILE"`
}

func (compareCmd) Help() string {
	return `Two of them are compared image by image too; --json lists the images that differ.

Examples:
  adaad compare runs/teacher runs/student
  adaad compare first.jsonl second.jsonl
  adaad compare runs/* --format markdown > table.md
  adaad compare runs/* --figure accuracy.svg --page runs/report.html`
}

func (c *compareCmd) Run(g *globals) error {
	backend, err := g.env.Open(g.Backend, 1, 1) // latency is that of one thread
	if err != nil {
		return usage(fmt.Errorf("--backend %s: %w", g.Backend, err))
	}
	defer backend.Finalize()
	var models []report.Model
	var results []*eval.Result
	for _, path := range c.Runs {
		model, result, err := readRun(backend, path)
		if err != nil {
			return usage(err)
		}
		if len(results) > 0 {
			if err := sameConditions(results[0], result); err != nil {
				return usage(fmt.Errorf("%s and %s cannot stand in one table: %w", c.Runs[0], path, err))
			}
		}
		models, results = append(models, *model), append(results, result)
	}
	if err := c.draw(results[0], models); err != nil {
		return err
	}
	if err := c.writePage(results[0], models); err != nil {
		return err
	}
	comparison := struct {
		Models []report.Model    `json:"models"`
		Differ []eval.Difference `json:"differ,omitempty"` // images, of two evaluations
	}{Models: models}
	tables := []*report.Table{report.Models("", conditions(results[0]), models)}
	if len(results) == 2 {
		diff := eval.Diff(results[0], results[1])
		comparison.Differ = diff.Images
		table := &report.Table{Title: "Image by image", Columns: []report.Column{{Name: "attack"}, {Name: "right in both", Align: report.Right},
			{Name: "only in " + models[0].Name, Align: report.Right}, {Name: "only in " + models[1].Name, Align: report.Right},
			{Name: "in neither", Align: report.Right}}}
		for _, d := range diff.Suites {
			table.Add(d.Name, fmt.Sprint(d.Both), fmt.Sprint(d.First), fmt.Sprint(d.Second), fmt.Sprint(d.Neither))
		}
		tables = append(tables, table)
	}
	if g.JSON != "-" {
		for i, t := range tables {
			if i > 0 {
				fmt.Fprintln(g.env.Stdout)
			}
			write := map[string]func(io.Writer) error{"text": t.Text, "markdown": t.Markdown, "csv": t.CSV}[c.Format]
			if err := write(g.env.Stdout); err != nil {
				return err
			}
		}
	}
	return g.writeJSON(comparison)
}

// draw makes the figure, where one is asked for: under the last attack, or all of them together.
func (c *compareCmd) draw(one *eval.Result, models []report.Model) error {
	if c.Figure == "" {
		return nil
	}
	figure, err := report.Scatter("Clean and robust accuracy", conditions(one), hardest(one), models)
	if err != nil {
		return usage(fmt.Errorf("--figure: %w", err))
	}
	return weights.WriteFile(c.Figure, figure.SVG)
}

// writePage makes the page, where one is asked for.
func (c *compareCmd) writePage(one *eval.Result, models []report.Model) error {
	if c.Page == "" {
		return nil
	}
	if i := slices.IndexFunc(c.Runs, func(path string) bool { return !isFolder(path) }); i >= 0 {
		return usage(fmt.Errorf("--page shows run folders, but %s is a record alone", c.Runs[i]))
	}
	page, err := comparison("Comparison", filepath.Dir(c.Page), models, c.Runs, one)
	if err != nil {
		return err
	}
	return weights.WriteFile(c.Page, page.HTML)
}

// readRun reads what a run folder, or a record alone, says of a model, and measures how fast it is.
func readRun(backend compute.Backend, dir string) (*report.Model, *eval.Result, error) {
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		result, err := eval.Read(dir)
		if err != nil {
			return nil, nil, err
		}
		if !result.Complete() {
			return nil, nil, fmt.Errorf("%s stopped after %d of %d images; go on with its command and --resume",
				dir, len(result.Rows), result.Header.Images)
		}
		name := fmt.Sprintf("%s (%s)", filepath.Base(dir), result.Header.Model)
		return withWorst(&report.Model{Name: name, Accuracies: accuracies(result), Selection: result.Header.Selection}), result, nil
	}
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
	if !result.Complete() {
		return nil, nil, fmt.Errorf("the evaluation of %s stopped after %d of %d images; run: adaad evaluate --model %s --resume",
			dir, len(result.Rows), result.Header.Images, dir)
	}
	name := fmt.Sprintf("%s %s (%s)", filepath.Base(filepath.Clean(dir)), m.Name(), card.Method)
	model := withWorst(describe(name, m.Network, result, time.Duration(record.Seconds*float64(time.Second)), card.Selection))
	if model.Latency, err = speed.Latency(backend, m, 200*time.Millisecond); err != nil {
		return nil, nil, err
	}
	return model, result, nil
}

// withWorst adds the accuracy of the worst class under the last attack.
func withWorst(m *report.Model) *report.Model {
	if all := m.Accuracies; len(all) > 0 {
		m.Worst = &all[len(all)-1].WorstAccuracy
	}
	return m
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
		{"number of images", fmt.Sprint(a.Header.Images), fmt.Sprint(b.Header.Images)},
		{"norm", a.Header.Norm, b.Header.Norm},
		{"eps", fmt.Sprint(a.Header.Epsilon), fmt.Sprint(b.Header.Epsilon)},
		{"attacks", attacks(a.Header), attacks(b.Header)},
	} {
		if c.a != c.b {
			return fmt.Errorf("%s is %s for one and %s for the other", c.what, c.a, c.b)
		}
	}
	if a.Header.Pixels != b.Header.Pixels {
		return fmt.Errorf("their %d images of %s are not the same ones, expected the same indices, labels and pixels", a.Header.Images, a.Header.Data)
	}
	return nil
}
