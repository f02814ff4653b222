package vec

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute"

	"github.com/adaad-go/adaad/backend/vec/internal/conv"
)

// direction says which of the three forms of a convolution a node is.
type direction int

const (
	forward    direction = iota // y from x and w
	gradInput                   // dx from dy and w
	gradKernel                  // dw from x and dy
)

// convPlan is a convolution as package conv computes it.
type convPlan struct {
	direction direction
	shape     conv.Shape
	result    *value

	// Images are NHWC: x is x, or dy for gradInput; y is dy, for gradKernel.
	x, y         *value
	xPerm, yPerm []int // how to transpose an image to NHWC first; nil if it is already
	outDims      []int // of the NHWC result, if it must be transposed afterwards by outPerm
	outPerm      []int

	// kernel is the weights' memory and view its axes in it; for gradKernel it is the view of the result.
	kernel *value
	view   conv.Kernel

	bias     *value // of forward
	residual *value // of forward and gradInput
	relu     bool   // of forward
	mask     *value // of gradInput
}

func (p *convPlan) reads(add func(*value)) {
	for _, v := range []*value{p.x, p.y, p.kernel, p.bias, p.residual, p.mask} {
		if v != nil {
			add(v)
		}
	}
}

// clusterConvolutions recognises the convolutions there are kernels for, with what can be done to their results before
// these are stored: bias, residual and ReLU, or the gradient of a ReLU.
func (c *compiler) clusterConvolutions() {
	for _, n := range c.nodes {
		if n.op != compute.OpTypeConvGeneral {
			continue
		}
		p := planConvolution(n, false)
		if p == nil {
			continue
		}
		// A reversed kernel is a gradient's: in that form it reads the weights of the convolution it is the gradient of.
		if p.direction == forward && (p.view.SH < 0 || p.view.SW < 0) {
			if q := planConvolution(n, true); q != nil && q.outPerm == nil {
				p = q
			}
		}
		k := c.newCluster(n)
		k.conv = p
		for p.direction != gradKernel && p.outPerm == nil {
			m := c.onlyReader(p.result)
			if m == nil || c.of[m] != nil || !p.absorb(c, k, n, m) {
				break
			}
			k.nodes = append(k.nodes, m)
			c.of[m] = k
			k.last = c.position[m]
			p = k.conv
			p.result = m.out[0]
		}
	}
}

// onlyReader is the one node that uses v, if there is just one and v is no output.
func (c *compiler) onlyReader(v *value) *node {
	if c.uses[v] != 1 || len(c.readers[v]) != 1 {
		return nil
	}
	return c.readers[v][0]
}

// absorb makes m, which reads the result of the convolution n so far, part of its cluster k. It reports whether it can.
func (p *convPlan) absorb(c *compiler, k *cluster, n, m *node) bool {
	size := p.result.shape.Size()
	if len(m.out) != 1 || m.out[0].shape.Size() != size || !isElementwise(m) || p.relu || p.mask != nil {
		return false
	}
	side := 0
	if m.in[0] != p.result {
		side = 1
	}
	if len(m.in) != 2 || m.in[side] != p.result {
		return false
	}
	other := c.operand(&cluster{size: size}, m, 1-side)
	switch m.op {
	case compute.OpTypeAdd:
		channels := p.shape.Cout
		if p.direction == forward && p.bias == nil && other.form() == periodicForm && other.dims[1] == channels && other.v.shape.Size() == channels {
			p.bias = other.v
			return true
		}
		if p.residual == nil && other.form() == fullForm && !(p.sparse() && c.laterConvolution(other.v, n)) {
			p.residual = other.v
			return true
		}
	case compute.OpTypeMax:
		if zero, ok := constant(m.in[1-side]); ok && zero == 0 && p.direction == forward {
			p.relu = true
			return true
		}
	case opGate:
		if side != 0 || other.form() != fullForm || p.bias != nil {
			return false
		}
		if p.direction == forward {
			// The same as a gradient by the input, which has a mask.
			q := planConvolution(n, true)
			if q == nil || q.outPerm != nil {
				return false
			}
			q.residual = p.residual
			p = q
			k.conv = q
		}
		p.mask = other.v
		return true
	}
	return false
}

