package eval

import (
	"context"
	"fmt"
	"math"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
)

// defaultBatch is how many images are attacked at once where nobody says: enough to keep a CPU busy, and few enough that
// the last batch of every attack, which is seldom full, wastes little.
const defaultBatch = 32

// harness takes images through stages: the clean image first, then every attack of every suite. Images wait at each
// stage until they fill a batch, so that the survivors of one attack are packed together for the next.
type harness struct {
	victim *attack.Victim
	set    *data.Set
	ball   threat.Model
	stages []stage // the first is the clean image
	seed   uint64
}

// stage is one attack. Nil proposes the clean image.
type stage struct {
	attack attack.Attack
	suite  string
	last   bool // of its suite

	outside int     // images for which it proposed something outside of the ball
	excess  float32 // and by how much at most
}

func newHarness(backend compute.Backend, model *classifier.Model, set *data.Set, ball threat.Model, suites []attack.Suite,
	seed uint64, batchSize int) (*harness, error) {
	if batchSize == 0 {
		batchSize = defaultBatch
	}
	victim, err := attack.NewVictim(backend, model, min(batchSize, set.Len()))
	if err != nil {
		return nil, err
	}
	h := &harness{victim: victim, set: set, ball: ball, stages: []stage{{}}, seed: seed}
	for _, s := range suites {
		for i, a := range s.Attacks {
			h.stages = append(h.stages, stage{attack: a, suite: s.Name, last: i == len(s.Attacks)-1})
		}
	}
	return h, nil
}

// run takes the images of the set from the first-th on through all stages. It gives every row to done, in the order of
// the set, and after each batch tells progress how many images are finished and what just ran.
func (h *harness) run(ctx context.Context, first int, done func(Row) error, progress func(finished int, name string)) error {
	queues := make([][]int, len(h.stages)) // positions in the set
	for i := first; i < h.set.Len(); i++ {
		queues[0] = append(queues[0], i)
	}
	underWay, ready := map[int]*Row{}, map[int]Row{} // by position; ready waits for those before it
	finished, next := 0, first
	for {
		k := pick(queues, h.victim.BatchSize())
		if k < 0 {
			return nil
		}
		n := min(len(queues[k]), h.victim.BatchSize())
		images := queues[k][:n]
		queues[k] = queues[k][n:]
		trials, err := h.try(ctx, &h.stages[k], images)
		if err != nil {
			return err
		}
		for i, at := range images {
			if k == 0 {
				underWay[at] = &Row{Index: h.set.Index[at], Label: h.set.Labels[at], Seed: h.seed}
			}
			row := underWay[at]
			if to := h.advance(row, k, trials[i]); to < len(h.stages) {
				queues[to] = append(queues[to], at)
				continue
			}
			row.BrokenBy = row.breaker()
			ready[at] = *row
			delete(underWay, at)
			finished++
		}
		for row, ok := ready[next]; ok; row, ok = ready[next] {
			if err := done(row); err != nil {
				return err
			}
			delete(ready, next)
			next++
		}
		name := "clean"
		if a := h.stages[k].attack; a != nil {
			name = a.Name()
		}
		progress(finished, name)
	}
}

// pick is the stage to run next: the last that has a full batch waiting, so that few images are under way at a time;
// where none has, the first that has any, so that its survivors can fill a later batch. -1 where none waits.
func pick(queues [][]int, batch int) int {
	first := -1
	for k := len(queues) - 1; k >= 0; k-- {
		if len(queues[k]) >= batch {
			return k
		}
		if len(queues[k]) > 0 {
			first = k
		}
	}
	return first
}

// advance notes in an image's row what stage k did to it and returns the stage where it goes on: the next attack of the
// suite while it stands, the next suite once it fell, the end where the clean image is wrong already.
func (h *harness) advance(row *Row, k int, t trial) int {
	if k == 0 {
		row.Prediction, row.Margin = t.prediction, t.margin
		if t.prediction != row.Label {
			return len(h.stages)
		}
		return 1
	}
	s := h.stages[k]
	o := Outcome{s.suite, s.attack.Name(), t.prediction != row.Label, t.prediction, t.margin, t.norm}
	isFirst := h.stages[k-1].attack == nil || h.stages[k-1].last
	switch {
	case isFirst:
		row.Attacks = append(row.Attacks, o)
	case o.Broken || o.Margin < row.Attacks[len(row.Attacks)-1].Margin:
		row.Attacks[len(row.Attacks)-1] = o
	}
	if o.Broken {
		for !h.stages[k].last {
			k++
		}
	}
	return k + 1
}

