package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/recipe"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
)

// spread is a mean over seeds.
type spread struct {
	Mean   float64   `json:"mean"`
	Std    float64   `json:"std,omitempty"` // sample standard deviation; 0 for one value
	Values []float64 `json:"values"`
}

func newSpread(values []float64) spread {
	s := spread{Values: values}
	for _, v := range values {
		s.Mean += v / float64(len(values))
	}
	if n := len(values); n > 1 {
		for _, v := range values {
			s.Std += (v - s.Mean) * (v - s.Mean) / float64(n-1)
		}
		s.Std = math.Sqrt(s.Std)
	}
	return s
}

// percent is "54.23±0.31", or the mean alone for one value.
func (s spread) percent() string {
	if len(s.Values) > 1 {
		return report.Percent(s.Mean) + "±" + report.Percent(s.Std)
	}
	return report.Percent(s.Mean)
}

// lineResult is a line of the table, as results.json has it.
type lineResult struct {
	Name       string          `json:"name"`
	Epsilon    *recipe.Radius  `json:"training_eps,omitempty"`
	Teacher    bool            `json:"teacher,omitempty"`
	Model      string          `json:"model"`
	Parameters int             `json:"parameters"`
	MACs       int64           `json:"macs"`
	Runs       []string        `json:"runs"`
	Diverged   []string        `json:"diverged,omitempty"` // runs that could not be trained
	Epochs     int             `json:"epochs,omitempty"`
	Compute    int64           `json:"training_macs,omitempty"`    // of one run
	Training   *spread         `json:"training_seconds,omitempty"` // of one run
	Selection  string          `json:"selection"`
	Accuracies []*lineAccuracy `json:"accuracies"`
}

type lineAccuracy struct {
	Attack     string `json:"attack"`
	Accuracy   spread `json:"accuracy"`
	WorstClass spread `json:"worst_class"` // accuracy of each model's worst class

	pooled report.Accuracy
}

// lines gathers what was measured so far, seeds of one line together, in the order of the sweep.
func (s *sweep) lines() []*lineResult {
	var all []*lineResult
	byLine := map[line]*lineResult{}
	values := map[*lineResult][]*swept{}
	for _, m := range s.models {
		if m.result == nil && m.diverged == nil {
			continue
		}
		l := byLine[m.line]
		if l == nil {
			l = &lineResult{Name: m.name, Teacher: m.teacher > 0, Model: m.network.Name(), Parameters: classifier.Count(m.network),
				MACs: zoo.MACs(m.network), Epochs: m.settings.Epochs, Compute: m.macs}
			if m.epsilon > 0 {
				l.Epsilon = &m.epsilon
			}
			byLine[m.line], all = l, append(all, l)
		}
		if m.diverged != nil {
			l.Diverged = append(l.Diverged, filepath.Base(m.path))
			continue
		}
		l.Runs, l.Selection = append(l.Runs, filepath.Base(m.path)), m.result.Header.Selection
		values[l] = append(values[l], m)
	}
	for _, l := range all {
		var seconds []float64
		for _, m := range values[l] {
			if m.seconds > 0 {
				seconds = append(seconds, m.seconds)
			}
			for i, a := range accuracies(m.result) {
				if i == len(l.Accuracies) {
					l.Accuracies = append(l.Accuracies, &lineAccuracy{Attack: a.Attack, pooled: report.Accuracy{Attack: a.Attack, Low: a.Low, High: a.High}})
				}
				of := l.Accuracies[i]
				of.Accuracy.Values = append(of.Accuracy.Values, float64(a.Hits)/float64(a.Total))
				of.WorstClass.Values = append(of.WorstClass.Values, a.WorstAccuracy)
				of.pooled.Hits, of.pooled.Total = of.pooled.Hits+a.Hits, of.pooled.Total+a.Total
			}
		}
		if len(seconds) > 0 {
			training := newSpread(seconds)
			l.Training = &training
		}
		for _, a := range l.Accuracies {
			a.Accuracy, a.WorstClass = newSpread(a.Accuracy.Values), newSpread(a.WorstClass.Values)
			if len(a.Accuracy.Values) > 1 {
				a.pooled.Low, a.pooled.High = a.Accuracy.Mean-a.Accuracy.Std, a.Accuracy.Mean+a.Accuracy.Std
			}
		}
	}
	return all
}

// last is the attack that was asked for last, by which tables and figures judge; clean without any.
func (s *sweep) last() string {
	if len(s.suites) == 0 {
		return "clean"
	}
	return s.suites[len(s.suites)-1].Name
}

