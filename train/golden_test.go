package train

import (
	"math"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/internal/golden"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
)

// Two steps of PyTorch's SGD with the same gradients, on every parameter of a ResNet.
func TestSGDGolden(t *testing.T) {
	var settings struct {
		Settings struct {
			Student string
			SGD     struct{ LR, Momentum float64 }
		}
		Methods map[string]struct {
			WeightDecay float64 `json:"weight_decay"`
		}
	}
	golden.JSON(t, "methods.json", &settings)
	net, err := zoo.New(settings.Settings.Student, 10, [3]int{32, 32, 3})
	if err != nil {
		t.Fatal(err)
	}
	student := golden.Model(t, net, "student.")
	for _, method := range []string{"natural", "trades"} { // weight decays 5e-4 and 2e-4
		file := must[*weights.File](t)(weights.Read(golden.Path(t, "method_"+method+".safetensors")))
		found := map[string][]float32{}
		for _, x := range file.Tensors {
			if strings.HasPrefix(x.Name, "grad.") || strings.HasPrefix(x.Name, "sgd") {
				found[x.Name] = must[[]float32](t)(x.Floats())
			}
		}
		sgd := settings.Settings.SGD
		o := SGD{Momentum: sgd.Momentum, WeightDecay: settings.Methods[method].WeightDecay}
		for i, p := range net.Params() {
			if !p.Kind.Trainable() {
				continue
			}
			g := found["grad."+p.Name]
			path := drive(t, o, values(student.State[i]), [][]float32{g, g}, []float64{sgd.LR, sgd.LR})
			for k, name := range []string{"sgd1.", "sgd2."} {
				want := found[name+p.Name]
				if len(want) != p.Size() {
					t.Fatalf("%s: %s%s has %d values, want %d", method, name, p.Name, len(want), p.Size())
				}
				for j := range want {
					if d := math.Abs(float64(path[k][j] - want[j])); d > 1e-6 {
						t.Fatalf("%s: %s%s[%d] is %g, want %g", method, name, p.Name, j, path[k][j], want[j])
					}
				}
			}
		}
	}
}
