// Package classifier says what a model is to the rest of the house: float32 images in [0,1], laid out N,H,W,C, go in;
// logits of shape [N, classes] come out. Networks are graph functions over named parameters, so that methods and
// attacks differentiate through them on any backend.
package classifier

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Mode is how batch norm behaves in a forward pass.
type Mode int

const (
	// Eval normalises with the running statistics; images do not see each other.
	Eval Mode = iota
	// Train normalises with the statistics of the batch and moves the running statistics.
	Train
	// Frozen normalises with the statistics of the batch and leaves the running statistics alone. A network sees it as
	// Train: [Bound.Logits] puts the statistics back.
	Frozen
)

func (m Mode) String() string { return [...]string{"eval", "train", "frozen"}[m] }

// Kind is what a parameter is for; it decides initialisation and whether an optimizer moves it.
type Kind int

// The kinds of parameters.
const (
	ConvWeight   Kind = iota // [out, in/groups, kh, kw]
	LinearWeight             // [out, in]
	Bias                     // [out]
	NormWeight               // batch norm's gamma, [channels]
	NormBias                 // batch norm's beta, [channels]
	RunningMean              // batch norm's running mean, [channels]
	RunningVar               // batch norm's running variance (unbiased), [channels]
	InputMean                // what a network that normalises its images subtracts first, [channels]
	InputStd                 // and divides by then, [channels]
)

// Trainable reports whether gradients reach the parameter: all but running statistics and the constants of normalisation.
func (k Kind) Trainable() bool { return k < RunningMean }

// Param is one tensor of a network, under PyTorch's name and in PyTorch's shape (out,in,kh,kw and out,in).
// PyTorch's num_batches_tracked is no parameter here: it is written on export and ignored on import.
type Param struct {
	Name  string
	Shape []int
	Kind  Kind
}

// Size is the number of values in the parameter.
func (p Param) Size() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

// Network is an architecture: what parameters it has and how logits come from them and the images.
type Network interface {
	// Name is the name the command line uses, such as "resnet20-w8".
	Name() string
	// Input is the size of the images it takes.
	Input() (height, width, channels int)
	// Classes is the number of logits.
	Classes() int
	// Params lists its parameters in the order of PyTorch's state_dict.
	Params() []Param
	// Forward adds one forward pass over x, float [N,H,W,C] in [0,1], to the graph and returns the logits [N, classes].
	// It reads parameters with b.Param and, where b.Mode() is Train, replaces running statistics with b.SetParam.
	Forward(b *Bound, x *Node) *Node
}

// Bound is a network whose parameters are nodes of one graph. Forward passes in train mode move its running
// statistics one after the other, as they do in PyTorch: a later pass starts from what an earlier one left.
type Bound struct {
	net   Network
	index map[string]int
	nodes []*Node
	mode  Mode
	last  map[*Node]*Node // the logits of the last pass over each input
}

// Bind ties a network to the nodes that hold its parameters, in the order of net.Params().
func Bind(net Network, nodes []*Node) *Bound {
	params := net.Params()
	if len(nodes) != len(params) {
		panic(fmt.Sprintf("classifier: %s has %d parameters, got %d nodes", net.Name(), len(params), len(nodes)))
	}
	b := &Bound{net: net, index: make(map[string]int, len(params)), nodes: append([]*Node(nil), nodes...), last: map[*Node]*Node{}}
	for i, p := range params {
		b.index[p.Name] = i
	}
	return b
}

// Logits runs one forward pass over x in the given mode.
func (b *Bound) Logits(x *Node, mode Mode) *Node {
	b.mode = mode
	if mode == Frozen {
		b.mode = Train
		before := b.Nodes()
		defer func() { b.nodes = before }()
	}
	b.last[x] = b.net.Forward(b, x)
	return b.last[x]
}

// Last is the logits of the last forward pass over x, or nil if there was none: for a loss that builds on another's.
func (b *Bound) Last(x *Node) *Node { return b.last[x] }

// Mode is the mode of the forward pass under way.
func (b *Bound) Mode() Mode { return b.mode }

// Network is the architecture behind the parameters.
func (b *Bound) Network() Network { return b.net }

