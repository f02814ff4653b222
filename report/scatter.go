package report

import (
	"fmt"
	"image/color"
	"io"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Scatter draws clean against robust accuracy, a point for each model with the 95% intervals of both, as "svg" or "png".
// Models without either accuracy are left out; it is an error if none has both.
func Scatter(w io.Writer, format, title string, c Conditions, attack string, models []Model) error {
	var points intervals
	labels := plotter.XYLabels{}
	for _, m := range models {
		clean, robust := m.find("clean"), m.find(attack)
		if clean.Total == 0 || robust.Total == 0 {
			continue
		}
		points = append(points, [2]Accuracy{clean, robust})
		labels.XYs = append(labels.XYs, plotter.XY{X: 100 * clean.value(), Y: 100 * robust.value()})
		labels.Labels = append(labels.Labels, "  "+m.Name) // room for the dot, which an offset would not reserve
	}
	if len(points) == 0 {
		return fmt.Errorf("no model has both a clean accuracy and one under %s to draw", attack)
	}

	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text = "clean accuracy, %"
	p.Y.Label.Text = fmt.Sprintf("accuracy under %s, %% (%s, %d images)", head(attack, c), c.Norm, c.Images)
	for _, style := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font,
		&p.X.Tick.Label.Font, &p.Y.Tick.Label.Font} {
		style.Variant = "Sans"
	}
	p.Title.Padding = vg.Points(8)

	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{230}, color.Gray{230}
	blue := color.RGBA{R: 0x1f, G: 0x5f, B: 0xa8, A: 0xff}
	xBars, err := plotter.NewXErrorBars(points)
	if err != nil {
		return err
	}
	yBars, err := plotter.NewYErrorBars(points)
	if err != nil {
		return err
	}
	xBars.Color, yBars.Color = color.Gray{150}, color.Gray{150}
	dots, err := plotter.NewScatter(points)
	if err != nil {
		return err
	}
	dots.GlyphStyle = draw.GlyphStyle{Color: blue, Radius: vg.Points(4), Shape: draw.CircleGlyph{}}
	names, err := plotter.NewLabels(labels)
	if err != nil {
		return err
	}
	names.Offset.Y = vg.Points(4)
	for i := range names.TextStyle {
		names.TextStyle[i].Font.Variant = "Sans"
	}
	p.Add(grid, xBars, yBars, dots, names)
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Min, axis.Max, axis.Tick.Marker = percentAxis(axis.Min, axis.Max)
	}

	image, err := p.WriterTo(16*vg.Centimeter, 12*vg.Centimeter, format)
	if err != nil {
		return fmt.Errorf("a figure can be svg or png: %w", err)
	}
	_, err = image.WriteTo(w)
	return err
}

// percentAxis widens a range of percents to round numbers and marks at most nine of them.
func percentAxis(low, high float64) (float64, float64, plot.ConstantTicks) {
	for _, step := range []float64{1, 2, 5, 10, 20} {
		first := math.Floor(low / step)
		last := max(first+1, math.Ceil(high/step))
		if last-first > 8 {
			continue
		}
		var ticks plot.ConstantTicks
		for k := first; k <= last; k++ {
			ticks = append(ticks, plot.Tick{Value: k * step, Label: fmt.Sprint(k * step)})
		}
		return first * step, last * step, ticks
	}
	panic(fmt.Sprintf("report: from %g to %g is no range of percents", low, high))
}

// intervals are pairs of a clean and a robust accuracy, as gonum's plotters take points with errors, in percent.
type intervals [][2]Accuracy

func (s intervals) Len() int { return len(s) }

func (s intervals) XY(i int) (x, y float64) { return 100 * s[i][0].value(), 100 * s[i][1].value() }

func (s intervals) XError(i int) (low, high float64) { return s[i][0].errors() }

func (s intervals) YError(i int) (low, high float64) { return s[i][1].errors() }

// errors are how far the interval reaches below and above the accuracy, in percent.
func (a Accuracy) errors() (low, high float64) {
	return 100 * (a.value() - a.Low), 100 * (a.High - a.value())
}
