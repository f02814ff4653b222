package attack

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

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

	position   int
	classifier Classifier
	ask        chan<- event
	answer     chan answer
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
	im.ask <- event{question: &q}
	return <-im.answer
}

// question is what an image waits for. Its pixels stay as they are until the answer.
type question struct {
	image    *Image
	pixels   []float32
	goal     Goal
	gradient bool
}

// kind is what questions have in common that are answered in one call.
type kind struct {
	classifier Classifier
	gradient   bool
	loss       Loss
}

func (q *question) kind() kind { return kind{q.image.classifier, q.gradient, q.goal.Loss} }

type answer struct {
	logits, gradient []float32
	err              error
}

// event is what an image's goroutine says: a question or, without one, that it is done.
type event struct {
	question *question
	position int
	err      error
}

// Crowd attacks many images at once. Every image has a goroutine, in which an attack is plain sequential code; what they
// ask is collected and answered in batches. An image that is done makes room for the next, so batches stay full until
// the last images. Which images share a batch depends on what they ask, never on timing, so that even a backend that
// rounds an image otherwise in other company gives the same bits twice.
type Crowd struct {
	Classifier Classifier
	Batch      int    // most images answered in one call
	Seed       uint64 // of the images' random draws

	// Next is the i-th image: pixels, label and key. Work does with it what is to be done, in its own goroutine. Done
	// hears that it returned, in the goroutine of Run; an error from either ends everything.
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
	events := make(chan event)
	images := map[int]*Image{}
	var kinds []kind // in order of appearance
	waiting := map[kind][]*question{}
	next := 0
	var failed error
	for {
		busy := 0
		for ; failed == nil && next < n && len(images) < InFlight*c.Batch; next++ {
			i := next
			x, label, key := c.Next(i)
			im := &Image{X: x, Label: label, Key: key, Seed: c.Seed, position: i, classifier: c.Classifier, ask: events, answer: make(chan answer, 1)}
			images[i] = im
			busy++
			go func() { events <- event{position: i, err: c.Work(i, im)} }()
		}
		if busy == 0 { // everybody waits: answer a batch, or send all home
			if len(images) == 0 {
				return failed
			}
			var batch []*question
			if failed == nil {
				failed = ctx.Err()
			}
			if failed == nil {
				batch = c.pick(kinds, waiting)
				failed = c.call(ctx, batch)
			}
			if failed != nil {
				for _, k := range kinds {
					batch = append(batch, waiting[k]...)
					waiting[k] = nil
				}
				for _, q := range batch {
					q.image.answer <- answer{err: failed}
				}
			}
			busy = len(batch)
		}
		var finished []event
		var asked []*question
		for ; busy > 0; busy-- {
			if e := <-events; e.question != nil {
				asked = append(asked, e.question)
			} else {
				finished = append(finished, e)
			}
		}
		slices.SortFunc(finished, func(a, b event) int { return cmp.Compare(a.position, b.position) })
		for _, e := range finished {
			err := e.err
			if err == nil && failed == nil {
				err = c.Done(e.position, images[e.position])
			}
			if failed == nil {
				failed = err
			}
			delete(images, e.position)
		}
		slices.SortFunc(asked, func(a, b *question) int { return cmp.Compare(a.image.position, b.image.position) })
		for _, q := range asked {
			k := q.kind()
			if _, known := waiting[k]; !known {
				kinds = append(kinds, k)
			}
			waiting[k] = append(waiting[k], q)
		}
	}
}

// pick takes the questions to answer next from those that wait: the first batch that is full, else the fullest.
func (c *Crowd) pick(kinds []kind, waiting map[kind][]*question) []*question {
	var best kind
	for _, k := range kinds {
		if len(waiting[k]) > len(waiting[best]) && len(waiting[best]) < c.Batch {
			best = k
		}
	}
	n := min(len(waiting[best]), c.Batch)
	batch := waiting[best][:n]
	waiting[best] = slices.Clone(waiting[best][n:])
	return batch
}

// call asks the classifier and hands out its answers, all of them or, with an error, none.
func (c *Crowd) call(ctx context.Context, batch []*question) error {
	k := batch[0].kind()
	size := len(batch[0].pixels)
	pixels := make([]float32, 0, 2*len(batch)*size) // room to pad
	goals := make([]Goal, len(batch))
	for i, q := range batch {
		pixels = append(pixels, q.pixels...)
		goals[i] = q.goal
	}
	var logits, gradient []float32
	var err error
	if k.gradient {
		logits, gradient, err = k.classifier.(Differentiable).Gradient(ctx, pixels, goals)
	} else {
		logits, err = k.classifier.Logits(ctx, pixels)
	}
	if err != nil {
		return err
	}
	classes := k.classifier.Classes()
	if len(logits) != len(batch)*classes {
		return fmt.Errorf("the classifier answered %d images with %d logits, expected %d of each", len(batch), len(logits), classes)
	}
	if k.gradient && len(gradient) != len(batch)*size {
		return fmt.Errorf("the classifier's gradient of %d images has %d values, expected %d of each", len(batch), len(gradient), size)
	}
	for i, q := range batch {
		a := answer{logits: logits[i*classes : (i+1)*classes : (i+1)*classes]}
		if k.gradient {
			a.gradient = gradient[i*size : (i+1)*size : (i+1)*size]
		}
		q.image.answer <- a
	}
	if c.Called != nil && k.classifier == c.Classifier {
		if k.gradient {
			c.Called(Cost{Gradients: len(batch)})
		} else {
			c.Called(Cost{Forwards: len(batch)})
		}
	}
	return nil
}
