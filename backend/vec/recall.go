package vec

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"github.com/gomlx/compute/dtypes"

	"github.com/adaad-go/adaad/backend/vec/internal/conv"
	"github.com/adaad-go/adaad/backend/vec/internal/pages"
)

// Base is the name of a parameter with images that are much like those a program is asked about. A program whose first
// parameter is images, float32 [N,H,W,C], and that has another one like it of this name, computes each image's results as a
// change of its base's: only what differing pixels reach is computed anew, as long as that is little. What was computed of a
// base is kept, and found again by its pixels. The results are a function of the image and its base, those of the image up to
// rounding, and the same, to the bit, if the two differ in most pixels. The program may not read the parameter itself.
const Base = "base"

// recallMemory is how many bytes are kept, most. Of further bases nothing is, and they are computed each time.
const recallMemory = 256 << 20

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

// recallStep is an instruction of the steps: a convolution, done in windows, or what computes pixel by pixel, done wholly.
type recallStep struct {
	x, residual int // tensors; residual may be -1
	out         []int
	windows     func(r *run, windows []conv.Window) // or nil
	plan        *conv.Plan
	whole       func(v part)
	pixels      []int // what a step without windows reads
}

// windowed is how a convolution is done in windows.
type windowed struct {
	x, residual *tensor
	shape       conv.Shape
	run         func(plan *conv.Plan, r *run, windows []conv.Window)
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
	n, h, w := images.Dimensions[0], images.Dimensions[1], images.Dimensions[2]
	k := &recall{}
	index := map[*tensor]int{}
	track := func(t *tensor, h, w int) int {
		index[t] = len(k.tensors)
		k.tensors = append(k.tensors, recalled{t, h, w, t.bytes / 4 / n, k.room})
		k.room += roundUp(t.bytes/4/n, alignment/4)
		return index[t]
	}
	track(p.parameter[0], h, w)
	reach := nominalWindows(h, w) // by tensor
	still := map[*tensor]bool{}   // made of parameters other than the images
	for i, t := range p.parameter {
		if t != nil && i > 0 {
			still[t] = true
		}
	}
	isStill := func(t *tensor) bool { return t.kind == isConstant || still[t] }
	var first, rest, steps []*instruction
	for _, in := range p.instructions {
		if !slices.ContainsFunc(in.in, func(t *tensor) bool { return !isStill(t) }) {
			for _, t := range in.out {
				still[t] = true
			}
			first = append(first, in)
			continue
		}
		if step, windows, ok := k.step(in, n, index, reach, isStill, c); ok {
			for _, t := range in.out {
				h, w := 0, 0
				if step.plan != nil {
					h, w = step.plan.Shape().Out()
				} else {
					from := k.tensors[step.pixels[0]]
					h, w = from.h, from.w
				}
				step.out = append(step.out, track(t, h, w))
				reach = append(reach, windows)
			}
			k.steps, steps = append(k.steps, step), append(steps, in)
			continue
		}
		rest = append(rest, in)
	}
	in := &instruction{name: "recall:"}
	read := func(t *tensor) bool {
		return slices.Contains(p.output, t) || slices.ContainsFunc(rest, func(in *instruction) bool { return slices.Contains(in.in, t) })
	}
	windows := false
	var inside []*tensor
	var text strings.Builder
	for i, s := range k.steps {
		x := steps[i]
		windows = windows || s.windows != nil
		in.name += " " + x.name + ";"
		in.scratch = max(in.scratch, x.scratch)
		fmt.Fprintf(&text, "%s %d %d %v %v %s\n", x.name, s.x, s.residual, s.out, s.pixels, x.text)
		for _, t := range x.in {
			if _, ok := index[t]; !ok && !slices.Contains(in.in, t) {
				in.in = append(in.in, t)
			}
		}
		for j, o := range s.out {
			if read(x.out[j]) {
				k.boundary = append(k.boundary, o)
				in.out = append(in.out, x.out[j])
			} else {
				inside = append(inside, x.out[j])
			}
		}
	}
	if !windows {
		return
	}
	for _, t := range inside {
		t.kind = isRecalled
	}
	in.in = append(in.in, p.parameter[0])
	for i := range p.params {
		if i > 0 && i != base {
			k.params = append(k.params, i)
		}
	}
	k.text = fmt.Sprintf("%v\n%s", images.Dimensions[1:], text.String())
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

// nominalWindows are small windows at places all over an image.
func nominalWindows(h, w int) [][]conv.Window {
	var list []conv.Window
	for y := range 4 {
		for x := range 4 {
			top, left := (h-recallWindow)*(2*y+1)/8, (w-recallWindow)*(2*x+1)/8
			list = append(list, conv.Window{Top: max(0, top), Left: max(0, left), Bottom: min(h, top+recallWindow), Right: min(w, left+recallWindow)})
		}
	}
	return [][]conv.Window{list}
}

// step makes a step of an instruction, if it can be one, and says what nominal windows reach in its results.
func (k *recall) step(in *instruction, n int, index map[*tensor]int, reach [][]conv.Window, isStill func(*tensor) bool, c *compiler) (s recallStep, reached []conv.Window, ok bool) {
	s = recallStep{x: -1, residual: -1}
	if slices.ContainsFunc(in.out, func(t *tensor) bool { return t.kind != inArena }) {
		return s, nil, false
	}
	known := func(t *tensor) (int, bool) {
		i, ok := index[t]
		return i, ok
	}
	switch {
	case in.windowed != nil:
		d := in.windowed
		if s.x, ok = known(d.x); !ok {
			return s, nil, false
		}
		if d.residual != nil {
			if s.residual, ok = known(d.residual); !ok {
				return s, nil, false
			}
		}
		if slices.ContainsFunc(in.in, func(t *tensor) bool { return t != d.x && t != d.residual && !isStill(t) }) {
			return s, nil, false
		}
		shape := d.shape
		shape.N = recallImages
		s.plan = conv.NewPlan(shape, c.backend.set, 1)
		covered := 0
		for i, v := range reach[s.x] {
			v = s.plan.Reached(v)
			if s.residual >= 0 {
				v = v.Union(reach[s.residual][i])
			}
			cover, ok := s.plan.Cover(v)
			if !ok {
				return s, nil, false
			}
			covered += cover.Pixels()
			reached = append(reached, v)
		}
		oh, ow := s.plan.Shape().Out()
		plan := s.plan
		s.windows = func(r *run, windows []conv.Window) { d.run(plan, r, windows) }
		return s, reached, float64(covered) <= recallShare*float64(len(reached)*oh*ow)

	case in.pixelwise:
		for _, t := range in.each {
			if slices.Contains(in.out, t) {
				continue
			}
			i, ok := known(t)
			if !ok {
				return s, nil, false
			}
			s.pixels = append(s.pixels, i)
		}
		if len(s.pixels) == 0 || !in.fits(n) || slices.ContainsFunc(in.whole, func(t *tensor) bool { return !isStill(t) }) {
			return s, nil, false
		}
		like := k.tensors[s.pixels[0]]
		for _, i := range s.pixels {
			if t := k.tensors[i]; t.h != like.h || t.w != like.w || t.each != like.each {
				return s, nil, false
			}
		}
		reached = slices.Clone(reach[s.pixels[0]])
		for _, i := range s.pixels {
			for j, v := range reach[i] {
				reached[j] = reached[j].Union(v)
			}
		}
		s.whole = in.split(1)
		return s, reached, true
	}
	return s, nil, false
}

// recallKey names what the steps depend on besides the images, or is empty if it may change unseen.
func (p *program) recallKey(buffers []*Buffer) string {
	var b strings.Builder
	b.WriteString(p.recall.text)
	for _, i := range p.recall.params {
		if buffers[i].exposed.Load() {
			return ""
		}
		fmt.Fprintf(&b, " %d", buffers[i].id)
	}
	return b.String()
}

// memories is what is kept of bases: of the program with bases that was asked last, and of its like for other batches.
type memories struct {
	mu     sync.Mutex
	users  int           // programs that may recall
	key    string        // of what the contents were made; empty if they are good for nothing
	room   int           // elements of an image
	slots  int           // images that are kept
	region *pages.Region // every tensor, for every place
	of     map[uint64]*slot
	clock  int // images so far
	gap    int // the most of them from one with a base to the next with the same
}

// slot is what is kept of one base.
type slot struct {
	at   int // place in all tensors
	used int // when
	made bool
}

var recallSeed = maphash.MakeSeed()

// enlist and retire count the programs that may recall. With the last one the memory goes.
func (m *memories) enlist() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.users++
}

