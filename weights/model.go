package weights

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/weights/onnx"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/gomlx/core/tensors"
)

// Name is the file of a model in a run folder.
const Name = "model.safetensors"

// Card says what a saved model is and how well it was measured. It stands beside the weights, with .json in place of
// .safetensors. What is in it is enough to measure every accuracy again.
type Card struct {
	Model      string     `json:"model"` // architecture, as the command line names it
	Input      [3]int     `json:"input"` // height, width, channels
	Classes    []string   `json:"classes,omitempty"`
	Data       string     `json:"data,omitempty"`
	Method     string     `json:"method,omitempty"`
	Recipe     string     `json:"recipe,omitempty"`
	Seed       uint64     `json:"seed"`
	HeldOut    float64    `json:"held_out,omitempty"`  // share of the training images that was held out
	Version    string     `json:"version,omitempty"`   // of the program that made it
	Selection  string     `json:"selection,omitempty"` // how the checkpoint was chosen
	Source     string     `json:"source,omitempty"`    // of a model that was trained elsewhere: file, format, SHA-256
	Accuracies []Measured `json:"accuracies,omitempty"`
}

// Measured is one measured accuracy.
type Measured struct {
	Attack   string  `json:"attack"` // "clean" for none
	Norm     string  `json:"norm,omitempty"`
	Epsilon  string  `json:"eps,omitempty"`       // "8/255"
	StepSize string  `json:"step_size,omitempty"` // where it is not the attack's own
	Images   int     `json:"images"`
	Of       string  `json:"of"`             // TestImages or HeldOutImages
	Data     string  `json:"data,omitempty"` // of which set, where it is not the card's
	Seed     uint64  `json:"seed,omitempty"` // of the images' choice and the attack's draws
	Accuracy float64 `json:"accuracy"`
}

// Which images an accuracy is of: of the card's data, the test images, or those training images that chose the checkpoint.
const (
	TestImages    = "test"
	HeldOutImages = "held-out training images"
)

// Put adds an accuracy, in the place of one that was measured in the same way on as many images.
func (c *Card) Put(m Measured) {
	i := slices.IndexFunc(c.Accuracies, func(old Measured) bool {
		old.Accuracy = m.Accuracy
		return old == m
	})
	if i < 0 {
		c.Accuracies = append(c.Accuracies, m)
		return
	}
	c.Accuracies[i] = m
}

// about is the metadata that lets a file of weights stand alone.
type about struct {
	Model   string `json:"model"`
	Classes int    `json:"classes"`
	Input   [3]int `json:"input"`
}

const aboutKey = "adaad"

// tracked is PyTorch's count of training batches, which nothing here uses.
const tracked = "num_batches_tracked"

const extension = ".safetensors"

func cardPath(path string) string { return strings.TrimSuffix(path, extension) + ".json" }

// SaveCard writes the card of a model file or run folder.
func SaveCard(path string, c *Card) error { return c.Write(cardPath(modelPath(path))) }

// Write writes the card.
func (c Card) Write(path string) error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(path, func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// FromTensor copies a float32 tensor into one to be written.
func FromTensor(name string, t *tensors.Tensor) (Tensor, error) {
	out := Tensor{Name: name, DType: "F32", Shape: append([]int{}, t.Shape().Dimensions...)}
	err := tensors.ConstFlatData(t, func(flat []float32) {
		out.Data = make([]byte, 0, 4*len(flat))
		for _, v := range flat {
			out.Data = binary.LittleEndian.AppendUint32(out.Data, math.Float32bits(v))
		}
	})
	if err != nil {
		return out, fmt.Errorf("tensor %s: %w", name, err)
	}
	return out, nil
}

// Floats reads a tensor of F64, F32, F16 or BF16 as float32.
func (t Tensor) Floats() ([]float32, error) {
	width := sizes[t.DType]
	if width == 0 || len(t.Data)%width != 0 {
		return nil, t.validate()
	}
	out := make([]float32, len(t.Data)/width)
	for i := range out {
		b := t.Data[i*width:]
		switch t.DType {
		case "F32":
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b))
		case "F64":
			out[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(b)))
		case "F16":
			out[i] = float16.FromBits(binary.LittleEndian.Uint16(b)).Float32()
		case "BF16":
			out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16)
		default:
			return nil, fmt.Errorf("tensor %s holds %s, expected F32, F64, F16 or BF16", t.Name, t.DType)
		}
	}
	return out, nil
}

// Open reads a model file, or that of a run folder; entry is as in [ReadEntry].
func Open(path, entry string) (*File, error) {
	file := modelPath(path)
	f, err := ReadEntry(file, entry)
	switch {
	case errors.Is(err, fs.ErrNotExist) && file != path:
		return nil, fmt.Errorf("run folder %s holds no %s yet: is its training finished? (%w)", path, Name, fs.ErrNotExist)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no model file or run folder %s: %w", path, fs.ErrNotExist)
	}
	return f, err
}

// Load reads a model from a safetensors, PyTorch or ONNX file or from a run folder. Files of weights that do not say which
// network they hold, as those that this program writes do, are recognised by names and shapes: see [File.Identify]. What an
// ONNX file computes is said there: see [onnx.File.Model].
func Load(path string) (*classifier.Model, error) {
	m, _, err := LoadAssuming(path)
	return m, err
}

// LoadAssuming is Load that says, a sentence each, what the file leaves open and was taken.
func LoadAssuming(path string) (m *classifier.Model, assumed []string, err error) {
	if IsONNX(path) {
		m, err = onnx.Load(path)
		return m, nil, err
	}
	f, err := Open(path, "")
	if err != nil {
		return nil, nil, err
	}
	id, err := f.Identify(Hints{})
	if err != nil {
		return nil, nil, err
	}
	m, err = id.Model()
	return m, id.Assumptions(), err
}

// LoadAs reads the weights of a known network, under its own names.
func LoadAs(path string, net classifier.Network) (*classifier.Model, error) {
	f, err := Open(path, "")
	if err != nil {
		return nil, err
	}
	return f.as(net).Model()
}

// LoadCard reads the card of a model file or run folder; one without a card gives an fs.ErrNotExist. Only safetensors
// files have one beside them, and ONNX files that this program wrote have one inside.
func LoadCard(path string) (*Card, error) {
	path = modelPath(path)
	if IsONNX(path) {
		return onnxCard(path)
	}
	if !strings.HasSuffix(path, extension) {
		return nil, fmt.Errorf("%s has no card: %w", path, fs.ErrNotExist)
	}
	path = cardPath(path)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := new(Card)
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("%s is no model card: %w", path, err)
	}
	return c, nil
}

func modelPath(path string) string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(path, Name)
	}
	return path
}

// listed is how many names a sentence lists.
const listed = 8

func listNames(names []string) string {
	text := strings.Join(names[:min(len(names), listed)], ", ")
	if len(names) > listed {
		text += ", ..."
	}
	return text
}
