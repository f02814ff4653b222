// Package zoo holds the architectures, one file per family. Each is written once, as a walk over its layers; its
// parameters (PyTorch's names, shapes and order), its multiply-adds and its graph all come from that walk.
package zoo

import (
	"fmt"

	"github.com/adaad-go/adaad/classifier"
	. "github.com/gomlx/gomlx/core/graph"
)

// architecture walks from images to logits.
type architecture func(s scope, x image, classes int) image

// network is an architecture for one size of images and one number of classes.
type network struct {
	name     string
	input    [3]int
	classes  int
	arch     architecture
	measured walk

	precision Precision
}

// New returns the network of a name such as "resnet18" or "resnet20-w8", for images of input height, width, channels
// and the given number of classes.
func New(name string, classes int, input [3]int) (classifier.Network, error) {
	arch, err := parse(name)
	if err != nil {
		return nil, err
	}
	if classes < 2 {
		return nil, fmt.Errorf("%s: %d classes, expected at least 2", name, classes)
	}
	for _, d := range input {
		if d < 1 {
			return nil, fmt.Errorf("%s: images of %dx%dx%d, expected height, width and channels of at least 1", name, input[0], input[1], input[2])
		}
	}
	net := &network{name: name, input: input, classes: classes, arch: arch}
	net.walk(&net.measured, nil)
	if net.measured.vanished {
		return nil, fmt.Errorf("%s: images of %dx%d pixels are too small: nothing is left of them before its last layer", name, input[0], input[1])
	}
	return net, nil
}

func (n *network) Name() string                         { return n.name }
func (n *network) Input() (height, width, channels int) { return n.input[0], n.input[1], n.input[2] }
func (n *network) Classes() int                         { return n.classes }
func (n *network) Params() []classifier.Param           { return n.measured.params }

func (n *network) Forward(b *classifier.Bound, x *Node) *Node {
	if dims := x.Shape().Dimensions; len(dims) != 4 || [3]int(dims[1:]) != n.input {
		panic(fmt.Errorf("%s takes images [N,%d,%d,%d], got %s", n.name, n.input[0], n.input[1], n.input[2], x.Shape()))
	}
	return n.walk(&walk{bound: b, precision: n.precision}, x).node
}

// walk goes through the network with images x, nil while it is measured.
func (n *network) walk(w *walk, x *Node) image {
	return n.arch(scope{walk: w}, image{h: n.input[0], w: n.input[1], c: n.input[2], walk: w, node: x}, n.classes)
}

// MACs is the number of multiply-adds in one forward pass over one image, those of convolutions and linear layers, of a
// network from New.
func MACs(net classifier.Network) int64 { return net.(*network).measured.macs }

// Idle is the number of trained values that no forward pass visits, of a network from New.
func Idle(net classifier.Network) int { return net.(*network).measured.idle }
