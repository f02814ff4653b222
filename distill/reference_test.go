package distill

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// The methods that no golden covers, against their equations in plain Go and float64: the value of the search and its
// gradient by the images, the loss and its gradient by the weights, the order of the forward passes and what is remembered.

const (
	images   = 6
	pixels   = 4 // 2x2x1
	nClasses = 3
)

// linear is a network whose logits are W x + c. In train mode it takes the batch's mean pixel off x, and moves a running
// mean that tells in which order it saw what.
type linear struct{}

func (linear) Name() string         { return "linear" }
func (linear) Input() (h, w, c int) { return 2, 2, 1 }
func (linear) Classes() int         { return nClasses }
func (linear) Params() []classifier.Param {
	return []classifier.Param{
		{Name: "weight", Shape: []int{nClasses, pixels}, Kind: classifier.LinearWeight},
		{Name: "bias", Shape: []int{nClasses}, Kind: classifier.Bias},
		{Name: "running_mean", Shape: []int{pixels}, Kind: classifier.RunningMean},
	}
}

func (linear) Forward(b *classifier.Bound, x *Node) *Node {
	x = Reshape(x, images, pixels)
	mean := b.Param("running_mean")
	if b.Mode() == classifier.Train {
		batch := ReduceMean(x, 0)
		b.SetParam("running_mean", Add(MulScalar(mean, 0.9), MulScalar(batch, 0.1)))
		mean = batch
	}
	x = Sub(x, ExpandDims(mean, 0))
	return Add(Dot(x, Transpose(b.Param("weight"), 0, 1)).MatMul(), ExpandDims(b.Param("bias"), 0))
}

// weights are a linear network's parameters, flat: weight, bias, running mean.
type weights []float64

const trained = nClasses*pixels + nClasses

// world is a batch and its networks, in float64.
type world struct {
	student  weights
	teachers []weights
	x, xAdv  []float64
	y        []int
	progress float64
	memory   map[string][]float64

	eps  float64
	seen [][]float64 // the images of the student's passes in train mode, in order
}

// logits are those of a network, in train or frozen mode with the statistics of the batch.
func (w *world) logits(p weights, x []float64, mode classifier.Mode) [][]float64 {
	mean := slices.Clone(p[trained:])
	if mode != classifier.Eval {
		clear(mean)
		for i, v := range x {
			mean[i%pixels] += v / images
		}
	}
	out := make([][]float64, images)
	for i := range out {
		for k := range nClasses {
			z := p[nClasses*pixels+k]
			for j := range pixels {
				z += p[k*pixels+j] * (x[i*pixels+j] - mean[j])
			}
			out[i] = append(out[i], z)
		}
	}
	return out
}

// study is a pass of the student in train mode.
func (w *world) study(x []float64) [][]float64 {
	w.seen = append(w.seen, x)
	return w.logits(w.student, x, classifier.Train)
}

func (w *world) teach(teacher int, x []float64) [][]float64 {
	return w.logits(w.teachers[teacher], x, classifier.Eval)
}

// opposite is 2x - x'.
func (w *world) opposite() []float64 {
	out := slices.Clone(w.x)
	for i := range out {
		out[i] = 2*w.x[i] - w.xAdv[i]
	}
	return out
}

