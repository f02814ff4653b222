package recipe

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/distill"
	"github.com/adaad-go/adaad/threat"
)

// Method is one entry of the list of methods.
type Method struct {
	Name     string   `json:"name"`
	Teachers int      `json:"teachers"` // the robust one first, then the naturally trained one
	Searches bool     `json:"searches"` // it perturbs the images it trains on
	Settings []string `json:"settings"` // those it takes besides the search's, by their names in run.json
	What     string   `json:"what"`     // what the student learns
	Source   string   `json:"source"`

	build func(parsed) (distill.Method, error)
}

// Methods lists the methods.
func Methods() []Method {
	return []Method{
		{"natural", 0, false, nil, "cross-entropy on clean images", "-", parsed.natural},
		{"kd", 1, false, []string{"alpha", "temperature", "kl_reduction"},
			"the teacher's softened answers on clean images", "Hinton et al. 2015", parsed.kd},
		{"pgd-at", 0, true, []string{"forward_clean"},
			"cross-entropy on PGD's images", "Madry et al. 2018", parsed.pgdAT},
		{"trades", 0, true, []string{"beta", "kl_reduction", "forward_clean"},
			"cross-entropy, and to answer the same around each image", "Zhang et al. 2019", parsed.trades},
		{"ard", 1, true, []string{"alpha", "temperature", "kl_reduction", "forward_clean"},
			"the teacher's clean answers, on attacked images", "Goldblum et al. 2020", parsed.ard},
		{"iad-1", 1, true, []string{"beta", "begin", "temperature", "kl_reduction", "forward_clean"},
			"ARD, but itself where the teacher is unsure", "Zhu et al. 2022", parsed.iad1},
		{"iad-2", 2, true, []string{"alpha", "natural_weight", "beta", "begin", "temperature", "kl_reduction"},
			"label, robust and natural teacher, itself where unsure", "Zhu et al. 2022", parsed.iad2},
		{"rslad", 1, true, []string{"alpha", "scale", "kl_reduction"},
			"the teacher's clean answers, everywhere in the ball", "Zi et al. 2021", parsed.rslad},
		{"adaad", 1, true, []string{"alpha", "temperature", "kl_reduction", "forward_clean"},
			"agree with the teacher where the two disagree most", "Huang et al. 2023", parsed.adaAD},
		{"adaiad", 1, true, []string{"beta", "begin", "temperature", "kl_reduction", "forward_clean"},
			"AdaAD, and itself where the teacher is unsure", "Huang et al. 2023", parsed.adaIAD},
		{"igdm", 1, true, []string{"base", "lambda"},
			"any other method, and to change along the attack as the teacher", "Lee et al. 2025", parsed.igdm},
		{"saad", 1, true, []string{"beta", "lambda", "correction", "entropy_scale"},
			"IGDM, more where attacks move the teacher too", "Lee and Chung 2026", parsed.saad},
		{"mtard", 2, true, []string{"beta", "weight_rate", "kl_reduction"},
			"robust teacher under attack, natural one on clean images", "Zhao et al. 2022", parsed.mtard},
		{"fair-ard", 1, true, []string{"alpha", "beta", "temperature", "kl_reduction", "forward_clean"},
			"ARD, more on the classes that are easy to attack", "Yue et al. 2023", parsed.fairARD},
		{"score", 0, true, []string{"beta", "label_smoothing"},
			"TRADES with squared distances of probabilities", "Pang et al. 2022", parsed.score},
		{"ccat", 0, true, []string{"power", "clean_share"},
			"to be unsure away from the images", "Stutz et al. 2020", parsed.ccat},
	}
}

// parsed are settings in the types that methods take. Its methods build them.
type parsed struct {
	Settings
	threat    threat.Model
	mode      classifier.Mode
	reduction distill.Reduction
}

func (p parsed) natural() (distill.Method, error) { return distill.Natural(), nil }

func (p parsed) kd() (distill.Method, error) {
	return distill.KD(distill.KDSettings{Alpha: p.Alpha, Temperature: p.Temperature, Reduction: p.reduction}), nil
}

func (p parsed) pgdAT() (distill.Method, error) {
	return distill.PGDAT(distill.PGDATSettings{Threat: p.threat, SearchMode: p.mode, ForwardClean: p.ForwardClean}), nil
}

func (p parsed) trades() (distill.Method, error) {
	return distill.TRADES(distill.TRADESSettings{
		Threat: p.threat, SearchMode: p.mode, Beta: p.Beta, Reduction: p.reduction, ForwardClean: p.ForwardClean,
	}), nil
}

