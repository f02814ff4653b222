package recipe

import "fmt"

// smallSettings are those of a run on one CPU, where a one-cycle rate and a few long search steps reach more in the same
// time than the papers' hundreds of epochs of ten short ones: the authors' conventions, but the reduction is batchmean, with
// which the rate is the one that the schedule says. A student with a teacher has a narrower network.
func smallSettings(method, data, model string) Settings {
	s := Settings{
		Recipe: fmt.Sprintf("%s-%s-%s", method, data, model), Method: method, Model: model, Data: data,
		Epochs: 15, BatchSize: 128, HeldOut: 0.02, Augment: true,
		Optimizer: "sgd", LR: 0.1, Momentum: 0.9, WeightDecay: 5e-4, Schedule: "one-cycle",
		ValidationSteps: 10, ValidationSamples: 500,
	}
	s.equations(5.0/255, 2)
	s.asCode()
	if s.Reduction != "" {
		s.Reduction = "batchmean"
	}
	if s.Begin > 0 {
		s.Begin = 5
	}
	if !s.robust() || method == "ccat" { // CCAT is right under attack only by what it rejects
		s.ValidationSteps = 0
	}
	if m, err := s.describe(); err == nil && m.Teachers > 0 {
		s.Model += "-w8"
	}
	return s
}

// robust is whether the method trains on perturbed images.
func (s Settings) robust() bool { return s.Search.Steps > 0 }

// onMNIST widens the ball to the 0.3 of the literature. There a small network without batch norm stays at chance for
// thousands of steps unless it is led: by Adam, by small batches and by a radius that grows. With two long search steps
// in place of four it learns to stand those steps and nothing else. SAAD weights an image by how unsure the teacher is, and
// of digits it is too sure for them to be learned from: there the clean images are needed.
func (s *Settings) onMNIST() {
	s.Epochs, s.BatchSize, s.Optimizer, s.LR, s.Momentum, s.WeightDecay = 6, 64, "adam", 0.002, 0, 0
	s.Begin = min(s.Begin, 2)
	if s.Method == "saad" {
		s.Beta = 1
	}
	if s.robust() {
		s.Search.Epsilon, s.Search.StepSize, s.Search.Steps, s.Search.Start, s.Search.Ramp = 0.3, 0.1, 4, "uniform", 2
	}
}

// brief makes a small recipe one for "shapes", to run in well under a minute on two cores. A single search step of the
// radius is enough for a set with one faint cue and one strong one, and pictures drawn at random places need no crops.
// Students learn at temperature 1, so that the search is what sets them apart: at 4, a robust teacher's soft answers pass a
// little robustness on even on clean images.
func (s *Settings) brief() {
	s.Epochs = 8
	if own, isShort := map[string]int{"natural": 3, "kd": 4, "pgd-at": 6}[s.Method]; isShort {
		s.Epochs = own
	}
	s.BatchSize, s.TrainSamples, s.Augment = 50, 3000, false
	s.ValidationSteps, s.ValidationSamples = min(s.ValidationSteps, 5), 100
	s.Begin = min(s.Begin, 3)
	if s.Method == "pgd-at" {
		s.ForwardClean = false
	}
	if s.robust() {
		s.Search.StepSize, s.Search.Steps = s.Search.Epsilon, 1
	}
	if s.Temperature > 0 {
		s.Temperature = 1
	}
}

// smallPresets are every method on CIFAR-10 with a ResNet-20 and a ResNet-8, on MNIST, and on drawn shapes.
func smallPresets() []Preset {
	var all []Preset
	for _, on := range []struct {
		data, model string
		change      func(*Settings)
	}{
		{"cifar10", "resnet20", func(*Settings) {}},
		{"cifar10", "resnet8", func(*Settings) {}},
		{"mnist", "small-cnn", (*Settings).onMNIST},
		{"shapes", "resnet8", (*Settings).brief},
	} {
		for _, m := range Methods() {
			s := smallSettings(m.Name, on.data, on.model)
			on.change(&s)
			p := Preset{Settings: s, Source: m.Source + ", scaled to one CPU"}
			switch {
			case m.Name == "natural":
				p.Source = "the undefended baseline"
			case m.Name == "kd":
				p.Source, p.Needs = m.Source+", for contrast", "any "+on.data+" model"
			case m.Teachers == 1:
				p.Needs = "a robust " + on.data + " model"
			case m.Teachers == 2:
				p.Needs = "a robust and a naturally trained " + on.data + " model"
			}
			all = append(all, p)
		}
	}
	return all
}
