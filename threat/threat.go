// Package threat says what an attacker may do: how far from an image it may go, in which norm, and how a search in
// that ball starts, steps and stays inside. Pixels are in [0,1] and epsilon is in the same unit.
package threat

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	. "github.com/gomlx/gomlx/core/graph"
)

// Norm is the norm of the ball.
type Norm int

// The norms.
const (
	Linf Norm = iota
	L2
)

func (n Norm) String() string {
	if n == L2 {
		return "L2"
	}
	return "Linf"
}

// Start is where a search begins.
type Start int

const (
	// FromImage begins at the clean image.
	FromImage Start = iota
	// Gaussian begins at x + 0.001 N(0,1) (TRADES, and the methods after it).
	Gaussian
	// Uniform begins at a uniform point: each offset from U(-eps, eps) for Linf; a uniform point of the ball for L2.
	Uniform
)

func (s Start) String() string { return [...]string{"image", "gaussian", "uniform"}[s] }

// Model is an attacker's power and the search it makes with it.
type Model struct {
	Norm     Norm
	Epsilon  float64 // radius, in [0,1] pixels
	StepSize float64 // length of a step, in the same unit
	Steps    int     // number of steps
	Start    Start

	// ClipStart clips the start to [0,1], as the authors' PGD-AT does and their AdaAD does not; without it the first step
	// is taken from a point that may lie outside.
	ClipStart bool
}

// Validate refuses settings that cannot be meant.
func (m Model) Validate() error {
	switch {
	case !(m.Epsilon >= 0) || math.IsInf(m.Epsilon, 0):
		return fmt.Errorf("epsilon is %g, expected a radius of at least 0", m.Epsilon)
	case m.Norm == Linf && m.Epsilon > 1:
		return fmt.Errorf("epsilon is %g, but pixels are in [0,1]; was %g/255 meant?", m.Epsilon, m.Epsilon)
	case m.Steps < 0:
		return fmt.Errorf("steps is %d, expected at least 0", m.Steps)
	case m.Steps > 0 && !(m.StepSize > 0):
		return fmt.Errorf("step size is %g, expected more than 0", m.StepSize)
	case m.Norm == Linf && m.StepSize > 2:
		return fmt.Errorf("step size is %g, but pixels are in [0,1]; was %g/255 meant?", m.StepSize, m.StepSize)
	}
	return nil
}

func (m Model) String() string {
	return fmt.Sprintf("%s eps %s, %d steps of %s from %s", m.Norm, Format(m.Epsilon), m.Steps, Format(m.StepSize), m.Start)
}

// Ascend takes one step of length StepSize that raises an objective with gradient grad at xAdv, then projects onto the
// ball around x and onto [0,1]:
//
//	Linf: P(xAdv + StepSize sign(grad))    L2: P(xAdv + StepSize grad/|grad|_2)
//
// All arguments and the result are float [N,H,W,C].
func (m Model) Ascend(x, xAdv, grad *Node) *Node {
	var step *Node
	switch m.Norm {
	case Linf:
		step = Sign(grad)
	case L2:
		step = Div(grad, AddScalar(norms(grad), 1e-12))
	}
	return m.Project(x, Add(xAdv, MulScalar(step, m.StepSize)))
}

// Project returns the point of the ball around x nearest to xAdv, clipped to [0,1].
func (m Model) Project(x, xAdv *Node) *Node {
	switch m.Norm {
	case Linf:
		xAdv = Max(Min(xAdv, AddScalar(x, m.Epsilon)), AddScalar(x, -m.Epsilon))
	case L2:
		d := Sub(xAdv, x)
		shrink := Min(Div(Scalar(x.Graph(), x.DType(), m.Epsilon), AddScalar(norms(d), 1e-12)), ScalarOne(x.Graph(), x.DType()))
		xAdv = Add(x, Mul(d, shrink))
	}
	return ClipScalar(xAdv, 0, 1)
}

// Size is how far each image is from its clean one in the model's norm, [N].
func (m Model) Size(x, xAdv *Node) *Node {
	d := Sub(xAdv, x)
	if m.Norm == L2 {
		return Sqrt(ReduceSum(Square(d), 1, 2, 3))
	}
	return ReduceMax(Abs(d), 1, 2, 3)
}

// norms is the L2 norm of every image, [N,1,1,1].
func norms(d *Node) *Node {
	return Sqrt(ReduceAndKeep(Square(d), ReduceSum, 1, 2, 3))
}

// Begin fills start with the point at which a search for one image x begins.
func (m Model) Begin(r *rand.Rand, x, start []float32) {
	m.Offset(r, start)
	for i, v := range x {
		start[i] += v
		if m.ClipStart {
			start[i] = min(max(start[i], 0), 1)
		}
	}
}

// BeginAt is [Model.Begin] in a graph, given what [Model.Offset] drew.
func (m Model) BeginAt(x, offset *Node) *Node {
	start := Add(offset, x)
	if m.ClipStart {
		start = ClipScalar(start, 0, 1)
	}
	return start
}

// Offset fills in how far from the image a search begins.
func (m Model) Offset(r *rand.Rand, offset []float32) {
	switch m.Start {
	case FromImage:
		clear(offset)
	case Gaussian:
		for i := range offset {
			offset[i] = float32(0.001 * r.NormFloat64())
		}
	case Uniform:
		if m.Norm == Linf {
			for i := range offset {
				offset[i] = float32(m.Epsilon * (2*r.Float64() - 1))
			}
			return
		}
		var sum float64
		for i := range offset {
			v := r.NormFloat64()
			offset[i], sum = float32(v), sum+v*v
		}
		scale := m.Epsilon * math.Pow(r.Float64(), 1/float64(len(offset))) / math.Sqrt(sum)
		for i := range offset {
			offset[i] *= float32(scale)
		}
	}
}

// Parse reads a radius or a step size as people write it: "8/255" or "0.031".
func Parse(s string) (float64, error) {
	num, den, isFraction := strings.Cut(strings.TrimSpace(s), "/")
	v, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
	if err == nil && isFraction {
		var d float64
		if d, err = strconv.ParseFloat(strings.TrimSpace(den), 64); err == nil {
			v /= d
		}
	}
	if err != nil || !(v >= 0) || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%q is no radius; write a fraction such as 8/255 or a number such as 0.031", s)
	}
	return v, nil
}

// Format writes a radius as people write it: as n/255 where it is one, else as a number.
func Format(v float64) string {
	if n := v * 255; n != 0 && math.Abs(n-math.Round(n)) < 1e-9 && n < 256 {
		return fmt.Sprintf("%.0f/255", n)
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}
