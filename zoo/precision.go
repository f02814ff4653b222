package zoo

import (
	"fmt"

	"github.com/adaad-go/adaad/classifier"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Precision is what convolutions and matrix products compute in, forward and backward. Everything else (weights, batch
// norm and its statistics, losses, what attacks keep) is float32 at any precision.
type Precision string

// The precisions.
const (
	FP32 Precision = "fp32"
	// BF16 lets a backend round the operands of a product to bfloat16, which has float32's range and 8 bits of its precision.
	// Sums are kept in float32. A convolution's result may be rounded too; that of a linear layer, the logits, is not.
	BF16 Precision = "bf16"
)

// InPrecision is a network that computes in another precision. Its parameters stay float32. No precision is FP32, and BF16
// is for networks from New.
func InPrecision(net classifier.Network, p Precision) (classifier.Network, error) {
	switch p {
	case "", FP32:
		return net, nil
	case BF16:
	default:
		return nil, fmt.Errorf("precision is %q, expected %s or %s", p, FP32, BF16)
	}
	own, ok := net.(*network)
	if !ok {
		return nil, fmt.Errorf("%s cannot compute in %s: it is none of the networks here", net.Name(), p)
	}
	n := *own
	n.precision = p
	return &n, nil
}

// operands are what a product at this precision takes in place of x and w.
func (p Precision) operands(x, w *Node) (*Node, *Node) {
	if p != BF16 {
		return x, w
	}
	return ConvertDType(x, dtypes.BFloat16), ConvertDType(w, dtypes.BFloat16)
}
