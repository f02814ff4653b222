package attack

import (
	"context"
	"math"
)

// Classifier is what can be attacked: a program of this process, a model behind a network, anything that answers
// images with one number for each class, of which the highest is its prediction. An image is its pixels in [0,1], laid out
// height, width, channels. No two calls are under way at a time. Implementations can be compared with ==, as pointers can.
type Classifier interface {
	Input() (height, width, channels int)
	Classes() int
	// Logits answers one or more images, laid end to end, with [images, classes] numbers, laid end to end too: logits,
	// before any softmax. The images' memory is used again after the call, that of the answer belongs to who asked.
	Logits(ctx context.Context, images []float32) ([]float32, error)
}

// Differentiable is a classifier that says which way its answers move. Attacks that follow gradients need one.
type Differentiable interface {
	Classifier
	// Gradient answers as Logits does and returns too, for every image, the gradient of its goal by its pixels. The
	// goals, one per image, share one loss. Goal.Slope is the part of the chain rule that is not the classifier's.
	Gradient(ctx context.Context, images []float32, goals []Goal) (logits, gradient []float32, err error)
}

// Incremental is a classifier that answers sooner about images that differ in few pixels from one it was asked about before.
type Incremental interface {
	Classifier
	// LogitsNear is Logits, up to rounding, of images that are each like a base but for few pixels. The same bases come again
	// and again. They are laid end to end, as many as images. What is answered for an image depends on it and its base alone.
	LogitsNear(ctx context.Context, images, bases []float32) ([]float32, error)
}

// Answer is the prediction of one image's logits: the class of the highest, the first of several, or -1 where one is not
// finite, and the margin z_y - max_{i≠y} z_i for label y. Margins are finite: logits that are not have the lowest.
func Answer(logits []float32, label int) (prediction int, margin float32) {
	other := float32(math.Inf(-1))
	for i, z := range logits {
		if math.IsNaN(float64(z)) || math.IsInf(float64(z), 0) {
			return -1, -math.MaxFloat32
		}
		if z > logits[prediction] {
			prediction = i
		}
		if i != label {
			other = max(other, z)
		}
	}
	return prediction, max(-math.MaxFloat32, min(logits[label]-other, math.MaxFloat32))
}