// sparse reports whether most of the result is zero: the gradient of a stride that skips inputs. It had better be added to
// another convolution's result than that to it.
func (p *convPlan) sparse() bool {
	return p.direction == gradInput && (p.shape.KH < p.shape.StrideH || p.shape.KW < p.shape.StrideW)
}

// laterConvolution reports whether v is the result of a convolution behind n that nothing else reads.
func (c *compiler) laterConvolution(v *value, n *node) bool {
	return v.node != nil && v.node.op == compute.OpTypeConvGeneral && c.position[v.node] > c.position[n] && c.onlyReader(v) != nil
}

// spatial is one spatial axis of a convolution.
type spatial struct {
	in, kernel, out, stride, before, inDilation, kernelDilation int
}

// planConvolution maps a float32 convolution of one or two spatial axes to package conv; nil if it cannot.
//
// GoMLX writes the gradient by the input of a strided convolution as a convolution with dilated input and a reversed
// kernel, and the gradient by the kernel as one in which batch and channels have changed places.
//
// A convolution of stride 1 is a gradient by the input too; reversed asks for that form.
func planConvolution(n *node, reversed bool) *convPlan {
	a := n.attr.(convolution)
	x, w, out := n.in[0], n.in[1], n.out[0]
	rank := len(a.axes.InputSpatial)
	if !isFloat(x) || !isFloat(w) || !isFloat(out) || rank < 1 || rank > 2 {
		return nil
	}
	xd, wd, od := x.shape.Dimensions, w.shape.Dimensions, out.shape.Dimensions
	// With one spatial axis the height is 1.
	axes := [2]spatial{{in: 1, kernel: 1, out: 1, stride: 1, inDilation: 1, kernelDilation: 1}}
	for i := range rank {
		s := spatial{in: xd[a.axes.InputSpatial[i]], kernel: wd[a.axes.KernelSpatial[i]], out: od[a.axes.OutputSpatial[i]],
			stride: 1, inDilation: 1, kernelDilation: 1}
		set := func(to *int, list []int) {
			if len(list) > 0 {
				*to = max(1, list[i])
			}
		}
		set(&s.stride, a.strides)
		set(&s.inDilation, a.inputDilations)
		set(&s.kernelDilation, a.kernelDilations)
		if len(a.paddings) > 0 {
			s.before = a.paddings[i][0]
		}
		axes[2-rank+i] = s
	}
	h, v := axes[0], axes[1]
	view, kernel := kernelView(w, a.axes)
	p := &convPlan{x: x, kernel: kernel, view: view, result: out, shape: conv.Shape{Groups: max(1, a.channelGroups), BF16: a.bf16}}
	s := &p.shape
	inputRoles := imageRoles(a.axes.InputBatch, a.axes.InputSpatial, a.axes.InputChannels)
	outputRoles := imageRoles(a.axes.OutputBatch, a.axes.OutputSpatial, a.axes.OutputChannels)

	switch {
	case a.axes.InputChannels == 0 && s.Groups == 1 && h.inDilation == 1 && v.inDilation == 1:
		// The kernel is another image and the contraction is over images. With channels as batch groups the convolution
		// was depthwise.
		if a.batchGroups > 1 && (a.batchGroups != xd[a.axes.InputBatch] || a.batchGroups != od[a.axes.OutputChannels]) {
			return nil
		}
		p.direction = gradKernel
		p.y, p.kernel = w, nil
		s.Groups = max(1, a.batchGroups)
		s.N, s.Cin, s.Cout = xd[a.axes.InputChannels], xd[a.axes.InputBatch], od[a.axes.OutputChannels]
		s.H, s.W, s.KH, s.KW = h.in, v.in, h.out, v.out
		s.StrideH, s.StrideW, s.DilH, s.DilW = h.kernelDilation, v.kernelDilation, h.stride, v.stride
		s.PadTop, s.PadLeft = h.before, v.before
		if !fit(s, h.kernel, v.kernel) {
			return nil
		}
		p.xPerm = permutation(imageRoles(a.axes.InputChannels, a.axes.InputSpatial, a.axes.InputBatch))
		p.yPerm = permutation(imageRoles(a.axes.KernelInputChannels, a.axes.KernelSpatial, a.axes.KernelOutputChannels))
		p.view = viewOf(od, a.axes.OutputChannels, a.axes.OutputBatch, a.axes.OutputSpatial)
		return p

	case a.batchGroups > 1:
		return nil

	case h.inDilation == 1 && v.inDilation == 1 && !reversed:
		p.direction = forward
		s.N, s.Cin, s.Cout = xd[a.axes.InputBatch], xd[a.axes.InputChannels], od[a.axes.OutputChannels]
		s.H, s.W, s.KH, s.KW = h.in, v.in, h.kernel, v.kernel
		s.StrideH, s.StrideW, s.DilH, s.DilW = h.stride, v.stride, h.kernelDilation, v.kernelDilation
		s.PadTop, s.PadLeft = h.before, v.before
		if !fit(s, h.out, v.out) {
			return nil
		}

	case h.stride == 1 && v.stride == 1 && (s.Groups == 1 || s.Groups == xd[a.axes.InputChannels] && s.Groups == od[a.axes.OutputChannels]):
		// y[t] = Σ_k x[(t + k·d - before)/dilation] w[k] is the gradient by the input of a convolution with stride
		// dilation, padding (K-1)·d - before and kernel w reversed.
		p.direction = gradInput
		s.N, s.Cin, s.Cout = xd[a.axes.InputBatch], od[a.axes.OutputChannels], xd[a.axes.InputChannels]
		s.H, s.W, s.KH, s.KW = h.out, v.out, h.kernel, v.kernel
		s.StrideH, s.StrideW, s.DilH, s.DilW = h.inDilation, v.inDilation, h.kernelDilation, v.kernelDilation
		s.PadTop, s.PadLeft = (h.kernel-1)*h.kernelDilation-h.before, (v.kernel-1)*v.kernelDilation-v.before
		if !fit(s, h.in, v.in) {
			return nil
		}
		view := &p.view
		if s.Groups == 1 { // else output channel and input channel are one
			view.SO, view.SI = view.SI, view.SO
		}
		view.Base += (h.kernel-1)*view.SH + (v.kernel-1)*view.SW
		view.SH, view.SW = -view.SH, -view.SW

	default:
		return nil
	}
	p.xPerm = permutation(inputRoles)
	if perm := permutation(outputRoles); perm != nil {
		p.outPerm = make([]int, len(perm))
		p.outDims = make([]int, len(perm))
		for i, axis := range perm {
			p.outPerm[axis] = i
			p.outDims[i] = od[axis]
		}
	}
	return p
}

