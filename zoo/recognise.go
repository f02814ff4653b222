package zoo

import (
	"fmt"
	"strings"
)

// sizes are the shapes of named parameters.
type sizes map[string][]int

func (p sizes) has(name string) bool {
	_, has := p[name]
	return has
}

// length counts how far a numbered sequence of names goes, from 0.
func (p sizes) length(format string) int {
	n := 0
	for p.has(fmt.Sprintf(format, n)) {
		n++
	}
	return n
}

// Recognise is the name of the network whose parameters have these names and shapes, for [New]; it is empty where no
// network here comes near. assumed says, a sentence each, what names and shapes leave open and was taken.
func Recognise(parameters map[string][]int) (model string, assumed []string) {
	p := sizes(parameters)
	switch {
	case p.has("layer1.0.bn1.weight"):
		model = recogniseResNet(p)
	case p.has("block1.layer.0.conv1.weight"):
		model = recogniseWideResNet(p)
	case p.has("layer.0.block.0.conv_0.weight"):
		model = recogniseDeepMindWRN(p)
	case p.has("layer_0.0.conv_2d_1.weight"):
		model = "preact-resnet18-dm"
	case p.has("layers.0.conv3.weight"):
		model = "mobilenet-v2"
	case p.has("feature_extractor.conv1.weight"):
		model = recogniseSmallCNN(p)
	}
	if strings.HasSuffix(model, "-dm") {
		assumed = append(assumed, fmt.Sprintf("Swish between its layers: %s-relu has the same names and shapes", model))
	}
	return model, assumed
}

func recogniseResNet(p sizes) string {
	var blocks [5]int
	for stage := range blocks {
		blocks[stage] = p.length(fmt.Sprintf("layer%d.%%d.conv1.weight", stage+1))
	}
	n := blocks[0]
	depth, usual := 0, 64
	switch {
	case n == 0 || p.has("layer1.0.conv3.weight"): // that is a bottleneck's
		return ""
	case blocks == [5]int{2, 2, 2, 2}:
		depth = 18
	case blocks == [5]int{3, 4, 6, 3}:
		depth = 34
	case blocks == [5]int{n, n, n}:
		depth, usual = 6*n+2, 16
	default:
		return ""
	}
	width := p["bn1.weight"]
	switch {
	case len(width) == 1 && width[0] == usual:
		return fmt.Sprintf("resnet%d", depth)
	case len(width) == 1:
		return fmt.Sprintf("resnet%d-w%d", depth, width[0])
	case depth != 18:
		return ""
	case p.has("bn.weight"):
		return "preact-resnet18"
	}
	return "preact-resnet18-wong"
}

func recogniseWideResNet(p sizes) string {
	model := wideName(p, "block1.layer.%d.conv1.weight")
	if model == "" || p.has("sub_block1.layer.0.conv1.weight") {
		return model
	}
	return model + "-ltd"
}

func recogniseDeepMindWRN(p sizes) string {
	model := wideName(p, "layer.0.block.%d.conv_0.weight")
	if model == "" {
		return ""
	}
	return model + "-dm"
}

func recogniseSmallCNN(p sizes) string {
	kernel := p["feature_extractor.conv1.weight"]
	switch {
	case len(kernel) != 4:
		return ""
	case kernel[0] == 32:
		return "small-cnn"
	}
	return fmt.Sprintf("small-cnn-w%d", kernel[0])
}

// wideName is wrn-D-K of a first stage whose blocks' first convolutions have such names.
func wideName(p sizes, convolutions string) string {
	kernel := p[fmt.Sprintf(convolutions, 0)]
	if len(kernel) != 4 || kernel[0]%16 != 0 {
		return ""
	}
	return fmt.Sprintf("wrn-%d-%d", 6*p.length(convolutions)+4, kernel[0]/16)
}
