package recipe

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/train"
)

func TestEveryRecipeIsSound(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Presets() {
		if seen[p.Recipe] {
			t.Errorf("two recipes are called %s", p.Recipe)
		}
		seen[p.Recipe] = true
		method, err := p.BuildMethod()
		if err != nil {
			t.Errorf("%s: %v", p.Recipe, err)
			continue
		}
		if err := (&Job{Settings: p.Settings}).readTraining(); err != nil {
			t.Errorf("%s: %v", p.Recipe, err)
		}
		if (method.Teachers > 0) != (p.Needs != "") {
			t.Errorf("%s takes %d teachers, and says it needs %q", p.Recipe, method.Teachers, p.Needs)
		}
		if method.Threat.Steps != p.Search.Steps {
			t.Errorf("%s searches %d steps, its settings say %d", p.Recipe, method.Threat.Steps, p.Search.Steps)
		}
		if method.WarmUp != nil && !(method.Begin > 0 && method.Begin < p.Epochs) {
			t.Errorf("%s begins after %d of %d epochs", p.Recipe, method.Begin, p.Epochs)
		}
		text, err := json.Marshal(p.Settings)
		var back Settings
		if err == nil {
			err = json.Unmarshal(text, &back)
		}
		if err != nil || !reflect.DeepEqual(back, p.Settings) {
			t.Errorf("%s comes back from run.json as %+v (%v)", p.Recipe, back, err)
		}
		if found, err := Find(p.Recipe); err != nil || found.Recipe != p.Recipe {
			t.Errorf("%s is not found by its name: %v", p.Recipe, err)
		}
	}
	for _, m := range Methods() {
		s, err := Defaults(m.Name)
		if err != nil || s.Method != m.Name {
			t.Errorf("the defaults of %s are %+v (%v)", m.Name, s, err)
		}
		for _, where := range []string{"cifar10-resnet20", "cifar10-resnet8", "mnist-small-cnn", "shapes-resnet8"} {
			if !seen[m.Name+"-"+where] {
				t.Errorf("there is no recipe %s-%s", m.Name, where)
			}
		}
	}
	for c := range reported {
		name := fmt.Sprintf("%s-%s-%s", c.method, c.data, c.model)
		if c.radius != 8 {
			name += fmt.Sprintf("-eps%d", c.radius)
		}
		if !seen[name] {
			t.Errorf("published numbers of %s belong to no recipe", name)
		}
	}
}

// What the papers and the authors' code say, where it is easy to get wrong.
func TestPaperRecipes(t *testing.T) {
	find := func(name string) Settings {
		t.Helper()
		p, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		return p.Settings
	}
	for name, is := range map[string]func(s Settings) bool{
		"adaad-cifar10-resnet18":             func(s Settings) bool { return s.Reduction == "batchmean" && !s.ForwardClean && s.WeightDecay == 5e-4 },
		"adaad-cifar10-resnet18-code":        func(s Settings) bool { return s.Reduction == "mean" && s.ForwardClean },
		"adaad-cifar100-mobilenet-v2-code":   func(s Settings) bool { return s.Reduction == "batchmean" && s.ForwardClean },
		"rslad-cifar100-resnet18-code":       func(s Settings) bool { return s.Scale == 10 && slices.Equal(s.Milestones, []int{215, 260, 285}) },
		"ard-cifar10-resnet18":               func(s Settings) bool { return slices.Equal(s.Milestones, []int{100, 150}) && s.Temperature == 30 },
		"ard-cifar10-resnet18-code":          func(s Settings) bool { return slices.Equal(s.Milestones, []int{100}) && s.Reduction == "mean" },
		"fair-ard-cifar10-resnet18-code":     func(s Settings) bool { return s.Nesterov && s.Beta == 2 },
		"trades-cifar10-resnet18-code":       func(s Settings) bool { return s.Search.Epsilon == 0.031 && s.ForwardClean },
		"trades-cifar10-resnet18-eps32-code": func(s Settings) bool { return math.Abs(float64(s.Search.StepSize)-0.007*(32./255)/0.031) < 1e-9 },
		"igdm-cifar100-resnet18":             func(s Settings) bool { return s.Lambda == 10 && s.Base == "adaad" && s.WeightDecay == 2e-4 },
		"saad-cifar10-resnet18":              func(s Settings) bool { return int(math.Ceil(s.SWA*float64(s.Epochs))) == 94 }, // the 95th
		"pgd-at-cifar10-resnet18":            func(s Settings) bool { return s.Search.BatchNorm == "train" && s.Search.Start == "uniform" },
		"pgd-at-cifar10-resnet18-code":       func(s Settings) bool { return s.Search.BatchNorm == "eval" && s.Search.ClipStart && s.Epochs == 110 },
		"adaad-cifar10-resnet18-eps32": func(s Settings) bool {
			return s.Search.Epsilon == 32.0/255 && math.Abs(float64(s.Search.StepSize)-8./255) < 1e-9 && s.AttackedAt() == 8.0/255
		},
	} {
		if s := find(name); !is(s) {
			t.Errorf("%s is %+v", name, s)
		}
	}
	// A code form that does not differ would be a recipe twice.
	for _, p := range Presets() {
		if plain, isCode := strings.CutSuffix(p.Recipe, "-code"); isCode {
			s, other := p.Settings, find(plain)
			s.Recipe = other.Recipe
			if reflect.DeepEqual(s, other) {
				t.Errorf("%s is the same as %s", p.Recipe, plain)
			}
		}
	}
}

