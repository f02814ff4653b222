package distill

import (
	"github.com/adaad-go/adaad/classifier"
	. "github.com/gomlx/gomlx/core/graph"
)

// Natural trains on clean images and their labels: loss = CE(S(x), y).
func Natural() Method {
	return Method{
		Name: "natural",
		Loss: func(b *classifier.Batch) *Node { return CrossEntropy(study(b, b.X), b.Y, Mean) },
	}
}