// fit sets the trailing paddings so that the output has the given size. It reports whether they exist: paddings may not be
// negative.
func fit(s *conv.Shape, oh, ow int) bool {
	s.PadBottom = max(0, (oh-1)*s.StrideH+(s.KH-1)*s.DilH+1-s.H-s.PadTop)
	s.PadRight = max(0, (ow-1)*s.StrideW+(s.KW-1)*s.DilW+1-s.W-s.PadLeft)
	if s.PadTop < 0 || s.PadLeft < 0 {
		return false
	}
	h, w := s.Out()
	return h == oh && w == ow
}

// imageRoles lists the axes of an image in the order N, H, W, C.
func imageRoles(batch int, spatial []int, channels int) []int {
	return append(append([]int{batch}, spatial...), channels)
}

// permutation is perm, or nil if it changes nothing.
func permutation(perm []int) []int {
	for i, axis := range perm {
		if axis != i {
			return perm
		}
	}
	return nil
}

func viewOf(dims []int, out, in int, spatial []int) conv.Kernel {
	st := strides(dims)
	k := conv.Kernel{SO: st[out], SI: st[in], SW: st[spatial[len(spatial)-1]]}
	if len(spatial) == 2 {
		k.SH = st[spatial[0]]
	}
	return k
}

// kernelView finds the memory behind weights that were reversed or transposed, and their axes in it.
func kernelView(w *value, axes compute.ConvolveAxesConfig) (conv.Kernel, *value) {
	dims := w.shape.Dimensions
	// at and step are the place of element 0 and the distance along each axis of w, in the memory of v.
	at := 0
	axis := make([]int, len(dims)) // which axis of v each axis of w is
	sign := make([]int, len(dims))
	for i := range axis {
		axis[i], sign[i] = i, 1
	}
	v := w
	for v.node != nil {
		n := v.node
		if n.op == compute.OpTypeTranspose && !isReshape(n) {
			for i := range axis {
				axis[i] = n.attr.([]int)[axis[i]]
			}
		} else if n.op == compute.OpTypeReverse {
			for _, reversed := range n.attr.([]int) {
				for i := range axis {
					if axis[i] == reversed {
						sign[i] = -sign[i]
					}
				}
			}
		} else {
			break
		}
		v = n.in[0]
	}
	st := strides(v.shape.Dimensions)
	step := make([]int, len(dims))
	for i := range step {
		step[i] = sign[i] * st[axis[i]]
		if sign[i] < 0 {
			at += (dims[i] - 1) * st[axis[i]]
		}
	}
	k := conv.Kernel{Base: at, SO: step[axes.KernelOutputChannels], SI: step[axes.KernelInputChannels]}
	k.SW = step[axes.KernelSpatial[len(axes.KernelSpatial)-1]]
	if len(axes.KernelSpatial) == 2 {
		k.SH = step[axes.KernelSpatial[0]]
	}
	return k, v
}