// Every setting that a method says it takes can be set and changes run.json; those it does not take are refused, and so are
// values out of range.
func TestMethodSettings(t *testing.T) {
	values := map[string]string{"base": "trades", "kl_reduction": "sum", "forward_clean": "true", "begin": "4"}
	for _, m := range Methods() {
		for _, name := range methodSettings() {
			s, err := Defaults(m.Name)
			if err != nil {
				t.Fatal(err)
			}
			own, err := s.describe()
			if err != nil {
				t.Fatal(err)
			}
			value, named := values[name]
			if !named {
				value = "0.35"
			}
			if name == "base" && m.Name == "igdm" {
				s.Alpha, s.Temperature = 0, 0 // TRADES has none
			}
			before := s
			if err := s.Set(name, value); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if !named && reflect.DeepEqual(s, before) {
				t.Errorf("setting %s of %s changes nothing", name, m.Name)
			}
			_, err = s.BuildMethod()
			switch takes := slices.Contains(own.Settings, name); {
			case takes && err != nil:
				t.Errorf("%s refuses %s=%s: %v", m.Name, name, value, err)
			case !takes && (err == nil || !strings.Contains(err.Error(), name+" is set, but method "+m.Name)):
				t.Errorf("%s takes no %s, but says %v", m.Name, name, err)
			}
			if _, isNumber := s.numbers()[name]; isNumber && slices.Contains(own.Settings, name) {
				if err := s.Set(name, "-1"); err != nil {
					t.Fatal(err)
				}
				if _, err := s.BuildMethod(); err == nil || !strings.Contains(err.Error(), name+" is -1, expected") {
					t.Errorf("%s with %s -1 says %v", m.Name, name, err)
				}
			}
		}
	}
	for _, base := range []string{"", "natural", "kd", "igdm", "saad", "ccat", "magic"} {
		s, err := Defaults("igdm")
		if err != nil {
			t.Fatal(err)
		}
		s.Base = base
		if _, err := s.BuildMethod(); err == nil || !strings.Contains(err.Error(), "base") {
			t.Errorf("igdm on %q says %v", base, err)
		}
	}
}

// IGDM goes on top of every method it is allowed on, and takes as many teachers.
func TestIGDMOnTopOfOthers(t *testing.T) {
	for _, base := range Methods() {
		s, err := Defaults(base.Name)
		if err != nil {
			t.Fatal(err)
		}
		s.Method, s.Base, s.Lambda = "igdm", base.Name, 1
		m, err := s.BuildMethod()
		switch base.Name {
		case "natural", "kd", "igdm", "saad", "ccat":
			if err == nil {
				t.Errorf("igdm on %s is accepted", base.Name)
			}
		default:
			if err != nil || m.Teachers != max(1, base.Teachers) || m.Name != "igdm" {
				t.Errorf("igdm on %s is %+v (%v)", base.Name, m, err)
			}
		}
	}
}

