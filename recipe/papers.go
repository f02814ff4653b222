package recipe

import (
	"fmt"
	"slices"
)

// The papers' tables: each method with each of two students on each of two data sets, at four radii of the search, as the
// equations say and, where that differs, as the authors' code runs. Names are METHOD-DATA-MODEL[-epsN][-code].
var (
	paperMethods = []string{
		"natural", "pgd-at", "trades", "ard", "iad-1", "iad-2", "rslad", "adaad", "adaiad", "igdm", "saad", "mtard", "fair-ard",
	}
	paperData   = []string{"cifar10", "cifar100"}
	paperModels = []string{"resnet18", "mobilenet-v2"}
	paperRadii  = []int{8, 16, 24, 32} // in 255ths
)

// paperSettings are a method's at its paper's length: SGD, batches of 128, ten steps of a quarter of the radius.
func paperSettings(method, data, model string, radius int, code bool) (s Settings, exists bool) {
	s = Settings{
		Recipe: fmt.Sprintf("%s-%s-%s", method, data, model), Method: method, Model: model, Data: data,
		Epochs: 200, BatchSize: 128, HeldOut: 0.02, Augment: true,
		Optimizer: "sgd", LR: 0.1, Momentum: 0.9, WeightDecay: 2e-4,
		Schedule: "piecewise", Milestones: []int{100, 150}, MilestonesOf: 200,
		ValidationSteps: 10, ValidationSamples: 500,
	}
	s.equations(2.0/255, 10)
	switch method {
	case "natural":
		s.Epochs, s.Milestones, s.MilestonesOf, s.WeightDecay, s.ValidationSteps = 110, []int{100, 105}, 110, 5e-4, 0
	case "trades":
		s.Epochs, s.Milestones, s.MilestonesOf = 76, []int{75}, 76
	case "rslad", "mtard":
		s.Epochs, s.Milestones, s.MilestonesOf = 300, []int{215, 260, 285}, 300
	case "adaad", "adaiad":
		s.WeightDecay = 5e-4
	case "saad":
		s.SWA = 0.47 // averages from epoch 95 on
	}
	if code {
		if !s.asCode() {
			return s, false
		}
		switch method {
		case "pgd-at":
			s.Epochs, s.Milestones, s.MilestonesOf, s.WeightDecay = 110, []int{100, 105}, 110, 5e-4
		case "trades":
			s.Search.Epsilon, s.Search.StepSize = 0.031, 0.007
		case "ard", "iad-1", "iad-2":
			s.Milestones = []int{100} // the code divides the first rate again, so that the second drop changes nothing
		case "fair-ard":
			s.Milestones, s.Nesterov = []int{100}, true
		}
	}
	if radius != paperRadii[0] {
		if !s.robust() {
			return s, false
		}
		s.Recipe += fmt.Sprintf("-eps%d", radius)
		s.ValidationEpsilon = Radius(paperRadii[0]) / 255
		s.SetEpsilon(Radius(radius) / 255)
	}
	if code {
		s.Recipe += "-code"
	}
	return s, true
}

// paperPresets are all of them.
func paperPresets() []Preset {
	var all []Preset
	for _, radius := range paperRadii {
		for _, data := range paperData {
			for _, model := range paperModels {
				for _, method := range paperMethods {
					for _, code := range []bool{false, true} {
						s, exists := paperSettings(method, data, model, radius, code)
						if !exists {
							continue
						}
						p := Preset{Settings: s, Reported: reported[cell{method, data, model, radius}]}
						m, err := FindMethod(method)
						if err != nil {
							panic(err)
						}
						p.Source = m.Source + ", the paper"
						if code {
							p.Source = m.Source + ", the authors' code"
						}
						teacher := "LTD's WRN-34-20 or WRN-34-10"
						if data == "cifar100" {
							teacher = "LTD's WRN-34-10"
						}
						switch m.Teachers {
						case 1:
							p.Needs = teacher
						case 2:
							p.Needs = teacher + ", and a naturally trained model"
						}
						all = append(all, p)
					}
				}
			}
		}
	}
	return all
}

// LargeRadius is whether the recipe is one of the papers' at a radius beyond 8/255.
func (p Preset) LargeRadius() bool {
	return slices.Contains(paperModels, p.Model) && p.Search.Epsilon > 8.5/255
}

type cell struct {
	method, data, model string
	radius              int
}

