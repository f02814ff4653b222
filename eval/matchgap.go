package eval

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/compute"
)

// MatchGap asks how well a student S matches its teacher T not only on images but in the balls around them, which is what
// AdaAD trains for (Huang et al., CVPR 2023, section 3), and whether S is flatter there than T. For an image x, points x'
// of the ball and softmax outputs S(x'), T(x'):
//
//	KL(T(x') || S(x'))                      the gap, in nats
//	|f(x') - f(x)|_1 / |x' - x|             the slope of f = S, T; its maximum over the ball is the local
//	                                        Lipschitz constant (Yang et al., NeurIPS 2020, section 5)
//
// Both are taken at uniformly random points and at the worst point that was met: by AdaAD's search, max KL(T(x') || S(x')),
// for the gap; by that and by a search for each network's own steepest slope, max |f(x') - f(x)|_1, for the slope. The
// distance is that of the ball's norm. A search finds a lower bound of the true maximum.
type MatchGap struct {
	Teacher, Student *classifier.Model
	Set              *data.Set
	Search           threat.Model // the ball, and the searches: their steps, from the first random point
	Points           int          // random points of each ball
	Seed             uint64       // of the random points
	BatchSize        int          // images at once; 0 takes 16. It changes speed, not results

	Progress func(Progress) // called after every batch, or nil
}

// Gap is what MatchGap measures.
type Gap struct {
	Teacher        string  `json:"teacher"`
	Student        string  `json:"student"`
	TeacherWeights string  `json:"teacher_weights_sha256"`
	StudentWeights string  `json:"student_weights_sha256"`
	Data           string  `json:"data"`
	Images         int     `json:"images"`
	Norm           string  `json:"norm"`
	Epsilon        float64 `json:"eps"`
	StepSize       float64 `json:"step_size"`
	Steps          int     `json:"steps"`
	Points         int     `json:"points"`
	Seed           uint64  `json:"seed"`

	Divergence    Divergences `json:"kl"`
	Probabilities Slopes      `json:"slope_of_probabilities"`
	Logits        Slopes      `json:"slope_of_logits"` // at the same points

	PerImage []ImageGap `json:"per_image"`
}

// Divergences are KL(T||S) over the images: at the images, the mean of each one's random points, its worst point.
type Divergences struct {
	Clean  Spread `json:"clean"`
	Random Spread `json:"random"`
	Worst  Spread `json:"worst"`
}

// Spread is how a number is spread over the images.
type Spread struct {
	Mean   float64 `json:"mean"`
	Median float64 `json:"median"`
	P95    float64 `json:"p95"`
}

// Slopes compares the slopes of the two networks.
type Slopes struct {
	Random SlopePair `json:"random"` // the mean of each image's random points
	Worst  SlopePair `json:"worst"`  // the steepest of all its points
}

// SlopePair is the slope of both networks over the images.
type SlopePair struct {
	Student Spread  `json:"student"`
	Teacher Spread  `json:"teacher"`
	Ratio   float64 `json:"ratio"`   // mean of S by mean of T: below 1, S is flatter; 0 where T is constant
	Flatter float64 `json:"flatter"` // share of the images around which S is flatter than T
}

// ImageGap is what was measured around one image.
type ImageGap struct {
	Index         int        `json:"index"` // in the original split
	Clean         float64    `json:"kl_clean"`
	Random        float64    `json:"kl_random"`
	Worst         float64    `json:"kl_worst"`
	Probabilities ImageSlope `json:"slope_of_probabilities"`
	Logits        ImageSlope `json:"slope_of_logits"`
}

// ImageSlope is the slope of both networks around one image.
type ImageSlope struct {
	Student PointSlope `json:"student"`
	Teacher PointSlope `json:"teacher"`
}

// PointSlope is the slope of a network towards random points, and the steepest one found.
type PointSlope struct {
	Random float64 `json:"random"`
	Worst  float64 `json:"worst"`
}

// Validate refuses what cannot be measured.
func (m MatchGap) Validate() error {
	if err := m.Search.Validate(); err != nil {
		return err
	}
	switch {
	case !(m.Search.Epsilon > 0):
		return fmt.Errorf("epsilon is %g, expected a radius above 0", m.Search.Epsilon)
	case m.Points < 1:
		return fmt.Errorf("points is %d, expected at least 1", m.Points)
	case m.BatchSize < 0:
		return fmt.Errorf("batch size is %d, expected at least 1, or 0 for the default", m.BatchSize)
	}
	for _, model := range []*classifier.Model{m.Teacher, m.Student} {
		if err := Fits(model.Network, m.Set); err != nil {
			return err
		}
	}
	return nil
}

