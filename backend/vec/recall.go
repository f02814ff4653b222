package vec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"

	"github.com/adaad-go/adaad/backend/vec/internal/conv"
)

// Base is the name of a parameter with images that are much like those a program is asked about. A program whose first
// parameter is images, float32 [N,H,W,C], and that has another one like it of this name, computes each image's results as a
// change of its base's: only what differing pixels reach is computed anew, as long as that is little. What was computed of a
// base is kept, and found again by its pixels. The results are a function of the image and its base, those of the image up to
// rounding, and the same, to the bit, if the two differ in most pixels. The program may not read the parameter itself.
const Base = "base"

const (
	recallImages = 4 // that a worker takes through the steps at once
	// recallShare is the share of the pixels that a step computes, on average over places of a small window, up to which it
	// is one of the steps.
	recallShare  = 0.7
	recallWindow = 3
)

// recall is the first steps of a program with bases, those that computing in windows makes cheaper.
type recall struct {
	tensors  []recalled // the images first
	steps    []recallStep
	boundary []int // tensors that are read behind the steps
	params   []int // that the steps depend on, images apart
	text     string
	room     int // elements of all tensors of an image
}

// recalled is a tensor with pixels of each image.
type recalled struct {
	t    *tensor
	h, w int
	each int // elements of an image
	at   int // where they are in the memory of an image
}

// whole is all pixels.
func (t recalled) whole() conv.Window { return conv.Window{Bottom: t.h, Right: t.w} }

// recallStep is an instruction of the steps: a convolution, done in windows, or what computes pixel by pixel, done wholly.
type recallStep struct {
	in          *instruction
	x, residual int // tensors that a convolution reads; residual may be -1
	plan        *conv.Plan
	windows     func(r *run, windows []conv.Window) // nil for what is done wholly
	pixels      []int                               // which reads these tensors
	whole       func(v part)
	out         []int // tensors
}

// windowed is how a convolution is done in windows.
type windowed struct {
	x, residual *tensor
	shape       conv.Shape
	run         func(plan *conv.Plan, r *run, windows []conv.Window)
}

// recaller finds the steps of a program.
type recaller struct {
	*recall
	compiler *compiler
	images   int
	index    map[*tensor]int
	reach    [][]conv.Window  // by tensor: what small windows of the images, here and there, reach in it
	still    map[*tensor]bool // made of other parameters
}

// addRecall looks for the steps of a program with bases, and puts one instruction in their place.
func (c *compiler) addRecall() {
	p := c.program
	base := slices.Index(p.names, Base)
	if base < 1 || p.parameter[0] == nil || p.parameter[base] != nil || !p.params[base].Equal(p.params[0]) {
		return
	}
	images := p.params[0]
	if images.Rank() != 4 || images.DType != dtypes.Float32 || images.Size() == 0 {
		return
	}
	k := &recall{}
	f := &recaller{recall: k, compiler: c, images: images.Dimensions[0], index: map[*tensor]int{}, still: map[*tensor]bool{}}
	f.add(p.parameter[0], images.Dimensions[1], images.Dimensions[2], smallWindows(images.Dimensions[1], images.Dimensions[2]))
	for i, t := range p.parameter {
		if i > 0 && i != base {
			f.still[t] = true
			k.params = append(k.params, i)
		}
	}
	var first, rest []*instruction
	for _, in := range p.instructions {
		if !slices.ContainsFunc(in.in, f.moves) {
			for _, t := range in.out {
				f.still[t] = true
			}
			first = append(first, in)
		} else if !f.take(in) {
			rest = append(rest, in)
		}
	}
	if !slices.ContainsFunc(k.steps, func(s recallStep) bool { return s.windows != nil }) {
		return
	}
	in := k.instruction(func(t *tensor) bool {
		return slices.Contains(p.output, t) || slices.ContainsFunc(rest, func(in *instruction) bool { return slices.Contains(in.in, t) })
	})
	in.run = func(r *run) error {
		p.backend.memories.recall(k, r)
		return nil
	}
	p.base, p.recall = base, k
	p.instructions = append(append(first, in), rest...)
	for i, in := range p.instructions {
		in.position = i
	}
}

// smallWindows are some at places all over an image.
func smallWindows(h, w int) (list []conv.Window) {
	for y := range 4 {
		for x := range 4 {
			top, left := max(0, (h-recallWindow)*(2*y+1)/8), max(0, (w-recallWindow)*(2*x+1)/8)
			list = append(list, conv.Window{Top: top, Left: left, Bottom: min(h, top+recallWindow), Right: min(w, left+recallWindow)})
		}
	}
	return list
}

