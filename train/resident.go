package train

import (
	"fmt"

	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/internal/share"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// isRemote is whether a backend computes on a device with memory of its own.
func isRemote(b compute.Backend) bool { return !b.HasSharedBuffers() }

// resident makes batches on a device that holds all the images, of what the host draws for them: it sends where each
// image lies and how it is seen, some numbers an image, and where its search begins. Batches are the host's, bit for bit.
type resident struct {
	pixels        *tensors.Tensor // uint8 [images·height·width, channels]
	clipped, free *Exec           // with and without [threat.Model.ClipStart]
}

// newResident copies the images to the device.
func newResident(backend compute.Backend, images *data.Set) (*resident, error) {
	r := &resident{pixels: tensors.FromFlatDataAndDimensions(images.Pixels, images.Len()*images.Height*images.Width, images.Channels)}
	if err := r.pixels.ToDevice(backend, 0); err != nil {
		return nil, fmt.Errorf("copying the images to %s: %w", backend.Name(), err)
	}
	program := func(m threat.Model) (*Exec, error) {
		e, err := NewExec(backend, func(in []*Node) []*Node {
			x := view(in[0], in[1], images.Height, images.Width)
			if len(in) == 2 {
				return []*Node{x}
			}
			return []*Node{x, m.BeginAt(x, in[2])}
		})
		if err == nil {
			var none share.Batches
			share.Exec(e, backend, none.Then(1).Batch(1), none.Batch(1))
		}
		return e, err
	}
	var err error
	if r.clipped, err = program(threat.Model{ClipStart: true}); err != nil {
		return nil, err
	}
	r.free, err = program(threat.Model{})
	return r, err
}

// finalize gives the device's memory back.
func (r *resident) finalize() {
	finalize([]*tensors.Tensor{r.pixels})
	r.clipped.Finalize()
	r.free.Finalize()
}

// view is the images of a batch as the epoch shows them, float32 [N, height, width, channels] in [0,1], out of all pixels,
// uint8 [images·height·width, channels], and views, int32 [N, 4]: the image's place and its [data.View].
func view(pixels, views *Node, height, width int) *Node {
	g, n := pixels.Graph(), views.Shape().Dimensions[0]
	of := func(k int) *Node { return Reshape(Slice(views, AxisRange(), AxisElem(k)), n, 1, 1) }
	grid := func(axis int) *Node { return Iota(g, shapes.Make(dtypes.Int32, n, height, width), axis) }
	image, dy, dx, flip := of(0), of(1), of(2), of(3)
	y, x := grid(1), grid(2)
	x = Add(x, Mul(flip, Sub(Scalar(g, dtypes.Int32, width-1), MulScalar(x, 2)))) // width-1-x where flip is 1
	y, x = Add(y, dy), Add(x, dx)
	inside := func(v *Node, size int) *Node {
		return LogicalAnd(GreaterOrEqual(v, ScalarZero(g, dtypes.Int32)), LessThan(v, Scalar(g, dtypes.Int32, size)))
	}
	place := Add(MulScalar(Add(MulScalar(image, height), ClipScalar(y, 0, float64(height-1))), width), ClipScalar(x, 0, float64(width-1)))
	value := ConvertDType(Gather(pixels, ExpandDims(place, -1)), dtypes.Int32)
	seen := ExpandDims(LogicalAnd(inside(y, height), inside(x, width)), -1)
	value = Mul(value, ConvertDType(seen, dtypes.Int32)) // black outside
	// A table, since what a compiler makes of a division by 255 is not what the host makes of it.
	bytes, unit := make([]uint8, 256), make([]float32, 256)
	for v := range bytes {
		bytes[v] = uint8(v)
	}
	data.Floats(unit, bytes)
	return Gather(Const(g, unit), ExpandDims(value, -1))
}

// make is the batch of the images in rows, as [source.make] makes it.
func (r *resident) make(s source, rows []int, epoch int, m threat.Model) (out batch) {
	views, y := make([]int32, 0, 4*len(rows)), make([]int32, len(rows))
	for k, i := range rows {
		v := s.augment.View(s.images, i, epoch, s.seed)
		flip := int32(0)
		if v.Flip {
			flip = 1
		}
		views = append(views, int32(i), int32(v.DY), int32(v.DX), flip)
		y[k] = int32(s.images.Labels[i])
	}
	drawn := []*tensors.Tensor{tensors.FromFlatDataAndDimensions(views, len(rows), 4)}
	if m.Steps > 0 {
		size := s.images.ImageSize()
		offsets := make([]float32, len(rows)*size)
		for k, i := range rows {
			m.Offset(s.startOf(i, epoch), offsets[k*size:(k+1)*size])
		}
		drawn = append(drawn, tensors.FromFlatDataAndDimensions(offsets, len(rows), s.images.Height, s.images.Width, s.images.Channels))
	}
	defer finalize(drawn)
	exec := r.free
	if m.ClipStart {
		exec = r.clipped
	}
	made, err := exec.Call(append([]any{r.pixels}, asAny(drawn)...)...)
	if err != nil {
		out.err = fmt.Errorf("making a batch: %w", err)
		return out
	}
	out.x, out.start, out.y = made[0], made[len(made)-1], tensors.FromFlatDataAndDimensions(y, len(y))
	return out
}
