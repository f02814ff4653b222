// Package recipe joins methods, networks, data and the training loop: a recipe is a full set of settings with a name,
// and running one takes images to a measured model.
package recipe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/distill"
	"github.com/adaad-go/adaad/threat"
)

// Radius is a distance in [0,1] pixels, written and read as people write it: "8/255".
type Radius float64

// MarshalText writes 8/255 where the radius is one, else a number.
func (r Radius) MarshalText() ([]byte, error) { return []byte(threat.Format(float64(r))), nil }

// UnmarshalText reads "8/255" or "0.031".
func (r *Radius) UnmarshalText(text []byte) error {
	v, err := threat.Parse(string(text))
	*r = Radius(v)
	return err
}

// Settings are everything that decides a run: the same settings and data give the same weights, bit for bit, on the
// same machine and backend. They are written to run.json.
type Settings struct {
	Recipe string `json:"recipe,omitempty"`
	Method string `json:"method"`
	Model  string `json:"model"`
	Data   string `json:"data"`
	Seed   uint64 `json:"seed"`

	Teachers []string `json:"teachers,omitempty"` // files or run folders

	Epochs       int     `json:"epochs"`
	BatchSize    int     `json:"batch_size"`
	TrainSamples int     `json:"train_samples,omitempty"` // a class-balanced subset; 0 takes all
	HeldOut      float64 `json:"held_out"`                // share of the training images that chooses the checkpoint
	Augment      bool    `json:"augment"`                 // random crop after padding by 4, and horizontal flip where the data allows

	Search Search `json:"search"`

	Alpha        float64 `json:"alpha,omitempty"`
	Temperature  float64 `json:"temperature,omitempty"`
	Reduction    string  `json:"kl_reduction,omitempty"`  // sum, batchmean or mean
	ForwardClean bool    `json:"forward_clean,omitempty"` // PGD-AT: the clean images move the running statistics too

	Optimizer   string  `json:"optimizer"` // sgd or adam
	LR          float64 `json:"lr"`
	Momentum    float64 `json:"momentum,omitempty"`
	WeightDecay float64 `json:"weight_decay"`
	Clip        float64 `json:"clip,omitempty"` // global gradient norm; 0 does not clip

	Schedule     string  `json:"schedule"`                // piecewise, cosine, one-cycle or constant
	Milestones   []int   `json:"milestones,omitempty"`    // piecewise: the epochs at which the rate drops tenfold
	MilestonesOf int     `json:"milestones_of,omitempty"` // in a run of so many; a run of another length scales them
	WarmUp       float64 `json:"warm_up,omitempty"`       // epochs of linear warm-up

	EMA float64 `json:"ema,omitempty"` // decay of an exponential moving average of the weights; 0 keeps none
	SWA float64 `json:"swa,omitempty"` // share of the run after which epochs are averaged; 0 keeps none

	ValidationSteps   int `json:"validation_steps"`             // PGD steps of the per-epoch validation; 0 chooses by clean accuracy
	ValidationSamples int `json:"validation_samples,omitempty"` // of the held-out images; 0 takes all
}

// Search are the settings of the inner search.
type Search struct {
	Epsilon   Radius `json:"epsilon"`
	StepSize  Radius `json:"step_size"`
	Steps     int    `json:"steps"`
	Start     string `json:"start"`                // image, gaussian or uniform
	ClipStart bool   `json:"clip_start,omitempty"` // the start is clipped to [0,1]
	BatchNorm string `json:"batch_norm"`           // the student's mode in the search: eval or train
}

// threat is the ball and the search in it.
func (s Search) threat() (threat.Model, classifier.Mode, error) {
	m := threat.Model{Norm: threat.Linf, Epsilon: float64(s.Epsilon), StepSize: float64(s.StepSize), Steps: s.Steps, ClipStart: s.ClipStart}
	start := slices.Index([]string{"image", "gaussian", "uniform"}, s.Start)
	if start < 0 {
		return m, 0, fmt.Errorf("search start is %q, expected image, gaussian or uniform", s.Start)
	}
	m.Start = threat.Start(start)
	mode := slices.Index([]string{"eval", "train"}, s.BatchNorm)
	if mode < 0 {
		return m, 0, fmt.Errorf("search batch norm is %q, expected eval or train", s.BatchNorm)
	}
	return m, classifier.Mode(mode), m.Validate()
}

// Method is one entry of the list of methods.
type Method struct {
	Name     string `json:"name"`
	Source   string `json:"source"`
	What     string `json:"what"` // what the student learns
	Teachers int    `json:"teachers"`

	build func(s Settings) (distill.Method, error)
}

// Methods lists the methods.
func Methods() []Method { return methods }

var methods = []Method{
	{"natural", "-", "cross-entropy on clean images", 0, func(s Settings) (distill.Method, error) {
		return distill.Natural(), nil
	}},
	{"kd", "Hinton et al. 2015", "the teacher's softened logits on clean images", 1, func(s Settings) (distill.Method, error) {
		r, err := s.kl()
		return distill.KD(distill.KDSettings{Alpha: s.Alpha, Temperature: s.Temperature, Reduction: r}), err
	}},
	{"pgd-at", "Madry et al. 2018", "cross-entropy on PGD's images", 0, func(s Settings) (distill.Method, error) {
		m, mode, err := s.Search.threat()
		return distill.PGDAT(distill.PGDATSettings{Threat: m, SearchMode: mode, ForwardClean: s.ForwardClean}), err
	}},
	{"adaad", "Huang et al. 2023", "agree with the teacher where the two disagree most", 1, func(s Settings) (distill.Method, error) {
		m, mode, err := s.Search.threat()
		if err != nil {
			return distill.Method{}, err
		}
		r, err := s.kl()
		return distill.AdaAD(distill.AdaADSettings{Threat: m, SearchMode: mode, Alpha: s.Alpha, Temperature: s.Temperature, Reduction: r}), err
	}},
}

// kl checks and reads the settings of a KL divergence.
func (s Settings) kl() (distill.Reduction, error) {
	if !(s.Temperature > 0) {
		return 0, fmt.Errorf("temperature is %g, expected more than 0", s.Temperature)
	}
	if !(s.Alpha >= 0 && s.Alpha <= 1) {
		return 0, fmt.Errorf("alpha is %g, expected a weight from 0 to 1", s.Alpha)
	}
	return distill.ParseReduction(s.Reduction)
}

// BuildMethod makes the method the settings name.
func (s Settings) BuildMethod() (distill.Method, error) {
	for _, m := range methods {
		if m.Name == s.Method {
			return m.build(s)
		}
	}
	return distill.Method{}, fmt.Errorf("method is %q, expected one of %s", s.Method, strings.Join(MethodNames(), ", "))
}

// MethodNames lists the methods.
func MethodNames() []string {
	var names []string
	for _, m := range methods {
		names = append(names, m.Name)
	}
	return names
}
