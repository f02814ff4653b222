package zoo

import (
	"github.com/adaad-go/adaad/classifier"
	. "github.com/gomlx/gomlx/core/graph"
)

// Op is what a layer does.
type Op int

// The kinds of layers. Images are [N,h,w,c] and vectors [N,c]; dimensions of a Layer are without N, vectors 1x1xc.
const (
	Conv       Op = iota // a convolution, then the bias or the batch norm that it has
	Norm                 // a batch norm that follows no convolution
	Linear               // x·weightᵀ + bias
	ReLU                 // max(0, x)
	Swish                // x·σ(x)
	Sum                  // of two images: a residual connection
	GlobalMean           // over the pixels, to a vector
	MaxPool2             // over every 2x2 pixels; an odd last row or column is dropped
	Flatten              // to a vector, in PyTorch's order of channels first
	Normalise            // (images - mean) / std per channel
)

// Layer is one step of a network in eval mode. Its parameters are named as in the network's Params; "" is none.
type Layer struct {
	Op                      Op
	Inputs                  []int // what it reads: 0 is the images, n the result of the n-th layer, counted from 1
	Height, Width, Channels int   // of its result

	Name         string // the module's; "" where it has no parameters
	Weight, Bias string
	Mean, Std    string
	Norm         string // the batch norm's module, with .weight, .bias, .running_mean and .running_var

	Kernel, Stride int // of a convolution, on both axes
	Before, After  int // its padding with zeros
	Depthwise      bool
}

// Layers lists the layers of a network from New in an order in which they can be computed; the last gives the logits.
// It is nil for any other network.
func Layers(net classifier.Network) []Layer {
	if n, ok := net.(*network); ok {
		return n.measured.layers
	}
	return nil
}

// Results adds one forward pass in the mode of the bound network over x, float [N,H,W,C] in [0,1], to the graph and
// returns what each of the Layers gives.
func Results(b *classifier.Bound, x *Node) []*Node {
	w := &walk{bound: b}
	b.Network().(*network).walk(w, x)
	return w.nodes
}
