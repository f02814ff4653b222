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

	// BF16 lets Forward and GradInput round what they multiply to bfloat16, where that is faster. GradKernel does not.
	BF16 bool
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

// turned is a 3x3 kernel reversed, and read from output to input.
func (k Kernel) turned() Kernel {
	return Kernel{Data: k.Data, Base: k.Base + 2*k.SH + 2*k.SW, SO: k.SI, SI: k.SO, SH: -k.SH, SW: -k.SW}
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
	s       Shape
	set     *kern.Set
	forward *gather
	input   []*gather
	kernel  *kernelGrad
	zeros   []float32 // as long as a row of an image on either side

	packForward, packInput packing

	// Where Winograd wins, else nil.
	winogradForward, winogradInput *winograd
	phasesForward, phasesInput     *phases

	thin *thin // or nil

	// For one input and one output channel in every group, else nil.
	depthwiseForward []*depthwise // one
	depthwiseInput   []*depthwise // one for each of input
}

// Tasks is how many tasks a batch should make at least, for some workers to share.
const Tasks = 16

// NewPlan chooses the algorithms. Where it can, it cuts the work into at least so many tasks: Tasks, or 1 for a worker that is
// alone. It panics on an impossible shape.
func NewPlan(s Shape, set *kern.Set, tasks int) *Plan {
	s.check()
	oh, ow := s.Out()
	p := &Plan{s: s, set: set, zeros: zeroRow(max(1, s.W, ow), max(s.Cin, s.Cout))}
	if s.KH == 3 && s.KW == 3 && s.StrideH == 1 && s.StrideW == 1 && s.DilH == 1 && s.DilW == 1 && s.Groups == 1 {
		p.winogradForward = newWinograd(set, p.zeros, tasks, s.BF16, s.N, s.H, s.W, s.Cin, oh, ow, s.Cout, s.PadTop, s.PadLeft)
		p.winogradInput = newWinograd(set, p.zeros, tasks, s.BF16, s.N, oh, ow, s.Cout, s.H, s.W, s.Cin, 2-s.PadTop, 2-s.PadLeft)
		if p.winogradInput != nil {
			p.winogradInput.borrow(p.winogradForward)
		}
	}
	if forward := newPhases(s, set, p.zeros, tasks, false); forward != nil && forward.wins() {
		p.phasesForward, p.phasesInput = forward, newPhases(s, set, p.zeros, tasks, true)
	}
	plain := s
	plain.BF16 = false
	p.forward = forwardGather(plain, set, tasks)
	p.input = inputGathers(plain, set, tasks)
	if s.Groups == s.Cin && s.Groups == s.Cout && s.KH*s.KW <= depthwiseTaps {
		weights := func(i int, _ tap) (int, int) { return 0, i * s.Cout }
		p.depthwiseForward = []*depthwise{newDepthwise(p.forward, s.Cin, weights)}
		if p.strided() { // the phases read what the forward pass does
			weights = func(_ int, t tap) (int, int) { return 0, (t.kh*s.KW + t.kw) * s.Cout }
		}
		for _, g := range p.input {
			p.depthwiseInput = append(p.depthwiseInput, newDepthwise(g, s.Cin, weights))
		}
		p.layOut()
		return p
	}
	p.kernel = newKernelGrad(p.forward)
	p.thin = newThin(s, p.forward, p.input)
	if s.BF16 && p.thin == nil {
		p.forward, p.input = forwardGather(s, set, tasks), inputGathers(s, set, tasks)
	}
	p.layOut()
	return p
}

// zeroRow is a row of zeros of a width and so many channels. What patches leave out on either side of it is there, too, and
// backed by memory: to leave out what is in a page never written takes a processor a thousand cycles each time.
func zeroRow(width, channels int) []float32 {
	const beside, page = 6, 4096 / 4
	row := make([]float32, (beside+width+beside)*channels)
	for i := 0; i < len(row); i += page {
		row[i] = 0
	}
	row[len(row)-1] = 0
	return row[beside*channels:][:width*channels]
}

// Shape returns the plan's shape.
func (p *Plan) Shape() Shape { return p.s }

