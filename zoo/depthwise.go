package zoo

import (
	"reflect"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// GoMLX differentiates a grouped convolution group by group: thousands of one-channel convolutions for MobileNetV2.
// A depthwise convolution's two gradients are one convolution each, and this registers them for every graph.
func init() {
	groupByGroup := VJPRegistration[NodeTypeConvGeneral]
	VJPRegistration[NodeTypeConvGeneral] = func(node *Node, vjps []*Node, outputShape shapes.Shape) []*Node {
		if grads := depthwiseVJP(node, vjps[0]); grads != nil {
			return grads
		}
		return groupByGroup(node, vjps, outputShape)
	}
}

// depthwiseVJP returns the gradients by the image and by the kernel of
//
//	y[n,h,w,c] = Σij x[n, h·s+i-p, w·s+j-p, c] k[c,0,i,j]
//
// given v, the gradient by y; nil if the node is another convolution:
//
//	∂x = v, dilated by s, convolved depthwise with k reversed
//	∂k[c,0,i,j] = Σnhw x[n, h·s+i-p, w·s+j-p, c] v[n,h,w,c]: x convolved with v, dilated by s, where images are summed over
//	as channels are and channels are kept apart as a batch is, which is what a batch group count is for
func depthwiseVJP(node, v *Node) []*Node {
	x, kernel := node.Inputs()[0], node.Inputs()[1]
	c := convolution(node)
	if !reflect.DeepEqual(c.axes, layout) || c.dilated || c.groups == 1 ||
		c.groups != x.Shape().Dimensions[3] || c.groups != kernel.Shape().Dimensions[0] {
		return nil
	}
	var padX, padKernel [][2]int
	for axis, pad := range c.paddings {
		in, out, size := x.Shape().Dimensions[1+axis], v.Shape().Dimensions[1+axis], kernel.Shape().Dimensions[2+axis]
		span := (out-1)*c.strides[axis] + 1 // of v, dilated
		before := size - 1 - pad[0]
		padX = append(padX, [2]int{before, in + size - 1 - span - before})
		padKernel = append(padKernel, [2]int{pad[0], span + size - 1 - in - pad[0]})
	}
	for _, pad := range slices.Concat(padX, padKernel) {
		if min(pad[0], pad[1]) < 0 {
			return nil
		}
	}
	swapped := compute.ConvolveAxesConfig{
		InputBatch: 3, InputSpatial: []int{1, 2}, InputChannels: 0,
		KernelOutputChannels: 3, KernelInputChannels: 0, KernelSpatial: []int{1, 2},
		// The output's batch is of size 1. It stays on the input's batch axis, where GoMLX's Go backend looks for it.
		OutputBatch: 3, OutputSpatial: []int{1, 2}, OutputChannels: 0,
	}
	ones := []int{1, 1}
	return []*Node{
		ConvGeneral(v, Reverse(kernel, 2, 3), layout, ones, padX, c.strides, ones, c.groups, 1),
		ReshapeWithShape(ConvGeneral(x, v, swapped, ones, padKernel, ones, c.strides, 1, c.groups), kernel.Shape()),
	}
}

// convolutionParams are a convolution node's settings, for two spatial axes.
type convolutionParams struct {
	axes     compute.ConvolveAxesConfig
	strides  []int
	paddings [][2]int
	groups   int
	dilated  bool
}

// convolution reads the settings of a convolution node. GoMLX keeps them unexported and gives them to its own gradients
// only; a panic here says that it changed their names.
func convolution(node *Node) convolutionParams {
	inputs := reflect.ValueOf(node).Elem().FieldByName("inputs").Elem().Elem()
	ints := func(v reflect.Value) []int {
		s := make([]int, v.Len())
		for i := range s {
			s[i] = int(v.Index(i).Int())
		}
		return s
	}
	var p convolutionParams
	axes := inputs.FieldByName("axes")
	for i := range axes.NumField() {
		to := reflect.ValueOf(&p.axes).Elem().Field(i)
		if from := axes.Field(i); from.Kind() == reflect.Slice {
			to.Set(reflect.ValueOf(ints(from)))
		} else {
			to.SetInt(from.Int())
		}
	}
	p.strides = ints(inputs.FieldByName("strides"))
	paddings := inputs.FieldByName("paddings")
	for i := range paddings.Len() {
		p.paddings = append(p.paddings, [2]int(ints(paddings.Index(i))))
	}
	p.groups = int(inputs.FieldByName("channelGroupCount").Int())
	for _, name := range []string{"inputDilations", "kernelDilations"} {
		for _, d := range ints(inputs.FieldByName(name)) {
			p.dilated = p.dilated || d != 1
		}
	}
	return p
}
