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
		natural("shapes", "resnet8"), pgdAT("shapes", "resnet8"), kd("shapes", "resnet8-w8"), adaad("shapes", "resnet8-w8"),
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
	return Settings{}, fmt.Errorf("there is no method %q; expected one of %s", method, strings.Join(MethodNames(), ", "))
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

// nearby is the papers' ball on CIFAR-10 with the start of AdaAD's authors: eps 8/255 from x + 0.001 N(0,1), batch norm
// in eval mode.
func nearby(stepSize Radius, steps int) Search {
	return Search{Epsilon: 8.0 / 255, StepSize: stepSize, Steps: steps, Start: "gaussian", BatchNorm: "eval"}
}
