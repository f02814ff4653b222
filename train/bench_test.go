package train

import (
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
)

// BenchmarkStep is what a step costs beside the networks: these are too small to matter. Ten search steps, one update.
func BenchmarkStep(b *testing.B) {
	m := ball
	m.Steps = 10
	s, err := NewStepper(backend(), tinyModel(5, 1), []*classifier.Model{tinyModel(7, 2)}, distilled(m, classifier.Eval), SGD{Momentum: 0.9}, 0, true)
	if err != nil {
		b.Fatal(err)
	}
	src, err := newSource(tinySet(24), data.Augmentation{}, 8, 1)
	if err != nil {
		b.Fatal(err)
	}
	batch := src.make(data.Order(24, 1, 0), 0, 0, m)
	b.ReportAllocs()
	for b.Loop() {
		outcome, err := s.Step(batch.x, batch.start, batch.y, 0.01, 0.001)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := outcome.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
