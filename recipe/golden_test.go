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
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/train"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// progress is that of epoch 100 of 200.
const progress = 0.5

// goldenSettings are the settings of methods.json.
type goldenSettings struct {
	Settings struct {
		Images        int
		Epsilon       Radius
		StepSize      Radius `json:"step_size"`
		Steps         int
		Student       string
		Teacher       string
		CleanTeacher  string  `json:"clean_teacher"`
		HalfAlpha     float64 `json:"adaad_alpha_half_alpha"`
		KDAlpha       float64 `json:"kd_alpha"`
		KDTemperature float64 `json:"kd_temperature"`
		TRADESBeta    float64 `json:"trades_beta"`
		ARDTemp       float64 `json:"ard_temperature"`
		AdaIADTemp    float64 `json:"adaiad_temperature"`
		IADBeta       float64 `json:"iad_beta"`
		IGDMWeight    float64 `json:"igdm_weight"` // lambda times the progress
		SGD           struct{ LR, Momentum float64 }
	}
	Methods map[string]struct {
		Loss        float64
		WeightDecay float64 `json:"weight_decay"`
	}
}

// goldenMethods are the settings behind each method_NAME.safetensors.
func goldenMethods(t *testing.T) (goldenSettings, map[string]Settings) {
	t.Helper()
	var g goldenSettings
	golden.JSON(t, "methods.json", &g)
	search := Search{Epsilon: g.Settings.Epsilon, StepSize: g.Settings.StepSize, Steps: g.Settings.Steps, Start: "gaussian", BatchNorm: "eval"}
	clipped, uniform := search, search
	clipped.ClipStart = true
	uniform.Start, uniform.BatchNorm = "uniform", "train"
	adaad := Settings{Method: "adaad", Search: search, Alpha: 1, Temperature: 1, Reduction: "mean", ForwardClean: true}
	half, batchMean, igdm := adaad, adaad, adaad
	half.Alpha, half.ForwardClean, batchMean.Reduction = g.Settings.HalfAlpha, false, "batchmean"
	igdm.Method, igdm.Base, igdm.Lambda, igdm.Reduction, igdm.ForwardClean = "igdm", "adaad", g.Settings.IGDMWeight/progress, "batchmean", false
	iad := Settings{Method: "iad-1", Search: uniform, Temperature: 1, Beta: g.Settings.IADBeta, Begin: 60, Reduction: "batchmean"}
	iad2 := iad
	iad.ForwardClean = true
	iad2.Method, iad2.Alpha, iad2.NaturalWeight, iad2.Begin = "iad-2", 0.5, 0.25, 40
	adaiad := Settings{
		Method: "adaiad", Search: search, Temperature: g.Settings.AdaIADTemp, Beta: g.Settings.IADBeta, Begin: 60, Reduction: "batchmean", ForwardClean: true,
	}
	return g, map[string]Settings{
		"natural":          {Method: "natural"},
		"kd":               {Method: "kd", Alpha: g.Settings.KDAlpha, Temperature: g.Settings.KDTemperature, Reduction: "batchmean"},
		"pgd_at":           {Method: "pgd-at", Search: clipped, ForwardClean: true},
		"trades":           {Method: "trades", Search: search, Beta: g.Settings.TRADESBeta, Reduction: "batchmean", ForwardClean: true},
		"ard":              {Method: "ard", Search: uniform, Alpha: 1, Temperature: g.Settings.ARDTemp, Reduction: "mean", ForwardClean: true},
		"iad1_warmup":      iad,
		"iad1":             iad,
		"iad2":             iad2,
		"rslad":            {Method: "rslad", Search: search, Alpha: 5. / 6, Scale: 1, Reduction: "mean"},
		"adaad":            adaad,
		"adaad_alpha_half": half,
		"adaad_batchmean":  batchMean,
		"adaiad_warmup":    adaiad,
		"adaiad":           adaiad,

		"igdm_epoch100_of_200": igdm,
	}
}

// chaotic are the methods whose search cannot be followed in float32: TRADES' begins where its gradient is all but zero, and
// with batch norm in train mode one pixel's step moves every image. [TestGoldenSearchesInFloat64] follows them.
func chaotic(s Settings) bool { return s.Method == "trades" || s.Search.BatchNorm == "train" }

// What the authors' code computes for one training step of each method: the images the search finds, the loss, every
// gradient, the running statistics and two steps of SGD. See the goldens' README.
func TestGoldenMethods(t *testing.T) {
	g, all := goldenMethods(t)
	backend, err := vec.New("")
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range all {
		t.Run(name, func(t *testing.T) { testGolden(t, backend, &g, name, s) })
	}
}

// goldenObjective is the objective behind a golden, and the start of its search.
func goldenObjective(t *testing.T, g *goldenSettings, name string, s Settings) (o train.Objective, teachers []*classifier.Model, pixels, start []float64, labels []int32) {
	t.Helper()
	m, err := s.BuildMethod()
	if err != nil {
		t.Fatal(err)
	}
	if m.Teachers > 0 {
		teachers = append(teachers, goldenModel(t, g.Settings.Teacher, "teacher."))
	}
	if m.Teachers > 1 {
		teachers = append(teachers, goldenModel(t, g.Settings.CleanTeacher, "clean_teacher."))
	}
	all := phases(m, 0)
	o = all[len(all)-1].Objective
	if strings.HasSuffix(name, "_warmup") {
		o = all[0].Objective
	}
	pixels, labels = golden.CIFARTest(t, g.Settings.Images)
	start = slices.Clone(pixels)
	for i, u := range golden.U("noise", len(start)) {
		if o.Threat.Start == threat.Uniform {
			start[i] += o.Threat.Epsilon * u
		} else {
			start[i] += 0.001 * math.Sqrt(3) * u
		}
		if o.Threat.ClipStart {
			start[i] = min(max(start[i], 0), 1)
		}
	}
	return o, teachers, pixels, start, labels
}

func testGolden(t *testing.T, backend compute.Backend, g *goldenSettings, name string, s Settings) {
	objective, teachers, pixels, start, labels := goldenObjective(t, g, name, s)
	want := readGolden(t, "method_"+name+".safetensors")
	n := g.Settings.Images
	x := golden.NHWC(pixels, n, 3, 32, 32)
	y := tensors.FromFlatDataAndDimensions(labels, n)

	student := goldenModel(t, g.Settings.Student, "student.")
	optimizer := train.SGD{Momentum: g.Settings.SGD.Momentum, WeightDecay: g.Methods[name].WeightDecay}
	stepper, err := train.NewStepper(backend, student, teachers, objective, optimizer, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	stepper.SetProgress(progress)

	// The search, from the fixed start. A sign flips where a gradient is near zero: at most 0.5% of the pixels may differ.
	wantAdv := golden.NHWC(want["x_adv"], n, 3, 32, 32)
	statistics := 1e-4
	if objective.SearchMode == classifier.Train {
		statistics = 1e-2 // moved by another search
	}
	if objective.Threat.Steps > 0 {
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
		if share := float64(differ) / float64(len(ref)); share > 0.005 && !chaotic(s) {
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
		tolerance := 1e-4
		switch kind {
		case "grad":
			got = d.Grads[param]
		case "bn":
			got, tolerance = d.Running[param], statistics
		default:
			continue
		}
		if got == nil {
			t.Errorf("%s is missing", key)
			continue
		}
		seen++
		golden.Near(t, key, tensors.MustCopyFlatData[float32](got), values, tolerance)
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
			golden.Near(t, "updated "+p.Name, tensors.MustCopyFlatData[float32](after.State[i]), want["bn."+p.Name], statistics)
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
