// Package attack searches for perturbations that change what a classifier answers, one file per attack. An attack only
// proposes: who asks it (package eval) clips the proposal to the ball and to [0,1] and decides on a fresh forward pass
// whether it succeeded.
package attack

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/gomlx/core/tensors"
)

// Attack is one search. What it proposes for an image depends on the image, its label, its key and the seed, never on
// its place in the batch or on the other images.
type Attack interface {
	// Name is what tables and ledgers call it; it also keys its random draws.
	Name() string
	// String says every setting that its result depends on, for the record.
	String() string
	// Perturb proposes a perturbed image for every image of the batch, float32 [N,H,W,C], in a tensor that the caller
	// finalizes.
	Perturb(ctx context.Context, v *Victim, b *Batch) (*tensors.Tensor, error)
}

// Suite is what one column of a table reports: attacks in order, each from the original image, on the images that the
// ones before it left standing. A plain attack is a suite of one.
type Suite struct {
	Name    string
	Attacks []Attack
}

func (s Suite) String() string {
	parts := make([]string, len(s.Attacks))
	for i, a := range s.Attacks {
		parts[i] = a.String()
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
		{"cw", "Carlini and Wagner 2017", "30 steps of a quarter of the radius on the margin, from a uniform start"},
	}
}

func unknown(name string) error {
	var names []string
	for _, info := range Infos() {
		names = append(names, info.Name)
	}
	return fmt.Errorf("there is no attack %q; the attacks are %s", name, strings.Join(names, ", "))
}

// Parse reads names such as "clean,fgsm,pgd-20,cw" into suites in that order. power gives the norm, the radius and the
// step size of iterated attacks; a step size of 0 takes each attack's own, in the proportion to the radius that its
// paper uses at 8/255. The number of steps and the start come from the name. "clean" asks for no attack: accuracy on
// clean images is always measured.
func Parse(names string, power threat.Model) ([]Suite, error) {
	if !(power.Epsilon > 0) {
		return nil, fmt.Errorf("epsilon is %g, expected a radius above 0", power.Epsilon)
	}
	var suites []Suite
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		if slices.ContainsFunc(suites, func(s Suite) bool { return s.Name == name }) {
			return nil, fmt.Errorf("attack %q is named twice", name)
		}
		var a PGD
		switch steps, isPGD := strings.CutPrefix(name, "pgd-"); {
		case name == "clean":
			continue
		case name == "fgsm":
			a = FGSM(power.Norm, power.Epsilon)
		case name == "pgd-trades":
			a = PGDTrades(power.Norm, power.Epsilon)
		case name == "cw":
			a = CW(power.Norm, power.Epsilon)
		case isPGD:
			n, err := strconv.Atoi(steps)
			if err != nil || n < 1 || strconv.Itoa(n) != steps {
				return nil, fmt.Errorf("attack %q: expected a number of steps after pgd-, such as pgd-20", name)
			}
			a = NewPGD(power.Norm, power.Epsilon, n)
		default:
			return nil, unknown(name)
		}
		if power.StepSize != 0 && name != "fgsm" {
			a.Threat.StepSize = power.StepSize
		}
		if err := a.Threat.Validate(); err != nil {
			return nil, fmt.Errorf("attack %s: %w", name, err)
		}
		suites = append(suites, Suite{Name: name, Attacks: []Attack{a}})
	}
	return suites, nil
}
