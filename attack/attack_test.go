package attack

import (
	"context"
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/backend/mesh"
	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/several"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

var backend = func() compute.Backend {
	b, err := gobackend.New("ops_sequential")
	if err != nil {
		panic(err)
	}
	return b
}()

// side is the height and width of the images in these tests; they have three channels.
const side, pixels = 4, side * side * 3

// perceptron is z = W x, or W tanh(V x) with hidden units.
type perceptron struct{ hidden, classes int }

func (p perceptron) Name() string           { return "perceptron" }
func (p perceptron) Input() (int, int, int) { return side, side, 3 }
func (p perceptron) Classes() int           { return p.classes }
func (p perceptron) Params() []classifier.Param {
	if p.hidden == 0 {
		return []classifier.Param{{Name: "w", Shape: []int{p.classes, pixels}, Kind: classifier.LinearWeight}}
	}
	return []classifier.Param{
		{Name: "v", Shape: []int{p.hidden, pixels}, Kind: classifier.LinearWeight},
		{Name: "w", Shape: []int{p.classes, p.hidden}, Kind: classifier.LinearWeight},
	}
}

func (p perceptron) Forward(b *classifier.Bound, x *graph.Node) *graph.Node {
	x = graph.Reshape(x, x.Shape().Dimensions[0], -1)
	if p.hidden > 0 {
		x = graph.Tanh(graph.Dot(x, graph.Transpose(b.Param("v"), 0, 1)).Product())
	}
	return graph.Dot(x, graph.Transpose(b.Param("w"), 0, 1)).Product()
}

// victim is a perceptron with weights from N(0,1), and those weights.
func victim(t *testing.T, p perceptron) (*Victim, [][]float32) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	var state []*tensors.Tensor
	var weights [][]float32
	for _, q := range p.Params() {
		w := make([]float32, q.Size())
		for i := range w {
			w[i] = float32(r.NormFloat64())
		}
		weights = append(weights, w)
		state = append(state, tensors.FromFlatDataAndDimensions(w, q.Shape...))
	}
	model, err := classifier.NewModel(p, state)
	if err != nil {
		t.Fatal(err)
	}
	v := NewVictim(backend, model)
	t.Cleanup(v.Finalize)
	return v, weights
}

// images are n images with pixels from U(low, high), and labels.
func images(n, classes int, low, high float32) (x [][]float32, y []int) {
	r := rand.New(rand.NewPCG(3, 4))
	for range n {
		image := make([]float32, pixels)
		for i := range image {
			image[i] = low + (high-low)*r.Float32()
		}
		x = append(x, image)
	}
	for range n {
		y = append(y, r.IntN(classes))
	}
	return x, y
}