func soft(z []float64, temperature float64) []float64 {
	var sum float64
	p := make([]float64, len(z))
	for i, v := range z {
		p[i] = math.Exp(v / temperature)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

// div is KL(softmax(q/τ) || softmax(p/τ)) with log(q + offset).
func div(q, p []float64, temperature, offset float64) float64 {
	var sum float64
	a, b := soft(q, temperature), soft(p, temperature)
	for i := range a {
		sum += a[i] * (math.Log(a[i]+offset) - math.Log(b[i]))
	}
	return sum
}

func minus(a, b []float64) []float64 {
	out := slices.Clone(a)
	for i := range out {
		out[i] -= b[i]
	}
	return out
}

func squared(a, b []float64) float64 {
	var sum float64
	for _, v := range minus(a, b) {
		sum += v * v
	}
	return sum
}

func shannon(z []float64) float64 {
	var sum float64
	for _, p := range soft(z, 1) {
		sum -= p * math.Log(p)
	}
	return sum
}

// reference is a method and its equations.
type reference struct {
	name   string
	method Method
	memory map[string][]float64 // before the step; nil starts as the method says
	search func(w *world) float64
	loss   func(w *world) float64
	after  func(w *world) map[string][]float64 // memory after one search step and the loss
}

func references() []reference {
	m := threat.Model{Epsilon: 0.2, StepSize: 0.05, Steps: 3}
	crossEntropy := func(mode classifier.Mode) func(w *world) float64 {
		return func(w *world) (sum float64) {
			for i, z := range w.logits(w.student, w.xAdv, mode) {
				sum -= math.Log(soft(z, 1)[w.y[i]])
			}
			return sum
		}
	}
	const lambda, beta = 2.5, 0.7

	saad := SAADSettings{Threat: m, Correction: 0.8, EntropyScale: 5, Beta: beta, Lambda: lambda}
	score := SCORESettings{Threat: m, SearchMode: classifier.Frozen, Beta: 3, LabelSmoothing: 0.1}
	ccat := CCATSettings{Threat: m, Power: 3, CleanShare: 0.5}
	mtard := MTARDSettings{Threat: m, Beta: 1.5, WeightRate: 0.2, Drops: []float64{0.25, 0.9}, Reduction: Mean}
	fair := FairARDSettings{ARDSettings: ARDSettings{Threat: m, SearchMode: classifier.Frozen, Alpha: 0.8, Temperature: 5, Reduction: Mean}, Beta: 2}
	trades := TRADESSettings{Threat: m, Beta: 6, Reduction: BatchMean}

	saadLoss := func(w *world) (sum float64) {
		s, t := w.study(w.xAdv), w.teach(0, w.xAdv)
		sMinus, tMinus := w.study(w.opposite()), w.teach(0, w.opposite())
		clean, tClean := w.study(w.x), w.teach(0, w.x)
		least, most := math.Inf(1), 0.0
		for i := range t {
			least = min(least, shannon(t[i]))
		}
		for i := range t {
			most = max(most, 5*(shannon(t[i])-least))
		}
		for i := range t {
			weight := 5 * (shannon(t[i]) - least)
			gap := div(minus(t[i], tMinus[i]), minus(s[i], sMinus[i]), 1, 0)
			sum += weight * (div(t[i], s[i], 1, 0) + lambda*w.progress*gap)
			sum += beta * (1 - weight/(most+1e-8)) * div(tClean[i], clean[i], 1, 0)
		}
		return sum / images
	}
	mtardLosses := func(w *world) (adversarial, natural float64) {
		s, clean := w.study(w.xAdv), w.study(w.x)
		for i := range s {
			adversarial += div(w.teach(0, w.xAdv)[i], s[i], 1, 1e-5) / (images * nClasses)
			natural += div(w.teach(1, w.x)[i], clean[i], 1, 1e-5) / (images * nClasses)
		}
		return adversarial, natural
	}
	mtardWeight := func(w *world, adversarial, natural float64) float64 {
		first := w.memory["first_losses"]
		if first[0] == 0 {
			first = []float64{adversarial, natural}
		}
		a, n := math.Pow(adversarial/first[0], 1.5), math.Pow(natural/first[1], 1.5)
		v := w.memory["natural_weight"][0]
		return v - 0.02*(v-n/(a+n)) // one drop of two has passed
	}
	// The weights of MTARD and Fair-ARD do not depend on the student where its gradient is concerned.
	fixedWeight := func(w *world) float64 {
		base := *w
		base.student, base.seen = start().student, nil
		a, n := mtardLosses(&base)
		return mtardWeight(&base, a, n)
	}
	mtardLoss := func(w *world) float64 {
		a, n := mtardLosses(w)
		v := fixedWeight(w)
		return (1-v)*a + v*n
	}
	return []reference{
		{
			name: "saad", method: SAAD(saad),
			search: func(w *world) (sum float64) {
				t, s := w.teach(0, w.x), w.logits(w.student, w.xAdv, classifier.Eval)
				for i := range t {
					for j := range pixels { // the gradient of logit y of a linear network is its row of the weights
						k := i*pixels + j
						t[i][w.y[i]] += 0.8 * w.teachers[0][w.y[i]*pixels+j] * (w.xAdv[k] - w.x[k])
					}
					sum += div(t[i], s[i], 1, 0)
				}
				return sum
			},
			loss: saadLoss,
		},
		{
			name: "mtard, first step", method: MTARD(mtard), search: crossEntropy(classifier.Eval),
			loss: mtardLoss,
			after: func(w *world) map[string][]float64 {
				a, n := mtardLosses(w)
				return map[string][]float64{"natural_weight": {fixedWeight(w)}, "first_losses": {a, n}}
			},
		},
		{
			name: "mtard, later", method: MTARD(mtard), search: crossEntropy(classifier.Eval),
			memory: map[string][]float64{"natural_weight": {0.3}, "first_losses": {0.9, 0.2}},
			loss:   mtardLoss,
			after: func(w *world) map[string][]float64 {
				return map[string][]float64{"natural_weight": {fixedWeight(w)}, "first_losses": {0.9, 0.2}}
			},
		},
		{
			name: "fair-ard", method: FairARD(fair), search: crossEntropy(classifier.Frozen),
			memory: map[string][]float64{"weights": {0.9, 1.3, 2.1}, "right": {5, 1, 0}, "images": {4, 4, 1}},
			loss: func(w *world) (sum float64) {
				s, clean, t := w.study(w.xAdv), w.study(w.x), w.teach(0, w.x)
				for i := range s {
					soft5 := 0.8 * 25 * div(t[i], s[i], 5, 0) / nClasses
					hard := -0.2 * math.Log(soft(clean[i], 1)[w.y[i]])
					sum += w.memory["weights"][w.y[i]] * (soft5 + hard) / images
				}
				return sum
			},
			after: func(w *world) map[string][]float64 {
				right, seen := slices.Clone(w.memory["right"]), slices.Clone(w.memory["images"])
				for i, z := range w.logits(w.student, w.xAdv, classifier.Frozen) {
					seen[w.y[i]]++
					if slices.Index(z, slices.Max(z)) == w.y[i] {
						right[w.y[i]]++
					}
				}
				return map[string][]float64{"weights": w.memory["weights"], "right": right, "images": seen}
			},
		},
		{
			name: "score", method: SCORE(score),
			search: func(w *world) (sum float64) {
				clean, s := w.logits(w.student, w.x, classifier.Frozen), w.logits(w.student, w.xAdv, classifier.Frozen)
				for i := range s {
					sum += squared(soft(s[i], 1), soft(clean[i], 1))
				}
				return sum
			},
			loss: func(w *world) (sum float64) {
				clean, s := w.study(w.x), w.study(w.xAdv)
				for i := range s {
					label := slices.Repeat([]float64{0.05}, nClasses)
					label[w.y[i]] = 0.9
					sum += squared(soft(clean[i], 1), label) + 3*squared(soft(s[i], 1), soft(clean[i], 1))
				}
				return sum / images
			},
		},
		{
			name: "ccat", method: CCAT(ccat),
			search: func(w *world) (sum float64) {
				for i, z := range w.logits(w.student, w.xAdv, classifier.Eval) {
					p := soft(z, 1)
					p[w.y[i]] = 0
					sum += slices.Max(p)
				}
				return sum
			},
			loss: func(w *world) (sum float64) {
				mixed := slices.Concat(w.x[:images/2*pixels], w.xAdv[images/2*pixels:])
				for i, z := range w.study(mixed) {
					size := 0.0
					for j := i * pixels; j < (i+1)*pixels; j++ {
						size = max(size, math.Abs(mixed[j]-w.x[j]))
					}
					confidence := math.Pow(1-min(1, size/w.eps), 3)
					for k, p := range soft(z, 1) {
						target := (1 - confidence) / nClasses
						if k == w.y[i] {
							target += confidence
						}
						sum -= target * math.Log(p) / images
					}
				}
				return sum
			},
		},
		{
			name: "igdm on trades", method: IGDM(TRADES(trades), lambda),
			search: func(w *world) (sum float64) {
				clean, s := w.logits(w.student, w.x, classifier.Eval), w.logits(w.student, w.xAdv, classifier.Eval)
				for i := range s {
					sum += div(clean[i], s[i], 1, 0)
				}
				return sum
			},
			loss: func(w *world) (sum float64) {
				clean, s, sMinus := w.study(w.x), w.study(w.xAdv), w.study(w.opposite())
				t, tMinus := w.teach(0, w.xAdv), w.teach(0, w.opposite())
				for i := range s {
					gap := div(minus(t[i], tMinus[i]), minus(s[i], sMinus[i]), 1, 0)
					sum += (-math.Log(soft(clean[i], 1)[w.y[i]]) + 6*div(clean[i], s[i], 1, 0) + lambda*w.progress*gap) / images
				}
				return sum
			},
		},
	}
}

// start is the batch and the networks that the references are tried on.
func start() *world {
	r := rand.New(rand.NewPCG(5, 8))
	normal := func(n int, scale float64) []float64 {
		v := make([]float64, n)
		for i := range v {
			v[i] = float64(float32(scale * r.NormFloat64()))
		}
		return v
	}
	w := &world{
		student: normal(trained+pixels, 1), teachers: []weights{normal(trained+pixels, 1.5), normal(trained+pixels, 1.5)},
		x: make([]float64, images*pixels), xAdv: make([]float64, images*pixels), y: []int{0, 1, 2, 0, 1, 1}, progress: 0.5, eps: 0.2,
	}
	for i := range w.x {
		w.x[i] = float64(float32(0.3 + 0.4*r.Float64()))
		w.xAdv[i] = float64(float32(w.x[i] + 0.2*(2*r.Float64()-1)))
	}
	return w
}

func TestReferences(t *testing.T) {
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range references() {
		t.Run(ref.name, func(t *testing.T) {
			w := start()
			w.memory = ref.memory
			if w.memory == nil {
				w.memory = map[string][]float64{}
				for _, c := range ref.method.Memory {
					for _, v := range c.Values(nClasses) {
						w.memory[c.Name] = append(w.memory[c.Name], float64(v))
					}
				}
			}
			exec, err := NewExec(backend, func(in []*Node) []*Node {
				b := &classifier.Batch{X: in[0], XAdv: in[1], Y: in[2], Progress: in[3]}
				in = in[4:]
				for i := range 1 + len(w.teachers) {
					bound := classifier.Bind(linear{}, in[:3])
					if in = in[3:]; i == 0 {
						b.Student = bound
					} else {
						b.Teachers = append(b.Teachers, bound)
					}
				}
				before := b.Student.Nodes()
				b.Memory = classifier.Remember(ref.method.Memory, in)
				if ref.method.Before != nil {
					b.Before = ref.method.Before(b)
				}
				search := ref.method.Search(b)
				if !slices.Equal(b.Student.Nodes(), before) {
					t.Error("the search moves the running statistics")
				}
				loss := ref.method.Loss(b)
				out := []*Node{search, Gradient(search, b.XAdv)[0], loss}
				out = append(append(out, Gradient(loss, before[0], before[1])...), b.Student.Nodes()[2])
				return append(out, b.Memory.Nodes()...)
			})
			if err != nil {
				t.Fatal(err)
			}
			out, err := exec.Call(w.args(ref.method)...)
			if err != nil {
				t.Fatal(err)
			}
			var got [][]float64
			for _, o := range out {
				got = append(got, nil)
				for _, v := range tensors.MustCopyFlatData[float32](o) {
					got[len(got)-1] = append(got[len(got)-1], float64(v))
				}
			}

			same(t, "search", got[0], []float64{ref.search(w)}, 1e-5)
			same(t, "the search's gradient", got[1], slope(w.xAdv, func() float64 { return ref.search(w) }), 1e-4)
			w.seen = nil
			same(t, "loss", got[2], []float64{ref.loss(w)}, 1e-5)
			order := w.seen
			gradient := slope(w.student[:trained], func() float64 { return ref.loss(w) })
			same(t, "gradient by the weights", got[3], gradient[:nClasses*pixels], 1e-4)
			same(t, "gradient by the biases", got[4], gradient[nClasses*pixels:], 1e-4)
			mean := slices.Clone(w.student[trained:])
			for _, x := range order {
				for j := range mean {
					mean[j] *= 0.9
				}
				for i, v := range x {
					mean[i%pixels] += 0.1 * v / images
				}
			}
			same(t, "running mean", got[5], mean, 1e-5)
			if ref.after != nil {
				want := ref.after(w)
				for i, c := range ref.method.Memory {
					same(t, c.Name, got[6+i], want[c.Name], 1e-5)
				}
			}
		})
	}
}

// args are the inputs of the graph.
func (w *world) args(m Method) []any {
	tensor := func(v []float64, dims ...int) any {
		narrow := make([]float32, len(v))
		for i := range v {
			narrow[i] = float32(v[i])
		}
		return tensors.FromFlatDataAndDimensions(narrow, dims...)
	}
	labels := make([]int32, images)
	for i, y := range w.y {
		labels[i] = int32(y)
	}
	args := []any{tensor(w.x, images, 2, 2, 1), tensor(w.xAdv, images, 2, 2, 1), labels, float32(w.progress)}
	for _, p := range append([]weights{w.student}, w.teachers...) {
		args = append(args, tensor(p[:nClasses*pixels], nClasses, pixels), tensor(p[nClasses*pixels:trained], nClasses), tensor(p[trained:], pixels))
	}
	for _, c := range m.Memory {
		args = append(args, tensor(w.memory[c.Name], len(w.memory[c.Name])))
	}
	return args
}

// slope is the gradient of f by v, from central differences.
func slope(v []float64, f func() float64) []float64 {
	const h = 1e-5
	out := make([]float64, len(v))
	for i, at := range v {
		v[i] = at + h
		up := f()
		v[i] = at - h
		out[i] = (up - f()) / (2 * h)
		v[i] = at
	}
	return out
}

// same compares to a share of the largest value.
func same(t *testing.T, what string, got, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", what, len(got), len(want))
		return
	}
	scale := 0.0
	for _, v := range want {
		scale = max(scale, math.Abs(v))
	}
	for i := range want {
		if !(math.Abs(got[i]-want[i]) <= tolerance*scale) {
			t.Errorf("%s: value %d is %.8g, want %.8g", what, i, got[i], want[i])
			return
		}
	}
}

// Fair-ARD's weights at the end of an epoch: classes of which fewer steps were survived weigh more, within [5/6, 5/2].
func TestFairARDWeights(t *testing.T) {
	m := FairARD(FairARDSettings{Beta: 2})
	for _, c := range []struct{ right, images []float32 }{
		{[]float32{80, 40, 20}, []float32{10, 10, 10}},
		{[]float32{80, 60, 70}, []float32{10, 10, 10}},
		{[]float32{0, 0, 0}, []float32{10, 10, 10}},
		{[]float32{50, 50, 0}, []float32{10, 10, 0}}, // a class without images
	} {
		got := run(t, func(in []*Node) []*Node {
			memory := classifier.Remember(m.Memory, in)
			m.EndEpoch(memory)
			return memory.Nodes()
		}, []float32{1, 1, 1}, c.right, c.images)
		var hard []float64
		var mean float64
		for i := range c.right {
			kappa := float64(c.right[i])/math.Max(1, float64(c.images[i])) + 1e-5
			hard = append(hard, math.Pow(kappa, -2))
			mean += hard[i] / 3
		}
		var want []float64
		for _, h := range hard {
			want = append(want, min(max(h/mean, 5./6), 5./2))
		}
		same(t, "weights", got[:3], want, 1e-5)
		if !slices.Equal(got[3:], make([]float64, 6)) {
			t.Errorf("the counts are %v after the epoch, want zeros", got[3:])
		}
	}
}