func (m *memories) retire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users--; m.users == 0 {
		m.forget("")
		if m.region != nil {
			m.region.Free()
			m.region = nil
		}
	}
}

func (m *memories) forget(key string) {
	m.key, m.of, m.clock, m.gap = key, map[uint64]*slot{}, 0, 0
}

// prepare makes room for what a program keeps, and forgets what is not its.
func (m *memories) prepare(k *recall, key string, workers int) {
	if key == "" || key != m.key {
		m.forget(key)
	}
	slots := recallMemory / (4 * k.room)
	if m.region == nil || m.room != k.room || m.slots != slots {
		if m.region != nil {
			m.region.Free()
		}
		m.forget(key)
		m.room, m.slots = k.room, slots
		m.region = pages.New(4 * m.places(workers) * k.room)
	}
}

// slot returns that of a base for an execution that began at a time, or nil if there is none for it: another image has the
// same base, or all are taken by bases that may come again.
func (m *memories) slot(hash uint64, began int) *slot {
	m.clock++
	s := m.of[hash]
	switch {
	case s != nil && s.used > began:
		return nil
	case s != nil:
		m.gap = max(m.gap, m.clock-s.used)
	default:
		var oldest uint64
		var old *slot
		for h, o := range m.of {
			if old == nil || o.used < old.used {
				oldest, old = h, o
			}
		}
		// A base that stayed away for twice as long as any that came again is taken for gone.
		gone := old != nil && m.gap > 0 && m.clock-old.used > 2*m.gap
		if !gone && len(m.of) == m.slots {
			return nil
		}
		s = &slot{at: len(m.of)}
		if gone {
			s.at = old.at
			delete(m.of, oldest)
		}
		m.of[hash] = s
	}
	s.used = m.clock
	return s
}

