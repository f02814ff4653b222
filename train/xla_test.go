//go:build xla

package train

import (
	"math"
	"os"
	"testing"

	"github.com/adaad-go/adaad/backend/mesh"
	"github.com/adaad-go/adaad/classifier"
	"github.com/gomlx/compute"
	_ "github.com/gomlx/go-xla/compute/xla"
)

// openXLA opens the plugin that ADAAD_TEST_XLA names, xla:cpu without it, as devices with memory of their own.
func openXLA(t *testing.T) compute.Backend {
	t.Helper()
	name := os.Getenv("ADAAD_TEST_XLA")
	if name == "" {
		name = "xla:cpu"
	}
	b, err := compute.NewWithConfig(name + ",noshared_buffers")
	switch {
	case err != nil && os.Getenv("ADAAD_REQUIRE_XLA") != "":
		t.Fatalf("%s cannot be opened: %v", name, err)
	case err != nil:
		t.Skipf("%s cannot be opened: %v", name, err)
	}
	t.Cleanup(b.Finalize)
	return b
}

func init() { remotes["xla"] = openXLA }

// On all the devices of a plugin, even if that is one, a step is that of one device.
func TestXLADevices(t *testing.T) {
	one := openXLA(t)
	all := must[*mesh.Backend](t)(mesh.New(one, one.NumDevices()))
	o := remembering(distilled(ball, classifier.Train))
	var losses [2][]float64
	for i, b := range []compute.Backend{one, all} {
		x := firstBatch(t, 3*one.NumDevices(), o.Threat)
		s := must[*Stepper](t)(NewStepper(b, tinyModel(5, 1), []*classifier.Model{tinyModel(7, 2)}, o, SGD{Momentum: 0.9}, 1, true))
		for range 3 {
			losses[i] = append(losses[i], read(t)(s.Step(x.x, x.start, x.y, 0.1, 0.5)).Loss)
		}
	}
	for k, want := range losses[0] {
		if got := losses[1][k]; !(math.Abs(got-want) < 1e-3*(1+math.Abs(want))) { // TF32 on a GPU
			t.Errorf("step %d on %d devices has loss %g, on one %g", k, one.NumDevices(), got, want)
		}
	}
}
