package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/compute"
)

// matchGap measures the model beside its teacher.
func (c *evaluateCmd) matchGap(ctx context.Context, g *globals, backend compute.Backend, e *eval.Evaluation, teacher *classifier.Model) error {
	if teacher == nil {
		return usage(fmt.Errorf("--match-gap needs --teacher FILE: %s names no teacher that is still there", c.Model))
	}
	step := float64(c.StepSize)
	if step == 0 {
		step = e.Epsilon / 4
	}
	m := eval.MatchGap{
		Teacher: teacher, Student: e.Model, Set: e.Set, Points: 10, Seed: e.Seed, BatchSize: e.BatchSize,
		Search: threat.Model{Norm: e.Norm, Epsilon: e.Epsilon, StepSize: step, Steps: 10},
	}
	progress, end := g.attackProgress()
	m.Progress = progress
	gap, err := m.Run(ctx, backend)
	end()
	if err != nil {
		return err
	}
	if g.JSON != "-" {
		if err := gapTable("", gap).Text(g.env.Stdout); err != nil {
			return err
		}
	}
	if g.JSON != "" || !isFolder(c.Model) {
		return g.writeJSON(gap)
	}
	if err := writeJSON(filepath.Join(c.Model, gapName), gap); err != nil {
		return err
	}
	return c.writePage(g)
}
