package vec

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/adaad-go/adaad/backend/vec/internal/conv"
	"github.com/adaad-go/adaad/backend/vec/internal/pages"
)

// recallMemory is how many bytes are kept, most. Of further bases nothing is, and they are computed each time.
const recallMemory = 256 << 20

// recallKey names what the steps depend on besides the images, or is empty if it may change unseen.
func (p *program) recallKey(buffers []*Buffer) string {
	key := []byte(p.recall.text)
	for _, i := range p.recall.params {
		if buffers[i].exposed.Load() {
			return ""
		}
		key = binary.LittleEndian.AppendUint64(key, buffers[i].id)
	}
	return string(key)
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
	r.pool.share(parts, func(task, worker int, l *loop) {
		first, end := task*n/parts, (task+1)*n/parts
		aside := m.slots + 2*recallImages*worker
		v := &recalling{k: k, r: &inner, out: r, first: first, worker: worker, images: n}
		var bases, images []int // where they are
		for i := first; i < end; i++ {
			images = append(images, aside+i-first)
			if slots[i] != nil {
				bases = append(bases, slots[i].at)
			} else {
				bases = append(bases, aside+recallImages+i-first)
			}
		}
		v.compute(r.floats(input.t)[first*input.each:], r.bases[first*input.each:], slots[first:end], images, bases, l)
	})
}

// places is how many images there is room for: those that are kept and, for each worker, those under way and their bases.
func (m *memories) places(workers int) int { return m.slots + 2*recallImages*workers }

// recalling is a few images that a worker takes through the steps.
type recalling struct {
	k      *recall
	r      *run // with memory for all places
	out    *run // whose images these are
	first  int  // of its images
	worker int
	images int // of the batch

	at, from []int           // the places of the images, and those of their bases, or -1 where there is nothing to be had from that
	windows  [][]conv.Window // by tensor and image: what changes
	made     [][]conv.Window // what is computed
	needed   [][]conv.Window // and what is read
}

// compute takes images through the steps at some places, after their bases where those were not kept.
func (v *recalling) compute(images, bases []float32, slots []*slot, at, from []int, l *loop) {
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
			v.plan(i)
		}
		for j := range v.k.steps {
			v.step(j)
		}
	}
	v.begin(at, from)
	for i, w := range changes {
		v.windows[0][i], v.made[0][i] = w, w
		input.copyWindow(v.of(0, at[i]), of(images, i), w)
		v.plan(i)
	}
	v.run(0, l)
}

// run takes the images through the steps from one on, and what they make to where it is read. If meanwhile another worker runs
// out of work, that goes on with half of the images.
func (v *recalling) run(from int, l *loop) {
	for j := from; j < len(v.k.steps); j++ {
		if len(v.at) > 1 && l.wanting() {
			mine, other := v.halves()
			if l.hand(func(worker int) {
				other.worker = worker
				other.run(j, l)
			}) {
				v = mine
			}
		}
		v.step(j)
	}
	for _, b := range v.k.boundary {
		t := v.k.tensors[b]
		for i, at := range v.at {
			out := v.out.floats(t.t)[(v.first+i)*t.each:][:t.each]
			t.copyWindow(out, v.of(b, at), v.made[b][i])
			if from := v.from[i]; from >= 0 {
				t.copyAround(out, v.of(b, from), t.whole(), v.made[b][i])
			}
		}
	}
}

// halves are the first of several images, and the others.
func (v *recalling) halves() (a, b *recalling) {
	some := func(first, end int) *recalling {
		w := *v
		w.first, w.at, w.from = v.first+first, v.at[first:end], v.from[first:end]
		for _, list := range []*[][]conv.Window{&w.windows, &w.made, &w.needed} {
			*list = slices.Clone(*list)
			for i, of := range *list {
				(*list)[i] = of[first:end]
			}
		}
		return &w
	}
	half := len(v.at) / 2
	return some(0, half), some(half, len(v.at))
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

// step computes one of the steps.
func (v *recalling) step(j int) {
	s := &v.k.steps[j]
	var covers []conv.Window
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
