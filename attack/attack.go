// Package attack searches for perturbations that change what a classifier answers, one file per attack. An attack only
// proposes: who asks it (package eval) clips the proposal to the ball and to [0,1] and decides on a fresh forward pass
// whether it succeeded.
package attack

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/adaad-go/adaad/threat"
)

// Attack is one search. What it proposes for an image depends on the image, its label, its key and the seed, never on
// the images that are attacked beside it.
type Attack interface {
	// Name is what tables and ledgers call it; it also keys its random draws.
	Name() string
	// String says every setting that its result depends on, for the record.
	String() string
	// Cost is the most that it asks of a classifier of so many classes about one image.
	Cost(classes int) Cost
	// Perturb proposes a perturbed image. It asks the classifier through the image alone.
	Perturb(im *Image) ([]float32, error)
}

// Suite is what one column of a table reports: attacks in order, each from the original image, on the images that the
// ones before it left standing. A plain attack is a suite of one.
type Suite struct {
	Name    string
	Attacks []Attack
}

// Cost is the most that all its attacks ask of a classifier of so many classes about one image.
func (s Suite) Cost(classes int) Cost {
	var sum Cost
	for _, a := range s.Attacks {
		sum = sum.Add(a.Cost(classes))
	}
	return sum
}

func (s Suite) String() string {
	parts := make([]string, len(s.Attacks))
	for i, a := range s.Attacks {
		parts[i] = a.String()
		if len(s.Attacks) > 1 {
			parts[i] = a.Name() + " " + parts[i]
		}
	}
	return s.Name + ": " + strings.Join(parts, "; ")
}

// Info is what there is to know of an attack.
type Info struct {
	Name   string // as Parse takes it; N stands for a number
	Source string
	About  string
}

// Infos lists what Parse knows.
func Infos() []Info {
	return []Info{
		{"clean", "-", "no attack: accuracy on the images themselves"},
		{"fgsm", "Goodfellow et al. 2015", "one step of the whole radius on the cross-entropy"},
		{"pgd-N", "Madry et al. 2018", "N steps of a quarter of the radius on the cross-entropy, from a uniform start"},
		{"pgd-trades", "Zhang et al. 2019", "20 steps of 0.003 (at 8/255) on the cross-entropy, from a uniform start"},
		{"mim", "Dong et al. 2018", "10 steps of a tenth of the radius on the cross-entropy, with momentum"},
		{"cw", "Carlini and Wagner 2017", "30 steps of a quarter of the radius on the margin, from a uniform start"},
		{"cw-l2", "Carlini and Wagner 2017", "the nearest wrong point by Adam: c 0.1, 1000 steps of 0.01; L2 only"},
		{"apgd-ce", "Croce and Hein 2020", "Auto-PGD on the cross-entropy, 100 steps"},
		{"apgd-dlr", "Croce and Hein 2020", "Auto-PGD on the difference of logits ratio, 100 steps"},
		{"apgd-t", "Croce and Hein 2020", "Auto-PGD on the targeted difference of logits ratio, 9 targets of 100 steps"},
		{"fab", "Croce and Hein 2020", "the nearest wrong point by steps to the linearised boundary, 5 restarts of 100 steps"},
		{"fab-t", "Croce and Hein 2020", "the same to one class after the other, 9 targets of 100 steps"},
		{"square", "Andriushchenko et al. 2020", "random search that needs no gradients, 5000 queries"},
		{"autoattack", "Croce and Hein 2020", "apgd-ce, apgd-t, fab-t and square, each on what the ones before left"},
		{"autoattack-plus", "Croce and Hein 2020", "apgd-ce and apgd-dlr with 5 restarts, fab, square, apgd-t and fab-t"},
		{"autoattack-rand", "Croce and Hein 2020", "apgd-ce and apgd-dlr with means of 20 gradients, for answers at random"},
		{"transfer", "Papernot et al. 2017", "pgd-20 on another model, the surrogate"},
	}
}