// crowd does something with each image, batch at a time, and returns what came of it.
func crowd[T any](t *testing.T, c Classifier, batch int, x [][]float32, y, keys []int, seed uint64, work func(*Image) (T, error)) []T {
	t.Helper()
	out := make([]T, len(x))
	err := (&Crowd{
		Classifier: c, Batch: batch, Seed: seed,
		Next: func(i int) ([]float32, int, int) { return x[i], y[i], keys[i] },
		Work: func(i int, im *Image) (err error) {
			before := slices.Clone(im.X)
			out[i], err = work(im)
			if !slices.Equal(before, im.X) {
				t.Errorf("image %d was changed", i)
			}
			return err
		},
		Done: func(int, *Image) error { return nil },
	}).Run(t.Context(), len(x))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// perturb attacks images and returns what was proposed.
func perturb(t *testing.T, a Attack, c Classifier, batch int, x [][]float32, y, keys []int, seed uint64) [][]float32 {
	t.Helper()
	classes := c.Classes()
	return crowd(t, c, batch, x, y, keys, seed, func(im *Image) ([]float32, error) {
		adv, err := a.Perturb(im)
		if most := a.Cost(classes); im.Spent.Gradients > most.Gradients || im.Spent.Forwards > most.Forwards {
			t.Errorf("%s asked for %v, but says it needs at most %v", a.Name(), im.Spent, most)
		}
		return adv, err
	})
}

func upTo(n int) []int {
	keys := make([]int, n)
	for i := range keys {
		keys[i] = i
	}
	return keys
}

func parse(t *testing.T, names string, power threat.Model) []Suite {
	t.Helper()
	suites, err := Parse(names, power, nil)
	if err != nil {
		t.Fatal(err)
	}
	return suites
}

// everything is the names of all attacks for a norm.
func everything(norm threat.Norm) string {
	names := "fgsm,pgd-3,mim,cw,apgd-ce,apgd-dlr,apgd-t,fab,fab-t,square"
	if norm == threat.L2 {
		names += ",cw-l2"
	}
	return names
}

// quick is an attack with fewer steps.
func quick(a Attack) Attack {
	switch a := a.(type) {
	case APGD:
		a.Steps = 10
		return a
	case FAB:
		a.Steps, a.Restarts = 5, min(a.Restarts, 2)
		return a
	case Square:
		a.Queries = 60
		return a
	case CWL2:
		a.Steps = 20
		return a
	}
	return a
}

// A linear model of two classes has a known optimum: with d = w_other - w_y the margin falls by eps |d|_1 in the Linf
// ball and by eps |d|_2 in the L2 ball, when [0,1] is out of reach. (pgd-trades and mim are left out: their steps are made
// not to cross the ball quite.)
func TestLinearModelsAreBrokenExactly(t *testing.T) {
	const n = 12
	x, y := images(n, 2, 0.3, 0.7)
	v, weights := victim(t, perceptron{classes: 2})
	w := weights[0]
	margin := func(x []float32, y int) float64 {
		var m float64
		for i, p := range x {
			m += float64(p) * float64(w[y*pixels+i]-w[(1-y)*pixels+i])
		}
		return m
	}
	var l1, l2 float64
	for i := range pixels {
		d := float64(w[i] - w[pixels+i])
		l1, l2 = l1+math.Abs(d), l2+d*d
	}
	for norm, dual := range map[threat.Norm]float64{threat.Linf: l1, threat.L2: math.Sqrt(l2)} {
		for _, eps := range []float64{2. / 255, 8. / 255, 0.1} {
			for _, s := range parse(t, "fgsm,pgd-20,cw,apgd-ce,apgd-dlr,apgd-t", threat.Model{Norm: norm, Epsilon: eps}) {
				adv := perturb(t, s.Attacks[0], v, 5, x, y, upTo(n), 7)
				for i := range n {
					clean, got := margin(x[i], y[i]), margin(adv[i], y[i])
					want := clean - eps*dual
					if strings.HasPrefix(s.Name, "apgd") && want < 0 { // which stops at the first wrong answer
						if got >= 0 {
							t.Errorf("%s, %s eps %g, image %d: stands with margin %g", s.Name, norm, eps, i, got)
						}
						continue
					}
					// A step in L2 comes near the optimum but does not land on it.
					if slack := map[threat.Norm]float64{threat.Linf: 1e-4, threat.L2: 0.02 * eps * dual}[norm]; math.Abs(got-want) > slack {
						t.Errorf("%s, %s eps %g, image %d: margin is %g, want %g", s.Name, norm, eps, i, got, want)
					}
				}
			}
		}
	}
}

// In a linear model the nearest wrong point is known too: for a class t at the distance (z_y - z_t) / |w_t - w_y|, in the
// dual norm. FAB lands there but for its overshoot; Carlini and Wagner's attack gets near.
func TestTheNearestPointOfALinearModelIsFound(t *testing.T) {
	const n, classes = 12, 5
	x, y := images(n, classes, 0.4, 0.6)
	v, weights := victim(t, perceptron{classes: classes})
	logit := func(x []float32, class int) (z float64) {
		for i, p := range x {
			z += float64(p) * float64(weights[0][class*pixels+i])
		}
		return z
	}
	for i := range x {
		y[i] = 0
		for class := range classes {
			if logit(x[i], class) > logit(x[i], y[i]) {
				y[i] = class
			}
		}
	}
	const never = 1e-9 // a radius that nothing is within, so that no search stops early
	type nearest interface {
		Name() string
		nearest(*Image) ([]float32, error)
	}
	for norm, attacks := range map[threat.Norm][]nearest{
		threat.Linf: {FABT(threat.Linf, never), NewFAB(threat.Linf, never)},
		threat.L2:   {FABT(threat.L2, never), NewFAB(threat.L2, never), CWL2{never, 5, 1000, 0.01}},
	} {
		for _, a := range attacks {
			adv := crowd(t, v, 4, x, y, upTo(n), 1, a.nearest)
			slack := 1.01
			if a.Name() == "cw-l2" {
				slack = 1.1
			}
			for i := range x {
				want := math.Inf(1)
				for class := range classes {
					if class == y[i] {
						continue
					}
					var l1, l2 float64
					for k := range pixels {
						d := float64(weights[0][class*pixels+k] - weights[0][y[i]*pixels+k])
						l1, l2 = l1+math.Abs(d), l2+d*d
					}
					dual := map[threat.Norm]float64{threat.Linf: l1, threat.L2: math.Sqrt(l2)}[norm]
					want = min(want, (logit(x[i], y[i])-logit(x[i], class))/dual)
				}
				if got := norm.Distance(adv[i], x[i]); !(got >= want*(1-1e-4) && got <= want*slack) {
					t.Errorf("%s, %s, image %d: found a point at %g, the nearest is at %g", a.Name(), norm, i, got, want)
				}
			}
		}
	}
}

// With pixels on the border of [0,1] the shortest way to a hyperplane has no closed form, but two conditions that tell
// it: it lands there, and all pixels that are not held by the border have moved by the same (Linf) or in proportion to
// their weight (L2), the held ones by less than that.
func TestTheShortestWayToAHyperplane(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for trial := range 200 {
		p, w := make([]float32, pixels), make([]float32, pixels)
		for i := range p {
			p[i] = max(0, min(float32(r.NormFloat64()*0.5+0.5), 1))
			w[i] = float32(r.NormFloat64())
			if r.IntN(8) == 0 {
				w[i] = 0
			}
		}
		var up, down float64 // how far value can move
		for i, v := range w {
			up += max(float64(v)*(1-float64(p[i])), -float64(v)*float64(p[i]))
			down += max(-float64(v)*(1-float64(p[i])), float64(v)*float64(p[i]))
		}
		value := r.Float64() * 1.2 * down
		if trial%2 == 0 {
			value = -r.Float64() * 1.2 * up
		}
		for _, norm := range []threat.Norm{threat.Linf, threat.L2} {
			d := FAB{Norm: norm}.toPlane(p, w, value)
			landed, rate := value, 0.0
			for i, v := range d {
				landed += float64(v) * float64(w[i])
				if p[i]+v < -1e-6 || p[i]+v > 1+1e-6 {
					t.Fatalf("trial %d, %s: pixel %d is moved to %g", trial, norm, i, p[i]+v)
				}
				if norm == threat.L2 && w[i] != 0 {
					rate = max(rate, math.Abs(float64(v/w[i])))
				}
			}
			if norm == threat.Linf {
				rate = norm.Length(d)
			}
			if value > down || -value > up { // out of reach: everything is moved as far as it goes
				if gap := math.Abs(landed) - max(value-down, -value-up); math.Abs(gap) > 1e-4 {
					t.Errorf("trial %d, %s: out of reach, but %g from the nearest", trial, norm, gap)
				}
				continue
			}
			if math.Abs(landed) > 1e-4 {
				t.Errorf("trial %d, %s: landed at %g", trial, norm, landed)
			}
			for i, v := range d {
				want := rate
				if norm == threat.L2 {
					want *= math.Abs(float64(w[i]))
				}
				held := p[i]+v < 1e-6 || p[i]+v > 1-1e-6
				if moved := math.Abs(float64(v)); w[i] != 0 && !held && math.Abs(moved-want) > 1e-5 {
					t.Errorf("trial %d, %s: pixel %d is free and moved by %g, others by %g", trial, norm, i, moved, want)
				}
				if w[i] == 0 && v != 0 {
					t.Errorf("trial %d, %s: pixel %d has no weight and moved by %g", trial, norm, i, v)
				}
			}
		}
	}
}

func TestProposalsStayInTheBall(t *testing.T) {
	const n = 6
	x, y := images(n, 5, -0.3, 1.3)
	for _, image := range x {
		for i := range image {
			image[i] = max(0, min(image[i], 1)) // many pixels lie on the border
		}
	}
	v, _ := victim(t, perceptron{hidden: 8, classes: 5})
	for _, norm := range []threat.Norm{threat.Linf, threat.L2} {
		for _, eps := range []float64{0.02, 0.1} {
			for _, s := range parse(t, everything(norm), threat.Model{Norm: norm, Epsilon: eps}) {
				adv := perturb(t, quick(s.Attacks[0]), v, n, x, y, upTo(n), 7)
				for i := range n {
					for _, p := range adv[i] {
						if !(p >= 0 && p <= 1) {
							t.Errorf("%s: image %d has a pixel of %g", s, i, p)
						}
					}
					if far := norm.Distance(adv[i], x[i]); far > eps+1e-6 {
						t.Errorf("%s: image %d is %g away", s, i, far)
					}
				}
			}
		}
	}
}

// A larger ball never saves an image.
func TestLargerBallsBreakMore(t *testing.T) {
	const n = 24
	x, y := images(n, 5, 0.2, 0.8)
	v, _ := victim(t, perceptron{hidden: 8, classes: 5})
	label(t, v, x, y)
	for _, norm := range []threat.Norm{threat.Linf, threat.L2} {
		scale := map[threat.Norm]float64{threat.Linf: 1, threat.L2: 5}[norm]
		for i := range strings.Split(everything(norm), ",") {
			last := 0
			var name string
			for _, eps := range []float64{0.001, 0.01, 0.03, 0.1} {
				a := quick(parse(t, everything(norm), threat.Model{Norm: norm, Epsilon: scale * eps})[i].Attacks[0])
				name = a.Name()
				broken := 0
				for k, adv := range perturb(t, a, v, 8, x, y, upTo(n), 7) {
					logits, err := v.Logits(t.Context(), adv)
					if err != nil {
						t.Fatal(err)
					}
					if prediction, _ := Answer(logits, y[k]); prediction != y[k] {
						broken++
					}
				}
				if broken < last {
					t.Errorf("%s, %s: %d images fall at eps %g, %d at less", name, norm, broken, eps, last)
				}
				last = broken
			}
			if last == 0 {
				t.Errorf("%s, %s broke nothing", name, norm)
			}
		}
	}
}

// label gives images the labels they are answered with.
func label(t *testing.T, c Classifier, x [][]float32, y []int) {
	t.Helper()
	for i := range x {
		logits, err := c.Logits(t.Context(), slices.Clone(x[i]))
		if err != nil {
			t.Fatal(err)
		}
		y[i], _ = Answer(logits, 0)
	}
}

// The same image, key and seed give the same proposal, bit for bit, in any company.
func TestProposalsDoNotDependOnTheBatch(t *testing.T) {
	const n = 13
	x, y := images(n, 5, 0, 1)
	v := product{5}
	label(t, v, x, y)
	for _, norm := range []threat.Norm{threat.Linf, threat.L2} {
		for _, s := range parse(t, everything(norm), threat.Model{Norm: norm, Epsilon: 0.003}) {
			a := quick(s.Attacks[0])
			want := perturb(t, a, v, 16, x, y, upTo(n), 7)
			if reflect.DeepEqual(want, perturb(t, a, v, 16, x, y, upTo(n), 8)) && !slices.Contains([]string{"fgsm", "mim", "cw", "fab", "fab-t", "cw-l2"}, s.Name) {
				t.Errorf("%s: another seed gave the same proposals", s)
			}
			if !reflect.DeepEqual(want, perturb(t, a, v, 1, x, y, upTo(n), 7)) {
				t.Errorf("%s: one at a time they have other proposals than in batches of 16", s)
			}
			for i, alone := range want {
				got := perturb(t, a, v, 3, x[i:i+1], y[i:i+1], []int{i}, 7)
				if !slices.Equal(got[0], alone) {
					t.Errorf("%s: image %d alone has another proposal", s, i)
				}
			}
		}
	}
}

// product is a linear classifier that is no graph: its logits are those of fixed weights, image by image.
type product struct{ classes int }

func (p product) Input() (int, int, int) { return side, side, 3 }
func (p product) Classes() int           { return p.classes }

func (p product) weight(class, i int) float32 { return float32((class*131+i*17)%29)/29 - 0.5 }

func (p product) Logits(_ context.Context, images []float32) ([]float32, error) {
	var logits []float32
	for x := range slices.Chunk(images, pixels) {
		for class := range p.classes {
			var z float32
			for i, v := range x {
				z += p.weight(class, i) * v
			}
			logits = append(logits, z)
		}
	}
	return logits, nil
}

func (p product) Gradient(ctx context.Context, images []float32, goals []Goal) (logits, gradient []float32, err error) {
	logits, err = p.Logits(ctx, images)
	for i, goal := range goals {
		slope := goal.Slope(logits[i*p.classes : (i+1)*p.classes])
		for k := range pixels {
			var g float32
			for class, s := range slope {
				g += s * p.weight(class, k)
			}
			gradient = append(gradient, g)
		}
	}
	return logits, gradient, err
}

// askedNear counts the questions to a victim about images near others.
type askedNear struct {
	*Victim
	near int
}

func (c *askedNear) LogitsNear(ctx context.Context, images, bases []float32) ([]float32, error) {
	c.near++
	return c.Victim.LogitsNear(ctx, images, bases)
}

// TestSquareAsksForChanges expects Square to ask the network of this program for changes of what it kept, to the same
// proposals in any batch, and one without such a question to hear of no bases.
func TestSquareAsksForChanges(t *testing.T) {
	b, err := vec.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	net, err := zoo.New("resnet8-w8", 5, [3]int{16, 16, 3})
	if err != nil {
		t.Fatal(err)
	}
	const n, size = 5, 16 * 16 * 3
	r := rand.New(rand.NewPCG(3, 4))
	var x [][]float32
	for range n {
		image := make([]float32, size)
		for i := range image {
			image[i] = r.Float32()
		}
		x = append(x, image)
	}
	c := &askedNear{Victim: NewVictim(b, zoo.Init(net, 1))}
	defer c.Finalize()
	y := make([]int, n)
	logits, err := c.Logits(t.Context(), slices.Concat(x...))
	if err != nil {
		t.Fatal(err)
	}
	for i := range y {
		y[i], _ = Answer(logits[i*5:][:5], 0)
	}
	a := NewSquare(threat.Linf, 0.0005)
	a.Queries = 250
	want := perturb(t, a, c, 8, x, y, upTo(n), 1)
	if c.near < 200 {
		t.Errorf("%d calls were about images near others, expected one for nearly every query", c.near)
	}
	if got := perturb(t, a, c, 1, x, y, upTo(n), 1); !reflect.DeepEqual(got, want) {
		t.Error("one at a time, images have other proposals than together")
	}
	c.near = 0
	perturb(t, Square{threat.L2, 0.01, 20}, c, 8, x, y, upTo(n), 1)
	if c.near > 0 {
		t.Errorf("%d calls were about images near others in the L2 norm, where every pixel changes", c.near)
	}
	plain, err := c.Logits(t.Context(), want[0])
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(c.programs)), func(p program) bool { return p.near }) {
		t.Error("no program was asked for changes")
	}
	near, err := c.LogitsNear(t.Context(), want[0], x[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range plain {
		if d := math.Abs(float64(plain[i] - near[i])); !(d < 1e-5) { // logits are about 0.1
			t.Errorf("logit %d is %v as a change of another image, expected %v", i, near[i], plain[i])
		}
	}
}

var losses = []Loss{CrossEntropy, Margin, DLR, TargetedDLR, Difference}

func TestLosses(t *testing.T) {
	logits := [][]float32{{1, 3, 2, 0}, {90, 10, 20, 15}, {5, 5, -1, -2}}
	labels, targets := []int{1, 2, 0}, []int{2, 0, 3}
	want := map[Loss][]float64{
		CrossEntropy: {math.Log(1 + math.Exp(-2) + math.Exp(-1) + math.Exp(-3)), 70, math.Log(2 + math.Exp(-6) + math.Exp(-7))},
		Margin:       {-1, 50, 0},
		DLR:          {-1. / 2, 70. / 75, 0},
		TargetedDLR:  {-1 / 2.5, 70 / 77.5, -7 / 6.5},
		Difference:   {-1, 70, -7},
	}
	for _, loss := range losses {
		values := graph.MustExecOnce(backend, func(z, y, target *graph.Node) *graph.Node { return loss.PerImage(z, y, target) }, logits,
			[]int32{1, 2, 0}, []int32{2, 0, 3}).Value().([]float32)
		for i := range logits {
			goal := Goal{loss, labels[i], targets[i]}
			if got := goal.Value(logits[i]); math.Abs(got-want[loss][i]) > 1e-6 {
				t.Errorf("%s of image %d is %g, want %g", loss, i, got, want[loss][i])
			}
			if got := float64(values[i]); math.Abs(got-want[loss][i]) > 1e-5 {
				t.Errorf("%s of image %d is %g in a graph, want %g", loss, i, got, want[loss][i])
			}
		}
	}
}

// The slope of a loss is that of its value, and what a graph differentiates.
func TestSlopes(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	const n, classes = 40, 6
	for _, loss := range losses {
		z := make([][]float32, n)
		goals := make([]Goal, n)
		labels, targets := make([]int32, n), make([]int32, n)
		for i := range z {
			for range classes {
				z[i] = append(z[i], float32(3*r.NormFloat64()))
			}
			goals[i] = Goal{loss, r.IntN(classes), 0}
			goals[i].Target = (goals[i].Label + 1 + r.IntN(classes-1)) % classes
			labels[i], targets[i] = int32(goals[i].Label), int32(goals[i].Target)
		}
		inGraph := graph.MustExecOnce(backend, func(z, y, target *graph.Node) *graph.Node {
			return graph.Gradient(graph.ReduceAllSum(loss.PerImage(z, y, target)), z)[0]
		}, z, labels, targets).Value().([][]float32)
		for i, goal := range goals {
			slope := goal.Slope(z[i])
			for k := range classes {
				const h = 1.0 / 256
				up, down := slices.Clone(z[i]), slices.Clone(z[i])
				up[k], down[k] = up[k]+h, down[k]-h
				if !slices.Equal(descending(up), descending(down)) {
					continue // a kink
				}
				if want := (goal.Value(up) - goal.Value(down)) / float64(up[k]-down[k]); math.Abs(float64(slope[k])-want) > 2e-3*max(1, math.Abs(want)) {
					t.Errorf("%s %d: the slope by logit %d is %g, want %g", loss, i, k, slope[k], want)
				}
				if math.Abs(float64(slope[k]-inGraph[i][k])) > 1e-4 {
					t.Errorf("%s %d: the slope by logit %d is %g, in a graph %g", loss, i, k, slope[k], inGraph[i][k])
				}
			}
		}
	}
}

// Two and three classes are too few for the ratios, and for nine targets.
func TestFewClasses(t *testing.T) {
	const n = 8
	for _, classes := range []int{2, 3} {
		x, y := images(n, classes, 0.3, 0.7)
		v, _ := victim(t, perceptron{hidden: 8, classes: classes})
		label(t, v, x, y)
		for _, norm := range []threat.Norm{threat.Linf, threat.L2} {
			for _, a := range AutoAttack(norm, 0.3).Attacks {
				a = quick(a)
				for i, adv := range perturb(t, a, v, 4, x, y, upTo(n), 1) {
					logits, err := v.Logits(t.Context(), adv)
					if err != nil {
						t.Fatal(err)
					}
					if prediction, _ := Answer(logits, y[i]); prediction == y[i] && norm == threat.Linf && a.Name() != "square" {
						t.Errorf("%d classes: %s left image %d standing in a huge ball", classes, a.Name(), i)
					}
				}
			}
		}
	}
	for classes, want := range map[int]string{
		2: "apgd-t: the targeted DLR takes more than 2 classes; the logit difference is raised instead",
		3: "apgd-t: the targeted DLR takes more than 3 classes; the logit difference is raised instead",
		5: "apgd-t: 5 classes leave 4 targets; it would try 9", 10: "",
	} {
		if got := APGDT(threat.Linf, 0.1).Limits(classes); got != want {
			t.Errorf("%d classes: %q, want %q", classes, got, want)
		}
	}
	if got := APGDDLR(threat.Linf, 0.1).Limits(3); got != "" {
		t.Errorf("three classes are enough for the DLR, but: %s", got)
	}
}

// The checkpoints of the paper for 100 steps.
func TestCheckpoints(t *testing.T) {
	a := APGDCE(threat.Linf, 0.1)
	var got []int
	for at, gap := a.first(), a.first(); at <= a.Steps; at += gap {
		got = append(got, at)
		gap = a.gap(gap)
	}
	if want := []int{22, 41, 57, 70, 80, 87, 93, 99}; !slices.Equal(got, want) {
		t.Errorf("checkpoints are %v, want %v", got, want)
	}
}

// The side of Square's window for 32x32 images, from the paper's schedule.
func TestSquareWindows(t *testing.T) {
	for query, want := range map[int]int{0: 29, 10: 29, 11: 20, 51: 14, 201: 10, 501: 7, 1001: 5, 2001: 4, 4001: 3, 4999: 3, 9000: 1} {
		if got := windowSide(query, 32, 32, 1); got != want {
			t.Errorf("query %d has a window of %d, want %d", query, got, want)
		}
	}
}

// Square in L2 keeps the norm at eps and moves what it takes from one window to another.
func TestSquareShiftsKeepTheNorm(t *testing.T) {
	x, _ := images(1, 2, 0.45, 0.55)
	const eps = 0.5
	for _, s := range [][2]int{{4, 4}, {2, 8}, {8, 2}} {
		p := picture{s[0], s[1], 3, x[0], eps, rand.New(rand.NewPCG(1, 1))}
		adv := p.tiles()
		for query := range 50 {
			if d := threat.L2.Distance(adv, x[0]); math.Abs(d-eps) > 1e-5 {
				t.Fatalf("%v: before query %d the norm is %g, want %g", s, query, d, eps)
			}
			p.shift(adv, query)
		}
	}
	for s := 1; s < 9; s++ {
		bump := picture{r: rand.New(rand.NewPCG(1, 1))}.bump(s)
		if n := threat.L2.Length(bump); math.Abs(n-1) > 1e-6 {
			t.Errorf("a bump of side %d has norm %g, want 1", s, n)
		}
	}
}

// A transferred attack is the attack on the surrogate, and never asks the classifier.
func TestTransfer(t *testing.T) {
	const n = 5
	x, y := images(n, 3, 0.3, 0.7)
	v, _ := victim(t, perceptron{classes: 3})
	surrogate, _ := victim(t, perceptron{hidden: 8, classes: 3})
	a := mustParse(t, "transfer", &Surrogate{"other", surrogate})[0].Attacks[0]
	want := perturb(t, a.(Transfer).Attack, surrogate, 4, x, y, upTo(n), 1)
	got := perturb(t, a, v, 4, x, y, upTo(n), 1) // which checks its cost of nothing
	if !reflect.DeepEqual(got, want) {
		t.Error("what was proposed is not what the surrogate gives")
	}
	if _, err := Parse("transfer", threat.Model{Epsilon: 0.1}, nil); err == nil || !strings.Contains(err.Error(), "surrogate") {
		t.Errorf("transfer without a surrogate: %v", err)
	}
}

// Gradients of a classifier that answers at random are averaged.
func TestMeansOfGradients(t *testing.T) {
	x, y := images(1, 5, 0.3, 0.7)
	v := product{5}
	label(t, v, x, y)
	a := APGDCE(threat.Linf, 1e-6)
	a.Steps, a.Samples = 3, 4
	spent := crowd(t, v, 2, x, y, upTo(1), 1, func(im *Image) (Cost, error) {
		_, err := a.Perturb(im)
		return im.Spent, err
	})
	if spent[0] != (Cost{Gradients: 16}) {
		t.Errorf("four gradients at each of four points are %v", spent[0])
	}
}

func TestNewWeightsNeedNoNewVictim(t *testing.T) {
	x, y := images(2, 2, 0.3, 0.7)
	v, weights := victim(t, perceptron{classes: 2})
	a := FGSM(threat.Linf, 0.1)
	before := perturb(t, a, v, 2, x, y, upTo(2), 0)
	for i := range weights[0] {
		weights[0][i] *= -1
	}
	v.SetState([]*tensors.Tensor{tensors.FromFlatDataAndDimensions(weights[0], 2, pixels)})
	for k, adv := range perturb(t, a, v, 2, x, y, upTo(2), 0) {
		for i, after := range adv {
			if math.Abs(float64(after+before[k][i]-2*x[k][i])) > 1e-6 {
				t.Fatalf("value %d: turning the weights round did not turn the step round: %g, %g from %g", i, before[k][i], after, x[k][i])
			}
		}
	}
}

// slow is a backend that takes its time to compile.
type slow struct{ compute.Backend }

// A number of images that is asked about again and again gets a graph that it fills, and the answers stay the same.
func TestANumberThatStaysIsNotPadded(t *testing.T) {
	quick, err := vec.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer quick.Finalize()
	t.Run("slow", func(t *testing.T) { testANumberThatStays(t, slow{quick}, settled, 33, 34, 64) })
	t.Run("fast", func(t *testing.T) { testANumberThatStays(t, quick, again, 33, 64) })
	t.Run("several devices", func(t *testing.T) {
		four, err := mesh.New(several.New(quick, 4), 4)
		if err != nil {
			t.Fatal(err)
		}
		testANumberThatStays(t, four, 2, 64)
	})
}

func testANumberThatStays(t *testing.T, backend compute.Backend, calls int, want ...int) {
	const n = 33
	x, _ := images(n, 2, 0, 1)
	v, weights := victim(t, perceptron{classes: 2})
	v.backend = backend
	goals := slices.Repeat([]Goal{{Loss: Difference, Target: 1}}, n)
	for range calls {
		logits, gradient, err := v.Gradient(t.Context(), slices.Concat(x...), goals)
		if err != nil {
			t.Fatal(err)
		}
		if len(logits) != n*2 || len(gradient) != n*pixels {
			t.Fatalf("%d images have %d logits and a gradient of %d values", n, len(logits), len(gradient))
		}
		for k := range n {
			var z float64
			for i, w := range weights[0][pixels:] {
				z += float64(w) * float64(x[k][i])
				if want := w - weights[0][i]; math.Abs(float64(gradient[k*pixels+i]-want)) > 1e-6 {
					t.Fatalf("image %d, value %d: the gradient is %g, want %g", k, i, gradient[k*pixels+i], want)
				}
			}
			if math.Abs(z-float64(logits[2*k+1])) > 1e-5 {
				t.Fatalf("image %d: the logit is %g, want %g", k, logits[2*k+1], z)
			}
		}
	}
	var sizes []int
	for p := range v.programs {
		sizes = append(sizes, p.size)
	}
	if slices.Sort(sizes); !slices.Equal(sizes, want) {
		t.Errorf("%d images were answered by graphs for %v, want %v", n, sizes, want)
	}
}

// scripted is a classifier that does as it is told, and remembers how many images it was asked of at a time.
type scripted struct {
	product
	calls []int
	fail  func(call int) error
	short bool
}

func (s *scripted) Logits(ctx context.Context, images []float32) ([]float32, error) {
	s.calls = append(s.calls, len(images)/pixels)
	if s.fail != nil {
		if err := s.fail(len(s.calls)); err != nil {
			return nil, err
		}
	}
	logits, err := s.product.Logits(ctx, images)
	if s.short {
		logits = logits[1:]
	}
	return logits, err
}

// Images that are done early make room: all calls are full until there are fewer images left than a batch.
func TestBatchesStayFull(t *testing.T) {
	const n, batch = 100, 4
	x, y := images(n, 5, 0, 1)
	s := &scripted{product: product{5}}
	asks := crowd(t, s, batch, x, y, upTo(n), 0, func(im *Image) (int, error) {
		asks := 1 + im.Key*7%13 // some are done soon
		for range asks {
			if _, err := im.Logits(im.X); err != nil {
				return 0, err
			}
		}
		return asks, nil
	})
	total, full := 0, 0
	for _, k := range asks {
		total += k
	}
	for _, size := range s.calls {
		if size == batch {
			full++
		}
	}
	if len(s.calls) > total/batch+13 || full < len(s.calls)-13 {
		t.Errorf("%d questions took %d calls of up to %d, %d of them full", total, len(s.calls), batch, full)
	}
}

// counted counts the gradients that a classifier is asked for at once.
type counted struct {
	product
	calls int
}

func (c *counted) Gradient(ctx context.Context, images []float32, goals []Goal) (logits, gradient []float32, err error) {
	c.calls++
	return c.product.Gradient(ctx, images, goals)
}

// The last images wait for each other where the kind of question changes: they would end in batches of their own otherwise.
func TestTheLastImagesStayTogether(t *testing.T) {
	const n, asks = 8, 20
	x, y := images(n, 5, 0, 1)
	c := &counted{product: product{5}}
	crowd(t, c, n, x, y, upTo(n), 0, func(im *Image) (_ any, err error) {
		most := 3 * asks
		if im.Key < 3 {
			most++ // of the first kind
		}
		for k := range most {
			if _, _, err = im.Gradient(im.X, Goal{Loss: losses[(k+3*asks-most)/asks]}); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	if c.calls > 3*asks+6 {
		t.Errorf("%d images that ask %d times each took %d calls for up to %d, expected hardly more than %d", n, 3*asks, c.calls, n, 3*asks)
	}
}

func TestFailuresEndEverything(t *testing.T) {
	const n = 30
	x, y := images(n, 5, 0, 1)
	broken := errors.New("out of order")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	logits := func(_ int, im *Image) error {
		for range 10 {
			if _, err := im.Logits(im.X); err != nil {
				return err
			}
		}
		return nil
	}
	for name, c := range map[string]struct {
		classifier Classifier
		work       func(int, *Image) error
		done       error
		want       string
	}{
		"classifier": {&scripted{product: product{5}, fail: func(call int) error {
			if call == 5 {
				return broken
			}
			return nil
		}}, logits, nil, "out of order"},
		"context": {&scripted{product: product{5}, fail: func(call int) error {
			if call == 5 {
				cancel()
			}
			return nil
		}}, logits, nil, "context canceled"},
		"short": {&scripted{product: product{5}, short: true}, logits, nil, "4 images with 19 logits, expected 5 of each"},
		"work":  {product{5}, func(i int, im *Image) error { return broken }, nil, "out of order"},
		"done":  {product{5}, logits, broken, "out of order"},
		"no gradients": {struct{ Classifier }{product{5}}, func(_ int, im *Image) error {
			_, _, err := im.Gradient(im.X, Goal{})
			return err
		}, nil, "has no gradients"},
	} {
		crowd := Crowd{
			Classifier: c.classifier, Batch: 4, Work: c.work,
			Next: func(i int) ([]float32, int, int) { return x[i], y[i], i },
			Done: func(int, *Image) error { return c.done },
		}
		in := t.Context()
		if name == "context" {
			in = ctx
		}
		if err := crowd.Run(in, n); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}

func TestParse(t *testing.T) {
	for _, info := range Infos() {
		for _, s := range mustParse(t, strings.ReplaceAll(info.Name, "N", "3"), &Surrogate{Name: "other"}) {
			if s.String() == "" {
				t.Errorf("%s has no settings", s.Name)
			}
		}
	}
	suites := parse(t, "clean, fgsm,pgd-20,pgd-7,pgd-trades,cw,mim,apgd-t,fab,square", threat.Model{Epsilon: 8. / 255})
	want := []string{
		"fgsm: Linf eps 8/255, 1 steps of 8/255 from image, cross-entropy",
		"pgd-20: Linf eps 8/255, 20 steps of 2/255 from uniform, cross-entropy",
		"pgd-7: Linf eps 8/255, 7 steps of 2/255 from uniform, cross-entropy",
		"pgd-trades: Linf eps 8/255, 20 steps of 0.003 from uniform, cross-entropy",
		"cw: Linf eps 8/255, 30 steps of 2/255 from uniform, margin",
		"mim: Linf eps 8/255, 10 steps of 0.00313725 from image, cross-entropy, decay 1",
		"apgd-t: Linf eps 8/255, 100 steps, targeted DLR, 9 targets",
		"fab: Linf eps 8/255, 100 steps, 5 restarts",
		"square: Linf eps 8/255, 5000 queries",
	}
	for i, s := range suites {
		if s.String() != want[i] {
			t.Errorf("got %q, want %q", s, want[i])
		}
	}
	if len(suites) != len(want) {
		t.Errorf("got %d suites, want %d", len(suites), len(want))
	}
	// The step follows the radius, or is what the caller says; FGSM has none to choose.
	for power, want := range map[threat.Model]string{
		{Epsilon: 16. / 255}: "pgd-20: Linf eps 16/255, 20 steps of 4/255 from uniform, cross-entropy",
		{Epsilon: 0.5, Norm: threat.L2, StepSize: 15. / 255}: "pgd-20: L2 eps 0.5, 20 steps of 15/255 from uniform, cross-entropy",
	} {
		suites := parse(t, "pgd-20,fgsm", power)
		if got := suites[0].String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if fgsm := suites[1].Attacks[0].(PGD).Threat; fgsm.StepSize != power.Epsilon {
			t.Errorf("fgsm steps %g in a ball of %g", fgsm.StepSize, power.Epsilon)
		}
	}
	for names, want := range map[string]string{
		"pgd":       `no attack "pgd"; the attacks are clean, fgsm, pgd-N, pgd-trades, mim, cw`,
		"":          `no attack ""`,
		"pgd-0":     "expected a number of steps after pgd-",
		"pgd-020":   "expected a number of steps after pgd-",
		"pgd-x":     "expected a number of steps after pgd-",
		"fgsm,fgsm": `"fgsm" is named twice`,
		"cw-l2":     "the norm is Linf",
	} {
		if _, err := Parse(names, threat.Model{Epsilon: 8. / 255}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want one with %q", names, err, want)
		}
	}
	for _, eps := range []float64{0, -1, 8, math.NaN(), math.Inf(1)} {
		if _, err := Parse("fgsm", threat.Model{Epsilon: eps}, nil); err == nil {
			t.Errorf("epsilon %g was taken", eps)
		}
	}
}

func mustParse(t *testing.T, names string, s *Surrogate) []Suite {
	t.Helper()
	suites, err := Parse(names, threat.Model{Norm: threat.L2, Epsilon: 0.5}, s)
	if err != nil {
		t.Fatal(err)
	}
	return suites
}
