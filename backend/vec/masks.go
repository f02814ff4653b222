package vec

import (
	"slices"
	"unsafe"

	"github.com/adaad-go/adaad/internal/kern"
)

// The gradient of a ReLU needs one bit of each number that the ReLU made: whether it is above 0. Those bits are taken
// when the number is made, and the numbers themselves need not be kept until the gradient is computed.

// mask is the bits of a tensor of images.
type mask struct {
	of, bits                 *tensor
	images, pixels, channels int
}

// maskOf is the tensor that has the bits of v, images of some pixels with channels.
func (c *compiler) maskOf(v *value, images, pixels, channels int) *tensor {
	of := c.tensor(v)
	for _, m := range c.masks {
		if m.of == of && m.channels == channels {
			return m.bits
		}
	}
	m := mask{of, c.newTensor(2 * images * pixels * kern.MaskWords(channels)), images, pixels, channels}
	c.masks = append(c.masks, m)
	return m.bits
}

// addMasks puts the instructions that take bits behind those that make the numbers.
func (c *compiler) addMasks() {
	p := c.program
	for _, m := range c.masks {
		at := 1 + slices.IndexFunc(p.instructions, func(in *instruction) bool { return slices.Contains(in.out, m.of) })
		p.instructions = slices.Insert(p.instructions, at, c.maskInstruction(m))
	}
	for i, in := range p.instructions {
		in.position = i
	}
}

func (c *compiler) maskInstruction(m mask) *instruction {
	const task = 16 << 10 // numbers
	all, pixels := m.images*m.pixels, max(1, task/m.channels)
	words := kern.MaskWords(m.channels)
	return &instruction{
		name: "mask", in: []*tensor{m.of}, out: []*tensor{m.bits},
		run: func(r *run) error {
			bits, x := r.words(m.bits), r.floats(m.of)
			r.pool.Run((all+pixels-1)/pixels, func(i, _ int) {
				first := i * pixels
				c.backend.set.Positive(bits[first*words:], x[first*m.channels:], min(pixels, all-first), m.channels)
			})
			return nil
		},
		splitting: &splitting{
			fits: func(images int) bool { return images == m.images },
			each: []*tensor{m.of, m.bits},
			split: func(count int) func(v part) {
				return func(v part) { c.backend.set.Positive(v.words(m.bits), v.floats(m.of), m.pixels*count, m.channels) }
			},
		},
	}
}

func wordsOf(b []byte) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/2)
}

// words are a mask's, or nil for none.
func (r *run) words(t *tensor) []uint16 {
	if t == nil {
		return nil
	}
	return wordsOf(r.mem[t.id])
}

func (v part) words(t *tensor) []uint16 {
	if t == nil {
		return nil
	}
	return wordsOf(v.bytes(t))
}
