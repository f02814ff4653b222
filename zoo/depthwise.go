package zoo

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// GoMLX differentiates a grouped convolution group by group: thousands of one-channel convolutions for MobileNetV2. A
// depthwise convolution's two gradients are one convolution each; this gives them to the nodes that depthwise made.
func init() {
	groupByGroup := VJPRegistration[NodeTypeConvGeneral]
	VJPRegistration[NodeTypeConvGeneral] = func(node *Node, vjps []*Node, outputShape shapes.Shape) []*Node {
		if form, ok := depthwiseForms(node.Graph())[node.Id()]; ok {
			return form.depthwiseVJP(node, vjps[0])
		}
		return groupByGroup(node, vjps, outputShape)
	}
}

// depthwiseForms are the forms of a graph's depthwise convolutions, which it carries since GoMLX keeps a node's
// settings to itself.
func depthwiseForms(g *Graph) map[NodeId]conv {
	type key struct{}
	forms, ok := g.State(key{}).(map[NodeId]conv)
	if !ok {
		forms = map[NodeId]conv{}
		g.AttachState(key{}, forms)
	}
	return forms
}

// depthwiseVJP returns the gradients by the image and by the kernel of
//
//	y[n,h,w,c] = Σij x[n, h·s+i-p, w·s+j-p, c] k[c,0,i,j]
//
// given v, the gradient by y:
//
//	∂x = v, dilated by s, convolved depthwise with k reversed
//	∂k[c,0,i,j] = Σnhw x[n, h·s+i-p, w·s+j-p, c] v[n,h,w,c]: x convolved with v, dilated by s, where images are summed over
//	as channels are and channels are kept apart as a batch is, which is what a batch group count is for
func (c conv) depthwiseVJP(node, v *Node) []*Node {
	x, kernel := node.Inputs()[0], node.Inputs()[1]
	pad, _ := c.padding() // as much before as after
	var padX, padKernel [][2]int
	for axis := 1; axis <= 2; axis++ {
		in, out := x.Shape().Dimensions[axis], v.Shape().Dimensions[axis]
		span := (out-1)*c.stride + 1 // of v, dilated
		before := c.size - 1 - pad
		padX = append(padX, [2]int{before, in + c.size - 1 - span - before})
		padKernel = append(padKernel, [2]int{pad, span + c.size - 1 - in - pad})
	}
	channelsApart := compute.ConvolveAxesConfig{
		InputBatch: 3, InputSpatial: []int{1, 2}, InputChannels: 0,
		KernelOutputChannels: 3, KernelInputChannels: 0, KernelSpatial: []int{1, 2},
		// The output's batch is of size 1. It stays on the input's batch axis, where GoMLX's Go backend looks for it.
		OutputBatch: 3, OutputSpatial: []int{1, 2}, OutputChannels: 0,
	}
	ones, strides := []int{1, 1}, []int{c.stride, c.stride}
	byKernel := ConvGeneral(x, v, channelsApart, ones, padKernel, ones, strides, 1, c.out)
	return []*Node{
		ConvGeneral(v, Reverse(kernel, 2, 3), layout, ones, padX, strides, ones, c.out, 1),
		ReshapeWithShape(byKernel, kernel.Shape()),
	}
}