// Run measures.
func (m MatchGap) Run(ctx context.Context, backend compute.Backend) (*Gap, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	gap := &Gap{
		Teacher: m.Teacher.Name(), Student: m.Student.Name(), Data: m.Set.Name, Images: m.Set.Len(),
		Norm: m.Search.Norm.String(), Epsilon: m.Search.Epsilon, StepSize: m.Search.StepSize, Steps: m.Search.Steps,
		Points: m.Points, Seed: m.Seed,
	}
	var err error
	if gap.TeacherWeights, err = Fingerprint(m.Teacher); err != nil {
		return nil, err
	}
	if gap.StudentWeights, err = Fingerprint(m.Student); err != nil {
		return nil, err
	}
	s, err := newSearches(backend, m)
	if err != nil {
		return nil, err
	}
	defer s.finalize()
	started := time.Now()
	for at := 0; at < m.Set.Len(); at += s.size {
		n := min(s.size, m.Set.Len()-at)
		images, err := m.around(ctx, s, at, n)
		if err != nil {
			return nil, err
		}
		gap.PerImage = append(gap.PerImage, images...)
		if m.Progress != nil {
			done, elapsed := at+n, time.Since(started)
			m.Progress(Progress{done, m.Set.Len(), elapsed, elapsed * time.Duration(m.Set.Len()-done) / time.Duration(done)})
		}
	}
	gap.summarise()
	return gap, nil
}

// around measures n images of the set from a position on.
func (m MatchGap) around(ctx context.Context, s *searches, at, n int) ([]ImageGap, error) {
	size, classes := m.Set.ImageSize(), m.Student.Classes()
	x := make([]float32, s.size*size)
	keys := make([]int, s.size)
	for i := range keys {
		position := at + min(i, n-1) // the last batch is filled with its last image
		data.Floats(x[i*size:(i+1)*size], m.Set.Image(position))
		keys[i] = m.Set.Index[position]
	}
	clean, err := s.visit(ctx, x)
	if err != nil {
		return nil, err
	}
	var random, found []visit
	for k := range m.Points {
		v, err := s.visit(ctx, m.random(x, keys, k))
		if err != nil {
			return nil, err
		}
		random = append(random, v)
	}
	for _, search := range []struct {
		climb *climb
		clean []float32
	}{{s.disagree, clean.teacher}, {s.steepenTeacher, clean.teacher}, {s.steepenStudent, clean.student}} {
		way, err := s.walk(ctx, m.Search.Steps, search.climb, x, random[0].points, search.clean)
		if err != nil {
			return nil, err
		}
		found = append(found, way...)
	}

	images := make([]ImageGap, n)
	for i := range images {
		b := ball{norm: m.Search.Norm, pixels: span{i * size, (i + 1) * size}, logits: span{i * classes, (i + 1) * classes}, clean: clean}
		images[i] = b.measure(random, found)
		images[i].Index = keys[i]
		if d := images[i].Worst; math.IsNaN(d) || math.IsInf(d, 0) {
			return nil, fmt.Errorf("KL(T||S) around image %d is %g: logits are not finite", keys[i], d)
		}
	}
	return images, nil
}

// random draws a point of the ball around each image.
func (m MatchGap) random(x []float32, keys []int, k int) []float32 {
	uniform := threat.Model{Norm: m.Search.Norm, Epsilon: m.Search.Epsilon, Start: threat.Uniform}
	points := make([]float32, len(x))
	size := len(x) / len(keys)
	for i, key := range keys {
		image, point := x[i*size:(i+1)*size], points[i*size:(i+1)*size]
		uniform.Begin(rng.New(m.Seed, rng.Attack, rng.Key("match-gap"), uint64(key), uint64(k)), image, point)
		m.Search.Norm.ProjectPoint(image, point, m.Search.Epsilon)
	}
	return points
}

// visit is a point for every image of a batch, and the logits of both networks there.
type visit struct{ points, teacher, student []float32 }

// ball is what is around one image: where it stands in the visits of its batch, and the image itself.
type ball struct {
	norm           threat.Norm
	pixels, logits span
	clean          visit
}

type span struct{ from, to int }

func (s span) of(values []float32) []float32 { return values[s.from:s.to] }

