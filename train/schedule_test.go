package train

import (
	"math"
	"testing"
)

func TestSchedules(t *testing.T) {
	pw := Piecewise{LR: 0.1, Factor: 0.1, Milestones: []int{100, 150}, Of: 200}
	for _, c := range []struct {
		s           Schedule
		step, total int
		want        float64
	}{
		{Constant(0.3), 7, 9, 0.3},
		// 390 batches in each of 200 epochs, and a run of 4 steps.
		{pw, 0, 78000, 0.1}, {pw, 100*390 - 1, 78000, 0.1}, {pw, 100 * 390, 78000, 0.01}, {pw, 150*390 - 1, 78000, 0.01}, {pw, 150 * 390, 78000, 0.001},
		{pw, 1, 4, 0.1}, {pw, 2, 4, 0.01}, {pw, 3, 4, 0.001},
		// Thirds have no binary fraction: epoch 215 of 300 must not come a step late.
		{Piecewise{LR: 1, Factor: 0.5, Milestones: []int{215}, Of: 300}, 215*7 - 1, 2100, 1},
		{Piecewise{LR: 1, Factor: 0.5, Milestones: []int{215}, Of: 300}, 215 * 7, 2100, 0.5},
		{Cosine{LR: 1, Final: 0}, 0, 100, 1}, {Cosine{LR: 1, Final: 0}, 50, 100, 0.5}, {Cosine{LR: 1, Final: 0.2}, 25, 100, 0.6 + 0.4*math.Sqrt2/2},
		// PyTorch: OneCycleLR(max_lr=0.1, total_steps=10) is 0.1/25 first, 0.1 after step 2 and 0.1/25/1e4 last.
		{OneCycle{0.1, 0.3, 25, 1e4}, 0, 10, 0.004}, {OneCycle{0.1, 0.3, 25, 1e4}, 1, 10, (0.004 + 0.1) / 2}, {OneCycle{0.1, 0.3, 25, 1e4}, 2, 10, 0.1},
		{OneCycle{0.1, 0.3, 25, 1e4}, 9, 10, 4e-7}, {OneCycle{0.1, 0.3, 25, 1e4}, 0, 1, 0.1},
		{OneCycle{0.1, 0.2, 25, 1e4}, 5, 10, 4e-7 + (0.1-4e-7)*0.5*(1+math.Cos(math.Pi*4/8))},
		{WarmUp{Share: 0.1, Then: Constant(2)}, 0, 100, 0.2}, {WarmUp{Share: 0.1, Then: Constant(2)}, 4, 100, 1},
		{WarmUp{Share: 0.1, Then: Constant(2)}, 9, 100, 2}, {WarmUp{Share: 0.1, Then: Constant(2)}, 10, 100, 2},
		{WarmUp{Share: 0, Then: Constant(2)}, 0, 100, 2},
	} {
		if got := c.s.At(c.step, c.total); !(math.Abs(got-c.want) <= 1e-12) { // NaN is not close
			t.Errorf("%v at step %d of %d is %g, want %g", c.s, c.step, c.total, got, c.want)
		}
	}
}

func TestScheduleRefuses(t *testing.T) {
	for _, s := range []Schedule{nil, Constant(-1), Constant(math.NaN()), Cosine{LR: math.Inf(1)}} {
		if validateSchedule(s, 10) == nil {
			t.Errorf("schedule %v was taken", s)
		}
	}
	if err := validateSchedule(WarmUp{0.1, Piecewise{LR: 0.1, Factor: 0.1}}, 10); err != nil {
		t.Error(err)
	}
}
