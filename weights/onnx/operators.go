package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
)

// value is what flows between nodes: a tensor, or integers that are known while the graph is built, such as shapes.
type value struct {
	node  *graph.Node
	image bool // node is [N,H,W,C] and stands for ONNX's [N,C,H,W]
	ints  []int64
	dims  []int // of ints
}

// toImage and toPlain say where each axis comes from.
var (
	toImage = []int{0, 2, 3, 1}
	toPlain = []int{0, 3, 1, 2}
)

// plain is the tensor with ONNX's axes.
func (v value) plain() *graph.Node {
	switch {
	case v.node == nil:
		panic(fmt.Errorf("expected a tensor of numbers, found integers %v", v.ints))
	case !v.image:
		return v.node
	}
	if d := v.node.Shape().Dimensions; d[1] == 1 && d[2] == 1 {
		return graph.Reshape(v.node, d[0], d[3], 1, 1)
	}
	return graph.TransposeAllAxes(v.node, toPlain...)
}

// channelsLast is the tensor, of four axes, as [N,H,W,C].
func (v value) channelsLast() *graph.Node {
	switch {
	case v.image:
		return v.node
	case v.node == nil || v.node.Rank() != 4:
		panic(fmt.Errorf("expected images, a tensor of 4 dimensions, found %s", v))
	}
	return graph.TransposeAllAxes(v.node, toImage...)
}

// shape is the tensor's shape with ONNX's axes.
func (v value) shape() []int {
	switch {
	case v.node == nil:
		return v.dims
	case v.image:
		d := v.node.Shape().Dimensions
		return []int{d[0], d[3], d[1], d[2]}
	}
	return v.node.Shape().Dimensions
}

// axis is where the tensor has one of ONNX's axes, counted from the end if negative.
func (v value) axis(axis int64) int {
	rank := int64(len(v.shape()))
	if axis < -rank || axis >= rank {
		panic(fmt.Errorf("axis %d of a tensor with %d axes", axis, rank))
	}
	if axis = (axis + rank) % rank; v.image {
		return slices.Index(toImage, int(axis))
	}
	return int(axis)
}

func (v value) String() string {
	if v.node == nil {
		return fmt.Sprintf("integers %v", v.ints)
	}
	return fmt.Sprintf("%v", v.shape())
}

// call is a node being computed.
type call struct {
	net    *network
	node   *Node
	graph  *graph.Graph
	inputs []value
}

// operator is how a kind of node is checked and computed.
type operator struct {
	inputs     [2]int   // how many it takes, at least and at most
	attributes []string // that are understood; a node with any other is refused
	compute    func(c *call) []value
}

const anyNumber = 1 << 10

// operators are the kinds of nodes that are read, of ONNX's own domain.
var operators map[string]operator