// What run.json says of a radius is the radius, to the last bit.
func TestRadiusIsReadBack(t *testing.T) {
	for text, r := range map[string]Radius{
		"8/255": 8.0 / 255, "0.31": 0.31, "0": 0, "1e-09": 1e-9, "0.029411764705882353": 7.5 / 255, "0.03137254901960785": Radius(math.Nextafter(8.0/255, 1)),
	} {
		got, err := r.MarshalText()
		var back Radius
		if err == nil {
			err = back.UnmarshalText(got)
		}
		if err != nil || string(got) != text || back != r {
			t.Errorf("%v is written %s and read as %v (%v), want %s", float64(r), got, float64(back), err, text)
		}
	}
	s := Settings{Search: Search{Epsilon: 8.0 / 255, StepSize: 2.0 / 255}}
	if s.SetEpsilon(24.0 / 255); s.Search.StepSize != 6.0/255 {
		t.Errorf("the step at 24/255 is %v", float64(s.Search.StepSize))
	}
}

// A method that begins later has two phases, and both keep the same memory.
func TestPhases(t *testing.T) {
	for _, c := range []struct {
		recipe string
		from   []int
	}{
		{"iad-1-cifar10-resnet18", []int{0, 60}}, {"iad-2-cifar10-resnet18", []int{0, 40}}, {"adaiad-cifar10-resnet18", []int{0, 60}},
		{"adaad-cifar10-resnet18", []int{0}}, {"fair-ard-cifar10-resnet18", []int{0}},
	} {
		p, err := Find(c.recipe)
		if err != nil {
			t.Fatal(err)
		}
		m, err := p.BuildMethod()
		if err != nil {
			t.Fatal(err)
		}
		var from []int
		for _, phase := range phases(m, 0) {
			from = append(from, phase.From)
		}
		if !slices.Equal(from, c.from) {
			t.Errorf("%s has phases from %v, want %v", c.recipe, from, c.from)
		}
	}
	s, err := Defaults("iad-1")
	if err != nil {
		t.Fatal(err)
	}
	s.Begin = 0
	m, err := s.BuildMethod()
	if err != nil || len(phases(m, 0)) != 1 {
		t.Errorf("an iad-1 that begins at once has %d phases (%v)", len(phases(m, 0)), err)
	}
}

// MTARD's weights move slower after each drop of the learning rate, wherever a schedule puts them.
func TestDrops(t *testing.T) {
	p, err := Find("mtard-cifar10-resnet18")
	if err != nil {
		t.Fatal(err)
	}
	if got := p.drops(); !slices.Equal(got, []float64{215. / 300, 260. / 300, 285. / 300}) {
		t.Errorf("the weights' rate drops after %v", got)
	}
	schedule := train.Piecewise{LR: 1, Factor: 0.1, Milestones: p.Milestones, Of: p.MilestonesOf}
	for epoch := range 300 {
		rate := 1.0
		for _, share := range p.drops() {
			if float64(epoch+1)/300 > share+1e-6 { // as distill.MTARD reads it
				rate *= 0.1
			}
		}
		if lr := schedule.At(epoch*10, 3000); math.Abs(rate-lr) > 1e-9 {
			t.Fatalf("in epoch %d the weights' rate is %g of its start, the learning rate %g", epoch+1, rate, lr)
		}
	}
}

func TestReportedIsShort(t *testing.T) {
	for r, want := range map[Reported]string{
		{Clean: 85.58, AutoAttack: 51.37, Teacher: "WRN-34-20", SecondHand: true}: "85.58/51.37* WRN-34-20",
		{AutoAttack: 54.23}:                           "-/54.23",
		{Clean: 82.5, AutoAttack: 48.04, By: "CGARD"}: "82.50/48.04 CGARD",
	} {
		if got := r.String(); got != want {
			t.Errorf("%+v is written %q, want %q", r, got, want)
		}
	}
}
