package eval

import (
	"context"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/zoo"
)

// scaled are the weights of a linear model of two classes, times a factor.
func scaled(factor float32) *classifier.Model {
	weight := normal(1)
	return weigh(linear{classes: 2}, func(i int) float32 { return factor * weight(i) })
}

func gapOf(t *testing.T, teacher, student *classifier.Model, power threat.Model) *Gap {
	t.Helper()
	gap, err := MatchGap{Teacher: teacher, Student: student, Set: images(21, side, 2), Search: power, Points: 3, Seed: 4}.Run(t.Context(), backend)
	if err != nil {
		t.Fatal(err)
	}
	return gap
}

func near(a, b, tolerance float64) bool { return math.Abs(a-b) <= tolerance*max(1, math.Abs(b)) }

// The logits of T are u = w·x apart, those of S half of that, and u reaches eps |w|_1 (Linf) or eps |w|_2 (L2) further.
// KL(T||S) and |T(x') - T(x)|_1 rise towards the two ends, and the slope of the logits is that of the matrix.
func TestMatchGapOfLinearModels(t *testing.T) {
	w := scaled(1).State[0].Value().([][]float32)
	sigma := func(u float64) float64 { return 1 / (1 + math.Exp(-u)) }
	kl := func(u float64) float64 {
		p, q := sigma(u), sigma(u/2)
		return p*math.Log(p/q) + (1-p)*math.Log((1-p)/(1-q))
	}
	for norm, eps := range map[threat.Norm]float64{threat.Linf: 0.02, threat.L2: 0.05} {
		set := images(21, side, 2)
		gap := gapOf(t, scaled(1), scaled(0.5), threat.Model{Norm: norm, Epsilon: eps, StepSize: eps / 2, Steps: 20})
		var sum1, sum2 float64 // of the difference of the two rows
		for j := range w[0] {
			d := float64(w[1][j]) - float64(w[0][j])
			sum1, sum2 = sum1+math.Abs(d), sum2+d*d
		}
		reach := eps * map[threat.Norm]float64{threat.Linf: sum1, threat.L2: math.Sqrt(sum2)}[norm]
		// |W d|_1 / |d| in the direction d of the search.
		var steep float64
		for _, row := range w {
			var along float64
			for j, v := range row {
				d := float64(w[1][j]) - float64(w[0][j])
				if norm == threat.Linf {
					along += float64(v) * math.Copysign(1, d)
				} else {
					along += float64(v) * d / math.Sqrt(sum2)
				}
			}
			steep += math.Abs(along)
		}
		for i, image := range gap.PerImage {
			var u float64
			for j, p := range set.Image(i) {
				u += float64(p) / 255 * (float64(w[1][j]) - float64(w[0][j]))
			}
			if !near(image.Clean, kl(u), 1e-5) {
				t.Errorf("%s: KL of image %d is %g, want %g", norm, i, image.Clean, kl(u))
			}
			// The search goes to one end, which of them depends on where it starts when u is near 0.
			if ends := []float64{kl(u - reach), kl(u + reach)}; !near(image.Worst, ends[0], 1e-4) && !near(image.Worst, ends[1], 1e-4) {
				t.Errorf("%s: worst KL of image %d is %g, want one of %g", norm, i, image.Worst, ends)
			}
			if image.Index != set.Index[i] || image.Random > image.Worst || image.Random <= 0 {
				t.Errorf("%s: image %d is %+v", norm, i, image)
			}
			if got := image.Logits.Teacher.Worst; got < 0.999*steep {
				t.Errorf("%s: the slope of T's logits is %g, want at least %g", norm, got, steep)
			}
			ends := [2]float64{math.Abs(sigma(u+reach) - sigma(u)), math.Abs(sigma(u-reach) - sigma(u))}
			if got := image.Probabilities.Teacher.Worst; got < 2*min(ends[0], ends[1])/eps*0.999 {
				t.Errorf("%s: the slope of T is %g, want at least %g", norm, got, 2*min(ends[0], ends[1])/eps)
			}
		}
		// S's logits are half of T's at every point.
		if l := gap.Logits; !near(l.Random.Ratio, 0.5, 1e-4) || !near(l.Worst.Ratio, 0.5, 1e-4) || !near(l.Worst.Flatter, 1, 1e-9) {
			t.Errorf("%s: half the logits have slopes %+v", norm, l)
		}
	}
}

