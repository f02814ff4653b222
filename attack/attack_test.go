package attack

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
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

func (p perceptron) Forward(b *classifier.Bound, x *Node) *Node {
	x = Reshape(x, x.Shape().Dimensions[0], -1)
	if p.hidden > 0 {
		x = Tanh(Dot(x, Transpose(b.Param("v"), 0, 1)).Product())
	}
	return Dot(x, Transpose(b.Param("w"), 0, 1)).Product()
}

// victim is a perceptron with weights from N(0,1), and those weights.
func victim(t *testing.T, p perceptron, batch int) (*Victim, [][]float32) {
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
	v, err := NewVictim(backend, model, batch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Finalize)
	return v, weights
}

// images are n images with pixels from U(low, high), and labels.
func images(n, classes int, low, high float32) (x []float32, y []int32) {
	r := rand.New(rand.NewPCG(3, 4))
	for range n * pixels {
		x = append(x, low+(high-low)*r.Float32())
	}
	for range n {
		y = append(y, int32(r.IntN(classes)))
	}
	return x, y
}

// perturb attacks images in batches and returns what was proposed for the keys.
func perturb(t *testing.T, a Attack, v *Victim, x []float32, y []int32, keys []int, seed uint64) []float32 {
	t.Helper()
	var out []float32
	for len(keys) > 0 {
		n := min(len(keys), v.BatchSize())
		b, err := v.NewBatch(x[:n*pixels], y[:n], keys[:n], seed)
		if err != nil {
			t.Fatal(err)
		}
		adv, err := a.Perturb(t.Context(), v, b)
		if err != nil {
			t.Fatal(err)
		}
		flat, err := tensors.CopyFlatData[float32](adv)
		if err != nil {
			t.Fatal(err)
		}
		adv.MustFinalizeAll()
		b.Finalize()
		out = append(out, flat[:n*pixels]...)
		x, y, keys = x[n*pixels:], y[n:], keys[n:]
	}
	return out
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
	suites, err := Parse(names, power)
	if err != nil {
		t.Fatal(err)
	}
	return suites
}

// A linear model of two classes has a known optimum: with d = w_other - w_y the margin falls by eps |d|_1 in the Linf
// ball and by eps |d|_2 in the L2 ball, when [0,1] is out of reach. (pgd-trades is left out: 20 steps of 0.003 do not quite
// cross the ball.)
func TestLinearModelsAreBrokenExactly(t *testing.T) {
	const n = 12
	x, y := images(n, 2, 0.3, 0.7)
	v, weights := victim(t, perceptron{classes: 2}, 5)
	w := weights[0]
	margin := func(x []float32, y int32) float64 {
		var m float64
		for i, p := range x {
			m += float64(p) * float64(w[int(y)*pixels+i]-w[int(1-y)*pixels+i])
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
			for _, s := range parse(t, "fgsm,pgd-20,cw", threat.Model{Norm: norm, Epsilon: eps}) {
				adv := perturb(t, s.Attacks[0], v, x, y, upTo(n), 7)
				for i := range n {
					got := margin(adv[i*pixels:(i+1)*pixels], y[i])
					want := margin(x[i*pixels:(i+1)*pixels], y[i]) - eps*dual
					// A step in L2 comes near the optimum but does not land on it.
					if slack := map[threat.Norm]float64{threat.Linf: 1e-4, threat.L2: 0.02 * eps * dual}[norm]; math.Abs(got-want) > slack {
						t.Errorf("%s, %s eps %g, image %d: margin is %g, want %g", s.Name, norm, eps, i, got, want)
					}
				}
			}
		}
	}
}

func TestProposalsStayInTheBall(t *testing.T) {
	const n = 6
	x, y := images(n, 3, -0.3, 1.3)
	for i := range x {
		x[i] = max(0, min(x[i], 1)) // many pixels lie on the border
	}
	v, _ := victim(t, perceptron{hidden: 8, classes: 3}, n)
	for _, norm := range []threat.Norm{threat.Linf, threat.L2} {
		for _, s := range parse(t, "fgsm,pgd-3,cw", threat.Model{Norm: norm, Epsilon: 0.1}) {
			adv := perturb(t, s.Attacks[0], v, x, y, upTo(n), 7)
			for i := range n {
				var far, sum float64
				for j := i * pixels; j < (i+1)*pixels; j++ {
					d := math.Abs(float64(adv[j] - x[j]))
					far, sum = max(far, d), sum+d*d
					if !(adv[j] >= 0 && adv[j] <= 1) {
						t.Errorf("%s: image %d has a pixel of %g", s, i, adv[j])
					}
				}
				if norm == threat.L2 {
					far = math.Sqrt(sum)
				}
				if far > 0.1+1e-6 {
					t.Errorf("%s: image %d is %g away", s, i, far)
				}
			}
		}
	}
}

