// Package recipe joins methods, networks, data and the training loop: a recipe is a full set of settings with a name,
// and running one takes images to a measured model.
package recipe

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
)

// Radius is a distance in [0,1] pixels, written and read as people write it: "8/255".
type Radius float64

// MarshalText writes 8/255 where the radius is just that, else the shortest number that is read back as the same radius:
// a run that is resumed searches as it did.
func (r Radius) MarshalText() ([]byte, error) {
	if n := math.Round(float64(r) * 255); n > 0 && n < 256 && Radius(n/255) == r {
		return fmt.Appendf(nil, "%.0f/255", n), nil
	}
	return strconv.AppendFloat(nil, float64(r), 'g', -1, 64), nil
}

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

	Precision string `json:"precision,omitempty"` // of convolutions and matrix products: fp32, the default, or bf16

	Search Search `json:"search"`

	// What the methods ask for besides; each takes those that adaad methods lists, and refuses the others.
	Base           string  `json:"base,omitempty"`            // IGDM: the method it is added to
	Alpha          float64 `json:"alpha,omitempty"`           // weight of the teacher or of the perturbed images, as in the paper
	Beta           float64 `json:"beta,omitempty"`            // the paper's β: a weight (TRADES, SCORE, SAAD) or an exponent (IAD, MTARD, Fair-ARD)
	Lambda         float64 `json:"lambda,omitempty"`          // IGDM, SAAD: weight of the gradients' match at the end of the run
	Temperature    float64 `json:"temperature,omitempty"`     // of the teacher's divergence
	Reduction      string  `json:"kl_reduction,omitempty"`    // sum, batchmean or mean
	Scale          float64 `json:"scale,omitempty"`           // RSLAD: factor of the loss
	ForwardClean   bool    `json:"forward_clean,omitempty"`   // also the train-mode passes that only the authors' code makes
	Begin          int     `json:"begin,omitempty"`           // IAD, AdaIAD: epochs before introspection
	NaturalWeight  float64 `json:"natural_weight,omitempty"`  // IAD-II: weight of the naturally trained teacher
	WeightRate     float64 `json:"weight_rate,omitempty"`     // MTARD: how fast the losses' weights move; it drops with the learning rate
	Correction     float64 `json:"correction,omitempty"`      // SAAD: how far the search follows the teacher's gradient
	EntropyScale   float64 `json:"entropy_scale,omitempty"`   // SAAD: factor of an image's weight
	LabelSmoothing float64 `json:"label_smoothing,omitempty"` // SCORE: share of the label's weight for the other classes
	Power          float64 `json:"power,omitempty"`           // CCAT: how fast confidence is to fall with the perturbation
	CleanShare     float64 `json:"clean_share,omitempty"`     // CCAT: share of each batch that stays clean

	Optimizer   string  `json:"optimizer"` // sgd or adam
	LR          float64 `json:"lr"`
	Momentum    float64 `json:"momentum,omitempty"`
	Nesterov    bool    `json:"nesterov,omitempty"`
	WeightDecay float64 `json:"weight_decay"`
	Clip        float64 `json:"clip,omitempty"` // global gradient norm; 0 does not clip

	Schedule     string  `json:"schedule"`                // piecewise, cosine, one-cycle or constant
	Milestones   []int   `json:"milestones,omitempty"`    // piecewise: the epochs at which the rate drops tenfold
	MilestonesOf int     `json:"milestones_of,omitempty"` // in a run of so many; a run of another length scales them
	WarmUp       float64 `json:"warm_up,omitempty"`       // epochs of linear warm-up

	EMA float64 `json:"ema,omitempty"` // decay of an exponential moving average of the weights; 0 keeps none
	SWA float64 `json:"swa,omitempty"` // share of the run after which epochs are averaged; 0 keeps none

	AWP       float64 `json:"awp,omitempty"`         // size of the adversarial weight perturbation, a share of each layer's norm; 0 for none
	AWPWarmUp int     `json:"awp_warm_up,omitempty"` // epochs without it

	ValidationSteps   int `json:"validation_steps"`             // PGD steps of the per-epoch validation; 0 chooses by clean accuracy
	ValidationSamples int `json:"validation_samples,omitempty"` // of the held-out images; 0 takes all

	ValidationEpsilon Radius `json:"validation_epsilon,omitempty"` // radius of the validation; 0 takes the search's
}

// Search are the settings of the inner search.
type Search struct {
	Epsilon   Radius `json:"epsilon"`
	StepSize  Radius `json:"step_size"`
	Steps     int    `json:"steps"`
	Start     string `json:"start"`                // image, gaussian or uniform
	ClipStart bool   `json:"clip_start,omitempty"` // the start is clipped to [0,1]
	BatchNorm string `json:"batch_norm"`           // the student's mode in the search: eval, train or frozen
	Ramp      int    `json:"ramp,omitempty"`       // epochs over which the radius grows to its size, in equal steps, as its step does
}

// threat is the ball and the search in it.
func (s Search) threat() (threat.Model, classifier.Mode, error) {
	m := threat.Model{Norm: threat.Linf, Epsilon: float64(s.Epsilon), StepSize: float64(s.StepSize), Steps: s.Steps, ClipStart: s.ClipStart}
	start := slices.Index([]string{"image", "gaussian", "uniform"}, s.Start)
	if start < 0 {
		return m, 0, fmt.Errorf("search start is %q, expected image, gaussian or uniform", s.Start)
	}
	m.Start = threat.Start(start)
	mode := slices.Index([]string{"eval", "train", "frozen"}, s.BatchNorm)
	if mode < 0 {
		return m, 0, fmt.Errorf("search batch norm is %q, expected eval, train or frozen", s.BatchNorm)
	}
	return m, classifier.Mode(mode), m.Validate()
}