func (p parsed) ardSettings() distill.ARDSettings {
	return distill.ARDSettings{
		Threat: p.threat, SearchMode: p.mode,
		Alpha: p.Alpha, Temperature: p.Temperature, Reduction: p.reduction, ForwardClean: p.ForwardClean,
	}
}

func (p parsed) ard() (distill.Method, error) { return distill.ARD(p.ardSettings()), nil }

func (p parsed) iad1() (distill.Method, error) {
	return distill.IAD1(distill.IAD1Settings{
		Threat: p.threat, SearchMode: p.mode, Temperature: p.Temperature, Beta: p.Beta, Begin: p.Begin,
		Reduction: p.reduction, ForwardClean: p.ForwardClean,
	}), nil
}

func (p parsed) iad2() (distill.Method, error) {
	if p.Alpha+p.NaturalWeight > 1 {
		return distill.Method{}, fmt.Errorf("alpha is %g and natural_weight %g, expected at most 1 together: the label has the rest",
			p.Alpha, p.NaturalWeight)
	}
	return distill.IAD2(distill.IAD2Settings{
		Threat: p.threat, SearchMode: p.mode, Alpha: p.Alpha, NaturalWeight: p.NaturalWeight,
		Temperature: p.Temperature, Beta: p.Beta, Begin: p.Begin, Reduction: p.reduction,
	}), nil
}

func (p parsed) rslad() (distill.Method, error) {
	return distill.RSLAD(distill.RSLADSettings{
		Threat: p.threat, SearchMode: p.mode, Alpha: p.Alpha, Scale: p.Scale, Reduction: p.reduction,
	}), nil
}

func (p parsed) adaAD() (distill.Method, error) {
	return distill.AdaAD(distill.AdaADSettings{
		Threat: p.threat, SearchMode: p.mode,
		Alpha: p.Alpha, Temperature: p.Temperature, Reduction: p.reduction, ForwardClean: p.ForwardClean,
	}), nil
}

func (p parsed) adaIAD() (distill.Method, error) {
	return distill.AdaIAD(distill.AdaIADSettings{
		Threat: p.threat, SearchMode: p.mode, Temperature: p.Temperature, Beta: p.Beta, Begin: p.Begin,
		Reduction: p.reduction, ForwardClean: p.ForwardClean,
	}), nil
}

func (p parsed) igdm() (distill.Method, error) {
	base, err := p.igdmBase().BuildMethod()
	return distill.IGDM(base, p.Lambda), err
}

func (p parsed) saad() (distill.Method, error) {
	return distill.SAAD(distill.SAADSettings{
		Threat: p.threat, SearchMode: p.mode,
		Correction: p.Correction, EntropyScale: p.EntropyScale, Beta: p.Beta, Lambda: p.Lambda,
	}), nil
}

func (p parsed) mtard() (distill.Method, error) {
	return distill.MTARD(distill.MTARDSettings{
		Threat: p.threat, SearchMode: p.mode,
		Beta: p.Beta, WeightRate: p.WeightRate, Drops: p.drops(), Reduction: p.reduction,
	}), nil
}

func (p parsed) fairARD() (distill.Method, error) {
	return distill.FairARD(distill.FairARDSettings{ARDSettings: p.ardSettings(), Beta: p.Beta}), nil
}

func (p parsed) score() (distill.Method, error) {
	return distill.SCORE(distill.SCORESettings{
		Threat: p.threat, SearchMode: p.mode, Beta: p.Beta, LabelSmoothing: p.LabelSmoothing,
	}), nil
}

func (p parsed) ccat() (distill.Method, error) {
	if p.threat.Epsilon == 0 {
		return distill.Method{}, errors.New("search.epsilon is 0, expected more than 0: ccat measures perturbations by it")
	}
	return distill.CCAT(distill.CCATSettings{
		Threat: p.threat, SearchMode: p.mode, Power: p.Power, CleanShare: p.CleanShare,
	}), nil
}

// drops are the shares of the run after which the learning rate drops.
func (s Settings) drops() []float64 {
	if s.Schedule != "piecewise" {
		return nil
	}
	var shares []float64
	for _, m := range s.Milestones {
		shares = append(shares, float64(m)/float64(s.MilestonesOf))
	}
	return shares
}

// igdmBase are the settings of the method that IGDM is added to.
func (s Settings) igdmBase() Settings {
	s.Method, s.Base, s.Lambda = s.Base, "", 0
	return s
}