// Param returns the node of a parameter: its value after every forward pass so far.
func (b *Bound) Param(name string) *Node {
	i, ok := b.index[name]
	if !ok {
		panic(fmt.Sprintf("classifier: %s has no parameter %q", b.net.Name(), name))
	}
	return b.nodes[i]
}

// SetParam replaces the value of a parameter for the forward passes that follow: how train mode moves running statistics.
func (b *Bound) SetParam(name string, value *Node) {
	i, ok := b.index[name]
	if !ok {
		panic(fmt.Sprintf("classifier: %s has no parameter %q", b.net.Name(), name))
	}
	b.nodes[i] = value
}

// Nodes returns the parameters' current nodes in the order of Params.
func (b *Bound) Nodes() []*Node { return append([]*Node(nil), b.nodes...) }

// Batch is what a training objective sees: the networks and one batch, in one graph.
type Batch struct {
	Student  *Bound
	Teachers []*Bound // frozen, always in eval mode
	X        *Node    // clean images, float [N,H,W,C] in [0,1]
	XAdv     *Node    // the perturbed images: the current point of the search, or its result
	Y        *Node    // labels, int32 [N]

	// Progress is the share of the run's epochs that are done when the one under way is, a float scalar: 1/2 throughout
	// epoch 100, counted from 1, of 200.
	Progress *Node
	// Before holds what the objective computes once per batch, before the search; nil if it asks for nothing.
	Before []*Node
	// Memory is what the objective keeps from step to step.
	Memory *Memory
}

// Cell is a vector that an objective keeps from step to step, and what it holds when a run starts.
type Cell struct {
	Name     string
	Start    []float32
	PerClass bool // Start is repeated for every class
}

// Values are what the cell of a network with so many classes starts with.
func (c Cell) Values(classes int) []float32 {
	if c.PerClass {
		return slices.Repeat(c.Start, classes)
	}
	return c.Start
}

// Memory is an objective's cells in one graph: float32 vectors, read with Get and replaced with Set. What the graph
// leaves in them is what the next step finds.
type Memory struct {
	index map[string]int
	nodes []*Node
}

// Remember ties cells to the nodes that hold their values, in the same order.
func Remember(cells []Cell, nodes []*Node) *Memory {
	m := &Memory{index: make(map[string]int, len(cells)), nodes: append([]*Node(nil), nodes...)}
	for i, c := range cells {
		m.index[c.Name] = i
	}
	return m
}

// Get is the value of a cell: what the last Set put there.
func (m *Memory) Get(name string) *Node { return m.nodes[m.at(name)] }

// Set replaces the value of a cell, a vector of the same length.
func (m *Memory) Set(name string, value *Node) {
	i := m.at(name)
	value.AssertDims(m.nodes[i].Shape().Dimensions...)
	m.nodes[i] = StopGradient(value)
}

func (m *Memory) at(name string) int {
	i, ok := m.index[name]
	if !ok {
		panic(fmt.Sprintf("classifier: the objective keeps nothing named %q", name))
	}
	return i
}

// Nodes returns the cells' current nodes, in order.
func (m *Memory) Nodes() []*Node { return append([]*Node(nil), m.nodes...) }

// Model is a network with values for its parameters.
type Model struct {
	Network
	State []*tensors.Tensor // float32, in the order of Params
}

// NewModel checks that state fits the network's parameters, one tensor each, in order.
func NewModel(net Network, state []*tensors.Tensor) (*Model, error) {
	params := net.Params()
	if len(state) != len(params) {
		return nil, fmt.Errorf("%s takes %d tensors, found %d", net.Name(), len(params), len(state))
	}
	for i, p := range params {
		if want := shapes.Make(dtypes.Float32, p.Shape...); !state[i].Shape().Equal(want) {
			return nil, fmt.Errorf("%s: tensor %s has shape %s, expected %s", net.Name(), p.Name, state[i].Shape(), want)
		}
	}
	return &Model{Network: net, State: state}, nil
}

// Count is the number of trained values in a network: weights and biases, not running statistics.
func Count(net Network) int {
	n := 0
	for _, p := range net.Params() {
		if p.Kind.Trainable() {
			n += p.Size()
		}
	}
	return n
}