// cgard is the comparison in CGARD's paper: every method again with one WRN-34-10 teacher of 84.75/54.33 on CIFAR-10 and
// 59.40/29.19 on CIFAR-100.
func cgard(clean, autoAttack float64) Reported {
	return Reported{Clean: clean, AutoAttack: autoAttack, By: "CGARD"}
}

// adaadTable is the table of Huang et al. at eps 8/255, seen second-hand.
func adaadTable(clean, autoAttack float64, teacher string) Reported {
	return Reported{Clean: clean, AutoAttack: autoAttack, Teacher: teacher, By: "AdaAD", SecondHand: true}
}

// reported are the published numbers of each cell. "IAD" of the comparisons is IAD-I.
var reported = map[cell][]Reported{
	{"natural", "cifar10", "resnet18", 8}: {cgard(95.28, 0)},
	{"pgd-at", "cifar10", "resnet18", 8}:  {adaadTable(82.95, 47.69, ""), cgard(82.50, 48.04)},
	{"trades", "cifar10", "resnet18", 8}:  {adaadTable(83.00, 49.21, ""), cgard(82.78, 47.63)},
	{"ard", "cifar10", "resnet18", 8}:     {adaadTable(0, 48.62, "WRN-34-10"), cgard(83.29, 50.01)},
	{"iad-1", "cifar10", "resnet18", 8}:   {adaadTable(0, 48.82, "WRN-34-10"), cgard(82.84, 50.10)},
	{"rslad", "cifar10", "resnet18", 8}: {
		adaadTable(0, 48.66, "WRN-34-20"), adaadTable(0, 48.45, "WRN-34-10"), cgard(82.98, 51.49),
	},
	{"adaad", "cifar10", "resnet18", 8}: {
		{Clean: 85.58, AutoAttack: 51.37, Teacher: "WRN-34-20", SecondHand: true},
		{Clean: 86.75, AutoAttack: 50.06, Teacher: "WRN-34-10", SecondHand: true}, cgard(84.28, 52.02),
	},
	{"adaad", "cifar10", "resnet18", 32}: {{AutoAttack: 54.23}},
	{"adaiad", "cifar10", "resnet18", 8}: {
		{AutoAttack: 52.96, Teacher: "WRN-34-20", SecondHand: true}, {AutoAttack: 50.74, Teacher: "WRN-34-10", SecondHand: true},
	},
	{"igdm", "cifar10", "resnet18", 8}: {{AutoAttack: 54.02, SecondHand: true}},

	{"pgd-at", "cifar10", "mobilenet-v2", 8}: {cgard(79.99, 45.11)},
	{"trades", "cifar10", "mobilenet-v2", 8}: {cgard(80.98, 46.51)},
	{"ard", "cifar10", "mobilenet-v2", 8}:    {cgard(81.80, 48.67)},
	{"iad-1", "cifar10", "mobilenet-v2", 8}:  {cgard(81.44, 48.06)},
	{"rslad", "cifar10", "mobilenet-v2", 8}:  {cgard(83.11, 50.28)},
	{"adaad", "cifar10", "mobilenet-v2", 8}:  {cgard(83.86, 49.95)},

	{"pgd-at", "cifar100", "resnet18", 8}: {cgard(57.52, 24.68)},
	{"trades", "cifar100", "resnet18", 8}: {cgard(56.32, 22.69)},
	{"ard", "cifar100", "resnet18", 8}:    {cgard(58.44, 26.42)},
	{"iad-1", "cifar100", "resnet18", 8}:  {cgard(57.82, 26.80)},
	{"rslad", "cifar100", "resnet18", 8}:  {cgard(56.55, 28.00)},
	{"adaad", "cifar100", "resnet18", 8}:  {cgard(58.91, 27.80)},
	{"igdm", "cifar100", "resnet18", 8}:   {{AutoAttack: 30.32, Teacher: "one with generated data"}},

	{"pgd-at", "cifar100", "mobilenet-v2", 8}: {cgard(56.00, 23.25)},
	{"ard", "cifar100", "mobilenet-v2", 8}:    {cgard(57.25, 26.02)},
	{"rslad", "cifar100", "mobilenet-v2", 8}:  {cgard(56.78, 26.94)},
	{"adaad", "cifar100", "mobilenet-v2", 8}:  {cgard(57.95, 25.55)},
}
