package zoo

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/closest"
)

// Entry is one architecture as a list shows it.
type Entry struct {
	Name   string
	Params int   // trained values
	MACs   int64 // multiply-adds of one forward pass over one image
	Input  [3]int
	Source string
}

// listed are the names worth showing; the patterns of parse allow more.
var listed = []struct {
	name   string
	input  [3]int
	source string
}{
	{"resnet8", colour, heCIFAR},
	{"resnet20", colour, heCIFAR},
	{"resnet32", colour, heCIFAR},
	{"resnet56", colour, heCIFAR},
	{"resnet18", colour, heImageNet},
	{"resnet34", colour, heImageNet},
	{"preact-resnet18", colour, "He et al. 2016, Identity Mappings in Deep Residual Networks"},
	{"preact-resnet18-wong", colour, "Wong et al. 2020, Fast is better than free"},
	{"preact-resnet18-dm", colour, gowal},
	{"mobilenet-v2", colour, "Sandler et al. 2018, MobileNetV2; strides for 32x32 images"},
	{"wrn-28-10", colour, zagoruyko},
	{"wrn-34-10", colour, zagoruyko},
	{"wrn-34-20", colour, zagoruyko},
	{"wrn-34-10-ltd", colour, chen},
	{"wrn-34-20-ltd", colour, chen},
	{"wrn-34-20-ltd-sub1", colour, chen + ", with the unused sub_block1"},
	{"wrn-28-10-dm", colour, gowal},
	{"wrn-70-16-dm", colour, gowal},
	{"small-cnn-w8", [3]int{28, 28, 1}, "small-cnn with a quarter of its channels, 1/16 of its parameters"},
	{"small-cnn", [3]int{28, 28, 1}, "Zhang et al. 2019, TRADES (MNIST network)"},
}

var colour = [3]int{32, 32, 3}

const (
	heCIFAR    = "He et al. 2016, Deep Residual Learning, section 4.2; projection shortcuts"
	heImageNet = "He et al. 2016, Deep Residual Learning, table 1; CIFAR stem"
	zagoruyko  = "Zagoruyko and Komodakis 2016, Wide Residual Networks; form of the TRADES code"
	gowal      = "Gowal et al. 2020, Uncovering the Limits; DeepMind's form with Swish, or with ReLU as -dm-relu"
	chen       = "Chen and Lee 2021, LTD: Low Temperature Distillation; Wide ResNet of its teachers"
)

// List returns the architectures with names of their own, with their sizes for 10 classes.
func List() []Entry {
	var entries []Entry
	for _, l := range listed {
		net, err := New(l.name, 10, l.input)
		if err != nil {
			panic(err)
		}
		entries = append(entries, Entry{l.name, classifier.Count(net), MACs(net), l.input, l.source})
	}
	return entries
}

var (
	resnetName = regexp.MustCompile(`^resnet(\d{1,4})(?:-w(\d{1,4}))?$`)
	smallName  = regexp.MustCompile(`^small-cnn(?:-w(\d{1,4}))?$`)
	wrnName    = regexp.MustCompile(`^wrn-(\d{1,4})-(\d{1,3})(-ltd|-ltd-sub1|-dm|-dm-relu)?$`)
)

// parse finds the architecture of a name: those of List, resnetD and resnetD-wW of any width W and D = 18, 34 or 6n+2,
// small-cnn-wW, wrn-D-K and wrn-D-K with -ltd, -ltd-sub1, -dm or -dm-relu behind of any widening K and D = 6n+4, and each
// of them with Normalised behind.
func parse(name string) (architecture, error) {
	if base, ok := strings.CutSuffix(name, Normalised); ok && !strings.HasSuffix(base, Normalised) {
		inner, err := parse(base)
		if err != nil {
			return nil, err
		}
		return normalised(inner), nil
	}
	switch name {
	case "mobilenet-v2":
		return mobileNetV2, nil
	case "preact-resnet18":
		return preActResNet18, nil
	case "preact-resnet18-wong":
		return preActResNet18Wong, nil
	case "preact-resnet18-dm":
		return deepMindPreActResNet18(swish), nil
	case "preact-resnet18-dm-relu":
		return deepMindPreActResNet18(relu), nil
	}
	if m := resnetName.FindStringSubmatch(name); m != nil {
		return parseResNet(name, m[1], m[2])
	}
	if m := smallName.FindStringSubmatch(name); m != nil {
		width := 32
		if m[1] != "" {
			width = number(m[1])
		}
		if width < 1 {
			return nil, fmt.Errorf("%s: width 0, expected at least 1", name)
		}
		return smallCNN(width), nil
	}
	if m := wrnName.FindStringSubmatch(name); m != nil {
		depth, k := number(m[1]), number(m[2])
		if depth < 10 || depth%6 != 4 {
			return nil, fmt.Errorf("%s: depth %d, expected 6n+4, such as 10, 16, 28, 34", name, depth)
		}
		if k < 1 {
			return nil, fmt.Errorf("%s: widening 0, expected at least 1", name)
		}
		switch m[3] {
		case "-dm":
			return deepMindWRN(depth, k, swish), nil
		case "-dm-relu":
			return deepMindWRN(depth, k, relu), nil
		}
		return wideResNet(depth, k, subBlock(m[3] != "-ltd")), nil
	}
	var names []string
	for _, l := range listed {
		names = append(names, l.name)
	}
	if near := closest.Names(name, names, 3); len(near) > 0 {
		return nil, fmt.Errorf("unknown model %q; close names: %s", name, strings.Join(near, ", "))
	}
	return nil, fmt.Errorf("unknown model %q; expected one of %s", name, strings.Join(names, ", "))
}

func parseResNet(name, depthDigits, widthDigits string) (architecture, error) {
	depth := number(depthDigits)
	width := 16
	if depth == 18 || depth == 34 {
		width = 64
	}
	if widthDigits != "" {
		width = number(widthDigits)
	}
	switch {
	case width < 1:
		return nil, fmt.Errorf("%s: width 0, expected at least 1", name)
	case depth == 18:
		return resnet(width, 2, 2, 2, 2), nil
	case depth == 34:
		return resnet(width, 3, 4, 6, 3), nil
	case depth == 50 || depth == 152:
		return nil, fmt.Errorf("%s: the bottleneck ResNets of ImageNet are not here; expected resnet18, resnet34 or a depth 6n+2, such as resnet44 or resnet56", name)
	case depth < 8 || depth%6 != 2:
		return nil, fmt.Errorf("%s: depth %d, expected 18, 34 or 6n+2, such as 8, 20, 32, 56", name, depth)
	}
	n := (depth - 2) / 6
	return resnet(width, n, n, n), nil
}

// number reads digits that a pattern has bounded.
func number(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}
