package recipe

import (
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/golden"
	"github.com/adaad-go/adaad/train"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// goldenSettings are the settings of methods.json.
type goldenSettings struct {
	Settings struct {
		Images        int
		Epsilon       Radius
		StepSize      Radius `json:"step_size"`
		Steps         int
		Student       string
		Teacher       string
		HalfAlpha     float64 `json:"adaad_alpha_half_alpha"`
		KDAlpha       float64 `json:"kd_alpha"`
		KDTemperature float64 `json:"kd_temperature"`
		SGD           struct{ LR, Momentum float64 }
	}
	Methods map[string]struct {
		Loss        float64
		WeightDecay float64 `json:"weight_decay"`
	}
}

// What the authors' code computes for one training step of each method: the images the search finds, the loss, every
// gradient, the running statistics and two steps of SGD. See the goldens' README.
func TestGoldenMethods(t *testing.T) {
	var g goldenSettings
	golden.JSON(t, "methods.json", &g)
	backend, err := vec.New("")
	if err != nil {
		t.Fatal(err)
	}
	search := Search{Epsilon: g.Settings.Epsilon, StepSize: g.Settings.StepSize, Steps: g.Settings.Steps, Start: "gaussian", BatchNorm: "eval"}
	clipped := search
	clipped.ClipStart = true
	adaad := Settings{Method: "adaad", Search: search, Alpha: 1, Temperature: 1, Reduction: "mean"}
	half, batchMean := adaad, adaad
	half.Alpha, batchMean.Reduction = g.Settings.HalfAlpha, "batchmean"
	for name, s := range map[string]Settings{
		"natural":          {Method: "natural"},
		"kd":               {Method: "kd", Alpha: g.Settings.KDAlpha, Temperature: g.Settings.KDTemperature, Reduction: "batchmean"},
		"pgd_at":           {Method: "pgd-at", Search: clipped, ForwardClean: true},
		"adaad":            adaad,
		"adaad_alpha_half": half,
		"adaad_batchmean":  batchMean,
	} {
		t.Run(name, func(t *testing.T) { testGolden(t, backend, &g, name, s) })
	}
}

func testGolden(t *testing.T, backend compute.Backend, g *goldenSettings, name string, s Settings) {
	m, err := s.BuildMethod()
	if err != nil {
		t.Fatal(err)
	}
	want := readGolden(t, "method_"+name+".safetensors")
	n := g.Settings.Images
	pixels, labels := golden.CIFARTest(t, n)
	x := golden.NHWC(pixels, n, 3, 32, 32)
	y := tensors.FromFlatDataAndDimensions(labels, n)

	student := goldenModel(t, g.Settings.Student, "student.")
	var teachers []*classifier.Model
	if m.Teachers > 0 {
		teachers = []*classifier.Model{goldenModel(t, g.Settings.Teacher, "teacher.")}
	}
	decay := g.Methods[name].WeightDecay
	optimizer := train.SGD{Momentum: g.Settings.SGD.Momentum, WeightDecay: decay}
	stepper, err := train.NewStepper(backend, student, teachers, train.Objective{
		Threat: m.Threat, SearchMode: m.SearchMode, Search: m.Search, Loss: m.Loss,
	}, optimizer, 0, false)
	if err != nil {
		t.Fatal(err)
	}

	// The search, from the fixed start. A sign flips where a gradient is near zero: at most 0.5% of the pixels may differ.
	start := slices.Clone(pixels)
	for i, u := range golden.U("noise", len(start)) {
		start[i] += 0.001 * math.Sqrt(3) * u
		if m.Threat.ClipStart {
			start[i] = min(max(start[i], 0), 1)
		}
	}
	wantAdv := golden.NHWC(want["x_adv"], n, 3, 32, 32)
	if m.Threat.Steps > 0 {
		adv, err := stepper.Search(x, golden.NHWC(start, n, 3, 32, 32), y)
		if err != nil {
			t.Fatal(err)
		}
		got, ref := tensors.MustCopyFlatData[float32](adv), tensors.MustCopyFlatData[float32](wantAdv)
		differ := 0
		for i := range ref {
			if !(math.Abs(float64(got[i]-ref[i])) <= 1e-5) {
				differ++
			}
		}
		if share := float64(differ) / float64(len(ref)); share > 0.005 {
			t.Errorf("x_adv differs in %.2f%% of the pixels, at most 0.5%% may", 100*share)
		}
	}

	// Loss, gradients and running statistics at the golden x_adv. float32 against float64 through a network of 8 layers.
	d, err := stepper.Derivatives(x, wantAdv, y)
	if err != nil {
		t.Fatal(err)
	}
	golden.Near(t, "loss", []float64{d.Loss}, []float64{g.Methods[name].Loss}, 1e-5)
	seen := 0
	for key, values := range want {
		kind, param, _ := strings.Cut(key, ".")
		var got *tensors.Tensor
		switch kind {
		case "grad":
			got = d.Grads[param]
		case "bn":
			got = d.Running[param]
		default:
			continue
		}
		if got == nil {
			t.Errorf("%s is missing", key)
			continue
		}
		seen++
		golden.Near(t, key, tensors.MustCopyFlatData[float32](got), values, 1e-4)
	}
	if params := len(student.Params()); seen != params {
		t.Errorf("compared %d tensors, the student has %d", seen, params)
	}

	// One update of the loop, and two steps of the optimizer with the golden gradient.
	if _, err := stepper.Update(x, wantAdv, y, g.Settings.SGD.LR, 0); err != nil {
		t.Fatal(err)
	}
	after, err := stepper.Student()
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range after.Params() {
		if !p.Kind.Trainable() {
			golden.Near(t, "updated "+p.Name, tensors.MustCopyFlatData[float32](after.State[i]), want["bn."+p.Name], 1e-4)
			continue
		}
		golden.Near(t, "updated "+p.Name, tensors.MustCopyFlatData[float32](after.State[i]), want["sgd1."+p.Name], 1e-4)
		gradient := make([]float32, p.Size())
		for k, v := range want["grad."+p.Name] {
			gradient[k] = float32(v)
		}
		two, err := ExecOnceN(backend, func(p, grad *Node) []*Node {
			lr := []*Node{Scalar(p.Graph(), p.DType(), g.Settings.SGD.LR)}
			one, slots := optimizer.Step(p, grad, []*Node{ZerosLike(p)}, lr)
			two, _ := optimizer.Step(one, grad, slots, lr)
			return []*Node{one, two}
		}, student.State[i], tensors.FromFlatDataAndDimensions(gradient, p.Shape...))
		if err != nil {
			t.Fatal(err)
		}
		for k, got := range two {
			key := "sgd" + strconv.Itoa(k+1) + "." + p.Name
			golden.Near(t, key, tensors.MustCopyFlatData[float32](got), want[key], 1e-6)
		}
	}
}

func goldenModel(t *testing.T, name, prefix string) *classifier.Model {
	t.Helper()
	net, err := zoo.New(name, 10, [3]int{32, 32, 3})
	if err != nil {
		t.Fatal(err)
	}
	return golden.Model(t, net, prefix)
}

func readGolden(t *testing.T, name string) map[string][]float64 {
	t.Helper()
	f, err := weights.Read(filepath.Clean(golden.Path(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]float64{}
	for _, x := range f.Tensors {
		values, err := x.Floats()
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			all[x.Name] = append(all[x.Name], float64(v))
		}
	}
	return all
}
