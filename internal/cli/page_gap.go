package cli

import (
	"fmt"
	"path/filepath"

	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/threat"
)

// gapSection shows how well a run's model matches its teacher.
func gapSection(dir, hash string) (*report.Section, error) {
	var gap eval.Gap
	if found, err := readJSON(filepath.Join(dir, gapName), &gap); !found || gap.StudentWeights != hash {
		return nil, err
	}
	return &report.Section{Title: "How well it matches its teacher", Parts: []report.Part{gapTable("", &gap)}}, nil
}

// gapTable is a match gap as a table.
func gapTable(title string, gap *eval.Gap) *report.Table {
	t := &report.Table{Title: title, Columns: []report.Column{{Name: "around an image"}, {Name: "clean", Align: report.Right},
		{Name: "random points", Align: report.Right}, {Name: "worst point", Align: report.Right}}}
	plain := func(v float64) string { return fmt.Sprintf("%.4g", v) }
	for _, row := range []struct {
		name string
		of   func(eval.Spread) float64
	}{
		{"KL(T||S), mean", func(s eval.Spread) float64 { return s.Mean }},
		{"KL(T||S), median", func(s eval.Spread) float64 { return s.Median }},
		{"KL(T||S), 95th percentile", func(s eval.Spread) float64 { return s.P95 }},
	} {
		d := gap.Divergence
		t.Add(row.name, plain(row.of(d.Clean)), plain(row.of(d.Random)), plain(row.of(d.Worst)))
	}
	for _, of := range []struct {
		name   string
		slopes eval.Slopes
	}{{"probabilities", gap.Probabilities}, {"logits", gap.Logits}} {
		for _, row := range []struct {
			name string
			of   func(eval.SlopePair) string
		}{
			{"slope of S, " + of.name, func(p eval.SlopePair) string { return plain(p.Student.Mean) }},
			{"slope of T, " + of.name, func(p eval.SlopePair) string { return plain(p.Teacher.Mean) }},
			{"S by T, " + of.name, func(p eval.SlopePair) string { return fmt.Sprintf("%.2f", p.Ratio) }},
			{"S flatter than T, % of images", func(p eval.SlopePair) string { return report.Percent(p.Flatter) }},
		} {
			t.Add(row.name, "", row.of(of.slopes.Random), row.of(of.slopes.Worst))
		}
	}
	t.Notes = []string{fmt.Sprintf("S is the student %s, T its teacher %s. %d images of %s test; %s, eps %s: %d random points, worst points by searches of %d steps of %s.",
		gap.Student, gap.Teacher, gap.Images, gap.Data, gap.Norm, threat.Format(gap.Epsilon), gap.Points, gap.Steps, threat.Format(gap.StepSize)),
		"The slope of f is |f(x')-f(x)|_1 / |x'-x|; its greatest value in the ball, the local Lipschitz constant, is at least that at the worst point. " +
			"Slopes are means over images. docs/evaluation.md has the formulas."}
	return t
}
