package cli

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/speed"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/zoo"
	"github.com/schollz/progressbar/v3"
)

type benchCmd struct {
	Words []string      `arg:"" optional:"" help:"Measure only what has all these words in its line, such as 3x3 forward."`
	Time  time.Duration `help:"How long to measure each line, at least." default:"200ms" placeholder:"DURATION"`
}

func (benchCmd) Help() string {
	return `Measures this machine against itself: how many floating point operations a second the
layers of networks reach, beside what the processor does with numbers in registers, and
how many images a second go through training steps, attacks and networks. Winograd's
algorithm needs fewer operations than are counted, so it can exceed the processor.

Examples:
  adaad bench
  adaad bench 3x3 forward
  adaad bench --threads 1 --time 1s`
}

// measured is a line of the bench table.
type measured struct {
	Work       string  `json:"work"`
	Direction  string  `json:"direction,omitempty"`
	Seconds    float64 `json:"seconds"` // median of one run
	FLOPS      float64 `json:"flops,omitempty"`
	ImagesRate float64 `json:"images_per_second,omitempty"`
}

func (c benchCmd) Run(g *globals, ctx context.Context) error {
	if c.Time <= 0 || c.Time > time.Minute {
		return usage(fmt.Errorf("--time is %s, expected more than 0s and at most 1m", c.Time))
	}
	backend, err := g.open()
	if err != nil {
		return err
	}
	defer backend.Finalize()

	type line struct {
		measured
		images  int
		flops   float64
		measure func() (time.Duration, error)
	}
	var lines []line
	wanted := func(line string) bool {
		return !slices.ContainsFunc(c.Words, func(word string) bool { return !strings.Contains(strings.ToLower(line), strings.ToLower(word)) })
	}
	for _, k := range speed.Kernels() {
		if wanted(k.Name + " " + string(k.Direction)) {
			lines = append(lines, line{measured: measured{Work: k.Name, Direction: string(k.Direction)}, flops: k.FLOPs(),
				measure: func() (time.Duration, error) { return k.Measure(backend, c.Time) }})
		}
	}
	adaad := func(net classifier.Network) (speed.Work, error) {
		return speed.AdaAD(backend, zoo.Init(net, 1), zoo.Init(net, 2), speed.RandomImages(64), 10)
	}
	for _, w := range []struct {
		name, model string
		precision   zoo.Precision
		images      int
		make        func(net classifier.Network) (speed.Work, error)
	}{
		{"AdaAD step, resnet20, K 10, batch 64", "resnet20", zoo.FP32, 64, adaad},
		{"AdaAD step, resnet20, K 10, batch 64, bf16", "resnet20", zoo.BF16, 64, adaad},
		{"PGD-20 evaluation, resnet20, batch 64", "resnet20", zoo.FP32, 64, func(net classifier.Network) (speed.Work, error) {
			return speed.PGD(backend, zoo.Init(net, 1), speed.RandomImages(64), 20)
		}},
		{"logits, mobilenet-v2, batch 1", "mobilenet-v2", zoo.FP32, 1, func(net classifier.Network) (speed.Work, error) {
			return speed.Logits(backend, zoo.Init(net, 1), speed.RandomImages(1))
		}},
	} {
		if !wanted(w.name) {
			continue
		}
		lines = append(lines, line{measured: measured{Work: w.name}, images: w.images, measure: func() (time.Duration, error) {
			net, err := zoo.New(w.model, 10, [3]int{32, 32, 3})
			if err != nil {
				return 0, err
			}
			if net, err = zoo.InPrecision(net, w.precision); err != nil {
				return 0, err
			}
			work, err := w.make(net)
			if err != nil {
				return 0, err
			}
			return speed.Time(func() error { _, err := work(); return err }, c.Time)
		}})
	}
	if len(lines) == 0 {
		return usage(fmt.Errorf("nothing to measure has all of the words %s; adaad bench measures everything", strings.Join(c.Words, " ")))
	}
	peak := 0.0
	if b, ok := backend.(interface{ PeakFLOPS() float64 }); ok {
		peak = b.PeakFLOPS()
	}
	bar := g.bar("measuring", int64(len(lines)), progressbar.OptionShowCount())
	t := &report.Table{Columns: []report.Column{{Name: "work"}, {Name: "direction"}, {Name: "time", Align: report.Right},
		{Name: "GFLOP/s", Align: report.Right}, {Name: "of peak", Align: report.Right}, {Name: "images/s", Align: report.Right}}}
	var results []measured
	for _, l := range lines {
		if err := ctx.Err(); err != nil {
			return err
		}
		took, err := l.measure()
		if err != nil {
			return err
		}
		m := l.measured
		m.Seconds = took.Seconds()
		flops, share, images := "", "", ""
		if l.flops > 0 {
			m.FLOPS = l.flops / m.Seconds
			flops = fmt.Sprintf("%.0f", m.FLOPS/1e9)
			if peak > 0 {
				share = fmt.Sprintf("%.0f%%", 100*m.FLOPS/peak)
			}
		}
		if l.images > 0 {
			m.ImagesRate = float64(l.images) / m.Seconds
			images = fmt.Sprintf("%.0f", m.ImagesRate)
		}
		results = append(results, m)
		t.Add(m.Work, m.Direction, took.Round(time.Microsecond).String(), flops, share, images)
		if bar != nil {
			drawn(bar.Add(1))
		}
	}
	if bar != nil {
		drawn(bar.Finish())
	}
	t.Notes = []string{fmt.Sprintf("%s on %s/%s, %d processors. Batches of layers are 32 images.", backend.Description(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())}
	if peak > 0 {
		t.Notes = append(t.Notes, fmt.Sprintf("Peak: %.0f GFLOP/s, multiply-adds of numbers in registers.", peak/1e9))
	}
	return g.show(t, results)
}
