package vec

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gomlx/gomlx/core/tensors"

	"github.com/adaad-go/adaad/internal/kern"
	"github.com/adaad-go/adaad/zoo"
)

// Taking a batch through runs of instructions a few images at a time changes nothing: not on many threads, where the whole
// batch goes through each instruction, nor with other vectors, nor where workers hand over images on the way.
func TestByImages(t *testing.T) {
	for _, set := range kern.Sets() {
		t.Run(set.Name(), func(t *testing.T) {
			if set.Name() == "generic" && testing.Short() {
				t.Skip("pure Go is slow on networks")
			}
			results := map[string][][]float32{}
			for _, threads := range []string{"1", "2", "2 that hand over", "64"} {
				number, _, eager := strings.Cut(threads, " ")
				b := newBackend(t, "isa="+set.Name()+",threads="+number)
				b.pool.eager = eager
				parts := 0
				b.observe = func(in *instruction, _ time.Duration) {
					if strings.HasPrefix(in.name, "by ") {
						parts++
					}
				}
				w := newWorkload(t, b, "mobilenet-v2", "resnet8-w16", zoo.FP32, 8)
				for _, out := range w.step(t, false) {
					results[threads] = append(results[threads], tensors.MustCopyFlatData[float32](out))
				}
				if few := threads != "64"; few != (parts > 0) {
					t.Errorf("%s threads: %d runs of instructions go by images", threads, parts)
				}
			}
			for threads, got := range results {
				for i := range got {
					if !slices.Equal(got[i], results["64"][i]) {
						t.Errorf("%s threads: output %d differs from that of the whole batch", threads, i)
					}
				}
			}
		})
	}
}