// moves reports whether a tensor depends on the images.
func (f *recaller) moves(t *tensor) bool { return t.kind != isConstant && !f.still[t] }

// add makes a tensor one of the steps', and returns its number.
func (f *recaller) add(t *tensor, h, w int, reach []conv.Window) int {
	f.index[t] = len(f.tensors)
	each := t.bytes / 4 / f.images
	f.tensors = append(f.tensors, recalled{t, h, w, each, f.room})
	f.room += roundUp(each, alignment/4)
	f.reach = append(f.reach, reach)
	return f.index[t]
}

// take makes a step of an instruction, if it can be one.
func (f *recaller) take(in *instruction) bool {
	if slices.ContainsFunc(in.out, func(t *tensor) bool { return t.kind != inArena }) {
		return false
	}
	s := recallStep{in: in, residual: -1}
	var h, w int
	var reach []conv.Window
	switch {
	case in.windowed != nil:
		d := in.windowed
		var ok bool
		if s.x, ok = f.index[d.x]; !ok {
			return false
		}
		if d.residual != nil {
			if s.residual, ok = f.index[d.residual]; !ok {
				return false
			}
		}
		from, shape := f.tensors[s.x], d.shape
		if shape.N != f.images || shape.H != from.h || shape.W != from.w ||
			slices.ContainsFunc(in.in, func(t *tensor) bool { return t != d.x && t != d.residual && f.moves(t) }) {
			return false
		}
		shape.N = recallImages
		s.plan = conv.NewPlan(shape, f.compiler.backend.set, 1)
		h, w = shape.Out()
		pixels := 0
		for i, v := range f.reach[s.x] {
			v = s.plan.Reached(v)
			if s.residual >= 0 {
				v = v.Union(f.reach[s.residual][i])
			}
			cover, ok := s.plan.Cover(v)
			if !ok {
				return false
			}
			pixels += cover.Pixels()
			reach = append(reach, v)
		}
		if float64(pixels) > recallShare*float64(len(reach)*h*w) {
			return false
		}
		s.windows = func(r *run, windows []conv.Window) { d.run(s.plan, r, windows) }

	case in.pixelwise:
		for _, t := range in.each {
			if slices.Contains(in.out, t) {
				continue
			}
			i, ok := f.index[t]
			if !ok {
				return false
			}
			s.pixels = append(s.pixels, i)
		}
		if len(s.pixels) == 0 || !in.fits(f.images) || slices.ContainsFunc(in.whole, f.moves) {
			return false
		}
		like := f.tensors[s.pixels[0]]
		h, w, reach = like.h, like.w, make([]conv.Window, len(f.reach[0]))
		for _, i := range s.pixels {
			if t := f.tensors[i]; t.h != h || t.w != w || t.each != like.each {
				return false
			}
			for j, v := range f.reach[i] {
				reach[j] = reach[j].Union(v)
			}
		}
		s.whole = in.split(1)

	default:
		return false
	}
	for _, t := range in.out {
		s.out = append(s.out, f.add(t, h, w, reach))
	}
	f.steps = append(f.steps, s)
	return true
}

// instruction is the one in the place of the steps, of which behind says what is read behind them.
func (k *recall) instruction(behind func(t *tensor) bool) *instruction {
	in := &instruction{name: "recall:", in: []*tensor{k.tensors[0].t}}
	inside := func(t *tensor) bool { return slices.ContainsFunc(k.tensors, func(r recalled) bool { return r.t == t }) }
	var text strings.Builder
	fmt.Fprintln(&text, k.tensors[0].h, k.tensors[0].w, k.tensors[0].each)
	for _, s := range k.steps {
		in.name += " " + s.in.name + ";"
		in.scratch = max(in.scratch, s.in.scratch)
		fmt.Fprintln(&text, s.in.name, s.x, s.residual, s.pixels, s.out, s.in.text())
		for _, t := range s.in.in {
			if !inside(t) && !slices.Contains(in.in, t) {
				in.in = append(in.in, t)
			}
		}
		for _, o := range s.out {
			if t := k.tensors[o].t; behind(t) {
				k.boundary = append(k.boundary, o)
				in.out = append(in.out, t)
			} else {
				t.kind = isRecalled
			}
		}
	}
	k.text = text.String()
	return in
}