// measure takes gap and slopes at random points and at those that searches found.
func (b ball) measure(random, found []visit) ImageGap {
	gap := ImageGap{Clean: b.divergence(b.clean)}
	for _, v := range random {
		gap.Random += b.divergence(v) / float64(len(random))
		gap.Worst = max(gap.Worst, b.divergence(v))
	}
	for _, v := range found {
		gap.Worst = max(gap.Worst, b.divergence(v))
	}
	slope := func(to *PointSlope, of func(visit) []float64) {
		here := of(b.clean)
		steepness := func(v visit) float64 {
			distance := b.norm.Distance(b.pixels.of(v.points), b.pixels.of(b.clean.points))
			if distance == 0 {
				return 0
			}
			var sum float64
			for i, there := range of(v) {
				sum += math.Abs(there - here[i])
			}
			return sum / distance
		}
		for _, v := range random {
			to.Random += steepness(v) / float64(len(random))
			to.Worst = max(to.Worst, steepness(v))
		}
		for _, v := range found {
			to.Worst = max(to.Worst, steepness(v))
		}
	}
	slope(&gap.Logits.Student, func(v visit) []float64 { return float64s(b.logits.of(v.student)) })
	slope(&gap.Logits.Teacher, func(v visit) []float64 { return float64s(b.logits.of(v.teacher)) })
	slope(&gap.Probabilities.Student, func(v visit) []float64 { return Probabilities(b.logits.of(v.student)) })
	slope(&gap.Probabilities.Teacher, func(v visit) []float64 { return Probabilities(b.logits.of(v.teacher)) })
	return gap
}

// divergence is KL(T||S) of the image at a visit.
func (b ball) divergence(v visit) float64 {
	logQ, logP := logSoftmax(b.logits.of(v.teacher)), logSoftmax(b.logits.of(v.student))
	var sum float64
	for i, q := range logQ {
		sum += math.Exp(q) * (q - logP[i])
	}
	return max(0, sum) // rounding may leave a little less
}

// logSoftmax is log softmax of an image's logits.
func logSoftmax(z []float32) []float64 {
	top := float64(slices.Max(z))
	var sum float64
	for _, v := range z {
		sum += math.Exp(float64(v) - top)
	}
	out, all := float64s(z), top+math.Log(sum)
	for i := range out {
		out[i] -= all
	}
	return out
}

// Probabilities are the probabilities that an image's logits stand for.
func Probabilities(z []float32) []float64 {
	p := logSoftmax(z)
	for i, v := range p {
		p[i] = math.Exp(v)
	}
	return p
}

func float64s(values []float32) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = float64(v)
	}
	return out
}

// summarise fills in the numbers over all images.
func (g *Gap) summarise() {
	over := func(of func(ImageGap) float64) Spread {
		values := make([]float64, len(g.PerImage))
		for i, image := range g.PerImage {
			values[i] = of(image)
		}
		return spread(values)
	}
	g.Divergence = Divergences{
		Clean:  over(func(i ImageGap) float64 { return i.Clean }),
		Random: over(func(i ImageGap) float64 { return i.Random }),
		Worst:  over(func(i ImageGap) float64 { return i.Worst }),
	}
	pair := func(student, teacher func(ImageGap) float64) SlopePair {
		p := SlopePair{Student: over(student), Teacher: over(teacher)}
		if p.Teacher.Mean > 0 {
			p.Ratio = p.Student.Mean / p.Teacher.Mean
		}
		for _, image := range g.PerImage {
			if student(image) < teacher(image) {
				p.Flatter += 1 / float64(len(g.PerImage))
			}
		}
		return p
	}
	slopes := func(of func(ImageGap) ImageSlope) Slopes {
		return Slopes{
			Random: pair(func(i ImageGap) float64 { return of(i).Student.Random }, func(i ImageGap) float64 { return of(i).Teacher.Random }),
			Worst:  pair(func(i ImageGap) float64 { return of(i).Student.Worst }, func(i ImageGap) float64 { return of(i).Teacher.Worst }),
		}
	}
	g.Probabilities = slopes(func(i ImageGap) ImageSlope { return i.Probabilities })
	g.Logits = slopes(func(i ImageGap) ImageSlope { return i.Logits })
}

// spread is the mean and two quantiles, between values where they fall between.
func spread(values []float64) Spread {
	sorted := slices.Sorted(slices.Values(values))
	quantile := func(q float64) float64 {
		at := q * float64(len(sorted)-1)
		below := int(at)
		above := min(below+1, len(sorted)-1)
		return sorted[below] + (at-float64(below))*(sorted[above]-sorted[below])
	}
	var sum float64
	for _, v := range sorted {
		sum += v
	}
	return Spread{sum / float64(len(sorted)), quantile(0.5), quantile(0.95)}
}
