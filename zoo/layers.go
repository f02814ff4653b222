package zoo

import (
	"fmt"

	"github.com/adaad-go/adaad/classifier"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// NormEpsilon is what batch norms add to the variance: PyTorch's.
const NormEpsilon = 1e-5

const normMomentum = 0.1

// image is what flows between layers: a node [N,h,w,c], or only its size while a network is measured.
type image struct {
	h, w, c int
	walk    *walk
	at      int   // 0 for the images, n for what the n-th layer made of them
	node    *Node // nil while measuring
}

// then is what a layer makes of an image: one of another size, whose node is f of this one's where there is one.
func (x image) then(layer Layer, h, w, c int, f func(x *Node) *Node) image {
	layer.Inputs = append([]int{x.at}, layer.Inputs...)
	layer.Height, layer.Width, layer.Channels = h, w, c
	x.walk.layers = append(x.walk.layers, layer)
	y := image{h: h, w: w, c: c, walk: x.walk, at: len(x.walk.layers)}
	if x.node != nil {
		y.node = f(x.node)
		x.walk.nodes = append(x.walk.nodes, y.node)
	}
	return y
}

// walk is one way through an architecture. The same code measures a network (parameters, multiply-adds, layers; no
// graph) and builds its graph, so that they cannot disagree.
type walk struct {
	bound  *classifier.Bound // where parameters' nodes are; nil while measuring
	params []classifier.Param
	layers []Layer
	nodes  []*Node // the layers' results; none while measuring
	macs   int64   // multiply-adds of convolutions and linear layers for one image
	idle   int     // trained values that no forward pass visits

	precision Precision
	// vanished is set where an image became empty: it was too small for the network.
	vanished bool
}

// scope is a walk inside a named module: names of parameters get its prefix.
type scope struct {
	*walk
	prefix string
}

// in enters a submodule.
func (s scope) in(format string, args ...any) scope {
	return scope{s.walk, s.prefix + fmt.Sprintf(format, args...) + "."}
}

// param declares a parameter while measuring and returns its node while building.
func (s scope) param(kind classifier.Kind, name string, shape ...int) *Node {
	if s.bound == nil {
		s.params = append(s.params, classifier.Param{Name: s.prefix + name, Shape: shape, Kind: kind})
		return nil
	}
	return s.bound.Param(s.prefix + name)
}

// unused declares the parameters of modules that a checkpoint has and a forward pass does not visit.
func (s scope) unused(modules func(s scope)) {
	if s.bound != nil {
		return
	}
	macs, layers, declared := s.macs, s.layers, len(s.params)
	modules(s)
	s.macs, s.layers = macs, layers
	for _, p := range s.params[declared:] {
		if p.Kind.Trainable() {
			s.idle += p.Size()
		}
	}
}

// conv is the form of a convolution: out channels, a kernel of size x size, zero padding of size/2 unless said otherwise.
type conv struct {
	out, size, stride int
	depthwise         bool // one kernel per channel
	valid             bool // no padding
	same              bool // TensorFlow's padding of images of even size: with stride 2 there is less before than after
	bias              bool
}

// declare declares the convolution's kernel [out, in/groups, size, size] and returns it with the size of the output.
func (c conv) declare(s scope, x image, name string) (weight *Node, out image) {
	in := x.c
	before, after := c.padding()
	if c.depthwise {
		in = 1
	}
	weight = s.param(classifier.ConvWeight, name+".weight", c.out, in, c.size, c.size)
	out = image{h: (x.h+before+after-c.size)/c.stride + 1, w: (x.w+before+after-c.size)/c.stride + 1, c: c.out}
	s.vanished = s.vanished || out.h < 1 || out.w < 1
	s.macs += int64(out.h * out.w * c.out * in * c.size * c.size)
	return weight, out
}

// layer is the convolution in a list of layers.
func (c conv) layer(s scope, name string) Layer {
	before, after := c.padding()
	return Layer{Op: Conv, Name: s.prefix + name, Weight: s.prefix + name + ".weight",
		Kernel: c.size, Stride: c.stride, Before: before, After: after, Depthwise: c.depthwise}
}

// padding is how many zeros are put before and after each row and column.
func (c conv) padding() (before, after int) {
	switch {
	case c.valid:
		return 0, 0
	case c.same:
		all := c.size - c.stride
		return all / 2, all - all/2
	}
	return c.size / 2, c.size / 2
}

// layout is N,H,W,C for images and PyTorch's out,in,h,w for kernels.
var layout = compute.ConvolveAxesConfig{
	InputBatch: 0, InputSpatial: []int{1, 2}, InputChannels: 3,
	KernelOutputChannels: 0, KernelInputChannels: 1, KernelSpatial: []int{2, 3},
	OutputBatch: 0, OutputSpatial: []int{1, 2}, OutputChannels: 3,
}

// apply convolves x [N,H,W,in] with weight [out,in/groups,size,size].
func (c conv) apply(x, weight *Node, p Precision) *Node {
	before, after := c.padding()
	groups, result := 1, x.DType()
	x, weight = p.operands(x, weight)
	if c.depthwise {
		groups = c.out
	}
	y := Convolve(x, weight).AxesConfig(layout).Strides(c.stride).
		PaddingPerDim([][2]int{{before, after}, {before, after}}).ChannelGroupCount(groups).Done()
	if c.depthwise {
		depthwiseForms(x.Graph())[y.Id()] = c
	}
	return ConvertDType(y, result)
}

// Conv2D convolves x [N,H,W,in] with kernels [out,in,size,size], or [out,1,size,size] where it is depthwise, padded by
// half their size: [N,⌈H/stride⌉,⌈W/stride⌉,out]. It is what the networks here are made of.
func Conv2D(x, kernels *Node, stride int, depthwise bool) *Node {
	dims := kernels.Shape().Dimensions
	return conv{out: dims[0], size: dims[2], stride: stride, depthwise: depthwise}.apply(x, kernels, FP32)
}

// conv is a convolution.
func (s scope) conv(x image, name string, c conv) image {
	weight, y := c.declare(s, x, name)
	layer := c.layer(s, name)
	var bias *Node
	if c.bias {
		bias = s.param(classifier.Bias, name+".bias", c.out)
		layer.Bias = s.prefix + name + ".bias"
	}
	return x.then(layer, y.h, y.w, y.c, func(x *Node) *Node {
		x = c.apply(x, weight, s.precision)
		if bias != nil {
			x = Add(x, perChannel(bias))
		}
		return x
	})
}

// convNorm is a convolution and the batch norm after it. In eval mode the norm is folded into the kernel, where it
// costs nothing: (w*x - μ) γ/√(σ²+ε) + β = (w γ/√(σ²+ε))*x + (β - μ γ/√(σ²+ε)).
func (s scope) convNorm(x image, convName, normName string, c conv) image {
	weight, y := c.declare(s, x, convName)
	n := s.declareNorm(normName, c.out)
	layer := c.layer(s, convName)
	layer.Norm = s.prefix + normName
	return x.then(layer, y.h, y.w, y.c, func(x *Node) *Node {
		if s.bound.Mode() == classifier.Train {
			return n.train(c.apply(x, weight, s.precision))
		}
		scale, shift := n.affine()
		return Add(c.apply(x, Mul(weight, Reshape(scale, -1, 1, 1, 1)), s.precision), perChannel(shift))
	})
}

// norm is a batch norm that follows no convolution.
func (s scope) norm(x image, name string) image {
	n := s.declareNorm(name, x.c)
	return x.then(Layer{Op: Norm, Name: s.prefix + name, Norm: s.prefix + name}, x.h, x.w, x.c, func(x *Node) *Node {
		if s.bound.Mode() == classifier.Train {
			return n.train(x)
		}
		scale, shift := n.affine()
		return Add(Mul(x, perChannel(scale)), perChannel(shift))
	})
}

// norm is a batch norm's parameters, [channels] each.
type norm struct {
	scope
	name                    string
	gamma, beta, mean, vari *Node
}

func (s scope) declareNorm(name string, channels int) norm {
	return norm{s, name,
		s.param(classifier.NormWeight, name+".weight", channels),
		s.param(classifier.NormBias, name+".bias", channels),
		s.param(classifier.RunningMean, name+".running_mean", channels),
		s.param(classifier.RunningVar, name+".running_var", channels)}
}

// affine is the norm in eval mode, x·scale + shift per channel.
func (n norm) affine() (scale, shift *Node) {
	scale = Div(n.gamma, Sqrt(AddScalar(n.vari, NormEpsilon)))
	return scale, Sub(n.beta, Mul(n.mean, scale))
}

// train normalises x [N,H,W,C] with the mean and the biased variance of the batch and moves the running statistics,
// r ← (1-m) r + m·batch, where the variance is the unbiased one.
func (n norm) train(x *Node) *Node {
	dims := x.Shape().Dimensions
	count := float64(dims[0] * dims[1] * dims[2])
	if count == 1 {
		panic(fmt.Errorf("batch norm %s%s sees one value per channel: train with a larger batch or larger images", n.prefix, n.name))
	}
	mean := ReduceMean(x, 0, 1, 2)
	centred := Sub(x, perChannel(mean))
	variance := ReduceMean(Square(centred), 0, 1, 2)
	n.move("running_mean", n.mean, mean)
	n.move("running_var", n.vari, MulScalar(variance, count/(count-1)))
	scale := Div(n.gamma, Sqrt(AddScalar(variance, NormEpsilon)))
	return Add(Mul(centred, perChannel(scale)), perChannel(n.beta))
}

func (n norm) move(statistic string, running, batch *Node) {
	n.bound.SetParam(n.prefix+n.name+"."+statistic,
		Add(MulScalar(running, 1-normMomentum), MulScalar(StopGradient(batch), normMomentum)))
}

// perChannel gives a vector [C] the shape [1,1,1,C].
func perChannel(v *Node) *Node { return Reshape(v, 1, 1, 1, -1) }

// linear is a fully connected layer over x [N,1,1,c] with a weight [out,c]; the result is [N,1,1,out] in size and
// [N,out] as a node.
func (s scope) linear(x image, name string, out int) image {
	s.vanished = s.vanished || x.c < 1
	weight := s.param(classifier.LinearWeight, name+".weight", out, x.c)
	bias := s.param(classifier.Bias, name+".bias", out)
	s.macs += int64(out * x.c)
	layer := Layer{Op: Linear, Name: s.prefix + name, Weight: s.prefix + name + ".weight", Bias: s.prefix + name + ".bias"}
	return x.then(layer, 1, 1, out, func(x *Node) *Node {
		x, weight := s.precision.operands(x, weight)
		product := Dot(x, weight)
		if s.precision == BF16 {
			product = product.WithAccumulatorDType(dtypes.Float32).WithOutputDType(dtypes.Float32)
		}
		return Add(product.General([]int{1}, nil, []int{1}, nil), Reshape(bias, 1, -1))
	})
}

// relu is max(0, x). At 0 its gradient is 0, as in PyTorch: GoMLX's Max sends the gradient of a tie to its first operand.
func relu(x image) image {
	return x.then(Layer{Op: ReLU}, x.h, x.w, x.c, func(x *Node) *Node { return Max(ScalarZero(x.Graph(), x.DType()), x) })
}

// swish is x·σ(x).
func swish(x image) image {
	return x.then(Layer{Op: Swish}, x.h, x.w, x.c, func(x *Node) *Node { return Mul(x, Sigmoid(x)) })
}

// add is a residual connection.
func add(x, y image) image {
	return x.then(Layer{Op: Sum, Inputs: []int{y.at}}, x.h, x.w, x.c, func(x *Node) *Node { return Add(x, y.node) })
}

// firstStride is 2 where a stage but the first begins.
func firstStride(stage, block int) int {
	if stage > 0 && block == 0 {
		return 2
	}
	return 1
}

// globalMean averages over the pixels: [N,h,w,c] to [N,c].
func globalMean(x image) image {
	return x.then(Layer{Op: GlobalMean}, 1, 1, x.c, func(x *Node) *Node { return ReduceMean(x, 1, 2) })
}

// maxPool2 takes the largest of every 2x2 pixels; an odd last row or column is dropped.
func maxPool2(x image) image {
	return x.then(Layer{Op: MaxPool2}, x.h/2, x.w/2, x.c, func(x *Node) *Node { return MaxPool(x).Window(2).Strides(2).NoPadding().Done() })
}

// flatten makes one vector of each image, [N,h,w,c] to [N,c·h·w], in PyTorch's order of channels first.
func flatten(x image) image {
	return x.then(Layer{Op: Flatten}, 1, 1, x.h*x.w*x.c, func(x *Node) *Node {
		return Reshape(TransposeAllAxes(x, 0, 3, 1, 2), x.Shape().Dimensions[0], -1)
	})
}
