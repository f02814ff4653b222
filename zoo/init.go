package zoo

import (
	"math"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/gomlx/gomlx/core/tensors"
)

// Init draws a network's parameters. Convolutions are normal with variance 2 / (out·kh·kw), PyTorch's kaiming_normal_
// with fan_out (He et al. 2015, section 2.2, backward case); linear weights and all biases are U(-1/√fan_in, 1/√fan_in), PyTorch's default; batch
// norms and the normalisation of images start as the identity. Every parameter draws from its own stream, keyed by its name.
func Init(net classifier.Network, seed uint64) *classifier.Model {
	var state []*tensors.Tensor
	fanIn := 1 // of the last weight, which is what a bias belongs to
	for _, p := range net.Params() {
		values := make([]float32, p.Size())
		r := rng.New(seed, rng.Init, rng.Key(p.Name))
		switch p.Kind {
		case classifier.ConvWeight:
			fanIn = p.Shape[1] * p.Shape[2] * p.Shape[3]
			fanOut := p.Shape[0] * p.Shape[2] * p.Shape[3]
			for i := range values {
				values[i] = float32(r.NormFloat64() * math.Sqrt(2/float64(fanOut)))
			}
		case classifier.LinearWeight, classifier.Bias:
			if p.Kind == classifier.LinearWeight {
				fanIn = p.Shape[1]
			}
			for i := range values {
				values[i] = float32((2*r.Float64() - 1) / math.Sqrt(float64(fanIn)))
			}
		case classifier.NormWeight, classifier.RunningVar, classifier.InputStd:
			for i := range values {
				values[i] = 1
			}
		}
		state = append(state, tensors.FromFlatDataAndDimensions(values, p.Shape...))
	}
	return &classifier.Model{Network: net, State: state}
}