func init() {
	unary := func(f func(x *graph.Node) *graph.Node) operator {
		return operator{[2]int{1, 1}, nil, func(c *call) []value { return c.map1(f) }}
	}
	binary := func(f func(x, y *graph.Node) *graph.Node, ints func(a, b int64) int64) operator {
		return operator{[2]int{2, 2}, nil, func(c *call) []value { return []value{c.broadcast(f, ints, c.inputs[0], c.inputs[1])} }}
	}
	many := func(f func(x, y *graph.Node) *graph.Node) operator {
		return operator{[2]int{1, anyNumber}, nil, func(c *call) []value {
			y := c.inputs[0]
			for _, x := range c.inputs[1:] {
				y = c.broadcast(f, nil, y, x)
			}
			return []value{y}
		}}
	}
	window := []string{"auto_pad", "kernel_shape", "pads", "strides", "ceil_mode", "dilations"}
	reduce := func(f func(x *graph.Node, axes ...int) *graph.Node) operator {
		return operator{[2]int{1, 2}, []string{"axes", "keepdims", "noop_with_empty_axes"}, func(c *call) []value { return c.reduce(f) }}
	}
	operators = map[string]operator{
		"Add":   binary(graph.Add, func(a, b int64) int64 { return a + b }),
		"Sub":   binary(graph.Sub, func(a, b int64) int64 { return a - b }),
		"Mul":   binary(graph.Mul, func(a, b int64) int64 { return a * b }),
		"Div":   binary(graph.Div, divide),
		"Pow":   {[2]int{2, 2}, nil, (*call).pow},
		"Equal": {[2]int{2, 2}, nil, func(c *call) []value { return []value{broadcastInts(equal, c.known(0), c.known(1))} }},
		"Where": {[2]int{3, 3}, nil, (*call).where},
		"Max":   many(graph.Max), "Min": many(graph.Min), "Sum": many(graph.Add),

		"Relu":        unary(relu),
		"LeakyRelu":   {[2]int{1, 1}, []string{"alpha"}, (*call).leakyRelu},
		"PRelu":       {[2]int{2, 2}, nil, (*call).pRelu},
		"Elu":         {[2]int{1, 1}, []string{"alpha"}, (*call).elu},
		"Sigmoid":     unary(graph.Sigmoid),
		"HardSigmoid": {[2]int{1, 1}, []string{"alpha", "beta"}, (*call).hardSigmoid},
		"HardSwish": unary(func(x *graph.Node) *graph.Node {
			return graph.Mul(x, hardSigmoid(x, 1./6, 0.5))
		}),
		"Softplus": unary(softplus),
		"Mish":     unary(func(x *graph.Node) *graph.Node { return graph.Mul(x, graph.Tanh(softplus(x))) }),
		"Gelu":     {[2]int{1, 1}, []string{"approximate"}, (*call).gelu},
		"Tanh":     unary(graph.Tanh), "Erf": unary(graph.Erf), "Exp": unary(graph.Exp), "Log": unary(graph.Log), "Sqrt": unary(graph.Sqrt),
		"Abs": unary(graph.Abs), "Neg": unary(graph.Neg), "Reciprocal": unary(graph.Reciprocal),
		"Clip":       {[2]int{1, 3}, []string{"min", "max"}, (*call).clip},
		"Softmax":    {[2]int{1, 1}, []string{"axis"}, func(c *call) []value { return c.softmax(graph.Softmax) }},
		"LogSoftmax": {[2]int{1, 1}, []string{"axis"}, func(c *call) []value { return c.softmax(graph.LogSoftmax) }},

		"Identity": {[2]int{1, 1}, nil, func(c *call) []value { return c.inputs }},
		"Dropout":  {[2]int{1, 3}, []string{"ratio", "seed"}, func(c *call) []value { return c.inputs[:1] }},
		"Cast":     {[2]int{1, 1}, []string{"to", "saturate"}, (*call).cast},

		"Conv":                  {[2]int{2, 3}, []string{"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"}, (*call).conv},
		"Gemm":                  {[2]int{2, 3}, []string{"alpha", "beta", "transA", "transB"}, (*call).gemm},
		"MatMul":                {[2]int{2, 2}, nil, func(c *call) []value { return out(graph.MatMul(c.plain(0), c.plain(1))) }},
		"BatchNormalization":    {[2]int{5, 5}, []string{"epsilon", "momentum", "training_mode", "spatial"}, (*call).batchNorm},
		"LayerNormalization":    {[2]int{2, 3}, []string{"axis", "epsilon", "stash_type"}, (*call).layerNorm},
		"InstanceNormalization": {[2]int{3, 3}, []string{"epsilon"}, (*call).instanceNorm},
		"MaxPool":               {[2]int{1, 1}, append([]string{"storage_order"}, window...), (*call).maxPool},
		"AveragePool":           {[2]int{1, 1}, append([]string{"count_include_pad"}, window...), (*call).averagePool},
		"GlobalAveragePool":     {[2]int{1, 1}, nil, func(c *call) []value { return c.global(graph.ReduceMean) }},
		"GlobalMaxPool":         {[2]int{1, 1}, nil, func(c *call) []value { return c.global(graph.ReduceMax) }},
		"ReduceMean":            reduce(graph.ReduceMean), "ReduceSum": reduce(graph.ReduceSum), "ReduceMax": reduce(graph.ReduceMax),

		"Flatten":         {[2]int{1, 1}, []string{"axis"}, (*call).flatten},
		"Reshape":         {[2]int{2, 2}, []string{"allowzero"}, (*call).reshape},
		"Transpose":       {[2]int{1, 1}, []string{"perm"}, (*call).transpose},
		"Squeeze":         {[2]int{1, 2}, []string{"axes"}, (*call).squeeze},
		"Unsqueeze":       {[2]int{1, 2}, []string{"axes"}, (*call).unsqueeze},
		"Concat":          {[2]int{1, anyNumber}, []string{"axis"}, (*call).concat},
		"Split":           {[2]int{1, 2}, []string{"axis", "split", "num_outputs"}, (*call).split},
		"Slice":           {[2]int{1, 5}, []string{"axes", "starts", "ends"}, (*call).slice},
		"Pad":             {[2]int{1, 3}, []string{"mode", "pads", "value"}, (*call).pad},
		"Gather":          {[2]int{2, 2}, []string{"axis"}, (*call).gather},
		"Expand":          {[2]int{2, 2}, nil, (*call).expand},
		"Shape":           {[2]int{1, 1}, []string{"start", "end"}, (*call).shapeOf},
		"ConstantOfShape": {[2]int{1, 1}, []string{"value"}, (*call).constantOfShape},

		"QuantizeLinear":   {[2]int{2, 3}, []string{"axis", "saturate"}, (*call).quantize},
		"DequantizeLinear": {[2]int{2, 3}, []string{"axis"}, (*call).dequantize},
	}
}

// checkNode checks a node against what is known of its operator.
func checkNode(n *Node) error {
	op, known := operators[n.Op]
	switch {
	case n.Domain != "":
		return fmt.Errorf("an operator of %q, expected ONNX's own", n.Domain)
	case !known && slices.ContainsFunc(n.Attributes, func(a Attribute) bool { return a.Kind == GraphAttribute }):
		return fmt.Errorf("control flow, expected a feed-forward network")
	case !known:
		return fmt.Errorf("an operator that is not read here")
	case len(n.Inputs) < op.inputs[0] || len(n.Inputs) > op.inputs[1]:
		return fmt.Errorf("%d inputs, expected %d to %d", len(n.Inputs), op.inputs[0], op.inputs[1])
	case slices.Contains(n.Inputs[:op.inputs[0]], "") || n.Outputs[0] == "":
		return fmt.Errorf("inputs %q and outputs %q, expected none of those it needs to be left out", n.Inputs, n.Outputs)
	}
	for i, a := range n.Attributes {
		if !slices.Contains(op.attributes, a.Name) {
			return fmt.Errorf("attribute %q, expected none but %q", a.Name, op.attributes)
		}
		if slices.ContainsFunc(n.Attributes[:i], func(b Attribute) bool { return b.Name == a.Name }) {
			return fmt.Errorf("attribute %q is there twice", a.Name)
		}
	}
	return nil
}

// attribute is the attribute of a name, or nil.
func (c *call) attribute(name string, kind AttributeKind) *Attribute {
	for i := range c.node.Attributes {
		if a := &c.node.Attributes[i]; a.Name == name {
			if a.Kind != kind {
				panic(fmt.Errorf("attribute %q is of kind %d, expected %d", name, a.Kind, kind))
			}
			return a
		}
	}
	return nil
}

func (c *call) int(name string, otherwise int64) int64 {
	if a := c.attribute(name, IntAttribute); a != nil {
		return a.Int
	}
	return otherwise
}

func (c *call) float(name string, otherwise float64) float64 {
	if a := c.attribute(name, FloatAttribute); a != nil {
		return float64(a.Float)
	}
	return otherwise
}

func (c *call) text(name, otherwise string) string {
	if a := c.attribute(name, StringAttribute); a != nil {
		return a.String
	}
	return otherwise
}

