package recipe

import (
	"fmt"
	"strings"
)

// Preset is a recipe: settings with a name, a source and, where a paper gives one, the number to expect.
type Preset struct {
	Settings
	Source string // the paper, or what it is for
	Needs  string // what its teacher should be; empty without one
}

// Presets lists the recipes.
func Presets() []Preset {
	all := []Preset{
		natural("cifar10", "resnet20"), pgdAT("cifar10", "resnet20"), kd("cifar10", "resnet20-w8"), adaad("cifar10", "resnet20-w8"),
		brief(natural("shapes", "resnet8"), 3), brief(pgdAT("shapes", "resnet8"), 6),
		brief(kd("shapes", "resnet8-w8"), 4), brief(adaad("shapes", "resnet8-w8"), 8),
	}
	for i := range all {
		base, _, _ := strings.Cut(all[i].Model, "-")
		all[i].Recipe = fmt.Sprintf("%s-%s-%s", all[i].Method, all[i].Data, base)
	}
	return append(all, AdaADPaper(), PGDATPaper())
}

// Find returns the preset of a name.
func Find(name string) (Preset, error) {
	var names []string
	for _, p := range Presets() {
		if p.Recipe == name {
			return p, nil
		}
		names = append(names, p.Recipe)
	}
	return Preset{}, fmt.Errorf("there is no recipe %q; expected one of %s", name, strings.Join(names, ", "))
}

// Defaults are the settings of a method where no recipe is named: those of its small CPU recipe.
func Defaults(method string) (Settings, error) {
	for _, p := range Presets() {
		if p.Method == method {
			s := p.Settings
			s.Recipe = ""
			return s, nil
		}
	}
	_, err := FindMethod(method)
	return Settings{}, err
}

// small are the settings the small recipes share: a short run on one CPU, where a one-cycle rate and a few long search
// steps reach more in the same time than the papers' hundreds of epochs of ten short ones.
func small(method, data, model string) Settings {
	return Settings{
		Method: method, Model: model, Data: data,
		Epochs: 15, BatchSize: 128, HeldOut: 0.02, Augment: true,
		Optimizer: "sgd", LR: 0.1, Momentum: 0.9, WeightDecay: 5e-4, Schedule: "one-cycle",
		ValidationSteps: 10, ValidationSamples: 500,
	}
}

// brief makes a small recipe one for "shapes", to run in well under a minute on two cores. A single search step of the
// radius is enough for a set with one faint cue and one strong one, and pictures drawn at random places need no crops.
// Both students learn at temperature 1, so that the search is what sets them apart: at 4, a robust teacher's soft answers
// pass a little robustness on even on clean images.
func brief(p Preset, epochs int) Preset {
	s := &p.Settings
	s.Epochs, s.BatchSize, s.TrainSamples, s.Augment = epochs, 50, 3000, false
	s.ValidationSteps, s.ValidationSamples = min(s.ValidationSteps, 5), 100
	if s.Method == "pgd-at" {
		s.ForwardClean = false
	}
	if s.Search.Steps > 0 {
		s.Search.StepSize, s.Search.Steps = s.Search.Epsilon, 1
	}
	if s.Temperature > 0 {
		s.Temperature = 1
	}
	return p
}

// nearby is the papers' ball on CIFAR-10 with the start of AdaAD's authors: eps 8/255 from x + 0.001 N(0,1), batch norm
// in eval mode.
func nearby(stepSize Radius, steps int) Search {
	return Search{Epsilon: 8.0 / 255, StepSize: stepSize, Steps: steps, Start: "gaussian", BatchNorm: "eval"}
}