// packing is how weights are laid out for one direction: parts, each filled by the algorithm that reads it.
type packing []packedPart

type packedPart struct {
	at, size int
	fill     func(par Parallel, part []float32, k Kernel)
}

func (p *packing) add(size int, fill func(par Parallel, part []float32, k Kernel)) {
	*p = append(*p, packedPart{p.size(), size, fill})
}

// size is that of all parts, each starting at a cache line.
func (p packing) size() int {
	if len(p) == 0 {
		return 0
	}
	last := p[len(p)-1]
	return roundUp(last.at+last.size, line)
}

func (p packing) parts(w []float32) [][]float32 {
	parts := make([][]float32, len(p))
	for i, part := range p {
		parts[i] = w[part.at:][:part.size:part.size]
	}
	return parts
}

func (p packing) fill(par Parallel, w []float32, k Kernel) {
	for i, part := range p.parts(w) {
		p[i].fill(par, part, k)
	}
}

// layOut decides how weights are packed.
func (p *Plan) layOut() {
	switch {
	case p.winogradForward != nil:
		p.packForward.add(p.winogradForward.packedSize(), p.winogradForward.pack)
	case p.phasesForward != nil:
		p.packForward.add(p.phasesForward.packedSize(), p.phasesForward.pack)
	case p.depthwiseForward != nil:
		d := p.depthwiseForward[0]
		p.packForward.add(d.weightsSize(), d.packWeights)
	default:
		co := p.s.Cout / p.s.Groups
		p.packForward.add(p.forward.packedSize, func(_ Parallel, part []float32, k Kernel) {
			p.forward.pack(part, func(group, i int, t tap) ([]float32, int) {
				return k.Data[k.Base+group*co*k.SO+i*k.SI+t.kh*k.SH+t.kw*k.SW:], k.SO
			})
		})
	}
	switch {
	case p.OnePacking():
		p.packInput = p.packForward
	case p.winogradInput != nil:
		p.packInput.add(p.winogradInput.packedSize(), func(par Parallel, part []float32, k Kernel) { p.winogradInput.pack(par, part, k.turned()) })
	case p.phasesInput != nil:
		p.packInput.add(p.phasesInput.packedSize(), func(par Parallel, part []float32, k Kernel) { p.phasesInput.pack(par, part, k.turned()) })
	case p.depthwiseInput != nil:
		d := p.depthwiseInput[0]
		p.packInput.add(d.weightsSize(), d.packWeights)
	case p.thin != nil:
		p.packInput.add(p.thin.inputSize(), p.thin.packInput)
	default:
		co := p.s.Cout / p.s.Groups
		for _, g := range p.input {
			p.packInput.add(g.packedSize, func(_ Parallel, part []float32, k Kernel) {
				g.pack(part, func(group, o int, t tap) ([]float32, int) {
					return k.Data[k.Base+(group*co+o)*k.SO+t.kh*k.SH+t.kw*k.SW:], k.SI
				})
			})
		}
	}
}

// PackedSize is the number of elements that Forward needs its weights packed into.
func (p *Plan) PackedSize() int { return p.packForward.size() }

// OnePacking reports whether GradInput reads what Pack writes, and PackInput is the same.
func (p *Plan) OnePacking() bool {
	return p.winogradInput != nil && p.winogradInput.borrows || p.depthwiseForward != nil && p.strided()
}

// strided reports whether the gradient by input is made in phases.
func (p *Plan) strided() bool { return p.s.StrideH > 1 || p.s.StrideW > 1 }

// ReadsWeightsOnce reports whether Forward needs so many weights that it reads them once for the whole batch, which parts
// of the batch would have to do again.
func (p *Plan) ReadsWeightsOnce() bool { return p.winogradForward != nil && p.winogradForward.late() }

// ReadsWeightsOnceBackward is ReadsWeightsOnce of GradInput.
func (p *Plan) ReadsWeightsOnceBackward() bool {
	return p.winogradInput != nil && p.winogradInput.late()
}

// PackedInputSize is the number of elements that GradInput needs its weights packed into.
func (p *Plan) PackedInputSize() int { return p.packInput.size() }