// The same image, key and seed give the same proposal, bit for bit, in any company.
func TestProposalsDoNotDependOnTheBatch(t *testing.T) {
	const n = 7
	x, y := images(n, 3, 0, 1)
	a := NewPGD(threat.Linf, 8./255, 5)
	whole, _ := victim(t, perceptron{hidden: 8, classes: 3}, n)
	want := perturb(t, a, whole, x, y, upTo(n), 7)
	if slices.Equal(want, perturb(t, a, whole, x, y, upTo(n), 8)) {
		t.Error("another seed gave the same proposals")
	}
	small, _ := victim(t, perceptron{hidden: 8, classes: 3}, 2)
	if !slices.Equal(perturb(t, a, small, x, y, upTo(n), 7), want) {
		t.Error("batches of 2 gave other proposals than one of 7")
	}
	for i := range n {
		got := perturb(t, a, small, x[i*pixels:(i+1)*pixels], y[i:i+1], []int{i}, 7)
		if !slices.Equal(got, want[i*pixels:(i+1)*pixels]) {
			t.Errorf("image %d alone has another proposal", i)
		}
	}
}

func TestLosses(t *testing.T) {
	logits := [][]float32{{1, 3, 2}, {90, 10, 20}, {5, 5, -1}}
	labels := []int32{1, 2, 0}
	want := map[Loss][]float64{
		CrossEntropy: {math.Log(1 + math.Exp(-2) + math.Exp(-1)), 70, math.Log(2 + math.Exp(-6))},
		Margin:       {-1, 50, 0},
	}
	for loss, want := range want {
		got := MustExecOnce(backend, func(z, y *Node) *Node { return loss.PerImage(z, y) }, logits, labels).Value().([]float32)
		for i := range want {
			if math.Abs(float64(got[i])-want[i]) > 1e-5 {
				t.Errorf("%s of image %d is %g, want %g", loss, i, got[i], want[i])
			}
		}
	}
}

func TestNewWeightsNeedNoNewVictim(t *testing.T) {
	x, y := images(2, 2, 0.3, 0.7)
	v, weights := victim(t, perceptron{classes: 2}, 2)
	a := FGSM(threat.Linf, 0.1)
	before := perturb(t, a, v, x, y, upTo(2), 0)
	for i := range weights[0] {
		weights[0][i] *= -1
	}
	v.SetState([]*tensors.Tensor{tensors.FromFlatDataAndDimensions(weights[0], 2, pixels)})
	for i, after := range perturb(t, a, v, x, y, upTo(2), 0) {
		if math.Abs(float64(after+before[i]-2*x[i])) > 1e-6 {
			t.Fatalf("value %d: turning the weights round did not turn the step round: %g, %g from %g", i, before[i], after, x[i])
		}
	}
}

func TestCancelledAttacksStop(t *testing.T) {
	x, y := images(1, 2, 0, 1)
	v, _ := victim(t, perceptron{classes: 2}, 1)
	b, err := v.NewBatch(x, y, []int{0}, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewPGD(threat.Linf, 0.1, 20).Perturb(ctx, v, b); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled attack returned %v", err)
	}
}

func TestBatchesOfTheWrongSizeAreRefused(t *testing.T) {
	x, y := images(3, 2, 0, 1)
	v, _ := victim(t, perceptron{classes: 2}, 2)
	if _, err := v.NewBatch(x, y, upTo(3), 0); err == nil || !strings.Contains(err.Error(), "3 images in a batch of 2") {
		t.Errorf("three images in a batch of two: %v", err)
	}
	if _, err := v.NewBatch(x[:pixels], y[:1], upTo(2), 0); err == nil || !strings.Contains(err.Error(), "4x4x3") {
		t.Errorf("one image for two keys: %v", err)
	}
	if _, err := NewVictim(backend, &classifier.Model{Network: perceptron{classes: 2}}, 0); err == nil {
		t.Error("a batch size of 0 was taken")
	}
}

func TestParse(t *testing.T) {
	for _, info := range Infos() {
		parse(t, strings.ReplaceAll(info.Name, "N", "3"), threat.Model{Epsilon: 8. / 255})
	}
	suites := parse(t, "clean, fgsm,pgd-20,pgd-7,pgd-trades,cw", threat.Model{Epsilon: 8. / 255})
	want := []string{
		"fgsm: Linf eps 8/255, 1 steps of 8/255 from image, cross-entropy",
		"pgd-20: Linf eps 8/255, 20 steps of 2/255 from uniform, cross-entropy",
		"pgd-7: Linf eps 8/255, 7 steps of 2/255 from uniform, cross-entropy",
		"pgd-trades: Linf eps 8/255, 20 steps of 0.003 from uniform, cross-entropy",
		"cw: Linf eps 8/255, 30 steps of 2/255 from uniform, margin",
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
		"pgd":       `no attack "pgd"; the attacks are clean, fgsm, pgd-N, pgd-trades, cw`,
		"":          `no attack ""`,
		"pgd-0":     "expected a number of steps after pgd-",
		"pgd-020":   "expected a number of steps after pgd-",
		"pgd-x":     "expected a number of steps after pgd-",
		"fgsm,fgsm": `"fgsm" is named twice`,
	} {
		if _, err := Parse(names, threat.Model{Epsilon: 8. / 255}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got error %v, want one with %q", names, err, want)
		}
	}
	for _, eps := range []float64{0, -1, 8, math.NaN(), math.Inf(1)} {
		if _, err := Parse("fgsm", threat.Model{Epsilon: eps}); err == nil {
			t.Errorf("epsilon %g was taken", eps)
		}
	}
}
