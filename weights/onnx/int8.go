package onnx

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// Quantize makes an ONNX file of a network of the zoo in int8, as pairs of QuantizeLinear and DequantizeLinear, which
// ONNX Runtime computes in integers (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
// Integer-Arithmetic-Only Inference", section 2, with signed weights):
//
//   - weights: int8 per output channel, w ≈ s·q with s = max|w|/127
//   - what convolutions, linear layers, sums and poolings read: uint8 per tensor, x ≈ s·(q - z), over the range that it
//     takes on the calibration images, 0 included; the images themselves have s = 1/255
//   - biases: int32 with the product of both scales
//
// Batch norms are folded first; one that follows no convolution stays in float32. The calibration images are [n,h,w,c] in
// [0,1] and must not be test images.
func Quantize(backend compute.Backend, m *classifier.Model, calibration []float32, o Options) (*File, error) {
	if o.KeepBatchNorm {
		return nil, fmt.Errorf("batch norms are kept, expected them to be folded before weights are quantised")
	}
	e, err := newExporter(m, o)
	if err != nil {
		return nil, err
	}
	low, high, err := extremes(backend, m, calibration)
	if err != nil {
		return nil, err
	}
	e.grids[0] = &grid{scale: 1. / 255}
	for _, l := range e.layers {
		if l.Op == zoo.ReLU || l.Op == zoo.Swish || l.Op == zoo.Norm {
			continue // computed in float32; ONNX Runtime joins a ReLU with what is before it
		}
		for _, at := range l.Inputs {
			if at > 0 {
				e.grids[at] = newGrid(low[at-1], high[at-1])
			}
		}
	}
	e.write()
	return e.file, nil
}

// grid is how a number x is an integer of 8 bits: x ≈ scale·(q - zero).
type grid struct {
	scale float32
	zero  uint8
}

// newGrid spreads 0 to 255 over a range and 0.
func newGrid(low, high float32) *grid {
	low, high = min(low, 0), max(high, 0)
	if high == low {
		return &grid{scale: 1}
	}
	scale := (high - low) / 255
	return &grid{scale, uint8(math.RoundToEven(float64(-low / scale)))}
}

// extremes are the smallest and the largest number in the result of each layer over the calibration images.
func extremes(backend compute.Backend, m *classifier.Model, images []float32) (low, high []float32, err error) {
	const batch = 32
	h, w, c := m.Input()
	each := h * w * c
	if len(images) == 0 || len(images)%each != 0 {
		return nil, nil, fmt.Errorf("%d pixels to calibrate on, expected those of one or more images of %dx%dx%d", len(images), h, w, c)
	}
	exec, err := graph.NewExec(backend, func(nodes []*graph.Node) []*graph.Node {
		last := len(nodes) - 1
		var low, high []*graph.Node
		for _, y := range zoo.Results(classifier.Bind(m.Network, nodes[:last]), nodes[last]) {
			low, high = append(low, graph.ReduceAllMin(y)), append(high, graph.ReduceAllMax(y))
		}
		return []*graph.Node{graph.Stack(low, 0), graph.Stack(high, 0)}
	})
	if err != nil {
		return nil, nil, err
	}
	defer exec.Finalize()
	for at := 0; at < len(images); at += batch * each {
		some := images[at:min(at+batch*each, len(images))]
		args := make([]any, 0, len(m.State)+1)
		for _, s := range m.State {
			args = append(args, s)
		}
		results, err := exec.Call(append(args, tensors.FromFlatDataAndDimensions(some, len(some)/each, h, w, c))...)
		if err != nil {
			return nil, nil, err
		}
		least, most := tensors.MustCopyFlatData[float32](results[0]), tensors.MustCopyFlatData[float32](results[1])
		if low == nil {
			low, high = least, most
		}
		for i := range low {
			low[i], high[i] = min(low[i], least[i]), max(high[i], most[i])
			if d := high[i] - low[i]; d-d != 0 {
				return nil, nil, fmt.Errorf("layer %d gives numbers from %g to %g, expected finite ones", i+1, low[i], high[i])
			}
		}
	}
	return low, high, nil
}

// read is the name of a value for the layers that read it.
func (e *exporter) read(at int) string {
	if e.grids[at] == nil {
		return e.names[at]
	}
	return e.names[at] + ".dequantized"
}

// quantized writes the nodes that put a value on its grid, if it has one.
func (e *exporter) quantized(at int) {
	g, name := e.grids[at], e.names[at]
	if g == nil {
		return
	}
	scale := e.floats(name+".scale", []float32{g.scale})
	zero := e.constant(Tensor{Name: name + ".zero_point", Type: Uint8, Data: []byte{g.zero}})
	e.node("QuantizeLinear", name+".quantized", []string{name, scale, zero})
	e.node("DequantizeLinear", e.read(at), []string{name + ".quantized", scale, zero})
}

// integers writes a layer's weight and bias as integers, for inputs on a grid.
func (e *exporter) integers(l zoo.Layer, input grid, weight, bias []float32) []string {
	scales, each := make([]float32, l.Channels), len(weight)/l.Channels
	q := make([]byte, len(weight))
	for c := range scales {
		some := weight[c*each : (c+1)*each]
		var largest float32
		for _, v := range some {
			largest = max(largest, v, -v)
		}
		if scales[c] = largest / 127; largest == 0 {
			scales[c] = 1
		}
		for i, v := range some {
			q[c*each+i] = byte(int8(math.RoundToEven(float64(v / scales[c]))))
		}
	}
	names := []string{e.dequantize(l.Name+".weight", Tensor{Type: Int8, Dims: e.shape(l.Weight), Data: q}, scales)}
	if bias == nil {
		return names
	}
	biases := make([]byte, 0, 4*len(bias))
	for c, v := range bias {
		scales[c] *= input.scale
		whole := math.RoundToEven(float64(v) / float64(scales[c]))
		biases = binary.LittleEndian.AppendUint32(biases, uint32(int32(min(max(whole, math.MinInt32), math.MaxInt32))))
	}
	return append(names, e.dequantize(l.Name+".bias", Tensor{Type: Int32, Dims: []int{l.Channels}, Data: biases}, scales))
}

// dequantize writes integers with a scale for each place of their first axis, and returns the name of what they stand for.
func (e *exporter) dequantize(name string, t Tensor, scales []float32) string {
	t.Name = name + ".quantized"
	zeros := make([]byte, len(scales)*widths[t.Type])
	e.node("DequantizeLinear", name, []string{
		e.constant(t), e.floats(name+".scale", scales, len(scales)),
		e.constant(Tensor{Name: name + ".zero_point", Type: t.Type, Dims: []int{len(scales)}, Data: zeros}),
	}, ints("axis", 0))
	return name
}