// Pack writes weights to w in the layout that Forward reads, with any plan of the same shape, batch size apart, and the
// same set.
func (p *Plan) Pack(par Parallel, w []float32, k Kernel) { p.packForward.fill(par, w, k) }

// PackInput is Pack for GradInput.
func (p *Plan) PackInput(par Parallel, w []float32, k Kernel) { p.packInput.fill(par, w, k) }

// Forward computes y[N,OH,OW,Cout] from x[N,H,W,Cin] and weights packed by Pack, with the epilogue. y may not overlap x.
func (p *Plan) Forward(par Parallel, y, x, w []float32, e Epilogue) {
	parts := p.packForward.parts(w)
	switch {
	case p.winogradForward != nil:
		p.winogradForward.run(par, y, x, parts[0], e, nil)
	case p.phasesForward != nil:
		p.phasesForward.run(par, y, x, parts[0], e, nil)
	case p.depthwiseForward != nil:
		runDepthwise(par, p.depthwiseForward, y, x, parts[0], e, nil, p.zeros)
	case p.thin != nil:
		p.thin.forward(par, x, parts[0], finishForward(p.set, y, p.s.Cout, e, p.zeros))
	default:
		runGathers(par, []*gather{p.forward}, x, parts, finishForward(p.set, y, p.s.Cout, e, p.zeros))
	}
}

// GradInput computes dx[N,H,W,Cin] from dy[N,OH,OW,Cout] and weights packed by PackInput. Where a mask is given that has no
// bit, dx is zero: the gradient through x = max(0, ·) when the mask is that of x > 0, by pixels. dx may not overlap dy.
func (p *Plan) GradInput(par Parallel, dx, dy, w []float32, mask []uint16) {
	p.GradInputAdd(par, dx, dy, w, nil, mask)
}

// GradInputAdd is GradInput with a residual, like dx, dx itself or nil, that is added before the mask: dx + residual where
// the mask has a bit, else zero.
func (p *Plan) GradInputAdd(par Parallel, dx, dy, w, residual []float32, mask []uint16) {
	parts := p.packInput.parts(w)
	switch {
	case p.winogradInput != nil:
		p.winogradInput.run(par, dx, dy, parts[0], Epilogue{Residual: residual}, mask)
	case p.phasesInput != nil:
		p.phasesInput.run(par, dx, dy, parts[0], Epilogue{Residual: residual}, mask)
	case p.depthwiseForward != nil && p.depthwiseForward[0].stride == 2 && residual == nil:
		p.depthwiseForward[0].gradInput(par, dx, dy, parts[0], mask)
	case p.depthwiseInput != nil:
		runDepthwise(par, p.depthwiseInput, dx, dy, parts[0], Epilogue{Residual: residual}, mask, p.zeros)
	case p.thin != nil:
		p.thin.gradInput(par, dy, parts[0], p.zeros, finishInput(p.set, dx, p.s.Cin, residual, mask, p.zeros))
	default:
		runGathers(par, p.input, dy, parts, finishInput(p.set, dx, p.s.Cin, residual, mask, p.zeros))
	}
}

// runGathers runs the tasks of all gathers as one list.
func runGathers(par Parallel, gathers []*gather, in []float32, w [][]float32, finish *finisher) {
	tasks, size := 0, 0
	for _, g := range gathers {
		tasks += g.tasks()
		size = max(size, g.scratchSize())
	}
	sc := getScratch(par.Workers())
	defer sc.put()
	par.Run(tasks, func(task, worker int) {
		for i, g := range gathers {
			if task < g.tasks() {
				g.run(task, sc.worker(worker, size), in, w[i], finish)
				return
			}
			task -= g.tasks()
		}
	})
}

// GradKernel computes dw from x and dy and writes (not adds) it through dst.
func (p *Plan) GradKernel(par Parallel, dst Kernel, x, dy []float32) {
	switch {
	case p.winogradForward != nil:
		p.winogradForward.gradKernel(par, dst, x, dy)
	case p.depthwiseForward != nil:
		p.depthwiseForward[0].gradKernel(par, dst, x, dy)
	case p.thin != nil:
		p.thin.gradKernel(par, dst, x, dy)
	default:
		p.kernel.run(par, dst, x, dy)
	}
}
