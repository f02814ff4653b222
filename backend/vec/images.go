package vec

import (
	"fmt"
	"slices"
)

// Convolutions and elementwise operations treat each image of a batch by itself. Runs of them are taken through a few
// images at a time, each worker with images of its own, so that what one instruction writes is still in the worker's
// cache when the next reads it, and what no later instruction needs is never in memory at all. What is computed of an
// image is the same, bit for bit: no kernel's sums depend on how many images there are.

const (
	imageCache  = 1200 << 10 // bytes an instruction reads and writes for the images taken at once
	imageSpread = 4          // how far apart the numbers of images that suit two neighbours may be

	// imageWeights is the bytes of weights from which an instruction takes all images: every few of them would bring that much
	// into a worker's cache again, in the place of the images.
	imageWeights = 1 << 20
)

// part is a few images that a worker takes through a run of instructions.
type part struct {
	r      *run
	images int // of the batch
	first  int
	count  int
	worker int
	local  []byte // memory for tensors that live in the run only
	place  int    // of the first image there
}

// halves are the first images of the part, which has several, and the others.
func (v part) halves() (a, b part) {
	a, b = v, v
	a.count /= 2
	b.first, b.place, b.count = v.first+a.count, v.place+a.count, v.count-a.count
	return a, b
}

// bytes is what belongs to the images in a tensor, which holds equally much for each.
func (v part) bytes(t *tensor) []byte {
	each := t.bytes / v.images
	if t.local {
		return v.local[t.offset+v.place*each:][:v.count*each]
	}
	return v.r.mem[t.id][v.first*each:][:v.count*each]
}

func (v part) floats(t *tensor) []float32 { return floats(v.bytes(t)) }

func (v part) optional(t *tensor) []float32 {
	if t == nil {
		return nil
	}
	return v.floats(t)
}

// splitting is how an instruction is done for a part of the images.
type splitting struct {
	fits  func(images int) bool // whether it can be, of that many
	split func(count int) func(v part)
	each  []*tensor // read or written image by image
	whole []*tensor // read as they are
}

// alone is a conv.Parallel of the worker that calls it.
type alone struct{}

func (alone) Workers() int { return 1 }

func (alone) Run(n int, f func(i, worker int)) {
	for i := range n {
		f(i, 0)
	}
}

// byImages puts runs of instructions together that can be taken through a batch a few images at a time, where the batch
// does not fit a cache.
func (p *program) byImages() {
	// What is kept from one execution to the next needs parameters only: it can come first.
	var list []*instruction
	for _, in := range p.instructions {
		if in.kept {
			list = append(list, in)
		}
	}
	for _, in := range p.instructions {
		if !in.kept {
			list = append(list, in)
		}
	}
	last := map[*tensor]*instruction{}
	votes := map[int]int{}
	images := 0
	for _, in := range list {
		for _, t := range in.in {
			last[t] = in
		}
		if n := in.images; n > 0 {
			if votes[n]++; votes[n] > votes[images] {
				images = n
			}
		}
	}
	p.instructions = nil
	var g group
	for _, in := range list {
		n := in.suits(images)
		if n == 0 && g.trails(in, images) {
			n = images
		}
		if n == 0 {
			g.close(p, images, last)
			p.instructions = append(p.instructions, in)
			continue
		}
		if !g.takes(in, n) {
			rest := g.part(in, n, last)
			g.close(p, images, last)
			g = rest
		}
		g.add(in, n)
	}
	g.close(p, images, last)
	for i, in := range p.instructions {
		in.position = i
		if in.kept && in.packs {
			in.out[0].index = i
		}
	}
}

// splits reports whether the instruction can take some of the images at a time.
func (in *instruction) splits(images int) bool {
	return !in.kept && in.splitting != nil && images > 1 && in.fits(images)
}

// suits is how many images at once suit the instruction, or 0 if it had better take them all.
func (in *instruction) suits(images int) int {
	if !in.splits(images) {
		return 0
	}
	bytes := 0
	for _, t := range in.each {
		bytes += t.bytes / images
	}
	weights := 0
	for _, t := range in.whole {
		weights += t.bytes
	}
	if images*bytes <= imageCache || weights > imageWeights {
		return 0
	}
	best := 1 // a power of two, as many batches are
	for 2*best*bytes <= imageCache {
		best *= 2
	}
	return best
}

// group is a run of instructions as it grows.
type group struct {
	list  []*instruction
	suit  []int // how many images at once suit each
	makes map[*tensor]bool
}

// least is the fewest images at once that suit one of the instructions.
func (g *group) least() int { return slices.Min(g.suit) }

// takes reports whether one more instruction goes with the group: what reads weights does so for every few images anew, so
// they may not be far fewer than suit it.
func (g *group) takes(in *instruction, n int) bool {
	if len(g.list) == 0 {
		return true
	}
	most, least := 0, min(g.least(), n)
	if len(in.whole) > 0 {
		most = n
	}
	for i, x := range g.list {
		if len(x.whole) > 0 {
			most = max(most, g.suit[i])
		}
	}
	return most <= imageSpread*least && !slices.ContainsFunc(in.whole, func(t *tensor) bool { return g.makes[t] })
}