// sizes are an attribute of so many numbers from least up, or all otherwise if it is not there.
func (c *call) sizes(name string, count, least, otherwise int) []int {
	a := c.attribute(name, IntsAttribute)
	if a == nil {
		return slices.Repeat([]int{otherwise}, count)
	}
	var all []int
	for _, v := range a.Ints {
		if v < int64(least) || v > maxSide {
			panic(fmt.Errorf("attribute %q is %v, expected numbers from %d to %d", name, a.Ints, least, maxSide))
		}
		all = append(all, int(v))
	}
	if len(all) != count {
		panic(fmt.Errorf("attribute %q is %v, expected %d numbers", name, a.Ints, count))
	}
	return all
}

// refuse fails if an attribute is not what is understood.
func (c *call) refuse(name string, expected int64) {
	if got := c.int(name, expected); got != expected {
		panic(fmt.Errorf("attribute %q is %d, expected %d", name, got, expected))
	}
}

// list is a list of integers that older operators have as an attribute and newer ones as an input; nil if it is in neither.
func (c *call) list(name string, input int) []int64 {
	if a := c.attribute(name, IntsAttribute); a != nil {
		return a.Ints
	}
	if !c.has(input) {
		return nil
	}
	return c.ints(input)
}

// has says whether an input is there.
func (c *call) has(input int) bool {
	return input < len(c.inputs) && c.node.Inputs[input] != ""
}

// known is an input that must be known while the graph is built.
func (c *call) known(input int) value {
	v := c.inputs[input]
	if v.node != nil {
		panic(fmt.Errorf("input %q depends on the images, expected integers that do not", c.node.Inputs[input]))
	}
	return v
}

func (c *call) ints(input int) []int64 { return c.known(input).ints }

func (c *call) plain(input int) *graph.Node { return c.inputs[input].plain() }

func (c *call) scalar(v float64) *graph.Node { return graph.Scalar(c.graph, dtypes.Float32, v) }

// constant is the only value of an input that the file states.
func (c *call) constant(input int) float32 {
	t := c.net.constants[c.node.Inputs[input]]
	if t == nil || !t.Type.isFloat() || t.size() != 1 {
		panic(fmt.Errorf("input %q is %s, expected one constant number", c.node.Inputs[input], c.inputs[input]))
	}
	return t.floats()[0]
}

func out(x *graph.Node) []value      { return []value{{node: x}} }
func outImage(x *graph.Node) []value { return []value{{node: x, image: true}} }

// map1 applies a function to every number.
func (c *call) map1(f func(x *graph.Node) *graph.Node) []value {
	if c.inputs[0].node == nil {
		panic(fmt.Errorf("expected a tensor of numbers, found %s", c.inputs[0]))
	}
	return []value{{node: f(c.inputs[0].node), image: c.inputs[0].image}}
}

// broadcast applies a function of two numbers, with dimensions of 1 and missing ones repeated.
func (c *call) broadcast(f func(x, y *graph.Node) *graph.Node, ints func(a, b int64) int64, x, y value) value {
	if x.node == nil && y.node == nil {
		if ints == nil {
			panic(fmt.Errorf("integers %v and %v, expected tensors of numbers", x.ints, y.ints))
		}
		return broadcastInts(ints, x, y)
	}
	rank := max(len(x.shape()), len(y.shape()))
	asImages := (x.image || y.image) && rank <= 4
	operand := func(v value) *graph.Node {
		if asImages && v.image {
			return v.node
		}
		p := v.plain()
		if p.IsScalar() {
			return p
		}
		if p.Rank() < rank {
			p = graph.ExpandLeftToRank(p, rank)
		}
		if asImages {
			return value{node: p}.channelsLast()
		}
		return p
	}
	return value{node: f(operand(x), operand(y)), image: asImages}
}

func broadcastInts(f func(a, b int64) int64, x, y value) value {
	if len(y.ints) != len(x.ints) && len(y.ints) != 1 && len(x.ints) != 1 {
		panic(fmt.Errorf("integers %v and %v, expected as many, or one", x.ints, y.ints))
	}
	z := value{dims: x.dims}
	if len(y.ints) > len(x.ints) || len(y.dims) > len(x.dims) {
		z.dims = y.dims
	}
	for i := range max(len(x.ints), len(y.ints)) {
		z.ints = append(z.ints, f(x.ints[min(i, len(x.ints)-1)], y.ints[min(i, len(y.ints)-1)]))
	}
	return z
}

func divide(a, b int64) int64 {
	if b == 0 {
		panic(fmt.Errorf("integer division by zero"))
	}
	return a / b
}

func equal(a, b int64) int64 {
	if a == b {
		return 1
	}
	return 0
}

// where chooses between integers: shapes that depend on shapes.
func (c *call) where() []value {
	yes := broadcastInts(func(condition, v int64) int64 { return min(condition, 1) * v }, c.known(0), c.known(1))
	no := broadcastInts(func(condition, v int64) int64 { return (1 - min(condition, 1)) * v }, c.known(0), c.known(2))
	return []value{broadcastInts(func(a, b int64) int64 { return a + b }, yes, no)}
}

func (c *call) pow() []value {
	exponent := 0.
	if v := c.inputs[1]; v.node == nil && len(v.ints) == 1 {
		exponent = float64(v.ints[0])
	} else {
		exponent = float64(c.constant(1))
	}
	return c.map1(func(x *graph.Node) *graph.Node {
		switch exponent {
		case 2:
			return graph.Square(x)
		case 0.5:
			return graph.Sqrt(x)
		}
		return graph.Pow(x, c.scalar(exponent))
	})
}

// relu is max(0, x), with a gradient of 0 at 0 as in PyTorch: GoMLX's Max sends that of a tie to its first operand.
func relu(x *graph.Node) *graph.Node { return graph.Max(graph.ScalarZero(x.Graph(), x.DType()), x) }

// negative is min(0, x).
func negative(x *graph.Node) *graph.Node { return graph.Min(x, graph.ScalarZero(x.Graph(), x.DType())) }

