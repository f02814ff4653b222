package eval

import (
	"archive/zip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/internal/golden"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/gomlx/core/tensors"
)

// goldenAttacks is attack_resnet20.json: a flag for each image, 1 where it stands.
type goldenAttacks struct {
	Clean      string
	Logits     [][]float64 `json:"clean_logits_first4"`
	FGSM       string
	PGD        string `json:"pgd20_zero_start"`
	PGDTrades  string `json:"pgd20_trades_random_start"`
	CW         string `json:"cw30_zero_start"`
	Sequential map[string]string
}

// goldenModel reads attack_resnet20.pt: in PyTorch's zip the values of the state_dict's k-th tensor are the file data/k.
// Those of convolutions lie in the order out, kh, kw, in.
func goldenModel(t *testing.T) *classifier.Model {
	t.Helper()
	net, err := zoo.New("resnet20", 10, [3]int{32, 32, 3})
	if err != nil {
		t.Fatal(err)
	}
	path := golden.Path(t, "attack_resnet20.pt")
	archive, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	at := 0
	var state []*tensors.Tensor
	for _, p := range net.Params() {
		f, err := archive.Open(fmt.Sprintf("resnet20_w16/data/%d", at))
		if err != nil {
			t.Fatalf("%s: %s: %v", path, p.Name, err)
		}
		stored := make([]float32, p.Size())
		if err := binary.Read(f, binary.LittleEndian, stored); err != nil {
			t.Fatalf("%s: %s: %v", path, p.Name, err)
		}
		if n, _ := io.Copy(io.Discard, f); n != 0 {
			t.Fatalf("%s: %s: %d bytes more than expected", path, p.Name, n)
		}
		f.Close()
		at++
		if p.Kind == classifier.RunningVar {
			at++ // num_batches_tracked
		}
		values := stored
		if p.Kind == classifier.ConvWeight {
			values = make([]float32, len(stored))
			out, in, h, w := p.Shape[0], p.Shape[1], p.Shape[2], p.Shape[3]
			for o := range out {
				for i := range in {
					for k := range h * w {
						values[(o*in+i)*h*w+k] = stored[(o*h*w+k)*in+i]
					}
				}
			}
		}
		state = append(state, tensors.FromFlatDataAndDimensions(values, p.Shape...))
	}
	model, err := classifier.NewModel(net, state)
	if err != nil {
		t.Fatal(err)
	}
	return model
}

// goldenImages are the first n images of CIFAR-10's test set.
func goldenImages(t *testing.T, n int) *data.Set {
	t.Helper()
	pixels, labels := golden.CIFARTest(t, n)
	s := &data.Set{Name: "cifar10", Height: 32, Width: 32, Channels: 3, Classes: strings.Split("0123456789", "")}
	for i := range n {
		for p := range 32 * 32 {
			for c := range 3 {
				s.Pixels = append(s.Pixels, uint8(pixels[(i*3+c)*32*32+p]*255+0.5))
			}
		}
		s.Labels, s.Index = append(s.Labels, int(labels[i])), append(s.Index, i)
	}
	return s
}

func goldenEvaluation(t *testing.T, n int, suites ...attack.Suite) (*Result, goldenAttacks) {
	t.Helper()
	var want goldenAttacks
	golden.JSON(t, "attack_resnet20.json", &want)
	backend, err := vec.New("")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Finalize()
	r, err := Run(t.Context(), backend, Evaluation{Model: goldenModel(t), Set: goldenImages(t, n), Epsilon: 8. / 255, Suites: suites})
	if err != nil {
		t.Fatal(err)
	}
	return r, want
}

// flags are '1' for images that stand.
func flags(r *Result, stands func(Row) bool) string {
	var b strings.Builder
	for _, row := range r.Rows {
		if stands(row) {
			b.WriteByte('1')
		} else {
			b.WriteByte('0')
		}
	}
	return b.String()
}

func differences(a, b string) int {
	n := 0
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// Attacks without random draws agree with PyTorch's image by image.
func TestAttacksAgreeWithTheReferenceImageByImage(t *testing.T) {
	if testing.Short() {
		t.Skip("attacks a ResNet-20")
	}
	const eps, n = 8. / 255, 256
	pgd, cw := attack.NewPGD(threat.Linf, eps, 20), attack.CW(threat.Linf, eps)
	pgd.Threat.Start, cw.Threat.Start = threat.FromImage, threat.FromImage
	r, want := goldenEvaluation(t, n, one(attack.FGSM(threat.Linf, eps)), one(pgd), one(cw), one(attack.PGDTrades(threat.Linf, eps)))
	for name, c := range map[string]struct {
		want  string
		slack int
		at    int
	}{
		"clean": {want.Clean, 2, -1}, "fgsm": {want.FGSM, 2, 0}, "pgd from the image": {want.PGD, 2, 1}, "cw from the image": {want.CW, 2, 2},
		"pgd-trades, from other starts": {want.PGDTrades, 3, 3},
	} {
		got := flags(r, func(row Row) bool { return row.Prediction == row.Label && (c.at < 0 || !row.Attacks[c.at].Broken) })
		d := differences(got, c.want)
		t.Logf("%s: %d of %d images differ", name, d, n)
		if d > c.slack {
			t.Errorf("%s differs from the reference at %d images of %d, want at most %d", name, d, n, c.slack)
		}
	}
}

// After each attack of AutoAttack the same images stand as after the original's, up to one in a hundred. By default only
// some of the images are attacked; ADAAD_GOLDEN_IMAGES=256 takes all.
func TestAutoAttackAgreesWithTheOriginal(t *testing.T) {
	if testing.Short() {
		t.Skip("runs AutoAttack on a ResNet-20")
	}
	n := 48
	if text := os.Getenv("ADAAD_GOLDEN_IMAGES"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 || n > 256 {
			t.Fatalf("ADAAD_GOLDEN_IMAGES is %q, expected a number from 1 to 256", text)
		}
	}
	suite := attack.AutoAttack(threat.Linf, 8./255)
	r, want := goldenEvaluation(t, n, suite)
	for k, a := range suite.Attacks {
		got := flags(r, func(row Row) bool {
			if row.Prediction != row.Label {
				return false
			}
			fallen := slices.IndexFunc(suite.Attacks, func(a attack.Attack) bool { return a.Name() == row.Attacks[0].Attack })
			return !row.Attacks[0].Broken || fallen > k
		})
		reference := want.Sequential[a.Name()][:n]
		d := differences(got, reference)
		t.Logf("after %s %d of %d images stand, %d after the original's; %d differ", a.Name(), strings.Count(got, "1"), n,
			strings.Count(reference, "1"), d)
		if d > max(1, n/100) {
			t.Errorf("after %s %d of %d images differ from the original", a.Name(), d, n)
		}
	}
	for _, w := range r.Warnings {
		t.Errorf("a warning: %s", w)
	}
}
