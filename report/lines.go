package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Curve is a line of a figure.
type Curve struct {
	Name   string
	Points []Point // from left to right
}

// Point is a value and the interval around it. Without an interval Low and High are Y.
type Point struct{ X, Y, Low, High float64 }

func (p Point) finite() bool {
	sum := p.X + p.Y + p.Low + p.High
	return !math.IsNaN(sum) && !math.IsInf(sum, 0)
}

// AgainstRadius draws accuracy against the radius that models were trained with, a line for each method: X is the radius
// in 255ths, Y, Low and High are percents. measured names what they are: "accuracy under pgd-20 eps 8/255".
func AgainstRadius(title, measured string, curves []Curve) (*Figure, error) {
	return lines(title, "training eps, in 255ths", measured+", %", 0, curves)
}

// AgainstEpoch draws what a run logs after every epoch, marking the one whose model was chosen; 0 marks none. measured names what it
// is; where it ends in a percent sign the values are percents.
func AgainstEpoch(title, measured string, chosen int, curves []Curve) (*Figure, error) {
	return lines(title, "epoch", measured, float64(chosen), curves)
}

// A line of many points is drawn without marks and intervals, on an axis with round numbers; of more than most, some are
// left out.
const (
	many = 10
	most = 500
)

// lines draws curves, each with its name at its end. Points that are not finite are left out; it is an error if none is
// left.
func lines(title, xName, yName string, chosen float64, curves []Curve) (*Figure, error) {
	var drawn []Curve
	xs, ys := noBounds(), noBounds()
	widest := 0.
	for _, c := range curves {
		c.Points = slices.DeleteFunc(slices.Clone(c.Points), func(p Point) bool { return !p.finite() })
		if len(c.Points) == 0 {
			continue
		}
		for _, p := range c.Points {
			xs.add(p.X)
			ys.add(p.Y)
			if len(c.Points) < many {
				ys.add(p.Low, p.High)
			}
		}
		widest = max(widest, textWidth(c.Name, textSize))
		drawn = append(drawn, c)
	}
	if len(drawn) == 0 {
		return nil, fmt.Errorf("%s: there is nothing to draw", title)
	}

	const width, height = 480, 320
	widest = min(widest, width/3)
	f, top := newFigure(title, width, max(height, (lineHeight+1)*float64(len(drawn))+90, textWidth(yName, textSize)+90))
	p := plot{Figure: f, y: newAxis(ys.low, ys.high, 6, f.height-54, top+20)}
	if strings.HasSuffix(yName, "%") {
		p.y = percentAxis(ys.low, ys.high, p.y.from, p.y.to)
	}
	p.x = pointsAxis(drawn, xs, 38+max(textWidth(p.y.label(p.y.high), softSize), textWidth(p.y.label(p.y.low), softSize)), width-widest-32)
	p.frame(xName, yName)
	if chosen > 0 && chosen >= p.x.low && chosen <= p.x.high {
		p.line("chosen", p.x.at(chosen), p.y.from, p.x.at(chosen), p.y.to)
		p.text(p.x.at(chosen), p.y.to-4, "middle", "soft", "chosen")
	}
	names := make([]float64, len(drawn))
	for i, c := range drawn {
		p.curve(i, c)
		names[i] = p.y.at(c.Points[len(c.Points)-1].Y)
	}
	for i, y := range spread(names, lineHeight+1, p.y.to+6, p.y.from-4) {
		end := p.x.at(drawn[i].Points[len(drawn[i].Points)-1].X)
		p.line(fmt.Sprintf("tie s%d", i%len(lightInks)), end+7, names[i], p.x.to+14, y)
		p.text(p.x.to+17, y+4, "start", "", clip(drawn[i].Name, textSize, widest))
	}
	return f, nil
}

// pointsAxis marks the values of the points themselves where they are few, as radii are, and round numbers where they are
// many, as epochs are.
func pointsAxis(curves []Curve, xs bounds, from, to float64) axis {
	var values []float64
	for _, c := range curves {
		for _, p := range c.Points {
			values = append(values, p.X)
		}
	}
	slices.Sort(values)
	values = slices.Compact(values)
	a := newAxis(xs.low, xs.high, 6, from, to)
	if len(values) > 1 {
		a.low, a.high = xs.low, xs.high // so that lines take the whole width
	}
	if len(values) < many {
		a.ticks = values
		if slices.ContainsFunc(values, func(v float64) bool { return v != math.Round(v) }) {
			a.step = 0.1
		} else {
			a.step = 1
		}
	}
	free := math.Inf(-1)
	a.ticks = slices.DeleteFunc(a.ticks, func(v float64) bool {
		half := textWidth(a.label(v), softSize)/2 + 3
		if v < a.low || v > a.high || a.at(v)-half < free {
			return true
		}
		free = a.at(v) + half
		return false
	})
	return a
}

// curve draws a line with, where they are few, its points and their intervals.
func (p *plot) curve(series int, c Curve) {
	few := len(c.Points) < many
	stride := (len(c.Points) + most - 1) / most
	var path strings.Builder
	for i, point := range c.Points {
		if i%stride != 0 && i != len(c.Points)-1 {
			continue
		}
		x, y := p.x.at(point.X), p.y.at(point.Y)
		verb := "L"
		if i == 0 {
			verb = "M"
		}
		path.WriteString(verb + number(x) + " " + number(y))
		if few && point.Low < point.High {
			p.whiskers(series, x, y, x, x, p.y.at(point.High), p.y.at(point.Low))
		}
	}
	dash := ""
	if round := series / len(lightInks); round > 0 {
		dash = fmt.Sprintf(` stroke-dasharray="%d 5"`, max(2, 10-4*round))
	}
	p.printf(`<path class="line s%d"%s d="%s">%s</path>`, series%len(lightInks), dash, &path, tip(c.Name))
	if !few {
		return
	}
	for _, point := range c.Points {
		p.mark(series, p.x.at(point.X), p.y.at(point.Y), fmt.Sprintf("%s: %s at %s", c.Name, number(point.Y), number(point.X)))
	}
}
