package train

import (
	"context"
	"fmt"

	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/gomlx/core/tensors"
)

// batch is one batch on the host.
type batch struct {
	number int             // in its epoch, from 0
	x      *tensors.Tensor // float32 [N,H,W,C]
	start  *tensors.Tensor // where the search begins; x itself if there is none
	y      *tensors.Tensor // int32 [N]
}

func (b batch) finalize() {
	finalize([]*tensors.Tensor{b.x, b.y})
	if b.start != b.x {
		finalize([]*tensors.Tensor{b.start})
	}
}

// source makes the batches of a data set.
type source struct {
	images  *data.Set
	augment data.Augmentation
	size    int
	seed    uint64
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
			m.Begin(rng.New(s.seed, rng.TrainStart, uint64(epoch), uint64(s.images.Index[i])), x[lo:hi], start[lo:hi])
		}
		out.start = tensors.FromFlatDataAndDimensions(start, shape...)
	}
	return out
}

// epoch sends the batches of an epoch from number from on, one made ahead of the one in use, until ctx is done.
func (s source) epoch(ctx context.Context, epoch, from int, m threat.Model) <-chan batch {
	out := make(chan batch, 1)
	go func() {
		defer close(out)
		order := data.Order(s.images.Len(), s.seed, epoch)
		for b := from; b < s.count(); b++ {
			select {
			case out <- s.make(order, epoch, b, m):
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