func (c *call) leakyRelu() []value {
	alpha := c.float("alpha", 0.01)
	return c.map1(func(x *graph.Node) *graph.Node { return graph.Add(relu(x), graph.MulScalar(negative(x), alpha)) })
}

func (c *call) pRelu() []value {
	return []value{c.broadcast(func(x, slope *graph.Node) *graph.Node {
		return graph.Add(relu(x), graph.Mul(slope, negative(x)))
	}, nil, c.inputs[0], c.inputs[1])}
}

func (c *call) elu() []value {
	alpha := c.float("alpha", 1)
	return c.map1(func(x *graph.Node) *graph.Node {
		return graph.Add(relu(x), graph.MulScalar(graph.AddScalar(graph.Exp(negative(x)), -1), alpha))
	})
}

func hardSigmoid(x *graph.Node, alpha, beta float64) *graph.Node {
	return graph.Min(relu(graph.AddScalar(graph.MulScalar(x, alpha), beta)), graph.ScalarOne(x.Graph(), x.DType()))
}

func (c *call) hardSigmoid() []value {
	alpha, beta := c.float("alpha", 0.2), c.float("beta", 0.5)
	return c.map1(func(x *graph.Node) *graph.Node { return hardSigmoid(x, alpha, beta) })
}

// softplus is log(1 + exp(x)) without overflow.
func softplus(x *graph.Node) *graph.Node {
	return graph.Add(relu(x), graph.Log1P(graph.Exp(graph.Neg(graph.Abs(x)))))
}

func (c *call) gelu() []value {
	tanh := c.text("approximate", "none") == "tanh"
	return c.map1(func(x *graph.Node) *graph.Node {
		inner := graph.Erf(graph.MulScalar(x, math.Sqrt2/2))
		if tanh {
			cubed := graph.Mul(x, graph.Square(x))
			inner = graph.Tanh(graph.MulScalar(graph.Add(x, graph.MulScalar(cubed, 0.044715)), math.Sqrt(2/math.Pi)))
		}
		return graph.Mul(graph.MulScalar(x, 0.5), graph.AddScalar(inner, 1))
	})
}

// clip sends the gradient of a tie to the bound, so that it is 0 there as PyTorch's is for ReLU6.
func (c *call) clip() []value {
	return c.map1(func(x *graph.Node) *graph.Node {
		for i, bound := range []string{"min", "max"} {
			var limit *graph.Node
			if a := c.attribute(bound, FloatAttribute); a != nil {
				limit = c.scalar(float64(a.Float))
			} else if c.has(i + 1) {
				limit = graph.Reshape(c.plain(i + 1))
			}
			switch {
			case limit != nil && i == 0:
				x = graph.Max(limit, x)
			case limit != nil:
				x = graph.Min(x, limit)
			}
		}
		return x
	})
}

func (c *call) softmax(f func(x *graph.Node, axes ...int) *graph.Node) []value {
	x := c.plain(0)
	axis := c.int("axis", -1)
	if c.net.opset < 13 {
		// All axes from this one on were one.
		if axis = c.int("axis", 1); axis >= 0 && axis != int64(x.Rank())-1 {
			panic(fmt.Errorf("axis %d of %v before version 13 of the operators, expected the last", axis, x.Shape().Dimensions))
		}
	}
	return out(f(x, value{node: x}.axis(axis)))
}

func (c *call) cast() []value {
	to, v := Type(c.int("to", 0)), c.inputs[0]
	switch {
	case v.node != nil && to != Float32:
		panic(fmt.Errorf("to %s, expected float", to))
	case v.node == nil && to == Float32:
		values := make([]float32, len(v.ints))
		for i, x := range v.ints {
			values[i] = float32(x)
		}
		return out(graph.Reshape(graph.Const(c.graph, values), v.dims...))
	case v.node == nil && to != Int64 && to != Int32:
		panic(fmt.Errorf("to %s, expected float, int64 or int32", to))
	}
	return c.inputs
}

// window is how a convolution or a pooling goes over images of height and width.
type window struct {
	size, strides, dilations []int
	pads                     [][2]int
}

func (c *call) window(size, in []int) window {
	w := window{size: size, strides: c.sizes("strides", 2, 1, 1), dilations: c.sizes("dilations", 2, 1, 1)}
	pads := c.sizes("pads", 4, 0, 0)
	same := c.text("auto_pad", "NOTSET")
	ceil := c.int("ceil_mode", 0) != 0
	for i := range 2 {
		span := (size[i]-1)*w.dilations[i] + 1
		before, after := pads[i], pads[i+2]
		switch same {
		case "NOTSET":
		case "VALID":
			before, after = 0, 0
		case "SAME_UPPER", "SAME_LOWER":
			total := max(0, ((in[i]+w.strides[i]-1)/w.strides[i]-1)*w.strides[i]+span-in[i])
			if before, after = total/2, total-total/2; same == "SAME_LOWER" {
				before, after = after, before
			}
		default:
			panic(fmt.Errorf("attribute %q is %q", "auto_pad", same))
		}
		room := in[i] + before + after - span
		if room < 0 {
			panic(fmt.Errorf("a window of %d pixels over images of %d", span, in[i]))
		}
		if over := room % w.strides[i]; ceil && over > 0 {
			// One more window, unless it would begin in the padding behind.
			if more := w.strides[i] - over; (room+more)/w.strides[i]*w.strides[i] < in[i]+before {
				after += more
			}
		}
		w.pads = append(w.pads, [2]int{before, after})
	}
	return w
}

// layout is [N,H,W,C] for images and [out,in,h,w] for kernels.
var layout = compute.ConvolveAxesConfig{
	InputBatch: 0, InputSpatial: []int{1, 2}, InputChannels: 3,
	KernelOutputChannels: 0, KernelInputChannels: 1, KernelSpatial: []int{2, 3},
	OutputBatch: 0, OutputSpatial: []int{1, 2}, OutputChannels: 3,
}

