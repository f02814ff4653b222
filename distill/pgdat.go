package distill

import (
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/threat"
	. "github.com/gomlx/gomlx/core/graph"
)

// PGDATSettings are PGD-AT's settings. Two conventions are in use: Madry's starts uniformly in the ball with batch norm
// in train mode and forwards only the perturbed images; that of AdaAD's authors ("SAT") starts near the image with
// batch norm in eval mode and forwards the clean images too, so that the running statistics see both.
type PGDATSettings struct {
	Threat       threat.Model
	SearchMode   classifier.Mode
	ForwardClean bool // forward the clean images in train mode after the perturbed ones
}

// PGDAT is adversarial training against projected gradient descent (Madry et al., ICLR 2018, equation 2.1):
//
//	x' = argmax over |x'-x| <= eps of CE(S(x'), y)
//	loss = CE(S(x'), y)
func PGDAT(s PGDATSettings) Method {
	return Method{
		Name: "pgd-at", Threat: s.Threat, SearchMode: s.SearchMode,
		Search: searchCrossEntropy(s.SearchMode),
		Loss: func(b *classifier.Batch) *Node {
			perturbed := study(b, b.XAdv)
			if s.ForwardClean {
				study(b, b.X)
			}
			return CrossEntropy(perturbed, b.Y, Mean)
		},
	}
}