func (s *sweep) conditions() report.Conditions {
	return report.Conditions{Data: s.images.Name + " test", Images: s.test.Len(), Norm: threat.Linf.String(), Epsilon: threat.Format(float64(s.AttackEps))}
}

// table is the sweep's table so far.
func (s *sweep) table(lines []*lineResult) *report.Table {
	c := s.conditions()
	t := &report.Table{Columns: []report.Column{{Name: "method"}}}
	column := func(name string) { t.Columns = append(t.Columns, report.Column{Name: name, Align: report.Right}) }
	if len(s.Eps) > 0 {
		column("training eps")
	}
	uneven := slices.ContainsFunc(lines, func(l *lineResult) bool { return !l.Teacher && len(l.Runs) != len(s.Seeds) })
	if uneven {
		column("seeds")
	}
	column("clean")
	for _, suite := range s.suites {
		column(suite.Name + " eps " + c.Epsilon)
	}
	if len(s.suites) > 0 {
		column("worst class")
	}
	column("compute")
	column("training")
	spreads, students, selections, diverged := false, []string{}, []string{}, []string{}
	for _, l := range lines {
		row := []string{l.Name}
		if len(s.Eps) > 0 {
			eps := "-"
			if l.Epsilon != nil {
				eps = threat.Format(float64(*l.Epsilon))
			}
			row = append(row, eps)
		}
		if uneven {
			row = append(row, fmt.Sprint(len(l.Runs)))
		}
		cell := func(attack string, of func(*lineAccuracy) spread) {
			text := "-"
			if i := slices.IndexFunc(l.Accuracies, func(a *lineAccuracy) bool { return a.Attack == attack }); i >= 0 {
				text = of(l.Accuracies[i]).percent()
			}
			row = append(row, text)
		}
		mean := func(a *lineAccuracy) spread { return a.Accuracy }
		cell("clean", mean)
		for _, suite := range s.suites {
			cell(suite.Name, mean)
		}
		if len(s.suites) > 0 {
			cell(s.last(), func(a *lineAccuracy) spread { return a.WorstClass })
		}
		macs, training := "-", "-"
		if l.Compute > 0 {
			macs = report.Count(l.Compute)
		}
		if l.Training != nil {
			training = report.Duration(time.Duration(l.Training.Mean * float64(time.Second)))
		}
		t.Add(append(row, macs, training)...)

		spreads = spreads || len(l.Runs) > 1
		diverged = append(diverged, l.Diverged...)
		if about := fmt.Sprintf("%s, %s parameters, %s MACs", l.Model, report.Count(int64(l.Parameters)), report.Count(l.MACs)); !l.Teacher && !slices.Contains(students, about) {
			students = append(students, about)
		}
		if l.Selection != "" && !slices.Contains(selections, l.Selection) {
			selections = append(selections, l.Selection)
		}
	}
	about := fmt.Sprintf("%d images of %s; %s perturbations, eps %s. Accuracies in percent", c.Images, c.Data, c.Norm, c.Epsilon)
	if spreads {
		about += ", ± their standard deviation over seeds " + strings.ReplaceAll(strings.Trim(fmt.Sprint(s.Seeds), "[]"), " ", ", ")
	}
	if len(s.suites) > 0 {
		about += "; worst class: the lowest of a class under " + s.last()
	}
	t.Notes = append(t.Notes, about+".",
		"Students: "+strings.Join(students, "; ")+". Compute: multiply-adds of training, searches, gradients and teachers included; training: time of one run.")
	if len(selections) > 0 {
		t.Notes = append(t.Notes, "Checkpoints: "+strings.Join(selections, "; ")+".")
	}
	if len(diverged) > 0 {
		t.Notes = append(t.Notes, "Diverged: "+strings.Join(diverged, ", ")+".")
	}
	return t
}

// write leaves the table, the figures and the page of what was measured so far in --out.
func (s *sweep) write() error {
	lines := s.lines()
	table := s.table(lines)
	figures, err := s.figures(lines)
	if err != nil {
		return err
	}
	page, err := s.overview(table, figures)
	if err != nil {
		return err
	}
	results := func(w io.Writer) error {
		text, err := json.MarshalIndent(lines, "", "  ")
		if err == nil {
			_, err = w.Write(append(text, '\n'))
		}
		return err
	}
	files := map[string]func(io.Writer) error{"table.md": table.Markdown, "table.csv": table.CSV, "results.json": results, pageName: page.HTML}
	for name, figure := range figures {
		files[name] = figure.SVG
	}
	for name, content := range files {
		if err := weights.WriteFile(filepath.Join(s.Out, name), content); err != nil {
			return err
		}
	}
	return nil
}

