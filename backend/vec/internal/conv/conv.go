// Package conv computes two-dimensional convolutions, their two gradients and matrix products on the CPU, on top of the
// kernels of internal/kern.
//
// Arrays are dense float32. Images are NHWC. With s the stride, d the dilation and p the leading padding of an axis, and
// g = ⌊o·groups/Cout⌋ the group of output channel o,
//
//	y[n,oh,ow,o]  = Σ_{kh,kw,i} x[n, oh·s+kh·d-p, ow·s+kw·d-p, g·Cin/groups+i] · w[o,i,kh,kw]
//	dx            = the gradient of Σ dy·y by x
//	dw            = the gradient of Σ dy·y by w
//
// where x is zero outside the image. How the work is cut and in which order sums are taken depends on the shape and the
// instruction set alone: the number of workers never changes a result.
package conv

import (
	"fmt"

	"github.com/adaad-go/adaad/internal/kern"
)

// Parallel runs f(i, worker) for every i in [0, n), at most one call at a time for each worker in [0, Workers()), and
// returns when all are done.
type Parallel interface {
	Run(n int, f func(i, worker int))
	Workers() int
}

// Shape is the shape of one NHWC convolution. Groups must divide Cin and Cout; Groups == Cin is a depthwise convolution.
type Shape struct {
	N, H, W, Cin, Cout                   int
	KH, KW                               int
	StrideH, StrideW                     int
	PadTop, PadBottom, PadLeft, PadRight int // zeros around the image; a negative padding crops it
	DilH, DilW                           int // kernel dilation, 1 for a dense kernel
	Groups                               int
}

// Out returns the height and width of the output.
func (s Shape) Out() (oh, ow int) {
	return outSize(s.H, s.KH, s.StrideH, s.DilH, s.PadTop+s.PadBottom),
		outSize(s.W, s.KW, s.StrideW, s.DilW, s.PadLeft+s.PadRight)
}

func outSize(size, k, stride, dil, pad int) int {
	return max(0, (size+pad-(k-1)*dil-1+stride)/stride)
}

// Flops counts a multiplication and an addition for every product of the definition, those with padding included.
func (s Shape) Flops() float64 {
	oh, ow := s.Out()
	return 2 * float64(s.N*oh*ow) * float64(s.KH*s.KW) * float64(s.Cin/s.Groups) * float64(s.Cout)
}

func (s Shape) check() {
	if s.N < 0 || s.H < 0 || s.W < 0 || s.Cin < 1 || s.Cout < 1 || s.KH < 1 || s.KW < 1 ||
		s.StrideH < 1 || s.StrideW < 1 || s.DilH < 1 || s.DilW < 1 || s.Groups < 1 || s.Cin%s.Groups != 0 || s.Cout%s.Groups != 0 {
		panic(fmt.Sprintf("conv: impossible shape %+v", s))
	}
}

// Kernel views weights of any axis order: element (o,i,kh,kw), with i counted inside its group, is
// Data[Base + o·SO + i·SI + kh·SH + kw·SW]. Strides may be negative, so a reversed kernel is a view too.
type Kernel struct {
	Data                 []float32
	Base, SO, SI, SH, SW int
}

func (k Kernel) at(o, i, kh, kw int) *float32 {
	return &k.Data[k.Base+o*k.SO+i*k.SI+kh*k.SH+kw*k.SW]
}

// Epilogue is what is done to an output before it is stored: y = act(conv + Bias[o] + Residual), act being the identity
// or max(0, ·). Residual may be y itself, which then accumulates.
type Epilogue struct {
	Bias     []float32 // length Cout, or nil
	Residual []float32 // like y, or nil
	ReLU     bool
}

// Plan is how one Shape is computed with one kern.Set: the algorithms and their blocking. It is immutable and safe for
// concurrent use.
type Plan struct {
	s      Shape
	oh, ow int
	set    *kern.Set
}

// NewPlan chooses the algorithms. It panics on an impossible shape.
func NewPlan(s Shape, set *kern.Set) *Plan {
	s.check()
	oh, ow := s.Out()
	return &Plan{s: s, oh: oh, ow: ow, set: set}
}

// Shape returns the plan's shape.
func (p *Plan) Shape() Shape { return p.s }

// Packed is weights in the layout one direction of one Plan reads. It may be used with any plan of the same shape, batch
// size apart, and the same set, until the weights change.
type Packed struct {
	k Kernel
}

// Pack prepares weights for Forward.
func (p *Plan) Pack(k Kernel) *Packed { return &Packed{k: copyKernel(p.s, k)} }

// PackGradInput prepares weights for GradInput.
func (p *Plan) PackGradInput(k Kernel) *Packed { return &Packed{k: copyKernel(p.s, k)} }

func copyKernel(s Shape, k Kernel) Kernel {
	ci := s.Cin / s.Groups
	c := Kernel{Data: make([]float32, s.Cout*ci*s.KH*s.KW), SO: 1, SI: s.Cout, SH: s.KW * ci * s.Cout, SW: ci * s.Cout}
	for o := range s.Cout {
		for i := range ci {
			for kh := range s.KH {
				for kw := range s.KW {
					*c.at(o, i, kh, kw) = *k.at(o, i, kh, kw)
				}
			}
		}
	}
	return c
}