// lowerConvolution adds the instruction, and those that bring images to NHWC and back.
func (c *compiler) lowerConvolution(p *convPlan) {
	plan := conv.NewPlan(p.shape, c.backend.set, conv.Tasks)
	optional := func(v *value) (t *tensor) {
		if v != nil {
			t = c.tensor(v)
		}
		return t
	}
	image := func(v *value, perm []int) *tensor {
		if perm == nil {
			return c.tensor(v)
		}
		t := c.newTensor(byteSize(v.shape))
		c.addTranspose(t, c.tensor(v), v.shape.Dimensions, perm, 4)
		return t
	}
	x := image(p.x, p.xPerm)
	out := c.tensor(p.result)
	last := out
	if p.outPerm != nil {
		last = c.newTensor(byteSize(p.result.shape))
	}
	in := instruction{in: []*tensor{x}, out: []*tensor{last}}
	add := func(t *tensor, name string) {
		if t == nil {
			return
		}
		in.name += ", " + name
		in.in = append(in.in, t)
		if name == "residual" && t != x { // a mask may be read after the result was written first
			in.overlays = append(in.overlays, overlay{t, last})
		}
	}
	switch p.direction {
	case gradKernel:
		in.name = "convolution: gradient by kernel"
		y := image(p.y, p.yPerm)
		in.in = append(in.in, y)
		in.run = func(r *run) error {
			dst := p.view
			dst.Data = r.floats(last)
			plan.GradKernel(r.pool, dst, r.floats(x), r.floats(y))
			return nil
		}
	case gradInput:
		in.name = "convolution: gradient by input"
		direction := gradInput
		if plan.OnePacking() && !c.trained[root(p.kernel)] { // else the packed weights would live from one to the other
			direction = forward
		}
		weights := c.addPack(p, direction, plan.PackedInputSize(), plan.PackInput)
		in.in = append(in.in, weights)
		residual := optional(p.residual)
		add(residual, "residual")
		var mask *tensor
		if p.mask != nil {
			mask = c.maskOf(p.mask, p.shape.N, p.shape.H*p.shape.W, p.shape.Cin)
			add(mask, "gate")
		}
		in.run = func(r *run) error {
			plan.GradInputAdd(r.pool, r.floats(last), r.floats(x), r.floats(weights), r.optional(residual), r.words(mask))
			return nil
		}
		c.splitConvolution(&in, p, plan.ReadsWeightsOnceBackward(), []*tensor{x, last, residual, mask}, []*tensor{weights}, func(plan *conv.Plan, v part) {
			plan.GradInputAdd(alone{}, v.floats(last), v.floats(x), v.r.floats(weights), v.optional(residual), v.words(mask))
		})
	default:
		in.name = "convolution"
		weights := c.addPack(p, forward, plan.PackedSize(), plan.Pack)
		in.in = append(in.in, weights)
		bias, residual := optional(p.bias), optional(p.residual)
		add(bias, "bias")
		add(residual, "residual")
		if p.relu {
			in.name += ", ReLU"
		}
		in.run = func(r *run) error {
			plan.Forward(r.pool, r.floats(last), r.floats(x), r.floats(weights),
				conv.Epilogue{Bias: r.optional(bias), Residual: r.optional(residual), ReLU: p.relu})
			return nil
		}
		if p.xPerm == nil && p.outPerm == nil {
			in.windowed = &windowed{x: x, residual: residual, shape: p.shape, run: func(plan *conv.Plan, r *run, windows []conv.Window) {
				plan.ForwardWindows(r.floats(last), r.floats(x), r.floats(weights),
					conv.Epilogue{Bias: r.optional(bias), Residual: r.optional(residual), ReLU: p.relu}, windows)
			}}
			in.text = func() string {
				each := p.shape
				each.N = 0
				return fmt.Sprint(each, p.relu, p.view.Base, p.view.SO, p.view.SI, p.view.SH, p.view.SW) + c.describe(p.kernel) + c.describe(p.bias)
			}
		}
		c.splitConvolution(&in, p, plan.ReadsWeightsOnce(), []*tensor{x, last, residual}, []*tensor{weights, bias}, func(plan *conv.Plan, v part) {
			plan.Forward(alone{}, v.floats(last), v.floats(x), v.r.floats(weights),
				conv.Epilogue{Bias: v.r.optional(bias), Residual: v.optional(residual), ReLU: p.relu})
		})
	}
	in.name += fmt.Sprintf(" %dx%d/%d, %d to %d", p.shape.KH, p.shape.KW, p.shape.StrideH, p.shape.Cin, p.shape.Cout)
	c.add(in)
	if p.outPerm != nil {
		c.addTranspose(out, last, p.outDims, p.outPerm, 4)
	}
}

