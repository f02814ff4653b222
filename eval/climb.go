package eval

import (
	"context"
	"fmt"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/distill"
	"github.com/adaad-go/adaad/internal/share"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// climb is one compiled step of a search: from points of the balls to points where an objective is larger.
type climb struct {
	exec  *Exec
	state []*tensors.Tensor // parameters of the networks in it
	dims  []int             // of the images
}

// newDisagreement climbs KL(T(x') || S(x')) as AdaAD's search does.
func newDisagreement(backend compute.Backend, power threat.Model, teacher, student *classifier.Model, size int) (*climb, error) {
	adaad := distill.AdaAD(distill.AdaADSettings{SearchMode: classifier.Eval, Temperature: 1})
	split := len(teacher.State)
	return newClimb(backend, power, student.Network, size, append(teacher.State[:split:split], student.State...),
		func(points, _ *Node, state []*Node) *Node {
			return adaad.Search(&classifier.Batch{
				Teachers: []*classifier.Bound{classifier.Bind(teacher.Network, state[:split])},
				Student:  classifier.Bind(student.Network, state[split:]),
				XAdv:     points,
			})
		})
}

// newSteepening climbs |softmax f(x') - softmax f(x)|_1, given f's logits at x.
func newSteepening(backend compute.Backend, power threat.Model, model *classifier.Model, size int) (*climb, error) {
	return newClimb(backend, power, model.Network, size, model.State, func(points, clean *Node, state []*Node) *Node {
		there := Softmax(classifier.Bind(model.Network, state).Logits(points, classifier.Eval), 1)
		return ReduceAllSum(Abs(Sub(there, Softmax(clean, 1))))
	})
}

// newClimb compiles a step for a batch size. The objective, a sum over images, depends on the points, the logits at the
// clean images and the networks' parameters.
func newClimb(backend compute.Backend, power threat.Model, net classifier.Network, size int, state []*tensors.Tensor,
	objective func(points, clean *Node, state []*Node) *Node) (*climb, error) {
	exec, err := NewExec(backend, func(args []*Node) []*Node {
		x, points, clean := args[0], args[1], args[2]
		slope := Gradient(objective(points, clean, args[3:]), points)[0]
		return []*Node{power.Ascend(x, points, slope)}
	})
	if err != nil {
		return nil, fmt.Errorf("preparing a search over %s: %w", net.Name(), err)
	}
	var none share.Batches
	share.Exec(exec, backend, none.Batch(3).Then(1), none.Batch(1))
	h, w, c := net.Input()
	return &climb{exec, state, []int{size, h, w, c}}, nil
}

// from takes the step from points of the balls around x.
func (c *climb) from(x, points, clean []float32) ([]float32, error) {
	inputs := []*tensors.Tensor{
		tensors.FromFlatDataAndDimensions(x, c.dims...), tensors.FromFlatDataAndDimensions(points, c.dims...),
		tensors.FromFlatDataAndDimensions(clean, c.dims[0], len(clean)/c.dims[0]),
	}
	var args []any
	for _, t := range append(inputs, c.state...) {
		args = append(args, t)
	}
	out, err := c.exec.Call(args...)
	for _, t := range inputs {
		t.MustFinalizeAll()
	}
	if err != nil {
		return nil, fmt.Errorf("searching the ball: %w", err)
	}
	defer out[0].MustFinalizeAll()
	return tensors.CopyFlatData[float32](out[0])
}

// searches are the two networks and their searches, in batches of one size.
type searches struct {
	size             int
	teacher, student *attack.Victim
	disagree         *climb
	steepenTeacher   *climb
	steepenStudent   *climb
}

func newSearches(backend compute.Backend, m MatchGap) (s *searches, err error) {
	s = &searches{size: min(batchSize(m.BatchSize), m.Set.Len())}
	if s.disagree, err = newDisagreement(backend, m.Search, m.Teacher, m.Student, s.size); err != nil {
		return nil, err
	}
	if s.steepenTeacher, err = newSteepening(backend, m.Search, m.Teacher, s.size); err != nil {
		return nil, err
	}
	if s.steepenStudent, err = newSteepening(backend, m.Search, m.Student, s.size); err != nil {
		return nil, err
	}
	s.teacher, s.student = attack.NewVictim(backend, m.Teacher), attack.NewVictim(backend, m.Student)
	return s, nil
}

// visit asks both networks about points.
func (s *searches) visit(ctx context.Context, points []float32) (v visit, err error) {
	v.points = points
	if v.teacher, err = s.teacher.Logits(ctx, points[:len(points):len(points)]); err != nil {
		return v, err
	}
	v.student, err = s.student.Logits(ctx, points[:len(points):len(points)])
	return v, err
}

// walk takes so many steps of a search from a start and returns the points on the way.
func (s *searches) walk(ctx context.Context, steps int, c *climb, x, start, clean []float32) ([]visit, error) {
	var way []visit
	for at := start; len(way) < steps; {
		next, err := c.from(x, at, clean)
		if err != nil {
			return nil, err
		}
		v, err := s.visit(ctx, next)
		if err != nil {
			return nil, err
		}
		way, at = append(way, v), next
	}
	return way, nil
}

func (s *searches) finalize() {
	for _, c := range []*climb{s.disagree, s.steepenTeacher, s.steepenStudent} {
		c.exec.Finalize()
	}
	s.teacher.Finalize()
	s.student.Finalize()
}