// overview is the page of the sweep: its table and figures, and what a comparison shows of the first model of each line.
func (s *sweep) overview(table *report.Table, figures map[string]*report.Figure) (*report.Page, error) {
	var models []report.Model
	var runs []string
	var one *eval.Result
	seen := map[line]bool{}
	for _, m := range s.models {
		if m.result == nil || m.given || seen[m.line] {
			continue
		}
		seen[m.line], one = true, m.result
		name := m.name
		if m.epsilon > 0 {
			name += " " + threat.Format(float64(m.epsilon))
		}
		seconds := time.Duration(m.seconds * float64(time.Second))
		models = append(models, *describe(name, m.network, m.result, seconds, m.result.Header.Selection))
		runs = append(runs, m.path)
	}
	accuracy := report.Section{Title: "Accuracy", Parts: []report.Part{table}}
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		accuracy.Parts = append(accuracy.Parts, figures[name])
	}
	if one == nil { // teachers alone
		return &report.Page{Title: "Sweep", Sections: []report.Section{accuracy}}, nil
	}
	page, err := comparison("Sweep", s.Out, models, runs, one)
	if err != nil {
		return nil, err
	}
	if bars, err := report.WorstClasses("Worst classes under attack", s.conditions(), s.last(), models); err == nil { // else nothing to draw
		accuracy.Parts = append(accuracy.Parts, bars)
	}
	page.Sections[0] = accuracy
	if len(s.Seeds) > 1 {
		page.About = fmt.Sprintf("Curves, images and links are of seed %d.", s.Seeds[0])
	}
	return page, nil
}

// figures are clean against robust accuracy and, where there are several radii, both against them.
func (s *sweep) figures(lines []*lineResult) (map[string]*report.Figure, error) {
	if len(s.suites) == 0 {
		return nil, nil
	}
	var models []report.Model
	for _, l := range lines {
		m := report.Model{Name: l.Name}
		if l.Epsilon != nil {
			m.Name += " " + threat.Format(float64(*l.Epsilon))
		}
		for _, a := range l.Accuracies {
			m.Accuracies = append(m.Accuracies, a.pooled)
		}
		if len(l.Accuracies) > 0 {
			models = append(models, m)
		}
	}
	if len(models) == 0 {
		return nil, nil
	}
	c := s.conditions()
	scatter, err := report.Scatter("Clean and robust accuracy", c, s.last(), models)
	if err != nil {
		return nil, err
	}
	all := map[string]*report.Figure{"scatter.svg": scatter}
	if len(s.Eps) < 2 {
		return all, nil
	}
	for name, attack := range map[string]string{"radius-clean.svg": "clean", "radius.svg": s.last()} {
		var curves []report.Curve
		for _, l := range lines {
			i := slices.IndexFunc(l.Accuracies, func(a *lineAccuracy) bool { return a.Attack == attack })
			if l.Epsilon == nil || i < 0 {
				continue
			}
			at := slices.IndexFunc(curves, func(c report.Curve) bool { return c.Name == l.Name })
			if at < 0 {
				at, curves = len(curves), append(curves, report.Curve{Name: l.Name})
			}
			a := l.Accuracies[i]
			curves[at].Points = append(curves[at].Points, report.Point{
				X: 255 * float64(*l.Epsilon), Y: 100 * a.Accuracy.Mean, Low: 100 * a.pooled.Low, High: 100 * a.pooled.High,
			})
		}
		if len(curves) == 0 {
			continue
		}
		measured := "clean accuracy"
		if attack != "clean" {
			measured = "accuracy under " + attack + " eps " + c.Epsilon
		}
		if all[name], err = report.AgainstRadius("Accuracy against the training radius", measured, curves); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// show prints the table.
func (s *sweep) show() error {
	lines := s.lines()
	if s.g.JSON != "-" {
		if err := s.table(lines).Text(s.g.env.Stdout); err != nil {
			return err
		}
		fmt.Fprintf(s.g.env.Stdout, "\nThe runs, table.md, table.csv, results.json and figures are in %s; look at %s.\n", s.Out, filepath.Join(s.Out, pageName))
	}
	return s.g.writeJSON(lines)
}
