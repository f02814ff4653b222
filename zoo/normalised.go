package zoo

import (
	"github.com/adaad-go/adaad/classifier"
	. "github.com/gomlx/gomlx/core/graph"
)

// Normalised is the suffix of the name of a network that normalises its images itself.
const Normalised = "-normalised"

// normalised is an architecture whose network takes (x - mean) / std, per channel, instead of the image. Images stay in
// [0,1] for everyone outside, so that eps means the same for every model.
func normalised(inner architecture) architecture {
	return func(s scope, x image, classes int) image {
		mean, std := s.param(classifier.InputMean, "mean", x.c), s.param(classifier.InputStd, "std", x.c)
		layer := Layer{Op: Normalise, Mean: s.prefix + "mean", Std: s.prefix + "std"}
		x = x.then(layer, x.h, x.w, x.c, func(x *Node) *Node { return Div(Sub(x, perChannel(mean)), perChannel(std)) })
		return inner(s, x, classes)
	}
}
