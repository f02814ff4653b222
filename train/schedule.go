package train

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// Schedule is the learning rate of each step of a run; steps count from 0 to total-1.
type Schedule interface {
	At(step, total int) float64
	fmt.Stringer
}

// Constant keeps one rate.
type Constant float64

// At is the rate.
func (c Constant) At(_, _ int) float64 { return float64(c) }

func (c Constant) String() string { return fmt.Sprintf("constant %g", float64(c)) }

// Piecewise starts at LR and multiplies it by Factor at each of the Milestones, given in units of a run of Of: 100 and
// 150 of 200 are the middle and three quarters of the run however long it is, and epochs 100 and 150 of one of 200.
type Piecewise struct {
	LR, Factor float64
	Milestones []int
	Of         int
}

// At is LR · Factor^(number of milestones passed). The comparison is exact: no milestone falls a step early or late.
func (p Piecewise) At(step, total int) float64 {
	passed := 0
	for _, m := range p.Milestones {
		if step*p.Of >= m*total {
			passed++
		}
	}
	return p.LR * math.Pow(p.Factor, float64(passed))
}

func (p Piecewise) String() string {
	at := make([]string, len(p.Milestones))
	for i, m := range p.Milestones {
		at[i] = fmt.Sprint(m)
	}
	return fmt.Sprintf("piecewise %g, times %g at %s of %d", p.LR, p.Factor, strings.Join(at, ", "), p.Of)
}

// Cosine falls from LR to Final along half a cosine (Loshchilov and Hutter 2017, without restarts), step by step:
//
//	Final + (LR - Final) (1 + cos(π step/total)) / 2
type Cosine struct{ LR, Final float64 }

// At is the formula above.
func (c Cosine) At(step, total int) float64 {
	return anneal(c.LR, c.Final, float64(step)/float64(total))
}

func (c Cosine) String() string { return fmt.Sprintf("cosine %g to %g", c.LR, c.Final) }

// OneCycle is PyTorch's OneCycleLR with cosine annealing: from Max/Div up to Max at step Rise·total-1, then down to
// Max/Div/FinalDiv at the last step. PyTorch's defaults are Rise 0.3, Div 25, FinalDiv 1e4.
type OneCycle struct{ Max, Rise, Div, FinalDiv float64 }

// At is the rate of PyTorch's schedule before that step.
func (c OneCycle) At(step, total int) float64 {
	low, top, end := c.Max/c.Div, c.Rise*float64(total)-1, float64(total-1)
	s := float64(step)
	switch {
	case s <= top && top > 0:
		return anneal(low, c.Max, s/top)
	case end <= max(top, 0):
		return c.Max
	}
	return anneal(c.Max, low/c.FinalDiv, (s-max(top, 0))/(end-max(top, 0)))
}

func (c OneCycle) String() string {
	return fmt.Sprintf("one cycle up to %g, rise %g, from 1/%g, to 1/%g of that", c.Max, c.Rise, c.Div, c.FinalDiv)
}

// WarmUp multiplies the first steps of another schedule, a Share of the run, by (step+1)/steps: a straight line.
type WarmUp struct {
	Share float64
	Then  Schedule
}

// At is the other schedule's rate, scaled down during the warm-up.
func (w WarmUp) At(step, total int) float64 {
	lr := w.Then.At(step, total)
	if n := int(math.Round(w.Share * float64(total))); step < n {
		lr *= float64(step+1) / float64(n)
	}
	return lr
}

func (w WarmUp) String() string {
	return fmt.Sprintf("%v, warm-up over %g of the run", w.Then, w.Share)
}

// anneal goes from one value to the other along half a cosine as share goes from 0 to 1.
func anneal(from, to, share float64) float64 {
	return to + (from-to)*(1+math.Cos(math.Pi*share))/2
}

// validateSchedule refuses a schedule that gives a rate no optimizer can use.
func validateSchedule(s Schedule, total int) error {
	if s == nil {
		return errors.New("there is no learning-rate schedule")
	}
	for _, step := range []int{0, total / 2, total - 1} {
		if lr := s.At(step, total); !(lr >= 0) || math.IsInf(lr, 0) {
			return fmt.Errorf("the schedule %q gives a learning rate of %g at step %d of %d, expected a number of at least 0", s, lr, step, total)
		}
	}
	return nil
}