// Forward computes y[N,OH,OW,Cout] from x[N,H,W,Cin] and weights packed by Pack, with the epilogue. y may not overlap x.
func (p *Plan) Forward(par Parallel, y, x []float32, w *Packed, e Epilogue) {
	s := p.s
	ci, co := s.Cin/s.Groups, s.Cout/s.Groups
	par.Run(s.N*p.oh, func(row, _ int) {
		n, oh := row/p.oh, row%p.oh
		for ow := range p.ow {
			for o := range s.Cout {
				var sum float32
				for kh := range s.KH {
					ih := oh*s.StrideH + kh*s.DilH - s.PadTop
					if ih < 0 || ih >= s.H {
						continue
					}
					for kw := range s.KW {
						iw := ow*s.StrideW + kw*s.DilW - s.PadLeft
						if iw < 0 || iw >= s.W {
							continue
						}
						for i := range ci {
							sum += x[((n*s.H+ih)*s.W+iw)*s.Cin+o/co*ci+i] * *w.k.at(o, i, kh, kw)
						}
					}
				}
				at := (row*p.ow+ow)*s.Cout + o
				if e.Bias != nil {
					sum += e.Bias[o]
				}
				if e.Residual != nil {
					sum += e.Residual[at]
				}
				if e.ReLU && sum < 0 {
					sum = 0
				}
				y[at] = sum
			}
		}
	})
}

// GradInput computes dx[N,H,W,Cin] from dy[N,OH,OW,Cout] and weights packed by PackGradInput. Where mask, like dx, is
// given and not above zero, dx is zero: the gradient through x = max(0, ·) when mask is x. dx may not overlap dy.
func (p *Plan) GradInput(par Parallel, dx, dy []float32, w *Packed, mask []float32) {
	s := p.s
	ci, co := s.Cin/s.Groups, s.Cout/s.Groups
	par.Run(s.N, func(n, _ int) {
		d := dx[n*s.H*s.W*s.Cin : (n+1)*s.H*s.W*s.Cin]
		clear(d)
		for oh := range p.oh {
			for ow := range p.ow {
				g := dy[((n*p.oh+oh)*p.ow+ow)*s.Cout:]
				for kh := range s.KH {
					ih := oh*s.StrideH + kh*s.DilH - s.PadTop
					if ih < 0 || ih >= s.H {
						continue
					}
					for kw := range s.KW {
						iw := ow*s.StrideW + kw*s.DilW - s.PadLeft
						if iw < 0 || iw >= s.W {
							continue
						}
						for o := range s.Cout {
							for i := range ci {
								d[(ih*s.W+iw)*s.Cin+o/co*ci+i] += g[o] * *w.k.at(o, i, kh, kw)
							}
						}
					}
				}
			}
		}
		if mask != nil {
			for i, m := range mask[n*s.H*s.W*s.Cin:][:len(d)] {
				if !(m > 0) {
					d[i] = 0
				}
			}
		}
	})
}

// GradKernel computes dw from x and dy and writes (not adds) it through dst.
func (p *Plan) GradKernel(par Parallel, dst Kernel, x, dy []float32) {
	s := p.s
	ci, co := s.Cin/s.Groups, s.Cout/s.Groups
	par.Run(s.Cout, func(o, _ int) {
		for i := range ci {
			for kh := range s.KH {
				for kw := range s.KW {
					var sum float32
					for n := range s.N {
						for oh := range p.oh {
							ih := oh*s.StrideH + kh*s.DilH - s.PadTop
							if ih < 0 || ih >= s.H {
								continue
							}
							for ow := range p.ow {
								iw := ow*s.StrideW + kw*s.DilW - s.PadLeft
								if iw < 0 || iw >= s.W {
									continue
								}
								sum += x[((n*s.H+ih)*s.W+iw)*s.Cin+o/co*ci+i] * dy[((n*p.oh+oh)*p.ow+ow)*s.Cout+o]
							}
						}
					}
					*dst.at(o, i, kh, kw) = sum
				}
			}
		}
	})
}

// Matrix views element (i,j) at Data[i·Rows + j·Cols], so a transposed matrix is a view too.
type Matrix struct {
	Data       []float32
	Rows, Cols int // distance between neighbours in a column, and in a row
}

// Gemm computes c = a·b for a[m,k], b[k,n] and a row-major c[m,n]; c may not overlap a or b.
func Gemm(par Parallel, set *kern.Set, m, n, k int, a, b Matrix, c []float32) {
	par.Run(m, func(i, _ int) {
		for j := range n {
			var sum float32
			for l := range k {
				sum += a.Data[i*a.Rows+l*a.Cols] * b.Data[l*b.Rows+j*b.Cols]
			}
			c[i*n+j] = sum
		}
	})
}
