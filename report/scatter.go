package report

import "fmt"

// Scatter draws clean against robust accuracy, a point for each model with the 95% intervals of both. Models without
// either accuracy are left out; it is an error if none has both.
func Scatter(title string, c Conditions, attack string, models []Model) (*Figure, error) {
	type point struct {
		name          string
		clean, robust Accuracy
	}
	var points []point
	xs, ys := noBounds(), noBounds()
	for _, m := range models {
		p := point{m.Name, m.find("clean"), m.find(attack)}
		if p.clean.Total == 0 || p.robust.Total == 0 {
			continue
		}
		points = append(points, p)
		xs.add(100*p.clean.Low, 100*p.clean.High)
		ys.add(100*p.robust.Low, 100*p.robust.High)
	}
	if len(points) == 0 {
		return nil, fmt.Errorf("no model has both a clean accuracy and one under %s to draw", attack)
	}

	const width, height = 560, 420
	f, top := newFigure(title, width, height)
	p := plot{f, percentAxis(xs.low, xs.high, 62, width-18), percentAxis(ys.low, ys.high, f.height-54, top+12)}
	p.frame("clean accuracy, %", fmt.Sprintf("accuracy under %s, %% (%s)", head(attack, c), c.Norm))
	var labels []label
	var bars []box
	for i, point := range points {
		x, y := p.x.at(100*point.clean.value()), p.y.at(100*point.robust.value())
		x0, x1 := p.x.at(100*point.clean.Low), p.x.at(100*point.clean.High)
		y0, y1 := p.y.at(100*point.robust.High), p.y.at(100*point.robust.Low)
		p.whiskers(i, x, y, x0, x1, y0, y1)
		labels = append(labels, label{text: clip(point.name, textSize, width/2), x: x, y: y})
		bars = append(bars, box{x0, y - 2, x1, y + 2}, box{x - 2, y0, x + 2, y1})
	}
	for i, point := range points {
		p.mark(i, labels[i].x, labels[i].y, fmt.Sprintf("%s: clean %s; %s %s",
			point.name, within(point.clean), head(attack, c), within(point.robust)))
	}
	placeLabels(labels, bars, box{p.x.from, p.y.to, p.x.to, p.y.from})
	p.drawLabels(labels)
	return f, nil
}

// whiskers draws an interval in both directions.
func (f *Figure) whiskers(series int, x, y, x0, x1, y0, y1 float64) {
	f.printf(`<path class="whisker s%d" d="M%s %sH%sM%s %sV%s"/>`, series%len(lightInks),
		number(x0), number(y), number(x1), number(x), number(y0), number(y1))
}