func (c *call) conv() []value {
	x, kernel := c.inputs[0].channelsLast(), c.plain(1)
	d, k, groups := x.Shape().Dimensions, kernel.Shape().Dimensions, c.int("group", 1)
	if len(k) != 4 || groups < 1 || groups > maxSide || int64(d[3]) != groups*int64(k[1]) || int64(k[0])%groups != 0 {
		panic(fmt.Errorf("kernels %v in %d groups over %d channels do not fit", k, groups, d[3]))
	}
	if size := c.sizes("kernel_shape", 2, 1, 0); c.attribute("kernel_shape", IntsAttribute) != nil && !slices.Equal(size, k[2:]) {
		panic(fmt.Errorf("attribute %q is %v, expected %v as the kernels are", "kernel_shape", size, k[2:]))
	}
	w := c.window(k[2:], d[1:3])
	half := [2]int{k[2] / 2, k[2] / 2}
	var y *graph.Node
	if groups == int64(d[3]) && groups == int64(k[0]) && k[2] == k[3] && k[2]%2 == 1 && w.strides[0] == w.strides[1] &&
		w.dilations[0] == 1 && w.dilations[1] == 1 && w.pads[0] == half && w.pads[1] == half {
		y = zoo.Conv2D(x, kernel, w.strides[0], true)
	} else {
		kernel = oddKernel(kernel, &w)
		y = graph.Convolve(x, kernel).AxesConfig(layout).StridePerAxis(w.strides...).DilationPerAxis(w.dilations...).
			PaddingPerDim(w.pads).ChannelGroupCount(int(groups)).Done()
	}
	if c.has(2) {
		y = graph.Add(y, c.perChannel(2))
	}
	return outImage(y)
}

// oddKernel gives kernels [out,in,h,w] of even size a row or column of zeros behind, which sees one of padding: GoMLX's
// gradient of a convolution by its images is wrong for even sizes.
func oddKernel(kernel *graph.Node, w *window) *graph.Node {
	var zeros [4]compute.PadAxis
	for i := range 2 {
		if kernel.Shape().Dimensions[2+i]%2 == 0 {
			zeros[2+i].End = 1
			w.pads[i][1] += w.dilations[i]
		}
	}
	if zeros == ([4]compute.PadAxis{}) {
		return kernel
	}
	return graph.Pad(kernel, graph.ScalarZero(kernel.Graph(), kernel.DType()), zeros[:]...)
}

// perChannel is a vector over the channels of images, [1,1,1,C].
func (c *call) perChannel(input int) *graph.Node {
	v := c.plain(input)
	if v.Rank() != 1 {
		panic(fmt.Errorf("input %q is %s, expected a vector", c.node.Inputs[input], c.inputs[input]))
	}
	return graph.Reshape(v, 1, 1, 1, -1)
}

func (c *call) gemm() []value {
	a, b := c.plain(0), c.plain(1)
	if a.Rank() != 2 || b.Rank() != 2 {
		panic(fmt.Errorf("factors %s and %s, expected matrices", c.inputs[0], c.inputs[1]))
	}
	inner := [2]int{1, 0}
	if c.int("transA", 0) != 0 {
		inner[0] = 0
	}
	if c.int("transB", 0) != 0 {
		inner[1] = 1
	}
	y := value{node: graph.DotGeneral(a, inner[:1], nil, b, inner[1:], nil)}
	if alpha := c.float("alpha", 1); alpha != 1 {
		y.node = graph.MulScalar(y.node, alpha)
	}
	if c.has(2) {
		bias := value{node: c.plain(2)}
		if beta := c.float("beta", 1); beta != 1 {
			bias.node = graph.MulScalar(bias.node, beta)
		}
		y = c.broadcast(graph.Add, nil, y, bias)
	}
	return []value{y}
}

func (c *call) batchNorm() []value {
	c.refuse("training_mode", 0)
	c.refuse("spatial", 1)
	x := c.inputs[0]
	var shape []int
	switch {
	case len(x.shape()) == 4:
		x, shape = value{node: x.channelsLast(), image: true}, []int{1, 1, 1, -1}
	case len(x.shape()) == 2:
		shape = []int{1, -1}
	default:
		panic(fmt.Errorf("over %s, expected images or vectors", x))
	}
	scale := graph.Div(c.plain(1), graph.Sqrt(graph.AddScalar(c.plain(4), c.float("epsilon", 1e-5))))
	shift := graph.Sub(c.plain(2), graph.Mul(c.plain(3), scale))
	x.node = graph.Add(graph.Mul(x.node, graph.Reshape(scale, shape...)), graph.Reshape(shift, shape...))
	return []value{x}
}

// normalized is x less its mean and over its standard deviation, along axes.
func (c *call) normalized(x *graph.Node, axes ...int) *graph.Node {
	centred := graph.Sub(x, graph.ReduceAndKeep(x, graph.ReduceMean, axes...))
	variance := graph.ReduceAndKeep(graph.Square(centred), graph.ReduceMean, axes...)
	return graph.Div(centred, graph.Sqrt(graph.AddScalar(variance, c.float("epsilon", 1e-5))))
}

func (c *call) layerNorm() []value {
	x := value{node: c.plain(0)}
	var axes []int
	for axis := x.axis(c.int("axis", -1)); axis < x.node.Rank(); axis++ {
		axes = append(axes, axis)
	}
	y := c.broadcast(graph.Mul, nil, value{node: c.normalized(x.node, axes...)}, c.inputs[1])
	if c.has(2) {
		y = c.broadcast(graph.Add, nil, y, c.inputs[2])
	}
	return []value{y}
}

func (c *call) instanceNorm() []value {
	x := c.inputs[0].channelsLast()
	return outImage(graph.Add(graph.Mul(c.normalized(x, 1, 2), c.perChannel(1)), c.perChannel(2)))
}

