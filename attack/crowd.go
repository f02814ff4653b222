package attack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/adaad-go/adaad/internal/rng"
)

// Image is an image under attack, and the attacker's way to ask the classifier. An attack on it reads as if it were
// alone; Crowd answers the questions of many images together.
type Image struct {
	X     []float32 // its pixels in [0,1], H,W,C; not to be changed
	Label int
	Key   int // its index in its data set: what its random draws are keyed by
	Seed  uint64
	Spent Cost // what was asked of the classifier about it, surrogates not counted

	classifier Classifier
	errand     *errand
}

// Cost is a number of passes through the classifier: the gradients of one image each, and the forward passes alone.
type Cost struct {
	Gradients, Forwards int
}

// Add is the sum of two costs.
func (c Cost) Add(d Cost) Cost { return Cost{c.Gradients + d.Gradients, c.Forwards + d.Forwards} }

// Times is n times the cost.
func (c Cost) Times(n int) Cost { return Cost{n * c.Gradients, n * c.Forwards} }

// Work is the cost in forward passes; a gradient takes about three.
func (c Cost) Work() int { return 3*c.Gradients + c.Forwards }

// Rand is the image's stream of random numbers for one restart of one attack.
func (im *Image) Rand(attack string, restart int) *rand.Rand {
	return rng.New(im.Seed, rng.Attack, rng.Key(attack), uint64(im.Key), uint64(restart))
}

// Classifier is what is under attack.
func (im *Image) Classifier() Classifier { return im.classifier }

// Against is the same image before another classifier.
func (im *Image) Against(c Classifier) *Image {
	other := *im
	other.classifier = c
	return &other
}

// Logits are the classifier's for the pixels.
func (im *Image) Logits(pixels []float32) ([]float32, error) {
	im.Spent.Forwards++
	a := im.wait(question{pixels: pixels})
	return a.logits, a.err
}

// LogitsNear are the classifier's for pixels most of which are those of a base, one for many such questions. They are those
// of Logits up to rounding.
func (im *Image) LogitsNear(pixels, base []float32) ([]float32, error) {
	if _, ok := im.classifier.(Incremental); !ok {
		return im.Logits(pixels)
	}
	im.Spent.Forwards++
	a := im.wait(question{pixels: pixels, base: base})
	return a.logits, a.err
}

// Gradient is that of the goal by the pixels, and the logits.
func (im *Image) Gradient(pixels []float32, goal Goal) (logits, gradient []float32, err error) {
	if _, ok := im.classifier.(Differentiable); !ok {
		return nil, nil, fmt.Errorf("the classifier has no gradients, which this attack follows; square needs none")
	}
	im.Spent.Gradients++
	a := im.wait(question{pixels: pixels, goal: goal, gradient: true})
	return a.logits, a.gradient, a.err
}

func (im *Image) wait(q question) answer {
	q.image = im
	e := im.errand
	if e.yield(q) {
		return e.answer
	}
	return answer{err: errSentHome}
}

// errSentHome is what an image hears that asks after everything has ended. Run returns the reason.
var errSentHome = errors.New("the attack was given up")

// question is what an image waits for. Its pixels stay as they are until the answer, and so do those of its base.
type question struct {
	image    *Image
	pixels   []float32
	base     []float32 // or nil
	goal     Goal
	gradient bool
}

// kind is what questions have in common that are answered in one call.
type kind struct {
	classifier Classifier
	gradient   bool
	near       bool
	loss       Loss
}

func (q *question) kind() kind {
	return kind{q.image.classifier, q.gradient, q.base != nil, q.goal.Loss}
}

type answer struct {
	logits, gradient []float32
	err              error
}

// errand is an image on its way through what is to be done with it: a coroutine that stops at every question.
type errand struct {
	image    *Image
	position int
	yield    func(question) bool
	resume   func() (question, bool)
	end      func()
	question question // that it waits at, unless it is done
	done     bool
	answer   answer
	err      error // of the work
}

// Crowd attacks many images at once. Every image has a coroutine, in which an attack is plain sequential code; what they
// ask is collected and answered in batches. An image that is done makes room for the next, so batches stay full until
// the last images. Which images share a batch depends on what they ask, never on timing, so that even a backend that
// rounds an image otherwise in other company gives the same bits twice.
type Crowd struct {
	Classifier Classifier
	Batch      int    // most images answered in one call
	Seed       uint64 // of the images' random draws

	// Next is the i-th image: pixels, label and key. Work does with it what is to be done, beside that of other images.
	// Done hears that it returned, in the goroutine of Run; an error from either ends everything.
	Next func(i int) (pixels []float32, label, key int)
	Work func(i int, im *Image) error
	Done func(i int, im *Image) error
	// Called hears of every call and what it cost, or is nil.
	Called func(Cost)
}

// InFlight is how many batches of images are under way at a time: with so many, one of the few kinds of questions that
// are asked at a time has a batch or nearly so.
const InFlight = 2