func unknown(name string) error {
	var names []string
	for _, info := range Infos() {
		names = append(names, info.Name)
	}
	return fmt.Errorf("there is no attack %q; the attacks are %s", name, strings.Join(names, ", "))
}

// Parse reads names such as "clean,fgsm,pgd-20,autoattack" into suites in that order. power gives the norm, the radius and
// the step size of iterated attacks; a step size of 0 takes each attack's own, in the proportion to the radius that its
// paper uses at 8/255. The number of steps and the start come from the name. "clean" asks for no attack: accuracy on
// clean images is always measured. Only "transfer" takes the surrogate.
func Parse(names string, power threat.Model, surrogate *Surrogate) ([]Suite, error) {
	power.Steps = 0
	if !(power.Epsilon > 0) {
		return nil, fmt.Errorf("epsilon is %g, expected a radius above 0", power.Epsilon)
	}
	if err := power.Validate(); err != nil {
		return nil, err
	}
	var suites []Suite
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		if name == "clean" {
			continue
		}
		if slices.ContainsFunc(suites, func(s Suite) bool { return s.Name == name }) {
			return nil, fmt.Errorf("attack %q is named twice", name)
		}
		suite, err := parseOne(name, power, surrogate)
		if err != nil {
			return nil, err
		}
		suites = append(suites, suite)
	}
	return suites, nil
}

// parseOne reads one name.
func parseOne(name string, power threat.Model, surrogate *Surrogate) (Suite, error) {
	norm, eps := power.Norm, power.Epsilon
	step := func(m threat.Model) threat.Model {
		if power.StepSize != 0 {
			m.StepSize = power.StepSize
		}
		return m
	}
	one := func(a Attack) (Suite, error) { return Suite{name, []Attack{a}}, nil }
	pgd := func(a PGD) (Suite, error) {
		a.Threat = step(a.Threat)
		return one(a)
	}
	switch name {
	case "fgsm":
		return one(FGSM(norm, eps))
	case "pgd-trades":
		return pgd(PGDTrades(norm, eps))
	case "cw":
		return pgd(CW(norm, eps))
	case "mim":
		a := NewMIM(norm, eps)
		a.Threat = step(a.Threat)
		return one(a)
	case "cw-l2":
		if norm != threat.L2 {
			return Suite{}, fmt.Errorf("attack cw-l2 looks for the nearest point in the L2 norm, but the norm is %s", norm)
		}
		return one(NewCWL2(eps))
	case "apgd-ce":
		return one(APGDCE(norm, eps))
	case "apgd-dlr":
		return one(APGDDLR(norm, eps))
	case "apgd-t":
		return one(APGDT(norm, eps))
	case "fab":
		return one(NewFAB(norm, eps))
	case "fab-t":
		return one(FABT(norm, eps))
	case "square":
		return one(NewSquare(norm, eps))
	case "autoattack":
		return AutoAttack(norm, eps), nil
	case "autoattack-plus":
		return AutoAttackPlus(norm, eps), nil
	case "autoattack-rand":
		return AutoAttackRand(norm, eps), nil
	case "transfer":
		if surrogate == nil {
			return Suite{}, fmt.Errorf("attack transfer needs a surrogate, another model to attack")
		}
		a := NewPGD(norm, eps, 20)
		a.Threat = step(a.Threat)
		return one(Transfer{a, *surrogate})
	}
	steps, isPGD := strings.CutPrefix(name, "pgd-")
	if !isPGD {
		return Suite{}, unknown(name)
	}
	n, err := strconv.Atoi(steps)
	if err != nil || n < 1 || strconv.Itoa(n) != steps {
		return Suite{}, fmt.Errorf("attack %q: expected a number of steps after pgd-, such as pgd-20", name)
	}
	return pgd(NewPGD(norm, eps, n))
}
