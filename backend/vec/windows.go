package vec

import (
	"math"

	"github.com/gomlx/compute"
)

// pooling is a reduction over windows of an image [n, h, w, c].
type pooling struct {
	n, h, w, c       int
	oh, ow           int
	kh, kw           int
	strideH, strideW int
	top, left        int // padding
}

// poolingOf maps windows over the middle axes of a float32 operand with four axes; y has one element for each window.
func poolingOf(n *node, y *value) (p pooling, ok bool) {
	a, x := n.attr.(window), n.in[0]
	if !isFloat(x) || !isFloat(y) || x.shape.Rank() != 4 || len(a.size) != 4 || a.size[0] != 1 || a.size[3] != 1 {
		return p, false
	}
	stride, pad := a.strides, a.paddings
	if len(stride) == 0 {
		stride = a.size
	}
	if len(pad) == 0 {
		pad = make([][2]int, 4)
	}
	for i := range 4 {
		inner := i == 1 || i == 2
		for _, d := range [][]int{a.inputDilations, a.sizeDilations} {
			if len(d) > 0 && d[i] > 1 {
				return p, false
			}
		}
		if pad[i][0] < 0 || pad[i][1] < 0 || !inner && (stride[i] != 1 || pad[i] != [2]int{}) {
			return p, false
		}
	}
	d, o := x.shape.Dimensions, y.shape.Dimensions
	return pooling{d[0], d[1], d[2], d[3], o[1], o[2], a.size[1], a.size[2], stride[1], stride[2], pad[1][0], pad[2][0]}, true
}

// positions lists where the pixels of window (oh, ow) start in the image, those in the padding left out.
func (p pooling) positions(list []int, oh, ow int) []int {
	list = list[:0]
	for i := range p.kh {
		ih := oh*p.strideH - p.top + i
		if ih < 0 || ih >= p.h {
			continue
		}
		for j := range p.kw {
			if iw := ow*p.strideW - p.left + j; iw >= 0 && iw < p.w {
				list = append(list, (ih*p.w+iw)*p.c)
			}
		}
	}
	return list
}

// lowerPooling adds a reduction over windows.
func (c *compiler) lowerPooling(n *node) {
	p, _ := poolingOf(n, n.out[0])
	var op compute.OpType
	var neutral float32
	switch n.attr.(window).reduction {
	case compute.ReduceOpMax:
		op, neutral = compute.OpTypeMax, float32(math.Inf(-1))
	case compute.ReduceOpMin:
		op, neutral = compute.OpTypeMin, float32(math.Inf(1))
	case compute.ReduceOpSum:
		op = compute.OpTypeAdd
	case compute.ReduceOpProduct:
		op, neutral = compute.OpTypeMul, 1
	}
	combine := c.backend.kernels.step(op)
	x, y := c.tensor(n.in[0]), c.tensor(n.out[0])
	c.add(instruction{name: n.op.String(), in: []*tensor{x}, out: []*tensor{y}, run: func(r *run) error {
		x, y := r.floats(x), r.floats(y)
		r.pool.Run(p.n*p.oh, func(row, _ int) {
			image := x[row/p.oh*p.h*p.w*p.c:][:p.h*p.w*p.c]
			var list []int
			for ow := range p.ow {
				list = p.positions(list, row%p.oh, ow)
				out := y[(row*p.ow+ow)*p.c:][:p.c]
				if len(list) == 0 {
					for i := range out {
						out[i] = neutral
					}
					continue
				}
				copy(out, image[list[0]:])
				for _, at := range list[1:] {
					combine(out, out, image[at:][:p.c], out)
				}
			}
		})
		return nil
	}})
}

// lowerScatter adds the gradient of pooling: each element of the source goes to the pixel of its window that is the
// largest, or smallest; the first of equals, the last NaN.
func (c *compiler) lowerScatter(n *node) {
	p, _ := poolingOf(n, n.in[1])
	sign := float32(1)
	if n.op == compute.OpTypeSelectAndScatterMin {
		sign = -1
	}
	x, source, y := c.tensor(n.in[0]), c.tensor(n.in[1]), c.tensor(n.out[0])
	c.add(instruction{name: n.op.String(), in: []*tensor{x, source}, out: []*tensor{y}, run: func(r *run) error {
		x, source, y := r.floats(x), r.floats(source), r.floats(y)
		size := p.h * p.w * p.c
		r.pool.Run(p.n, func(i, _ int) {
			image, out := x[i*size:][:size], y[i*size:][:size]
			clear(out)
			var list []int
			for window := range p.oh * p.ow {
				list = p.positions(list, window/p.ow, window%p.ow)
				if len(list) == 0 {
					continue
				}
				for c, v := range source[(i*p.oh*p.ow+window)*p.c:][:p.c] {
					best := list[0]
					largest := sign * image[best+c]
					for _, at := range list[1:] {
						if u := sign * image[at+c]; u > largest || u != u {
							largest, best = u, at
						}
					}
					out[best+c] += v
				}
			}
		})
		return nil
	}})
}