// trial is the decision on one proposed image.
type trial struct {
	prediction   int
	margin, norm float32
}

// try attacks up to a batch of images and decides on each.
func (h *harness) try(ctx context.Context, s *stage, images []int) ([]trial, error) {
	b, err := h.batch(images)
	if err != nil {
		return nil, err
	}
	defer b.Finalize()
	proposed := b.X
	if s.attack != nil {
		if proposed, err = s.attack.Perturb(ctx, h.victim, b); err != nil {
			return nil, fmt.Errorf("%s: %w", s.attack.Name(), err)
		}
		defer proposed.MustFinalizeAll()
	}
	if !proposed.Shape().Equal(b.X.Shape()) {
		return nil, fmt.Errorf("%s proposed images of shape %s, expected %s", s.attack.Name(), proposed.Shape(), b.X.Shape())
	}
	out, err := h.victim.Run(ctx, judgeKey{h.ball.Norm, h.ball.Epsilon}, h.judge, b.X, proposed)
	if err != nil {
		return nil, err
	}
	logits, err := attack.Rows(out[0])
	if err != nil {
		return nil, err
	}
	distances, err := attack.Rows(out[1])
	if err != nil {
		return nil, err
	}
	trials := make([]trial, len(images))
	for i := range trials {
		trials[i].prediction, trials[i].margin = answer(logits[i], h.set.Labels[images[i]])
		trials[i].norm = distances[i][0]
		if excess := distances[i][1]; excess > tolerance {
			s.outside++
			s.excess = max(s.excess, excess)
		}
	}
	return trials, nil
}

// tolerance is how far outside of the ball rounding may put a point, in [0,1] pixels.
const tolerance = 1e-5

func (h *harness) batch(images []int) (*attack.Batch, error) {
	pixels := make([]float32, len(images)*h.set.ImageSize())
	labels, keys := make([]int32, len(images)), make([]int, len(images))
	h.set.Batch(pixels, labels, images)
	for i, at := range images {
		keys[i] = h.set.Index[at]
	}
	return h.victim.NewBatch(pixels, labels, keys, h.seed)
}

type judgeKey struct {
	norm    threat.Norm
	epsilon float64
}

// judge is the graph of the decision: from images and proposals it returns the logits of the proposals clipped to the
// ball and to [0,1], and [N,2]: the norm of the clipped perturbation, and how far any pixel was moved by the clipping.
// A pixel that is no number is put back to the image's and counts as moved by 1.
func (h *harness) judge(net *classifier.Bound, in []*Node) []*Node {
	x, proposed := in[0], in[1]
	isNumber := IsFinite(proposed)
	valid := h.ball.Project(x, Where(isNumber, proposed, x))
	moved := Where(isNumber, Abs(Sub(proposed, valid)), OnesLike(x))
	var norm *Node
	switch d := Sub(valid, x); h.ball.Norm {
	case threat.Linf:
		norm = ReduceMax(Abs(d), 1, 2, 3)
	case threat.L2:
		norm = Sqrt(ReduceSum(Square(d), 1, 2, 3))
	}
	return []*Node{net.Logits(valid, classifier.Eval), Stack([]*Node{norm, ReduceMax(moved, 1, 2, 3)}, 1)}
}

// answer is the prediction and the margin of one image's logits, as Row defines them. Margins stay finite, as JSON has
// no infinity: logits that are not finite have the lowest margin there is.
func answer(logits []float32, label int) (prediction int, margin float32) {
	other := float32(math.Inf(-1))
	for i, z := range logits {
		if math.IsNaN(float64(z)) || math.IsInf(float64(z), 0) {
			return -1, -math.MaxFloat32
		}
		if z > logits[prediction] {
			prediction = i
		}
		if i != label {
			other = max(other, z)
		}
	}
	return prediction, max(-math.MaxFloat32, min(logits[label]-other, math.MaxFloat32))
}
