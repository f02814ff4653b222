package recipe

import (
	"fmt"

	"github.com/adaad-go/adaad/internal/closest"
)

// Preset is a recipe: settings with a name, a source and, where a paper gives them, the numbers to expect.
type Preset struct {
	Settings
	Source   string     // the paper, or what it is for
	Needs    string     // what its teachers should be; empty without one
	Reported []Reported `json:",omitempty"`
}

// Reported is what a paper says of a recipe: percent of CIFAR's test images at eps 8/255, 0 where it does not say.
type Reported struct {
	Clean, AutoAttack float64
	Teacher           string // of the student, such as WRN-34-10
	By                string // who measured it; empty for the method's own paper
	SecondHand        bool   // not read in that paper itself
}

// String is "85.58/51.37* WRN-34-20": clean and AutoAttack accuracy, a star for a number seen second-hand.
func (r Reported) String() string {
	number := func(v float64) string {
		if v == 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f", v)
	}
	text := number(r.Clean) + "/" + number(r.AutoAttack)
	if r.SecondHand {
		text += "*"
	}
	for _, more := range []string{r.Teacher, r.By} {
		if more != "" {
			text += " " + more
		}
	}
	return text
}

// Presets lists the recipes: small ones first, then the papers'.
func Presets() []Preset { return append(smallPresets(), paperPresets()...) }

// Find returns the preset of a name.
func Find(name string) (Preset, error) {
	var names []string
	for _, p := range Presets() {
		if p.Recipe == name {
			return p, nil
		}
		names = append(names, p.Recipe)
	}
	hint := ""
	if near := closest.Names(name, names, 1); len(near) > 0 {
		hint = "; the nearest is " + near[0]
	}
	return Preset{}, fmt.Errorf("there is no recipe %q%s (adaad recipes lists them)", name, hint)
}

// Defaults are the settings of a method where no recipe is named: those of its small CIFAR-10 recipe.
func Defaults(method string) (Settings, error) {
	if _, err := FindMethod(method); err != nil {
		return Settings{}, err
	}
	s := smallSettings(method, "cifar10", "resnet20")
	s.Recipe = ""
	return s, nil
}
