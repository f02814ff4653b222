package recipe

import (
	"context"
	"fmt"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/weights"
	"github.com/gomlx/compute"
)

// Checked is an accuracy of a card and the same one, measured again.
type Checked struct {
	Card   weights.Measured `json:"card"`
	Now    float64          `json:"now"`
	Low    float64          `json:"low"` // 95% Wilson interval of what is measured now
	High   float64          `json:"high"`
	Agrees bool             `json:"agrees"` // whether the card's is in the interval
}

// Checker measures a model's accuracies again, as its card describes them: on the same images and with the same draws, so
// that only another model, other data or another machine's rounding give another number.
type Checker struct {
	Backend  compute.Backend
	Model    *classifier.Model
	Card     *weights.Card
	DataDir  string
	Progress func(eval.Progress) // of each attack on test images, or nil
}

// Check measures one accuracy of the card.
func (c Checker) Check(ctx context.Context, m weights.Measured) (Checked, error) {
	measure := c.test
	if m.Of == weights.HeldOutImages {
		measure = c.heldOut
	}
	rate, err := measure(ctx, m)
	if err != nil {
		return Checked{}, fmt.Errorf("%s on %s images: %w", m.Attack, m.Of, err)
	}
	low, high := rate.Wilson()
	return Checked{m, rate.Value(), low, high, low <= m.Accuracy && m.Accuracy <= high}, nil
}

// threatOf is the ball and the step of an accuracy, that of 8/255 where it has none.
func threatOf(m weights.Measured) (threat.Model, error) {
	search := threat.Model{Epsilon: 8. / 255}
	switch m.Norm {
	case "", threat.Linf.String():
	case threat.L2.String():
		search.Norm = threat.L2
	default:
		return search, fmt.Errorf("the card's norm is %q, expected %s or %s", m.Norm, threat.Linf, threat.L2)
	}
	for _, radius := range []struct {
		text string
		to   *float64
	}{{m.Epsilon, &search.Epsilon}, {m.StepSize, &search.StepSize}} {
		if radius.text == "" {
			continue
		}
		var err error
		if *radius.to, err = threat.Parse(radius.text); err != nil {
			return search, fmt.Errorf("the card: %w", err)
		}
	}
	return search, nil
}

func (c Checker) dataOf(m weights.Measured) (string, error) {
	switch {
	case m.Data != "":
		return m.Data, nil
	case c.Card.Data != "":
		return c.Card.Data, nil
	}
	return "", fmt.Errorf("the card names no data set")
}

// test measures on test images.
func (c Checker) test(ctx context.Context, m weights.Measured) (rate eval.Rate, err error) {
	name, err := c.dataOf(m)
	if err != nil {
		return rate, err
	}
	search, err := threatOf(m)
	if err != nil {
		return rate, err
	}
	suites, err := attack.Parse(m.Attack, search, nil)
	if err != nil {
		return rate, err
	}
	set, err := data.Open(name, c.DataDir, data.Test, data.Options{})
	if err != nil {
		return rate, err
	}
	result, err := eval.Run(ctx, c.Backend, eval.Evaluation{
		Model: c.Model, Set: set.Subset(m.Images, m.Seed), Norm: search.Norm, Epsilon: search.Epsilon, Suites: suites,
		Seed: m.Seed, Progress: c.Progress,
	})
	if err != nil {
		return rate, err
	}
	return result.Accuracies()[len(suites)].Rate, nil
}

// heldOut measures on the training images that were held out, as validation does.
func (c Checker) heldOut(ctx context.Context, m weights.Measured) (rate eval.Rate, err error) {
	name, err := c.dataOf(m)
	if err != nil {
		return rate, err
	}
	search, err := threatOf(m)
	if err != nil {
		return rate, err
	}
	steps := 0
	if m.Attack != "clean" {
		if _, err := fmt.Sscanf(m.Attack, "pgd-%d", &steps); err != nil || steps < 1 {
			return rate, fmt.Errorf("validation attacks with pgd-N, not %q", m.Attack)
		}
	}
	if !(c.Card.HeldOut > 0 && c.Card.HeldOut < 1) {
		return rate, fmt.Errorf("the card's held_out is %g, expected the share of training images that was held out", c.Card.HeldOut)
	}
	set, err := data.Open(name, c.DataDir, data.Train, data.Options{})
	if err != nil {
		return rate, err
	}
	_, held := set.HoldOut(c.Card.HeldOut, c.Card.Seed)
	scorer, err := eval.NewScorer(c.Backend, c.Model.Network, held.Subset(m.Images, c.Card.Seed), validation(search.Epsilon, steps), 0, c.Card.Seed)
	if err != nil {
		return rate, err
	}
	defer scorer.Finalize()
	clean, robust, err := scorer.Score(ctx, c.Model.State)
	if steps > 0 {
		return robust, err
	}
	return clean, err
}

// validation is the attack that chooses checkpoints.
func validation(epsilon float64, steps int) threat.Model {
	return threat.Model{Epsilon: epsilon, StepSize: epsilon / 4, Steps: steps, Start: threat.Uniform}
}