func TestMatchGapOfAModelAndItself(t *testing.T) {
	gap := gapOf(t, scaled(1), scaled(1), threat.Model{Epsilon: 0.03, StepSize: 0.01, Steps: 5})
	if gap.Divergence != (Divergences{}) {
		t.Errorf("a model diverges from itself by %+v", gap.Divergence)
	}
	for _, s := range []Slopes{gap.Probabilities, gap.Logits} {
		for _, p := range []SlopePair{s.Random, s.Worst} {
			if p.Ratio != 1 || p.Flatter != 0 || p.Student != p.Teacher || p.Student.Mean <= 0 {
				t.Errorf("a model beside itself has slopes %+v", p)
			}
		}
	}
	if gap.TeacherWeights != gap.StudentWeights || gap.Images != 21 || gap.Norm != "Linf" || gap.Epsilon != 0.03 {
		t.Errorf("the record says %+v", gap)
	}
	// A network that says the same everywhere has no slope.
	flat := gapOf(t, scaled(0), scaled(1), threat.Model{Epsilon: 0.03, StepSize: 0.01, Steps: 2})
	if p := flat.Probabilities.Worst; p.Teacher != (Spread{}) || p.Ratio != 0 || p.Flatter != 0 {
		t.Errorf("beside a constant, slopes are %+v", p)
	}
}

func TestMatchGapGrowsWithTheBall(t *testing.T) {
	before := Divergences{}
	for _, eps := range []float64{0.005, 0.01, 0.02, 0.04, 0.08} {
		d := gapOf(t, scaled(1), scaled(0.5), threat.Model{Epsilon: eps, StepSize: eps / 2, Steps: 6}).Divergence
		if d.Worst.Mean <= before.Worst.Mean || d.Worst.Median < d.Clean.Median || d.Worst.Mean < d.Random.Mean {
			t.Errorf("at eps %g the divergence is %+v, after %+v", eps, d, before)
		}
		before = d
	}
}

// What is measured around an image does not depend on the images beside it, and no point met is worse than the worst.
func TestMatchGapIsTheSameForAnyBatchSize(t *testing.T) {
	backend, err := vec.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	net, err := zoo.New("resnet8-w4", 3, [3]int{8, 8, 3})
	if err != nil {
		t.Fatal(err)
	}
	teacher, student := zoo.Init(net, 1), zoo.Init(net, 2)
	var want *Gap
	for _, batch := range []int{1, 4, 16} {
		var last Progress
		m := MatchGap{Teacher: teacher, Student: student, Set: images(7, 8, 3), Points: 2, BatchSize: batch,
			Search: threat.Model{Epsilon: 0.03, StepSize: 0.01, Steps: 3}, Progress: func(p Progress) { last = p }}
		gap, err := m.Run(t.Context(), backend)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = gap
		}
		if !reflect.DeepEqual(gap, want) {
			t.Errorf("with batches of %d it is %+v, with batches of 1 %+v", batch, gap.PerImage, want.PerImage)
		}
		if last.Done != 7 || last.Total != 7 || last.Remaining != 0 {
			t.Errorf("the last progress is %+v", last)
		}
	}
	for _, image := range want.PerImage {
		for _, s := range []PointSlope{image.Probabilities.Student, image.Probabilities.Teacher, image.Logits.Student, image.Logits.Teacher} {
			if s.Worst < s.Random || s.Random <= 0 {
				t.Errorf("image %d has a slope of %+v", image.Index, s)
			}
		}
		if image.Worst < image.Random || image.Random <= 0 {
			t.Errorf("image %d diverges by %+v", image.Index, image)
		}
	}
}

func TestSpreadOverImages(t *testing.T) {
	if got, want := spread([]float64{4, 1, 3, 2, 10}), (Spread{4, 3, 8.8}); !near(got.Mean, want.Mean, 1e-12) || got.Median != want.Median || !near(got.P95, want.P95, 1e-12) {
		t.Errorf("spread is %+v, want %+v", got, want)
	}
	if got := spread([]float64{7}); got != (Spread{7, 7, 7}) {
		t.Errorf("spread of one number is %+v", got)
	}
}

func TestMatchGapRefuses(t *testing.T) {
	good := func() MatchGap {
		return MatchGap{Teacher: scaled(1), Student: scaled(2), Set: images(3, side, 2), Points: 1,
			Search: threat.Model{Epsilon: 0.1, StepSize: 0.1, Steps: 1}}
	}
	for want, spoil := range map[string]func(m *MatchGap){
		"epsilon is 0, expected":   func(m *MatchGap) { m.Search.Epsilon = 0 },
		"was 8/255 meant":          func(m *MatchGap) { m.Search.Epsilon = 8 },
		"points is 0":              func(m *MatchGap) { m.Points = 0 },
		"batch size is -1":         func(m *MatchGap) { m.BatchSize = -1 },
		"tells 3 classes apart":    func(m *MatchGap) { m.Teacher = weigh(linear{classes: 3}, normal(1)) },
		"takes images of 2x2x3":    func(m *MatchGap) { m.Set = images(3, 5, 2) },
		"logits are not finite":    func(m *MatchGap) { m.Student = scaled(float32(math.Inf(1))) },
		"noise holds no images":    func(m *MatchGap) { m.Set = images(0, side, 2) },
		"step size is 0, expected": func(m *MatchGap) { m.Search.StepSize = 0 },
	} {
		m := good()
		spoil(&m)
		if _, err := m.Run(t.Context(), backend); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := good().Run(ctx, backend); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that is done gives %v", err)
	}
}