// trails reports whether an instruction that would as well take all images goes with the group: it reads what that makes, and no
// weights.
func (g *group) trails(in *instruction, images int) bool {
	return in.splits(images) && len(in.whole) == 0 && slices.ContainsFunc(in.in, func(t *tensor) bool { return g.makes[t] })
}

func (g *group) add(in *instruction, n int) {
	if g.makes == nil {
		g.makes = map[*tensor]bool{}
	}
	g.list, g.suit = append(g.list, in), append(g.suit, n)
	for _, t := range in.out {
		g.makes[t] = true
	}
}

// part takes the last instructions out of a group that does not take the next one, and returns those as a group that does:
// as many as leave the least in memory that is written before and read after.
func (g *group) part(next *instruction, n int, last map[*tensor]*instruction) (rest group) {
	alive := func(count int) (bytes int) {
		for _, in := range g.list[:count] {
			for _, t := range in.out {
				if !slices.Contains(g.list[:count], last[t]) {
					bytes += t.bytes
				}
			}
		}
		return bytes
	}
	at, fewest := len(g.list), alive(len(g.list))
	for k := len(g.list) - 1; k > 0; k-- {
		var behind group
		for i := k; i < len(g.list); i++ {
			behind.add(g.list[i], g.suit[i])
		}
		if !behind.takes(next, n) {
			break
		}
		if bytes := alive(k); bytes < fewest {
			at, fewest, rest = k, bytes, behind
		}
	}
	g.list, g.suit = g.list[:at], g.suit[:at]
	return rest
}

// shares is how many parts of most images or fewer a batch is taken in: as many for each worker, so that none waits long for
// the last of the others.
func shares(images, most, workers int) int {
	each := most * workers
	return (images + each - 1) / each * workers
}

// close adds the group to the program, as one instruction if that is worth while.
func (g *group) close(p *program, images int, last map[*tensor]*instruction) {
	list, makes := g.list, g.makes
	if len(list) == 0 {
		return
	}
	parts := shares(images, g.least(), p.backend.pool.workers)
	*g = group{}
	if len(list) < 2 || images < parts {
		p.instructions = append(p.instructions, list...)
		return
	}
	fewest := images / parts // some parts have one more
	count := (images + parts - 1) / parts
	in := &instruction{name: fmt.Sprintf("by %d images:", count)}
	inside := map[*instruction]bool{}
	for _, x := range list {
		inside[x] = true
		in.scratch = max(in.scratch, x.scratch)
	}
	in.scratch = roundUp(in.scratch, alignment)
	// Tensors of one size that follow each other lie in one place, in which every image has its own.
	local := 0
	free := map[int][]int{} // places, by bytes of an image
	course := course{}
	course.add(list, fewest)
	course.add(list, count)
	for _, x := range list {
		in.name += " " + x.name + ";"
		for _, t := range x.out {
			if t.kind != inArena || !inside[last[t]] {
				in.out = append(in.out, t)
				continue
			}
			t.local = true
			each := t.bytes / images
			if places := free[each]; len(places) > 0 {
				t.offset, free[each] = places[len(places)-1], places[:len(places)-1]
			} else {
				t.offset = local
				local += roundUp(each*count, alignment)
			}
		}
		for _, t := range x.in {
			switch {
			case !t.local:
				if !makes[t] && !slices.Contains(in.in, t) {
					in.in = append(in.in, t)
				}
			case last[t] == x && !slices.Contains(x.in[:slices.Index(x.in, t)], t):
				free[t.bytes/images] = append(free[t.bytes/images], t.offset)
			}
		}
	}
	at := in.scratch
	in.scratch += local
	in.run = func(r *run) error {
		r.pool.share(parts, func(task, worker int, l *loop) {
			v := part{r: r, images: images, first: task * images / parts, worker: worker, local: bytesOf(r.scratch[worker])[at:]}
			v.count = (task+1)*images/parts - v.first
			course.run(v, 0, l)
		})
		return nil
	}
	p.instructions = append(p.instructions, in)
}

// course is the instructions of a group, by number of images: that of a part, and those of what it may be divided into.
type course map[int][]func(v part)

func (c course) add(list []*instruction, count int) {
	if count == 0 || c[count] != nil {
		return
	}
	for _, in := range list {
		c[count] = append(c[count], in.split(count))
	}
	c.add(list, count/2)
	c.add(list, count-count/2)
}

// run takes a part through the instructions from one on. If meanwhile another worker runs out of work, that goes on with half
// of the images, in the memory where they are.
func (c course) run(v part, from int, l *loop) {
	for i := from; i < len(c[v.count]); i++ {
		if v.count > 1 && l.wanting() {
			mine, other := v.halves()
			if l.hand(func(worker int) {
				other.worker = worker
				c.run(other, i, l)
			}) {
				v = mine
			}
		}
		c[v.count][i](v)
	}
}