// Run attacks images 0 to n - 1. It fails with the first error and, once the context is done, with the context's.
func (c *Crowd) Run(ctx context.Context, n int) error {
	waiting := map[kind][]*errand{}
	var kinds []kind // in order of appearance
	var room []float32
	next, underWay := 0, 0
	defer func() { // after a failure some still wait
		for _, k := range kinds {
			for _, e := range waiting[k] {
				e.end()
			}
		}
	}()
	for {
		var moving []*errand // whose turn it is to go on
		for ; next < n && underWay < InFlight*c.Batch; next++ {
			moving = append(moving, c.send(next))
			underWay++
		}
		if len(moving) == 0 { // everybody waits
			if underWay == 0 {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			k := c.pick(kinds, waiting, next < n)
			size := min(len(waiting[k]), c.Batch)
			if next == n { // the last calls are of equal size, for one of a few images would be slow
				calls := (len(waiting[k]) + c.Batch - 1) / c.Batch
				size = (len(waiting[k]) + calls - 1) / calls
			}
			moving = waiting[k][:size]
			var err error
			if room, err = c.call(ctx, k, moving, room); err != nil {
				return err
			}
			waiting[k] = slices.Clone(waiting[k][len(moving):])
		}
		together(len(moving), func(i int) { moving[i].step() })
		slices.SortFunc(moving, func(a, b *errand) int { return cmp.Compare(a.position, b.position) })
		var failed error
		for _, e := range moving {
			if !e.done {
				k := e.question.kind()
				if _, known := waiting[k]; !known {
					kinds = append(kinds, k)
				}
				waiting[k] = append(waiting[k], e)
				continue
			}
			underWay--
			if failed == nil {
				failed = e.err
			}
			if failed == nil {
				failed = c.Done(e.position, e.image)
			}
		}
		if failed != nil {
			return failed
		}
	}
}

// send prepares the errand of an image, which begins with its first step.
func (c *Crowd) send(i int) *errand {
	x, label, key := c.Next(i)
	e := &errand{position: i}
	e.image = &Image{X: x, Label: label, Key: key, Seed: c.Seed, classifier: c.Classifier, errand: e}
	e.resume, e.end = iter.Pull(func(yield func(question) bool) {
		e.yield = yield
		e.err = c.Work(i, e.image)
	})
	return e
}

// step takes an errand to its next question, or to its end.
func (e *errand) step() {
	var more bool
	e.question, more = e.resume()
	e.done = !more
}

// together calls f(0) to f(n-1), on all processors.
func together(n int, f func(i int)) {
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			f(i)
		}
	}
	var others sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) - 1 {
		others.Go(work)
	}
	// A thread that looks out for the classifier's next call takes from the queue of all processors alone, and this joins it.
	runtime.Gosched()
	work()
	others.Wait()
}

// pick is the kind of questions to answer next. While there are images to come it is the first that has a full batch, else
// that with the most: those that fall make room for others, who catch up in full batches. Then it is the kind that the image
// asks that has asked least so far: so those behind come up with the others, and the last batches are as large as can be.
func (c *Crowd) pick(kinds []kind, waiting map[kind][]*errand, more bool) kind {
	var best kind
	behind := -1
	for _, k := range kinds {
		if more {
			if len(waiting[k]) > len(waiting[best]) && len(waiting[best]) < c.Batch {
				best = k
			}
			continue
		}
		for _, e := range waiting[k] {
			if asked := e.image.Spent.Gradients + e.image.Spent.Forwards; behind < 0 || asked < behind {
				best, behind = k, asked
			}
		}
	}
	return best
}

// call asks the classifier and hands out its answers, all of them or, with an error, none. room is memory for the images,
// which it returns, grown if need be.
func (c *Crowd) call(ctx context.Context, k kind, batch []*errand, room []float32) ([]float32, error) {
	size := len(batch[0].question.pixels)
	room = slices.Grow(room[:0], 2*size*len(batch))
	pixels, bases := room[:size*len(batch)], room[size*len(batch):2*size*len(batch)]
	goals := make([]Goal, len(batch))
	together(len(batch), func(i int) {
		q := &batch[i].question
		copy(pixels[i*size:], q.pixels)
		copy(bases[i*size:], q.base)
		goals[i] = q.goal
	})
	var logits, gradient []float32
	var err error
	switch {
	case k.gradient:
		logits, gradient, err = k.classifier.(Differentiable).Gradient(ctx, pixels, goals)
	case k.near:
		logits, err = k.classifier.(Incremental).LogitsNear(ctx, pixels, bases)
	default:
		logits, err = k.classifier.Logits(ctx, pixels)
	}
	if err != nil {
		return nil, err
	}
	classes := k.classifier.Classes()
	if len(logits) != len(batch)*classes {
		return nil, fmt.Errorf("the classifier answered %d images with %d logits, expected %d of each", len(batch), len(logits), classes)
	}
	if k.gradient && len(gradient) != len(batch)*size {
		return nil, fmt.Errorf("the classifier's gradient of %d images has %d values, expected %d of each", len(batch), len(gradient), size)
	}
	for i, e := range batch {
		e.answer = answer{logits: logits[i*classes : (i+1)*classes : (i+1)*classes]}
		if k.gradient {
			e.answer.gradient = gradient[i*size : (i+1)*size : (i+1)*size]
		}
	}
	if c.Called != nil && k.classifier == c.Classifier {
		if k.gradient {
			c.Called(Cost{Gradients: len(batch)})
		} else {
			c.Called(Cost{Forwards: len(batch)})
		}
	}
	return room, nil
}
