package recipe

import (
	"fmt"

	"github.com/adaad-go/adaad/train"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
)

// Compute is what training costs for each image it sees: the multiply-adds of the search and of the update, all gradients
// and all teachers included, before the method begins and from then on. They are the same for most methods.
type Compute struct{ Before, Then int64 }

// Compute counts the multiply-adds of one step before and after the method begins, as the backend executes it. The backend
// must be one that counts, as vec does. Weight perturbation counts from the first epoch.
func (j *Job) Compute(backend compute.Backend) (Compute, error) {
	counter, counts := backend.(interface{ MACs() int64 })
	if !counts {
		return Compute{}, fmt.Errorf("backend %s does not count multiply-adds; vec does", backend.Name())
	}
	const images = 2
	x := tensors.FromShape(shapes.Make(dtypes.Float32, images, j.Train.Height, j.Train.Width, j.Train.Channels))
	y := tensors.FromFlatDataAndDimensions([]int32{0, 1}, images)
	var perImage []int64
	for _, p := range phases(j.method, 0) {
		p.Objective.Gamma = j.Settings.AWP
		s, err := train.NewStepper(backend, j.Student, j.Teachers, p.Objective, j.optimizer, 0, false)
		if err != nil {
			return Compute{}, err
		}
		before := counter.MACs()
		if _, err := s.Step(x, x, y, 0, 0); err != nil {
			return Compute{}, err
		}
		perImage = append(perImage, (counter.MACs()-before)/images)
	}
	return Compute{perImage[0], perImage[len(perImage)-1]}, nil
}

// MACs are the multiply-adds of a run with the settings on so many images, validation aside.
func (s Settings) MACs(c Compute, images int) int64 {
	perEpoch := int64(images / s.BatchSize * s.BatchSize)
	return perEpoch * (int64(s.Begin)*c.Before + int64(s.Epochs-s.Begin)*c.Then)
}

// Spend sets the number of epochs with which a run comes nearest to a budget of multiply-adds, at least one.
func (s *Settings) Spend(budget int64, c Compute, images int) {
	if images < s.BatchSize {
		return // such a run is refused: it has no step
	}
	apart := func(s Settings) int64 { return max(s.MACs(c, images)-budget, budget-s.MACs(c, images)) }
	best := *s
	for n := 1; ; n++ {
		next := *s
		next.SetEpochs(n)
		if n == 1 || apart(next) < apart(best) {
			best = next
		}
		if next.MACs(c, images) >= budget {
			*s = best
			return
		}
	}
}
