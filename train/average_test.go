package train

import (
	"math"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/gomlx/core/tensors"
)

// Both averages against the mean of the students they are said to average, over three epochs of four batches.
func TestAverages(t *testing.T) {
	const epochs, batches = 3, 4
	for _, avg := range []Average{EMA{0.8}, SWA{From: 1}} {
		s := newStepper(t, plain(), SGD{Momentum: 0.9}, 0, true)
		b := firstBatch(t, 6, threat.Model{})
		want := widenModel(must[*classifier.Model](t)(s.Student()))
		var ends []([][]float64)
		for epoch := range epochs {
			for batch := range batches {
				read(t)(s.Update(b.x, b.x, b.y, 0.3, avg.Rate(epoch, batch, batches)))
				student := widenModel(must[*classifier.Model](t)(s.Student()))
				switch avg := avg.(type) {
				case EMA:
					for i := range want {
						for j := range want[i] {
							want[i][j] = avg.Decay*want[i][j] + (1-avg.Decay)*student[i][j]
						}
					}
				case SWA:
					if batch == batches-1 && epoch >= avg.From {
						ends = append(ends, student)
					}
					switch {
					case epoch < avg.From:
						want = student
					case batch == batches-1:
						want = meanOf(ends)
					}
				}
				got := must[*classifier.Model](t)(s.Model())
				for i, p := range s.params {
					g := values(got.State[i])
					for j := range g {
						w := want[i][j]
						if !p.Kind.Trainable() {
							w = student[i][j] // copied
						}
						if math.Abs(float64(g[j])-w) > 1e-5 {
							t.Fatalf("%v, epoch %d, batch %d: %s[%d] is %g, want %g", avg, epoch, batch, p.Name, j, g[j], w)
						}
					}
				}
			}
		}
	}
}

func widenModel(m *classifier.Model) [][]float64 {
	var w [][]float64
	for _, t := range m.State {
		w = append(w, widen(values(t)))
	}
	return w
}

func meanOf(models [][][]float64) [][]float64 {
	var mean [][]float64
	for i := range models[0] {
		mean = append(mean, make([]float64, len(models[0][i])))
		for _, m := range models {
			for j, v := range m[i] {
				mean[i][j] += v / float64(len(models))
			}
		}
	}
	return mean
}

// Settling moves the running mean of the input layer, which no weight touches, by momentum 0.1 towards each batch's mean,
// from where the student's is; doing it twice changes nothing.
func TestSettle(t *testing.T) {
	s := newStepper(t, plain(), SGD{}, 0, true)
	src := must[source](t)(newSource(tinySet(24), data.Augmentation{}, 8, 1))
	order := data.Order(24, 1, 0)
	read(t)(s.Step(src.make(order, 0, 0, threat.Model{}).x, nil, src.make(order, 0, 0, threat.Model{}).y, 0.1, 1))
	want := widen(values(must[*classifier.Model](t)(s.Student()).State[2]))
	for b := range src.count() {
		x := values(src.make(order, 0, b, threat.Model{}).x)
		for j := range want {
			mean := 0.0
			for i := range 8 {
				mean += float64(x[i*side*side+j]) / 8
			}
			want[j] = 0.9*want[j] + 0.1*mean
		}
	}
	for range 2 {
		b := 0
		err := s.Settle(func() (*tensors.Tensor, error) {
			if b == src.count() {
				return nil, nil
			}
			b++
			return src.make(order, 0, b-1, threat.Model{}).x, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for j, got := range values(must[*classifier.Model](t)(s.Model()).State[2]) {
			if math.Abs(float64(got)-want[j]) > 1e-6 {
				t.Fatalf("running mean %d is %g, want %g", j, got, want[j])
			}
		}
	}
}
