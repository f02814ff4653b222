package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/weights"
)

// hints are the flags that say what a file of weights does not.
type hints struct {
	Entry string    `help:"Part of a PyTorch checkpoint to take, such as ema or last.model; by default the usual one." placeholder:"NAME"`
	Model string    `help:"Network that the weights are of; by default recognised by names and shapes." placeholder:"NAME"`
	Input imageSize `help:"Size of its images; by default 32x32, and 28x28 with one channel." placeholder:"HxWxC"`
	Mean  []float64 `help:"Mean per channel that the network subtracts from images in [0,1], if the file does not hold it." placeholder:"R,G,B"`
	Std   []float64 `help:"Deviation per channel that it divides them by." placeholder:"R,G,B"`
}

// imageSize is written HxWxC.
type imageSize [3]int

// UnmarshalText reads "32x32x3".
func (s *imageSize) UnmarshalText(text []byte) error {
	parts := strings.Split(string(text), "x")
	if len(parts) != len(s) {
		return fmt.Errorf("%q is no size of images, expected height, width and channels, such as 32x32x3", text)
	}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is no size of images, expected height, width and channels, such as 32x32x3", text)
		}
		s[i] = n
	}
	return nil
}

// of says which network a file's weights are of.
func (h hints) of(f *weights.File) (*weights.Identity, error) {
	if len(h.Mean) != len(h.Std) {
		return nil, fmt.Errorf("--mean has %d values and --std %d, expected as many", len(h.Mean), len(h.Std))
	}
	return f.Identify(weights.Hints{Model: h.Model, Input: h.Input, Mean: h.Mean, Std: h.Std})
}

// load reads a model for another command, and says what was taken that its file leaves open.
func (g *globals) load(path string) (*classifier.Model, error) {
	model, assumed, err := weights.LoadAssuming(path)
	g.tell(assumed)
	return model, err
}

func (g *globals) tell(assumed []string) {
	for _, a := range assumed {
		if !g.Quiet {
			fmt.Fprintln(g.env.Stderr, a)
		}
	}
}

type importCmd struct {
	File string `arg:"" help:"PyTorch or safetensors file."`
	Out  string `help:"Model file to write; its card goes beside it." placeholder:"FILE.safetensors" required:""`
	hints
}

func (importCmd) Help() string {
	return `Nothing in the file is executed. docs/formats.md says what is read and how networks are recognised; adaad inspect
shows it without writing anything.

Examples:
  adaad import teacher.pt --out teacher.safetensors
  adaad import fast.pth --mean 0.4914,0.4822,0.4465 --std 0.2471,0.2435,0.2616 --out fast.safetensors`
}

func (c *importCmd) Run(g *globals) error {
	if err := hasExtension("--out", c.Out, ".safetensors"); err != nil {
		return err
	}
	f, err := weights.Open(c.File, c.Entry)
	if err != nil {
		return usage(err)
	}
	id, err := c.of(f)
	if err != nil {
		return usage(err)
	}
	model, err := id.Model()
	if err != nil {
		return usage(err)
	}
	g.tell(id.Assumptions())
	sum, err := hashFile(f.Path)
	if err != nil {
		return err
	}
	source := fmt.Sprintf("%s, %s, SHA-256 %s", filepath.Base(f.Path), f.Format, sum)
	if err := weights.Save(c.Out, model, weights.Card{Version: g.env.Version, Source: source}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(g.env.Stdout, "%s of %d classes is in %s\nnext: adaad evaluate --model %s --data NAME\n", model.Name(), model.Classes(), c.Out, c.Out)
	return err
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
