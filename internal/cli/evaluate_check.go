package cli

import (
	"context"
	"fmt"

	"github.com/adaad-go/adaad/recipe"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/weights"
	"github.com/gomlx/compute"
)

// check measures every accuracy in the card again.
func (c *evaluateCmd) check(ctx context.Context, g *globals, backend compute.Backend) error {
	card, err := weights.LoadCard(c.Model)
	if err != nil {
		return usage(fmt.Errorf("--check: %w", err))
	}
	if len(card.Accuracies) == 0 {
		return usage(fmt.Errorf("--check: the card of %s holds no accuracy", c.Model))
	}
	model, err := g.load(c.Model)
	if err != nil {
		return usage(fmt.Errorf("--model: %w", err))
	}
	t := &report.Table{Columns: []report.Column{{Name: "attack"}, {Name: "eps", Align: report.Right}, {Name: "images", Align: report.Right},
		{Name: "of"}, {Name: "card", Align: report.Right}, {Name: "now", Align: report.Right}, {Name: "95% interval", Align: report.Right}, {Name: "agrees"}}}
	var all []recipe.Checked
	differ := 0
	for _, m := range card.Accuracies {
		progress, end := g.attackProgress()
		r, err := recipe.Checker{Backend: backend, Model: model, Card: card, DataDir: c.DataDir, Progress: progress}.Check(ctx, m)
		end()
		if err != nil {
			return explainData(err, c.DataDir)
		}
		agrees := "yes"
		if !r.Agrees {
			agrees = "no"
			differ++
		}
		all = append(all, r)
		t.Add(m.Attack, m.Epsilon, fmt.Sprint(m.Images), m.Of, report.Percent(m.Accuracy), report.Percent(r.Now),
			report.Percent(r.Low)+" to "+report.Percent(r.High), agrees)
	}
	if g.JSON != "-" {
		if err := t.Text(g.env.Stdout); err != nil {
			return err
		}
	}
	if err := g.writeJSON(all); err != nil {
		return err
	}
	if differ > 0 {
		return fmt.Errorf("%d of %d accuracies in the card of %s do not agree with what is measured now", differ, len(all), c.Model)
	}
	return nil
}