// recall runs the steps of k for the images of r.
func (m *memories) recall(k *recall, r *run) {
	m.mu.Lock()
	defer m.mu.Unlock()
	workers := r.pool.Workers()
	m.prepare(k, r.recallKey, workers)
	input := k.tensors[0]
	n := len(r.bases) / input.each
	hashes := make([]uint64, n)
	r.pool.Run(n, func(i, _ int) { hashes[i] = maphash.Bytes(recallSeed, bytesOf(r.bases[i*input.each:][:input.each])) })
	slots, began := make([]*slot, n), m.clock
	for i, h := range hashes {
		slots[i] = m.slot(h, began)
	}
	// The steps see memory for all images there is room for.
	places := m.places(workers)
	inner := *r
	inner.mem = slices.Clone(r.mem)
	mem := floats(m.region.Bytes())
	for _, t := range k.tensors {
		inner.mem[t.t.id] = bytesOf(mem[t.at*places:][:t.each*places])
	}
	parts := shares(n, recallImages, workers)
	r.pool.Run(parts, func(task, worker int) {
		first, end := task*n/parts, (task+1)*n/parts
		aside := m.slots + 2*recallImages*worker
		v := &recalling{k: k, r: &inner, worker: worker, images: n}
		var bases, images []int // where they are
		for i := first; i < end; i++ {
			images = append(images, aside+i-first)
			if slots[i] != nil {
				bases = append(bases, slots[i].at)
			} else {
				bases = append(bases, aside+recallImages+i-first)
			}
		}
		v.compute(r.floats(input.t)[first*input.each:], r.bases[first*input.each:], slots[first:end], images, bases)
		for _, b := range k.boundary {
			t := k.tensors[b]
			out := r.floats(t.t)[first*t.each:]
			for i := range images {
				t.copyWindow(out[i*t.each:][:t.each], v.of(b, images[i]), v.made[b][i])
				if from := v.from[i]; from >= 0 {
					t.copyAround(out[i*t.each:][:t.each], v.of(b, from), t.whole(), v.made[b][i])
				}
			}
		}
	})
}

// places is how many images there is room for: those that are kept and, for each worker, those under way and their bases.
func (m *memories) places(workers int) int { return m.slots + 2*recallImages*workers }

// recalling is a few images that a worker takes through the steps.
type recalling struct {
	k      *recall
	r      *run // with memory for all places
	worker int
	images int // of the batch

	at, from []int           // the places of the images, and those of their bases, or -1 where there is nothing to be had from that
	windows  [][]conv.Window // by tensor and image: what changes
	made     [][]conv.Window // what is computed
	needed   [][]conv.Window // and what is read
}

// compute takes images through the steps at some places, after their bases where those were not kept.
func (v *recalling) compute(images, bases []float32, slots []*slot, at, from []int) {
	input := v.k.tensors[0]
	of := func(x []float32, i int) []float32 { return x[i*input.each:][:input.each] }
	changes := make([]conv.Window, len(at))
	from = slices.Clone(from)
	var fresh []int
	for i, s := range slots {
		changes[i] = input.differing(of(bases, i), of(images, i))
		if 2*changes[i].Pixels() > input.h*input.w {
			changes[i], from[i] = input.whole(), -1
			continue
		}
		if kept := v.of(0, from[i]); s == nil || !s.made || !bytes.Equal(bytesOf(kept), bytesOf(of(bases, i))) {
			copy(kept, of(bases, i))
			fresh = append(fresh, from[i])
			if s != nil {
				s.made = true
			}
		}
	}
	if len(fresh) > 0 {
		v.begin(fresh, slices.Repeat([]int{-1}, len(fresh)))
		for i := range fresh {
			v.made[0][i] = input.whole()
		}
		v.run()
	}
	v.begin(at, from)
	for i, w := range changes {
		v.windows[0][i], v.made[0][i] = w, w
		input.copyWindow(v.of(0, at[i]), of(images, i), w)
	}
	v.run()
}