// ranges say what the numbers among the methods' settings may be; the others may be anything from 0.
var ranges = map[string]struct {
	ok       func(v float64) bool
	expected string
}{
	"alpha":           {func(v float64) bool { return v >= 0 && v <= 1 }, "a weight from 0 to 1"},
	"natural_weight":  {func(v float64) bool { return v >= 0 && v <= 1 }, "a weight from 0 to 1"},
	"temperature":     {func(v float64) bool { return v > 0 }, "more than 0"},
	"scale":           {func(v float64) bool { return v > 0 }, "more than 0"},
	"entropy_scale":   {func(v float64) bool { return v > 0 }, "more than 0"},
	"power":           {func(v float64) bool { return v > 0 }, "more than 0"},
	"weight_rate":     {func(v float64) bool { return v >= 0 && v <= 1 }, "a share from 0 to 1"},
	"label_smoothing": {func(v float64) bool { return v >= 0 && v < 1 }, "a share from 0 to less than 1"},
	"clean_share":     {func(v float64) bool { return v >= 0 && v < 1 }, "a share from 0 to less than 1"},
}

// numbers are the methods' settings that are numbers, by their names in run.json.
func (s Settings) numbers() map[string]float64 {
	return map[string]float64{
		"alpha": s.Alpha, "beta": s.Beta, "lambda": s.Lambda, "temperature": s.Temperature, "scale": s.Scale,
		"begin": float64(s.Begin), "natural_weight": s.NaturalWeight, "weight_rate": s.WeightRate,
		"correction": s.Correction, "entropy_scale": s.EntropyScale, "label_smoothing": s.LabelSmoothing,
		"power": s.Power, "clean_share": s.CleanShare,
	}
}

// FindMethod is the method of a name.
func FindMethod(name string) (Method, error) {
	var names []string
	for _, m := range Methods() {
		if m.Name == name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return Method{}, fmt.Errorf("there is no method %q; expected one of %s", name, strings.Join(names, ", "))
}

// describe is the method that the settings name; IGDM takes what its base takes too.
func (s Settings) describe() (Method, error) {
	m, err := FindMethod(s.Method)
	if err != nil || m.Name != "igdm" {
		return m, err
	}
	base, err := FindMethod(s.Base)
	switch {
	case err != nil:
		return m, fmt.Errorf("base: %w", err)
	case !base.Searches || base.Name == "igdm" || base.Name == "saad" || base.Name == "ccat":
		return m, fmt.Errorf("base is %q, expected a method that learns from every image perturbed and does not hold igdm already, such as adaad",
			s.Base)
	}
	m.Teachers, m.Settings = max(m.Teachers, base.Teachers), append(m.Settings, base.Settings...)
	return m, nil
}

// TeacherCount is how many teachers the method of the settings takes.
func (s Settings) TeacherCount() (int, error) {
	m, err := s.describe()
	return m.Teachers, err
}

// BuildMethod makes the method the settings name. It refuses settings that are out of range or that the method does not
// take: a number that changes nothing is a mistake.
func (s Settings) BuildMethod() (distill.Method, error) {
	m, err := s.describe()
	if err != nil {
		return distill.Method{}, err
	}
	if err := s.fit(m); err != nil {
		return distill.Method{}, err
	}
	p := parsed{Settings: s}
	if m.Searches {
		if p.threat, p.mode, err = s.Search.threat(); err != nil {
			return distill.Method{}, err
		}
	}
	if slices.Contains(m.Settings, "kl_reduction") {
		if p.reduction, err = distill.ParseReduction(s.Reduction); err != nil {
			return distill.Method{}, err
		}
	}
	return m.build(p)
}

// fit checks that the settings are those that a method takes, and in range.
func (s Settings) fit(m Method) error {
	numbers := s.numbers()
	for _, name := range m.Settings {
		v, isNumber := numbers[name]
		if !isNumber {
			continue
		}
		r, limited := ranges[name]
		if !limited {
			r.ok, r.expected = func(v float64) bool { return v >= 0 }, "at least 0"
		}
		if !r.ok(v) || math.IsInf(v, 0) {
			return fmt.Errorf("%s is %g, expected %s", name, v, r.expected)
		}
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	var given map[string]any
	if err := json.Unmarshal(text, &given); err != nil {
		return err
	}
	for _, name := range methodSettings() {
		if _, set := given[name]; set && !slices.Contains(m.Settings, name) {
			takes := "takes none of that kind"
			if len(m.Settings) > 0 {
				takes = "takes " + strings.Join(m.Settings, ", ")
			}
			return fmt.Errorf("%s is set, but method %s %s", name, m.Name, takes)
		}
	}
	return nil
}

// methodSettings are the names of all settings that some method takes.
func methodSettings() []string {
	var all []string
	for _, m := range Methods() {
		for _, name := range m.Settings {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all
}