// pooling is the window of a pooling over images [N,H,W,C].
func (c *call) pooling(x *graph.Node) window {
	w := c.window(c.sizes("kernel_shape", 2, 1, 0), x.Shape().Dimensions[1:3])
	if w.dilations[0] != 1 || w.dilations[1] != 1 {
		panic(fmt.Errorf("attribute %q is %v, expected 1", "dilations", w.dilations))
	}
	for i, p := range w.pads {
		if p[0] >= w.size[i] || p[1] >= w.size[i]+w.strides[i] {
			panic(fmt.Errorf("a window of %v with padding %v would see padding alone", w.size, w.pads))
		}
	}
	return w
}

func (w window) over(pool *graph.PoolBuilder) *graph.Node {
	return pool.WindowPerAxis(w.size...).StridePerAxis(w.strides...).PaddingPerDim(w.pads).Done()
}

func (c *call) maxPool() []value {
	c.refuse("storage_order", 0)
	x := c.inputs[0].channelsLast()
	return outImage(c.pooling(x).over(graph.MaxPool(x)))
}

func (c *call) averagePool() []value {
	x := c.inputs[0].channelsLast()
	w := c.pooling(x)
	if c.int("count_include_pad", 0) == 0 || w.pads[0] == [2]int{} && w.pads[1] == [2]int{} {
		return outImage(w.over(graph.MeanPool(x)))
	}
	if c.int("ceil_mode", 0) != 0 {
		panic(fmt.Errorf("%q and %q at once, expected one of them", "count_include_pad", "ceil_mode"))
	}
	return outImage(graph.MulScalar(w.over(graph.SumPool(x)), 1/float64(w.size[0]*w.size[1])))
}

// global reduces the pixels of images to one.
func (c *call) global(f func(x *graph.Node, axes ...int) *graph.Node) []value {
	return outImage(graph.ReduceAndKeep(c.inputs[0].channelsLast(), f, 1, 2))
}

func (c *call) reduce(f func(x *graph.Node, axes ...int) *graph.Node) []value {
	x, keep := c.inputs[0], c.int("keepdims", 1) != 0
	if x.node == nil {
		panic(fmt.Errorf("expected a tensor of numbers, found %s", x))
	}
	list := c.list("axes", 1)
	if len(list) == 0 {
		if c.int("noop_with_empty_axes", 0) != 0 {
			return []value{x}
		}
		for axis := range x.shape() {
			list = append(list, int64(axis))
		}
	}
	var axes []int
	for _, axis := range list {
		axes = append(axes, x.axis(axis))
	}
	slices.Sort(axes)
	switch {
	case keep:
		return []value{{node: graph.ReduceAndKeep(x.node, f, axes...), image: x.image}}
	case x.image && !slices.Equal(axes, []int{1, 2}): // without its pixels an image is [N,C] in either order
		return (&call{c.net, c.node, c.graph, append([]value{{node: x.plain()}}, c.inputs[1:]...)}).reduce(f)
	}
	return out(f(x.node, axes...))
}