// begin prepares the steps of images at some places.
func (v *recalling) begin(at, from []int) {
	v.at, v.from = at, from
	room := make([]conv.Window, 3*len(v.k.tensors)*len(at))
	for _, list := range []*[][]conv.Window{&v.windows, &v.made, &v.needed} {
		*list = make([][]conv.Window, len(v.k.tensors))
		for i := range *list {
			(*list)[i], room = room[:len(at)], room[len(at):]
		}
	}
}

// of are the elements of a tensor at a place.
func (v *recalling) of(tensor, at int) []float32 {
	t := v.k.tensors[tensor]
	return v.r.floats(t.t)[at*t.each:][:t.each]
}

// run computes all steps.
func (v *recalling) run() {
	for i := range v.at {
		v.plan(i)
	}
	var covers []conv.Window
	for j := range v.k.steps {
		s := &v.k.steps[j]
		covers = covers[:0]
		for i, at := range v.at {
			made := v.made[s.out[0]][i]
			switch made.N = at; {
			case s.windows != nil:
				covers = append(covers, made)
			case !made.Empty():
				s.whole(part{r: v.r, images: v.images, first: at, count: 1, worker: v.worker})
			}
		}
		if s.windows != nil {
			s.windows(v.r, covers)
		}
	}
}

// plan finds what of an image is computed, and brings what that reads of the base.
func (v *recalling) plan(image int) {
	at := func(list [][]conv.Window, tensor int) *conv.Window { return &list[tensor][image] }
	whole := v.from[image] < 0
	for j := range v.k.steps {
		s := &v.k.steps[j]
		var w, made conv.Window
		switch {
		case whole:
			made = v.k.tensors[s.out[0]].whole()
		case s.windows == nil:
			for _, x := range s.pixels {
				w = w.Union(*at(v.windows, x))
			}
			if made = w; !made.Empty() {
				made = v.k.tensors[s.out[0]].whole()
			}
		default:
			w = s.plan.Reached(*at(v.windows, s.x))
			if s.residual >= 0 {
				w = w.Union(*at(v.windows, s.residual))
			}
			made, _ = s.plan.Cover(w)
		}
		for _, o := range s.out {
			*at(v.windows, o), *at(v.made, o) = w, made
		}
		if whole {
			continue
		}
		need := func(x int, w conv.Window) { *at(v.needed, x) = at(v.needed, x).Union(w) }
		for _, x := range s.pixels {
			need(x, made)
		}
		if s.windows != nil {
			need(s.x, s.plan.Read(made))
			if s.residual >= 0 {
				need(s.residual, made)
			}
		}
	}
	if !whole {
		for i, t := range v.k.tensors {
			t.copyAround(v.of(i, v.at[image]), v.of(i, v.from[image]), *at(v.needed, i), *at(v.made, i))
		}
	}
}

// whole is all pixels.
func (t recalled) whole() conv.Window { return conv.Window{Bottom: t.h, Right: t.w} }

// copyAround copies what of a window of an image is not in another one.
func (t recalled) copyAround(to, from []float32, w, without conv.Window) {
	if without.Empty() {
		t.copyWindow(to, from, w)
		return
	}
	top, bottom := min(max(w.Top, without.Top), w.Bottom), max(min(w.Bottom, without.Bottom), w.Top)
	above, below, left, right := w, w, w, w
	above.Bottom, below.Top = top, bottom
	left.Top, left.Bottom, left.Right = top, bottom, min(w.Right, without.Left)
	right.Top, right.Bottom, right.Left = top, bottom, max(w.Left, without.Right)
	for _, part := range []conv.Window{above, below, left, right} {
		t.copyWindow(to, from, part)
	}
}

// differing is the smallest window outside which two images are the same.
func (t recalled) differing(a, b []float32) (w conv.Window) {
	row, c := t.each/t.h, t.each/t.h/t.w
	for y := range t.h {
		p, q := bytesOf(a[y*row:][:row]), bytesOf(b[y*row:][:row])
		if bytes.Equal(p, q) {
			continue
		}
		left, right := 0, t.w
		for bytes.Equal(p[4*c*left:][:4*c], q[4*c*left:][:4*c]) {
			left++
		}
		for bytes.Equal(p[4*c*(right-1):][:4*c], q[4*c*(right-1):][:4*c]) {
			right--
		}
		w = w.Union(conv.Window{Top: y, Bottom: y + 1, Left: left, Right: right})
	}
	return w
}

// copyWindow copies a window of an image.
func (t recalled) copyWindow(to, from []float32, w conv.Window) {
	if w.Empty() {
		return
	}
	row, c := t.each/t.h, t.each/t.h/t.w
	for y := w.Top; y < w.Bottom; y++ {
		copy(to[y*row+w.Left*c:y*row+w.Right*c], from[y*row+w.Left*c:])
	}
}