// splitConvolution says how the convolution of in is done for a part of the images, unless that would read many weights
// again and again.
func (c *compiler) splitConvolution(in *instruction, p *convPlan, once bool, each, whole []*tensor, run func(plan *conv.Plan, v part)) {
	in.images = p.shape.N
	if once || p.outPerm != nil || p.xPerm != nil {
		return
	}
	absent := func(t *tensor) bool { return t == nil }
	in.splitting = &splitting{
		fits: func(images int) bool { return images == p.shape.N },
		each: slices.DeleteFunc(each, absent), whole: slices.DeleteFunc(whole, absent),
		split: func(count int) func(v part) {
			shape := p.shape
			shape.N = count
			plan := conv.NewPlan(shape, c.backend.set, 1)
			return func(v part) { run(plan, v) }
		},
	}
}

// describe says how a value is made of which parameters; v may be nil.
func (c *compiler) describe(v *value) string {
	text, params := c.signature(v)
	for _, p := range params {
		text += fmt.Sprintf(" %d", slices.Index(c.fn.params, p))
	}
	return text
}

// packed is weights in the layout of one direction of a convolution, whatever the batch size.
type packed struct {
	from      *tensor
	view      [5]int
	shape     conv.Shape
	direction direction
}

// addPack adds the instruction that packs the weights of p for a direction into so many elements, unless it is there, and
// returns where they are.
func (c *compiler) addPack(p *convPlan, d direction, size int, pack func(conv.Parallel, []float32, conv.Kernel)) *tensor {
	view := p.view
	key := packed{c.tensor(p.kernel), [5]int{view.Base, view.SO, view.SI, view.SH, view.SW}, p.shape, d}
	key.shape.N = 0
	if to, ok := c.packs[key]; ok {
		return to
	}
	to := c.newTensor(4 * size)
	c.packs[key] = to
	signature, params := c.signature(p.kernel)
	to.signature = fmt.Sprintf("%v %v %v%s", key.view, key.shape, d, signature)
	for _, v := range params {
		to.params = append(to.params, slices.Index(c.fn.params, v))
	}
	c.add(instruction{name: "pack weights", in: []*tensor{key.from}, out: []*tensor{to}, packs: true, run: func(r *run) error {
		k := view
		k.Data = r.floats(key.from)
		pack(r.pool, r.floats(to), k)
		return nil
	}})
	return to
}
