package zoo_test

import (
	"strings"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/zoo"
)

func shapesOf(net classifier.Network) map[string][]int {
	shapes := map[string][]int{}
	for _, p := range net.Params() {
		shapes[p.Name] = p.Shape
	}
	return shapes
}

// Every network is told by its parameters' names and shapes alone.
func TestRecognise(t *testing.T) {
	names := []string{"resnet8-w4", "resnet18-w8", "resnet34-w16", "resnet20-w64", "wrn-10-1", "wrn-16-4-ltd", "wrn-16-8-dm", "small-cnn-w3"}
	for _, e := range zoo.List() {
		names = append(names, e.Name)
	}
	for _, name := range names {
		input := [3]int{32, 32, 3}
		if strings.HasPrefix(name, "small-cnn") {
			input = [3]int{28, 28, 1}
		}
		want := strings.TrimSuffix(name, "-sub1") // the same network by another name
		if want != name {
			want = strings.TrimSuffix(want, "-ltd")
		}
		got, assumed := zoo.Recognise(shapesOf(mustNew(t, name, 7, input)))
		if got != want {
			t.Errorf("%s is taken for %q, expected %q", name, got, want)
		}
		if strings.HasSuffix(want, "-dm") != (len(assumed) > 0) {
			t.Errorf("%s: assumed %q", name, assumed)
		}
	}
}

// What is no network here is not taken for one, and odd shapes stop nothing.
func TestNotRecognised(t *testing.T) {
	for what, change := range map[string]func(shapes map[string][]int){
		"nothing": func(s map[string][]int) { clear(s) },
		"bottlenecks": func(s map[string][]int) {
			s["layer1.0.conv3.weight"] = []int{1}
		},
		"uneven stages":   func(s map[string][]int) { delete(s, "layer2.1.conv1.weight") },
		"no convolutions": func(s map[string][]int) { delete(s, "layer1.0.conv1.weight") },
		"no first block":  func(s map[string][]int) { delete(s, "layer1.0.bn1.weight") },
		"deep preact": func(s map[string][]int) {
			delete(s, "bn1.weight")
			for _, name := range []string{"layer1.2", "layer2.2", "layer2.3", "layer3.2", "layer3.3", "layer3.4", "layer3.5", "layer4.2"} {
				s[name+".conv1.weight"] = []int{1}
			}
		},
	} {
		shapes := shapesOf(mustNew(t, "resnet18", 10, [3]int{32, 32, 3}))
		change(shapes)
		if got, _ := zoo.Recognise(shapes); got != "" {
			t.Errorf("%s: taken for a %s", what, got)
		}
	}
	for _, shapes := range []map[string][]int{
		{"block1.layer.0.conv1.weight": {}}, {"block1.layer.0.conv1.weight": {17, 1, 1, 1}}, {"layer.0.block.0.conv_0.weight": {3}},
	} {
		if got, _ := zoo.Recognise(shapes); got != "" {
			t.Errorf("%v is taken for a %s", shapes, got)
		}
	}
}
