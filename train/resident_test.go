package train

import (
	"slices"
	"testing"

	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/internal/rng"
	"github.com/adaad-go/adaad/threat"
	"github.com/gomlx/compute"
)

// A device makes the batches that the host makes, bit for bit: every crop and mirroring, every start of a search.
func TestResidentBatchesAreTheHosts(t *testing.T) {
	t.Run("go", func(t *testing.T) { testResidentBatches(t, backend()) })
	onRemotes(t, testResidentBatches)
}

func testResidentBatches(t *testing.T, on compute.Backend) {
	const n = 24
	set := &data.Set{Name: "noise", Height: 5, Width: 7, Channels: 3, Classes: []string{"a", "b"}}
	r := rng.New(3, rng.Draw)
	for i := range n {
		for range set.ImageSize() {
			set.Pixels = append(set.Pixels, uint8(r.IntN(256)))
		}
		set.Labels = append(set.Labels, i%2)
		set.Index = append(set.Index, 500+i)
	}
	models := []threat.Model{
		{},
		{Steps: 1, StepSize: 0.1, Epsilon: 0.3, Start: threat.Uniform},
		{Steps: 1, StepSize: 0.1, Epsilon: 0.3, Start: threat.Uniform, ClipStart: true},
		{Steps: 1, StepSize: 0.1, Epsilon: 0.3, Start: threat.Gaussian},
		{Steps: 1, StepSize: 0.1, Epsilon: 0.3, Norm: threat.L2, Start: threat.Uniform},
		{Steps: 1, StepSize: 0.1, Epsilon: 0.3},
	}
	for _, augment := range []data.Augmentation{{}, {Pad: 2, Flip: true}, {Pad: 6}} {
		host := must[source](t)(newSource(set, augment, 8, 5))
		device := host
		device.resident = must[*resident](t)(newResident(on, set))
		for _, m := range models {
			var want []batch
			for b := range host.epoch(1, 0, m) {
				want = append(want, b)
			}
			for b := range device.epoch(1, 0, m) {
				if b.err != nil {
					t.Fatal(b.err)
				}
				w := want[b.number]
				if !slices.Equal(values(b.x), values(w.x)) || !slices.Equal(values(b.start), values(w.start)) || !b.y.Equal(w.y) {
					t.Fatalf("%+v, %s: batch %d on the device is not the host's", augment, m, b.number)
				}
			}
		}
		device.finalize()
	}
}
