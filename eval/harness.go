package eval

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/threat"
)

// defaultBatch is how many images are answered at once where nobody says: on a CPU more are hardly faster.
const defaultBatch = 128

// harness takes images through what is measured: the clean image, then every attack of every suite on those that stand.
type harness struct {
	classifier attack.Classifier
	set        *data.Set
	ball       threat.Model
	suites     []attack.Suite
	seed       uint64
	batch      int
}

// record is what became of one image.
type record struct {
	row     Row
	outside map[string]float32 // by how much, for attacks that proposed something outside of the ball
	spent   attack.Cost
}

// run takes the images at the given positions of the set through everything. done hears of each image that is finished,
// called of each call of the classifier.
func (h *harness) run(ctx context.Context, positions []int, done func(position int, r record) error, called func(attack.Cost)) error {
	records := make([]record, len(positions))
	crowd := attack.Crowd{
		Classifier: h.classifier,
		Batch:      h.batch,
		Seed:       h.seed,
		Called:     called,
		Next:       func(i int) ([]float32, int, int) { return h.image(positions[i]) },
		Work: func(i int, im *attack.Image) (err error) {
			records[i], err = h.attack(im)
			return err
		},
		Done: func(i int, im *attack.Image) error {
			records[i].spent = im.Spent
			return done(positions[i], records[i])
		},
	}
	return crowd.Run(ctx, len(positions))
}

// image is the one at a position of the set: its pixels, label and key.
func (h *harness) image(at int) (pixels []float32, label, key int) {
	pixels = make([]float32, h.set.ImageSize())
	data.Floats(pixels, h.set.Image(at))
	return pixels, h.set.Labels[at], h.set.Index[at]
}

// attack takes one image through everything. A suite goes on to its next attack while the image stands.
func (h *harness) attack(im *attack.Image) (record, error) {
	r := record{row: Row{Index: im.Key, Label: im.Label, Seed: im.Seed}, outside: map[string]float32{}}
	clean, _, err := h.judge(im, im.X)
	if err != nil {
		return r, err
	}
	r.row.Prediction, r.row.Margin = clean.Prediction, clean.Margin
	for _, s := range h.suites {
		if clean.Broken {
			break
		}
		var worst Outcome
		for i, a := range s.Attacks {
			before := im.Spent
			proposed, err := a.Perturb(im)
			if err != nil {
				return r, fmt.Errorf("%s: %w", a.Name(), err)
			}
			spent := im.Spent
			if len(proposed) != len(im.X) {
				return r, fmt.Errorf("%s proposed an image of %d values, expected %d", a.Name(), len(proposed), len(im.X))
			}
			o, excess, err := h.judge(im, proposed)
			if err != nil {
				return r, err
			}
			o.Suite, o.Attack = s.Name, a.Name()
			o.Step = spent.Gradients + spent.Forwards - before.Gradients - before.Forwards
			if excess > tolerance {
				r.outside[a.Name()] = max(excess, r.outside[a.Name()])
			}
			if i == 0 || o.Broken || o.Margin < worst.Margin {
				worst = o
			}
			if o.Broken {
				break
			}
		}
		r.row.Attacks = append(r.row.Attacks, worst)
	}
	r.row.BrokenBy = r.row.breaker()
	return r, nil
}

// tolerance is how far outside of the ball rounding may put a point, in [0,1] pixels.
const tolerance = 1e-5

// clip puts a proposal into the ball and into [0,1], and says how far that moved a pixel at most. A pixel that is no number is
// put back to the image's and counts as moved by 1.
func (h *harness) clip(im *attack.Image, proposed []float32) (valid []float32, excess float32) {
	valid = slices.Clone(proposed)
	for i, v := range valid {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			valid[i], excess = im.X[i], 1
		}
	}
	h.ball.Norm.ProjectPoint(im.X, valid, h.ball.Epsilon)
	for i, v := range valid {
		if d := float32(math.Abs(float64(v - proposed[i]))); d > excess {
			excess = d
		}
	}
	return valid, excess
}

// judge clips a proposal and decides on a fresh forward pass.
func (h *harness) judge(im *attack.Image, proposed []float32) (o Outcome, excess float32, err error) {
	valid, excess := h.clip(im, proposed)
	logits, err := im.Logits(valid)
	if err != nil {
		return Outcome{}, 0, err
	}
	o.Prediction, o.Margin = attack.Answer(logits, im.Label)
	o.Broken, o.Norm = o.Prediction != im.Label, float32(h.ball.Norm.Distance(valid, im.X))
	return o, excess, nil
}

// cost is the most that the evaluation asks about one image: everything the attacks may, and one fresh pass for each.
func (h *harness) cost() attack.Cost {
	sum := attack.Cost{Forwards: 1}
	for _, s := range h.suites {
		sum = sum.Add(s.Cost(h.classifier.Classes())).Add(attack.Cost{Forwards: len(s.Attacks)})
	}
	return sum
}