func product(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

func (c *call) flatten() []value {
	x := c.plain(0)
	d := x.Shape().Dimensions
	axis := c.int("axis", 1)
	if axis < 0 {
		axis += int64(len(d))
	}
	if axis < 0 || axis > int64(len(d)) {
		panic(fmt.Errorf("axis %d of %v", axis, d))
	}
	return out(graph.Reshape(x, product(d[:axis]), product(d[axis:])))
}

func (c *call) reshape() []value {
	x, shape := c.inputs[0], c.ints(1)
	from := x.shape()
	dims, free, known := make([]int, len(shape)), -1, 1
	for i, v := range shape {
		switch {
		case v == 0 && c.int("allowzero", 0) == 0 && i < len(from):
			v = int64(from[i])
		case v == -1 && free < 0:
			free = i
			continue
		case v < 0 || v > maxDimension:
			panic(fmt.Errorf("to %v", shape))
		}
		dims[i] = int(v)
		known *= int(v)
	}
	if size := product(from); free >= 0 && known > 0 && size%known == 0 {
		dims[free] = size / known
	} else if free >= 0 || known != size {
		panic(fmt.Errorf("%s to %v, which has another number of values", x, shape))
	}
	if x.node == nil {
		return []value{{ints: x.ints, dims: dims}}
	}
	return out(graph.Reshape(x.plain(), dims...))
}

func (c *call) transpose() []value {
	x := c.plain(0)
	var order []int
	if a := c.attribute("perm", IntsAttribute); a != nil {
		for _, axis := range a.Ints {
			order = append(order, value{node: x}.axis(axis))
		}
	} else {
		for i := range x.Rank() {
			order = append(order, x.Rank()-1-i)
		}
	}
	return out(graph.TransposeAllAxes(x, order...))
}

// reshaped gives a value other dimensions of the same number of values.
func (v value) reshaped(dims []int) []value {
	if v.node == nil {
		return []value{{ints: v.ints, dims: dims}}
	}
	return out(graph.Reshape(v.plain(), dims...))
}

func (c *call) squeeze() []value {
	x := c.inputs[0]
	list := c.list("axes", 1)
	var dims []int
	for i, d := range x.shape() {
		drop := list == nil && d == 1
		for _, axis := range list {
			if rank := int64(len(x.shape())); (axis+rank)%max(rank, 1) == int64(i) {
				drop = true
			}
		}
		if drop && d != 1 {
			panic(fmt.Errorf("axis %d of %s, expected a dimension of 1", i, x))
		}
		if !drop {
			dims = append(dims, d)
		}
	}
	return x.reshaped(dims)
}

func (c *call) unsqueeze() []value {
	x, list := c.inputs[0], c.list("axes", 1)
	rank := int64(len(x.shape()) + len(list))
	added := map[int64]bool{}
	for _, axis := range list {
		if axis < -rank || axis >= rank || added[(axis+rank)%rank] {
			panic(fmt.Errorf("axes %v of a tensor that is to have %d", list, rank))
		}
		added[(axis+rank)%rank] = true
	}
	var dims []int
	rest := x.shape()
	for i := range rank {
		if added[i] {
			dims = append(dims, 1)
		} else {
			dims, rest = append(dims, rest[0]), rest[1:]
		}
	}
	return x.reshaped(dims)
}

func (c *call) concat() []value {
	if c.inputs[0].node == nil {
		var all value
		for i := range c.inputs {
			if len(c.inputs[i].dims) != 1 {
				panic(fmt.Errorf("of %s, expected vectors", c.inputs[i]))
			}
			all.ints = append(all.ints, c.ints(i)...)
		}
		all.dims = []int{len(all.ints)}
		return []value{all}
	}
	like := value{image: true}
	for _, v := range c.inputs {
		like.image = like.image && v.image
	}
	var nodes []*graph.Node
	for _, v := range c.inputs {
		if like.node = v.node; !like.image {
			like.node = v.plain()
		}
		nodes = append(nodes, like.node)
	}
	return []value{{node: graph.Concatenate(nodes, like.axis(c.int("axis", 1))), image: like.image}}
}

// part is a range of a value along one of its own axes.
func (v value) part(axis, begin, end, stride int) value {
	return value{node: graph.SliceAxis(v.node, axis, graph.AxisRange(begin, end).Stride(stride)), image: v.image}
}

func (c *call) split() []value {
	x := c.inputs[0]
	if x.node == nil {
		panic(fmt.Errorf("expected a tensor of numbers, found %s", x))
	}
	axis := x.axis(c.int("axis", 0))
	size := x.node.Shape().Dimensions[axis]
	sizes := c.list("split", 1)
	if sizes == nil {
		n := len(c.node.Outputs)
		for each := (size + n - 1) / n; size > 0; size -= each {
			sizes = append(sizes, int64(min(each, size)))
		}
		size = x.node.Shape().Dimensions[axis]
	}
	var parts []value
	at := 0
	for _, s := range sizes {
		if s < 1 || s > int64(size-at) {
			panic(fmt.Errorf("%d into %v", size, sizes))
		}
		parts = append(parts, x.part(axis, at, at+int(s), 1))
		at += int(s)
	}
	if at != size || len(parts) != len(c.node.Outputs) {
		panic(fmt.Errorf("%d into %v for %d outputs", size, sizes, len(c.node.Outputs)))
	}
	return parts
}

func (c *call) slice() []value {
	x := c.inputs[0]
	starts, ends, axes, steps := c.list("starts", 1), c.list("ends", 2), c.list("axes", 3), []int64(nil)
	if c.has(4) {
		steps = c.ints(4)
	}
	if len(starts) != len(ends) || axes != nil && len(axes) != len(starts) || steps != nil && len(steps) != len(starts) {
		panic(fmt.Errorf("starts %v, ends %v, axes %v, steps %v, expected as many of each", starts, ends, axes, steps))
	}
	for i := range starts {
		axis, step := int64(i), int64(1)
		if axes != nil {
			axis = axes[i]
		}
		if steps != nil {
			step = steps[i]
		}
		at := x.axis(axis)
		size := int64(x.dim(at))
		within := func(v int64) int64 {
			if v < 0 {
				v += size
			}
			return min(max(v, 0), size)
		}
		begin, end := within(starts[i]), within(ends[i])
		if step < 1 || step > maxSide || begin >= end {
			panic(fmt.Errorf("%d to %d in steps of %d of %d, expected something", starts[i], ends[i], step, size))
		}
		if x.node != nil {
			x = x.part(at, int(begin), int(end), int(step))
			continue
		}
		if len(x.dims) != 1 {
			panic(fmt.Errorf("of %s, expected a vector", x))
		}
		var some []int64
		for k := begin; k < end; k += step {
			some = append(some, x.ints[k])
		}
		x = value{ints: some, dims: []int{len(some)}}
	}
	return []value{x}
}

// dim is the size of a value along one of its own axes.
func (v value) dim(axis int) int {
	if v.node == nil {
		return v.dims[axis]
	}
	return v.node.Shape().Dimensions[axis]
}

func (c *call) pad() []value {
	x, pads := c.inputs[0], c.list("pads", 1)
	rank := len(x.shape())
	if mode := c.text("mode", "constant"); mode != "constant" || x.node == nil || len(pads) != 2*rank {
		panic(fmt.Errorf("mode %q with pads %v of %s, expected constant and 2 for each axis", mode, pads, x))
	}
	fill := c.float("value", 0)
	if c.has(2) {
		fill = float64(c.constant(2))
	}
	axes := make([]compute.PadAxis, rank)
	for axis := range rank {
		before, after := pads[axis], pads[axis+rank]
		if min(before, after) < 0 || max(before, after) > maxSide {
			panic(fmt.Errorf("pads %v, expected numbers from 0 to %d", pads, maxSide))
		}
		axes[x.axis(int64(axis))] = compute.PadAxis{Start: int(before), End: int(after)}
	}
	return []value{{node: graph.Pad(x.node, c.scalar(fill), axes...), image: x.image}}
}

func (c *call) gather() []value {
	x, at := c.inputs[0], c.ints(1)
	axis := x.axis(c.int("axis", 0))
	size := int64(x.dim(axis))
	for _, i := range at {
		if i < -size || i >= size {
			panic(fmt.Errorf("index %d of %d", i, size))
		}
	}
	scalar := len(c.inputs[1].dims) == 0
	switch {
	case len(at) == 0 || len(c.inputs[1].dims) > 1:
		panic(fmt.Errorf("indices of dimensions %v, expected one or a vector", c.inputs[1].dims))
	case x.node == nil && len(x.dims) == 1:
		var some []int64
		for _, i := range at {
			some = append(some, x.ints[(i+size)%size])
		}
		if scalar {
			return []value{{ints: some}}
		}
		return []value{{ints: some, dims: []int{len(some)}}}
	}
	whole := value{node: x.plain()}
	axis = whole.axis(c.int("axis", 0))
	var parts []*graph.Node
	for _, i := range at {
		k := int((i + size) % size)
		parts = append(parts, whole.part(axis, k, k+1, 1).node)
	}
	y := parts[0]
	if len(parts) > 1 {
		y = graph.Concatenate(parts, axis)
	}
	if scalar {
		y = graph.Squeeze(y, axis)
	}
	return out(y)
}

func (c *call) expand() []value {
	x, shape := value{node: c.plain(0)}, c.ints(1)
	rank := max(len(shape), x.node.Rank())
	if x.node.Rank() < rank {
		x.node = graph.ExpandLeftToRank(x.node, rank)
	}
	dims := slices.Clone(x.shape())
	for i, v := range shape {
		at := rank - len(shape) + i
		if v < 1 || v > maxSide || v > 1 && dims[at] > 1 && int64(dims[at]) != v {
			panic(fmt.Errorf("%v to %v", dims, shape))
		}
		dims[at] = max(dims[at], int(v))
	}
	return out(graph.BroadcastToDims(x.node, dims...))
}

func (c *call) shapeOf() []value {
	d := c.inputs[0].shape()
	rank := int64(len(d))
	within := func(v int64) int64 {
		if v < 0 {
			v += rank
		}
		return min(max(v, 0), rank)
	}
	begin, end := within(c.int("start", 0)), within(c.int("end", rank))
	v := value{}
	for i := begin; i < end; i++ {
		v.ints = append(v.ints, int64(d[i]))
	}
	v.dims = []int{len(v.ints)}
	return []value{v}
}

func (c *call) constantOfShape() []value {
	var dims []int
	for _, v := range c.ints(0) {
		if v < 1 || v > maxSide {
			panic(fmt.Errorf("of dimensions %v", c.ints(0)))
		}
		dims = append(dims, int(v))
	}
	fill := floatTensor("", []float32{0}, 1)
	if a := c.attribute("value", TensorAttribute); a != nil {
		fill = a.Tensor
	}
	switch {
	case fill.size() != 1 || fill.external != nil:
		panic(fmt.Errorf("attribute %q has %d numbers, expected 1", "value", fill.size()))
	case fill.Type.isFloat():
		return out(graph.BroadcastToDims(c.scalar(float64(fill.floats()[0])), dims...))
	case len(dims) > 1:
		panic(fmt.Errorf("integers of dimensions %v, expected a vector", dims))
	}
	n := product(dims)
	return []value{{ints: slices.Repeat(fill.integers(), n), dims: dims}}
}

// ranges are the least and the largest integer of each type that activations are quantised to.
var ranges = map[Type][2]float64{Uint8: {0, 255}, Int8: {-128, 127}, Uint16: {0, 65535}, Int16: {-32768, 32767}}

// quantize rounds x/scale + zero point to the integers of the zero point's type, half to even. The result is held in
// float32; its gradient is that of x/scale where it did not leave the range, bounds included, and 0 elsewhere.
func (c *call) quantize() []value {
	x := c.inputs[0]
	scale, zero, of := c.scaleAndZero()
	x, scale = c.aligned(x, scale)
	bounds, known := ranges[of]
	if !known {
		panic(fmt.Errorf("to %s, expected 8 or 16 bits", of))
	}
	low, high := c.scalar(bounds[0]), c.scalar(bounds[1])
	u := graph.Div(x.node, scale)
	inside := graph.Min(high, graph.Max(c.shifted(u, zero, x, 1), low)) // in a tie the gradient goes to u in both
	rounded := graph.StopGradient(graph.Min(high, graph.Max(c.shifted(graph.Round(u), zero, x, 1), low)))
	return []value{{node: graph.Add(rounded, graph.Sub(inside, graph.StopGradient(inside))), image: x.image}}
}

// dequantize is (q - zero point)·scale.
func (c *call) dequantize() []value {
	scale, zero, _ := c.scaleAndZero()
	x, scale := c.aligned(c.inputs[0], scale)
	return []value{{node: graph.Mul(c.shifted(x.node, zero, x, -1), scale), image: x.image}}
}

// scaleAndZero are the second and third input, and the third's type; without it that is uint8 and zero.
func (c *call) scaleAndZero() (scale *graph.Node, zero []int64, of Type) {
	if scale = c.plain(1); !c.has(2) {
		return scale, nil, Uint8
	}
	t := c.net.constants[c.node.Inputs[2]]
	if t == nil || t.Type.isFloat() || t.size() != scale.Shape().Size() {
		panic(fmt.Errorf("zero point %q, expected as many constant integers as there are scales", c.node.Inputs[2]))
	}
	return scale, t.integers(), t.Type
}

// aligned gives scales along an axis the rank of x.
func (c *call) aligned(x value, scale *graph.Node) (value, *graph.Node) {
	if x.node == nil {
		panic(fmt.Errorf("expected a tensor of numbers, found %s", x))
	}
	if scale.Shape().Size() == 1 {
		return x, graph.Reshape(scale)
	}
	return x, graph.Reshape(scale, c.alongAxis(x, scale.Shape().Size())...)
}

// alongAxis is the shape of a vector along the node's axis, in a value's own order of axes.
func (c *call) alongAxis(x value, size int) []int {
	axis := x.axis(c.int("axis", 1))
	if x.dim(axis) != size {
		panic(fmt.Errorf("%d scales along axis %d of %s", size, axis, x))
	}
	dims := slices.Repeat([]int{1}, x.node.Rank())
	dims[axis] = size
	return dims
}

// shifted adds sign·zero point to a node that is laid out as x.
func (c *call) shifted(node *graph.Node, zero []int64, x value, sign float64) *graph.Node {
	if !slices.ContainsFunc(zero, func(z int64) bool { return z != 0 }) {
		return node
	}
	if len(zero) == 1 {
		return graph.AddScalar(node, sign*float64(zero[0]))
	}
	values := make([]float32, len(zero))
	for i, z := range zero {
		values[i] = float32(sign) * float32(z)
	}
	return graph.Add(node, graph.Reshape(graph.Const(c.graph, values), c.alongAxis(x, len(zero))...))
}
