package data

import "github.com/adaad-go/adaad/internal/rng"

// Augmentation is how training images are varied. The zero value leaves them as they are.
type Augmentation struct {
	Pad  int  // crop at a random place after adding so many black pixels on each side, or 0
	Flip bool // mirror left and right with probability 1/2
}

// View is how an epoch shows an image: the window of its size that starts DY rows down and DX pixels right of its
// corner, black where that lies outside of it, and then mirrored left and right if Flip is set.
type View struct {
	DY, DX int
	Flip   bool
}

// View draws how an epoch shows image i of a set. It depends on the seed, the epoch and the image's Index alone.
func (a Augmentation) View(set *Set, i, epoch int, seed uint64) View {
	r := rng.New(seed, rng.Augment, uint64(epoch), uint64(set.Index[i]))
	dy, dx := r.IntN(2*a.Pad+1)-a.Pad, r.IntN(2*a.Pad+1)-a.Pad
	return View{dy, dx, a.Flip && r.Uint64()&1 == 1}
}

// Image writes image i of a set to dst as the epoch shows it. dst has set.ImageSize() bytes.
func (a Augmentation) Image(dst []uint8, set *Set, i, epoch int, seed uint64) {
	v := a.View(set, i, epoch, seed)
	crop(dst, set.Image(i), set.Height, set.Width, set.Channels, v.DY, v.DX)
	if v.Flip {
		mirror(dst, set.Width, set.Channels)
	}
}

// Batch fills x, of shape (len(rows), height, width, channels), with the set's images in rows as the epoch shows them,
// in [0, 1], and y with their labels.
func (a Augmentation) Batch(x []float32, y []int32, set *Set, rows []int, epoch int, seed uint64) {
	size := set.ImageSize()
	image := make([]uint8, size)
	for k, i := range rows {
		a.Image(image, set, i, epoch, seed)
		Floats(x[k*size:(k+1)*size], image)
		y[k] = int32(set.Labels[i])
	}
}

// Batch fills x, of shape (len(rows), height, width, channels), with the set's images in rows, in [0, 1], and y with
// their labels.
func (s *Set) Batch(x []float32, y []int32, rows []int) {
	size := s.ImageSize()
	for k, i := range rows {
		Floats(x[k*size:(k+1)*size], s.Image(i))
		y[k] = int32(s.Labels[i])
	}
}

// Order returns the order in which an epoch visits n images: a random permutation of 0, ..., n-1.
func Order(n int, seed uint64, epoch int) []int {
	return rng.New(seed, rng.Shuffle, uint64(epoch)).Perm(n)
}

// Floats sets dst[k] to src[k]/255, the float32 nearest to it.
func Floats(dst []float32, src []uint8) {
	dst = dst[:len(src)]
	for k, v := range src {
		dst[k] = unit[v]
	}
}

var unit = func() (t [256]float32) {
	for v := range t {
		t[v] = float32(v) / 255
	}
	return t
}()

// crop writes to dst the window of src that starts dy rows down and dx pixels right of its corner; what lies outside
// of src is black.
func crop(dst, src []uint8, height, width, channels, dy, dx int) {
	row := width * channels
	left := max(0, -dx) * channels // of the window, what lies left of src
	from := max(0, dx) * channels
	n := max(0, row-left-from)
	for y := range height {
		d := dst[y*row : (y+1)*row]
		if y+dy < 0 || y+dy >= height || n == 0 {
			clear(d)
			continue
		}
		s := src[(y+dy)*row : (y+dy+1)*row]
		clear(d[:left])
		copy(d[left:left+n], s[from:])
		clear(d[left+n:])
	}
}

// mirror reverses the order of the pixels in every row of width pixels.
func mirror(image []uint8, width, channels int) {
	row := width * channels
	for ; len(image) >= row; image = image[row:] {
		for l, r := 0, row-channels; l < r; l, r = l+channels, r-channels {
			for c := range channels {
				image[l+c], image[r+c] = image[r+c], image[l+c]
			}
		}
	}
}
