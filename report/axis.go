package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// axis maps a range of values to a range of the figure, with round numbers marked.
type axis struct {
	low, high float64 // values at its ends
	from, to  float64 // where these are
	ticks     []float64
	step      float64
}

// newAxis widens the range of values to round numbers, at most so many steps apart.
func newAxis(low, high float64, steps int, from, to float64) axis {
	if high-low < 1e-12*max(math.Abs(low), math.Abs(high), 1e-9) {
		pad := max(math.Abs(low)/10, 1e-3)
		low, high = low-pad, high+pad
	}
	step := roundStep((high - low) / float64(steps))
	a := axis{low: math.Floor(low/step+1e-9) * step, high: math.Ceil(high/step-1e-9) * step, from: from, to: to, step: step}
	for k := math.Round(a.low / step); k*step <= a.high+step/2; k++ {
		a.ticks = append(a.ticks, k*step)
	}
	return a
}

// percentAxis is an axis of percents, which never goes below 0 or above 100.
func percentAxis(low, high float64, from, to float64) axis {
	low, high = max(low, 0), min(high, 100)
	if high-low < 4 {
		low, high = max(0, low-2), min(100, high+2)
	}
	return newAxis(low, high, 6, from, to)
}

// roundStep is the smallest of 1, 2, 5, 10 ... times a power of ten that is not below v.
func roundStep(v float64) float64 {
	scale := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5, 10} {
		if m*scale >= v*(1-1e-9) {
			return m * scale
		}
	}
	return 10 * scale
}

// at is where a value is.
func (a axis) at(v float64) float64 {
	return a.from + (v-a.low)/(a.high-a.low)*(a.to-a.from)
}

// label writes a marked number with the digits that its step needs.
func (a axis) label(v float64) string {
	digits := max(0, int(math.Ceil(-math.Log10(a.step)-1e-9)))
	return strconv.FormatFloat(v+0, 'f', digits, 64)
}

// plot is a figure with two axes.
type plot struct {
	*Figure
	x, y axis
}

// frame draws grid, numbers and the axes' names. The x axis is horizontal; y names stand upright beside theirs.
func (p *plot) frame(xName, yName string) {
	left, right, bottom, top := p.x.from, p.x.to, p.y.from, p.y.to
	for _, v := range p.y.ticks {
		y := p.y.at(v)
		p.line("grid", left, y, right, y)
		p.text(left-7, y+4, "end", "soft", p.y.label(v))
	}
	for _, v := range p.x.ticks {
		x := p.x.at(v)
		p.line("grid", x, bottom, x, top)
		p.text(x, bottom+17, "middle", "soft", p.x.label(v))
	}
	p.line("axis", left, bottom, right, bottom)
	p.text((left+right)/2, bottom+36, "middle", "", xName)
	p.upright(margin+8, (top+bottom)/2, "", clip(yName, textSize, bottom-top+24))
}

// bounds are the least and greatest of some numbers.
type bounds struct{ low, high float64 }

func noBounds() bounds { return bounds{math.Inf(1), math.Inf(-1)} }

func (b *bounds) add(values ...float64) {
	b.low, b.high = min(b.low, slices.Min(values)), max(b.high, slices.Max(values))
}

// within says an accuracy with its interval and counts, for who points at a mark.
func within(a Accuracy) string {
	return fmt.Sprintf("%s%% (%s), %d of %d", a.percent(), a.interval(), a.Hits, a.Total)
}
