package train

import (
	"fmt"
	"iter"
	"math/rand/v2"

	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/gomlx/core/tensors"
)

// batch is one batch, or the error in making it.
type batch struct {
	err    error
	number int             // in its epoch, from 0
	x      *tensors.Tensor // float32 [N,H,W,C]
	start  *tensors.Tensor // where the search begins; x itself if there is none
	y      *tensors.Tensor // int32 [N]
}

func (b batch) finalize() {
	if b.x == nil {
		return
	}
	finalize([]*tensors.Tensor{b.x, b.y})
	if b.start != b.x {
		finalize([]*tensors.Tensor{b.start})
	}
}

// source makes the batches of a data set.
type source struct {
	images   *data.Set
	augment  data.Augmentation
	size     int
	seed     uint64
	resident *resident // where a device makes them; nil where the host does
}

// finalize gives back what the source holds of a device.
func (s source) finalize() {
	if s.resident != nil {
		s.resident.finalize()
	}
}

// count is the number of batches in an epoch. All batches have one size, so that nothing is compiled twice: images left
// over at the end of an epoch's order are dropped, and others are left over in the next epoch. A set smaller than one
// batch is one batch.
func (s source) count() int { return s.images.Len() / s.size }

// newSource checks the images.
func newSource(images *data.Set, augment data.Augmentation, size int, seed uint64) (source, error) {
	if images == nil || images.Len() == 0 {
		return source{}, fmt.Errorf("there are no training images")
	}
	if size < 1 {
		return source{}, fmt.Errorf("batch size is %d, expected at least 1", size)
	}
	return source{images: images, augment: augment, size: min(size, images.Len()), seed: seed}, nil
}

// make draws batch number b of an epoch, given the epoch's order. The search starts at x plus an offset keyed by epoch
// and image.
func (s source) make(order []int, epoch, b int, m threat.Model) batch {
	rows := order[b*s.size : (b+1)*s.size]
	if s.resident != nil {
		out := s.resident.make(s, rows, epoch, m)
		out.number = b
		return out
	}
	x := make([]float32, s.size*s.images.ImageSize())
	y := make([]int32, s.size)
	s.augment.Batch(x, y, s.images, rows, epoch, s.seed)
	shape := []int{s.size, s.images.Height, s.images.Width, s.images.Channels}
	out := batch{
		number: b,
		x:      tensors.FromFlatDataAndDimensions(x, shape...),
		y:      tensors.FromFlatDataAndDimensions(y, s.size),
	}
	out.start = out.x
	if m.Steps > 0 {
		start := make([]float32, len(x))
		for k, i := range rows {
			lo, hi := k*s.images.ImageSize(), (k+1)*s.images.ImageSize()
			m.Begin(s.startOf(i, epoch), x[lo:hi], start[lo:hi])
		}
		out.start = tensors.FromFlatDataAndDimensions(start, shape...)
	}
	return out
}

// startOf is the stream that draws where the search of image i starts.
func (s source) startOf(i, epoch int) *rand.Rand {
	return rng.New(s.seed, rng.TrainStart, uint64(epoch), uint64(s.images.Index[i]))
}

// epoch yields the batches of an epoch from number from on, one made ahead of the one in use. Each is the caller's to
// finalize. When it returns nothing makes batches any more.
func (s source) epoch(epoch, from int, m threat.Model) iter.Seq[batch] {
	return func(yield func(batch) bool) {
		stop, batches := make(chan struct{}), make(chan batch, 1)
		go func() {
			defer close(batches)
			order := data.Order(s.images.Len(), s.seed, epoch)
			for b := from; b < s.count(); b++ {
				select {
				case batches <- s.make(order, epoch, b, m):
				case <-stop:
					return
				}
			}
		}()
		defer func() {
			close(stop)
			for b := range batches {
				b.finalize()
			}
		}()
		for b := range batches {
			if !yield(b) {
				return
			}
		}
	}
}
