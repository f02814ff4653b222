package weights

import (
	"encoding/binary"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/zoo"
)

// foreign is a model's state dict as another program would have it: without what says which network it is.
func foreign(t *testing.T, name string, classes int) *File {
	t.Helper()
	net, err := zoo.New(name, classes, [3]int{32, 32, 3})
	if err != nil {
		t.Fatal(err)
	}
	f, err := stateDictOf(zoo.Init(net, 1), "F32")
	if err != nil {
		t.Fatal(err)
	}
	f.Path = "foreign.pt"
	return f
}

func floatTensor(name string, shape []int, values ...float32) Tensor {
	t := Tensor{Name: name, DType: "F32", Shape: shape}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(v))
	}
	return t
}

func prefixed(f *File, prefix string) *File {
	for i := range f.Tensors {
		f.Tensors[i].Name = prefix + f.Tensors[i].Name
	}
	return f
}

func TestIdentify(t *testing.T) {
	third := []float64{0.5, 0.25, 0.125}
	rgb := floatTensor("mean", []int{3}, 0.5, 0.25, 0.125)
	for what, c := range map[string]struct {
		file          *File
		hints         Hints
		want, prefix  string
		normalisation string
		input         [3]int
	}{
		"plain":    {foreign(t, "resnet8-w4", 7), Hints{}, "resnet8-w4", "", "", [3]int{32, 32, 3}},
		"prefixes": {prefixed(foreign(t, "resnet8-w4", 7), "module.model."), Hints{}, "resnet8-w4", "module.model.", "", [3]int{32, 32, 3}},
		"hinted":   {foreign(t, "resnet8-w4", 7), Hints{Input: [3]int{9, 8, 3}}, "resnet8-w4", "", "", [3]int{9, 8, 3}},
		"told":     {foreign(t, "resnet8-w4", 7), Hints{Mean: third, Std: third}, "resnet8-w4-normalised", "", "as told", [3]int{32, 32, 3}},
		"ours":     {ours(foreign(t, "resnet8-w4", 7)), Hints{}, "resnet8-w4", "", "", [3]int{16, 16, 3}},
		"ours, told": {ours(foreign(t, "resnet8-w4", 7)), Hints{Mean: third, Std: third}, "resnet8-w4-normalised", "", "as told",
			[3]int{32, 32, 3}},
		"one value": {foreign(t, "resnet8-w4", 7), Hints{Mean: []float64{0.5}, Std: []float64{1}}, "resnet8-w4-normalised", "", "as told", [3]int{32, 32, 3}},
		"inside": {with(foreign(t, "resnet8-w4", 7), rgb, floatTensor("std", []int{1, 3, 1, 1}, 1, 1, 1)), Hints{},
			"resnet8-w4-normalised", "", "mean and std in the file", [3]int{32, 32, 3}},
		"beside": {with(prefixed(foreign(t, "resnet8-w4", 7), "1."), floatTensor("0.mu", []int{}, 0.5), floatTensor("0.sigma", []int{}, 1)), Hints{},
			"resnet8-w4-normalised", "1.", "0.mu and 0.sigma in the file", [3]int{32, 32, 3}},
		"DeepMind's":      {foreign(t, "wrn-10-1-dm", 10), Hints{}, "wrn-10-1-dm-normalised", "", "constants of DeepMind's code for CIFAR-10", [3]int{32, 32, 3}},
		"DeepMind's 100":  {foreign(t, "wrn-10-1-dm", 100), Hints{}, "wrn-10-1-dm-normalised", "", "constants of DeepMind's code for CIFAR-100", [3]int{32, 32, 3}},
		"DeepMind's ReLU": {foreign(t, "wrn-10-1-dm", 10), Hints{Model: "wrn-10-1-dm-relu"}, "wrn-10-1-dm-relu-normalised", "", "constants of DeepMind's code for CIFAR-10", [3]int{32, 32, 3}},
	} {
		id, err := c.file.Identify(c.hints)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		h, w, channels := id.Network.Input()
		if id.Network.Name() != c.want || id.Prefix != c.prefix || id.Normalisation != c.normalisation || [3]int{h, w, channels} != c.input {
			t.Errorf("%s: a %s for %dx%dx%d behind %q, normalisation %q; expected %+v", what, id.Network.Name(), h, w, channels, id.Prefix, id.Normalisation, c)
		}
		if _, err := id.Model(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// ours says which network a file holds.
func ours(f *File) *File {
	f.Metadata[aboutKey] = `{"model":"resnet8-w4","classes":7,"input":[16,16,3]}`
	return f
}

func with(f *File, tensors ...Tensor) *File {
	f.Tensors = append(f.Tensors, tensors...)
	return f
}

func TestIdentifyRefuses(t *testing.T) {
	ones := floatTensor("std", []int{3}, 1, 1, 1)
	for what, c := range map[string]struct {
		file  *File
		hints Hints
		want  string
	}{
		"nothing":         {&File{Path: "x.pt"}, Hints{}, "x.pt: it holds no weights"},
		"unknown":         {&File{Tensors: []Tensor{ones}}, Hints{}, "those of no network here"},
		"model":           {foreign(t, "resnet8-w4", 7), Hints{Model: "vgg"}, `unknown model "vgg"`},
		"metadata":        {&File{Metadata: map[string]string{aboutKey: "{"}}, Hints{}, "expected model, classes and input"},
		"two values":      {foreign(t, "resnet8-w4", 7), Hints{Mean: []float64{1, 2}, Std: []float64{1, 2}}, "2 values of mean, but they have 3 channels"},
		"zero deviation":  {with(foreign(t, "resnet8-w4", 7), floatTensor("mean", []int{3}, 0, 0, 0), floatTensor("std", []int{3}, 1, 0, 1)), Hints{}, "std of 0"},
		"integers":        {with(foreign(t, "resnet8-w4", 7), Tensor{"mean", "U8", []int{3}, make([]byte, 3)}, ones), Hints{}, "holds U8"},
		"unknown classes": {foreign(t, "wrn-10-1-dm", 7), Hints{}, "give them with --mean and --std"},
	} {
		if _, err := c.file.Identify(c.hints); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, expected it to say %q", what, err, c.want)
		}
	}
}

// A mismatch names what is missing beside the closest name, what is unexpected and what has another shape.
func TestMismatchSideBySide(t *testing.T) {
	f := foreign(t, "resnet8-w4", 7)
	for i := range f.Tensors {
		switch f.Tensors[i].Name {
		case "layer2.0.bn2.weight":
			f.Tensors[i].Name = "layer2.0.norm2.weight"
		case "layer3.0.conv1.weight":
			f.Tensors[i] = floatTensor("layer3.0.conv1.weight", []int{2}, 1, 2)
		}
	}
	id, err := f.Identify(Hints{})
	if err != nil {
		t.Fatal(err)
	}
	err = id.Fits()
	for _, want := range []string{
		"foreign.pt does not hold a resnet8-w4",
		"1 missing: layer2.0.bn2.weight (closest: layer2.0.norm2.weight)",
		"1 unexpected: layer2.0.norm2.weight",
		"1 wrongly shaped: layer3.0.conv1.weight is [2], expected [16 8 3 3]",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, expected it to say %q", err, want)
		}
	}
}

func TestFindings(t *testing.T) {
	f := foreign(t, "resnet8-w4", 7)
	set := func(name string, change func(values []float32)) {
		i := slices.IndexFunc(f.Tensors, func(x Tensor) bool { return x.Name == name })
		values, err := f.Tensors[i].Floats()
		if err != nil {
			t.Fatal(err)
		}
		change(values)
		f.Tensors[i] = floatTensor(name, f.Tensors[i].Shape, values...)
	}
	look := func() string {
		id, err := f.Identify(Hints{})
		if err != nil {
			t.Fatal(err)
		}
		found, err := f.NotFinite()
		if err != nil {
			t.Fatal(err)
		}
		odd, err := id.Oddities()
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, x := range append(found, odd...) {
			b.WriteString(x.What + ": " + strings.Join(x.Where, ", ") + "\n")
		}
		return b.String()
	}
	if got := look(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "running statistics that never moved, in every batch norm") {
		t.Errorf("fresh weights: %s", got)
	}
	for _, x := range f.Tensors {
		if strings.HasSuffix(x.Name, "running_mean") && x.Name != "bn1.running_mean" {
			set(x.Name, func(v []float32) { v[0] = 0.5 })
		}
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	set("linear.bias", func(v []float32) { v[1], v[2] = nan, inf })
	set("layer1.0.conv1.weight", func(v []float32) { clear(v[:36]) })
	set("layer1.0.bn1.weight", func(v []float32) { v[3] = 0 })
	set("layer2.0.bn2.weight", func(v []float32) { clear(v) })
	set("layer2.0.bn1.running_var", func(v []float32) { v[0], v[1], v[2] = -1, 0, 0 })
	want := `NaN: linear.bias (1 of 7)
infinite values: linear.bias (1 of 7)
dead filters: all their weights are next to 0: layer1.0.conv1.weight (1 of 4)
batch norms with channels of gamma 0: layer1.0.bn1.weight (1 of 4)
negative running variances: layer2.0.bn1.running_var (1 of 8)
running variances of 0: channels that never changed: layer2.0.bn1.running_var (2 of 8)
batch norms whose gamma is 0 in every channel: nothing passes them: layer2.0.bn2.weight
batch norms whose running statistics never moved: bn1
`
	if got := look(); got != want {
		t.Errorf("found\n%s\nexpected\n%s", got, want)
	}
}

// Narrow values are the nearest, and come back as they were rounded; what does not fit is refused.
func TestNarrowing(t *testing.T) {
	values := []float32{1, -2.5, 0.1, 1.0009765625 + 1e-5, 65504, 6e-8, 0}
	for dtype, tolerance := range map[string]float64{"F16": 1. / 2048, "BF16": 1. / 256} {
		x, err := floatTensor("x", []int{len(values)}, values...).narrow(dtype)
		if err != nil {
			t.Fatal(err)
		}
		back, err := x.Floats()
		if err != nil || x.validate() != nil {
			t.Fatal(err, x.validate())
		}
		for i, v := range values {
			if d := math.Abs(float64(back[i] - v)); d > tolerance*math.Abs(float64(v)) && d > 6e-8 {
				t.Errorf("%s: %g became %g", dtype, v, back[i])
			}
		}
	}
	// Halves go to even: 1 + 2^-8 to 1, 1 + 3·2^-8 to 1 + 2^-6.
	x, err := floatTensor("x", []int{2}, 1+1./256, 1+3./256).narrow("BF16")
	if back, _ := x.Floats(); err != nil || back[0] != 1 || back[1] != 1+1./64 {
		t.Errorf("halves became %v (%v)", back, err)
	}
	if _, err := floatTensor("x", []int{1}, 1e5).narrow("F16"); err == nil || !strings.Contains(err.Error(), "beyond what F16 holds") {
		t.Errorf("1e5 as F16: %v", err)
	}
}

// A model survives every form it is written in.
func TestExportsComeBack(t *testing.T) {
	for _, name := range []string{"resnet8-w4", "resnet8-w4-normalised", "wrn-10-1-dm-normalised"} {
		net, err := zoo.New(name, 10, [3]int{32, 32, 3})
		if err != nil {
			t.Fatal(err)
		}
		m := zoo.Init(net, 1)
		if strings.Contains(name, "-dm") { // its constants are not in the file
			id, err := foreign(t, "wrn-10-1-dm", 10).Identify(Hints{})
			if err != nil {
				t.Fatal(err)
			}
			if m, err = id.Model(); err != nil {
				t.Fatal(err)
			}
		}
		for _, file := range []string{"m.pt", "m.pth", "m.safetensors"} {
			path := filepath.Join(t.TempDir(), file)
			if err := ExportPyTorch(path, m, "F32"); err != nil {
				t.Fatal(err)
			}
			back, err := Load(path)
			if err != nil {
				t.Errorf("%s in %s: %v", name, file, err)
				continue
			}
			if back.Name() != name {
				t.Errorf("%s in %s came back as a %s", name, file, back.Name())
				continue
			}
			for i, p := range m.Params() {
				if !slices.Equal(floats(back.State[i]), floats(m.State[i])) {
					t.Errorf("%s in %s: %s changed", name, file, p.Name)
				}
			}
		}
	}
}

// The kinds of a network that normalises are not trained.
func TestConstantsAreNotTrained(t *testing.T) {
	net, err := zoo.New("resnet8-w4-normalised", 10, [3]int{32, 32, 3})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := zoo.New("resnet8-w4", 10, [3]int{32, 32, 3})
	if err != nil {
		t.Fatal(err)
	}
	if classifier.Count(net) != classifier.Count(plain) || len(net.Params()) != len(plain.Params())+2 {
		t.Errorf("%d parameters with normalisation, %d without", classifier.Count(net), classifier.Count(plain))
	}
}
