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
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
	"github.com/gomlx/gomlx/core/tensors"
)

// Name is the file of a model in a run folder.
const Name = "model.safetensors"

// Card says what a saved model is and how well it was measured. It stands beside the weights, with .json in place of
// .safetensors.
type Card struct {
	Model      string     `json:"model"` // architecture, as the command line names it
	Input      [3]int     `json:"input"` // height, width, channels
	Classes    []string   `json:"classes,omitempty"`
	Data       string     `json:"data,omitempty"`
	Method     string     `json:"method,omitempty"`
	Recipe     string     `json:"recipe,omitempty"`
	Seed       uint64     `json:"seed"`
	Version    string     `json:"version,omitempty"`   // of the program that made it
	Selection  string     `json:"selection,omitempty"` // how the checkpoint was chosen
	Type       string     `json:"type,omitempty"`      // of the kernels and matrices in the file: fp16 or bf16; empty is fp32
	Accuracies []Measured `json:"accuracies,omitempty"`
}

// Measured is one measured accuracy.
type Measured struct {
	Attack   string  `json:"attack"` // "clean" for none
	Norm     string  `json:"norm,omitempty"`
	Epsilon  string  `json:"eps,omitempty"` // "8/255"
	Images   int     `json:"images"`
	Of       string  `json:"of"` // which images: "test", "held-out training images"
	Accuracy float64 `json:"accuracy"`
}

// about is the metadata that lets a file of weights stand alone.
type about struct {
	Model   string `json:"model"`
	Classes int    `json:"classes"`
	Input   [3]int `json:"input"`
}

const aboutKey = "adaad"

// Save writes a model under PyTorch's names, num_batches_tracked included, so that load_state_dict takes it as it is,
// and its card beside it. Kernels and matrices are rounded to the card's type.
func Save(path string, m *classifier.Model, card Card) error {
	h, w, c := m.Input()
	text, err := json.Marshal(about{m.Name(), m.Classes(), [3]int{h, w, c}})
	if err != nil {
		return err
	}
	f := &File{Metadata: map[string]string{aboutKey: string(text), "format": "pt"}}
	for i, p := range m.Params() {
		t, err := FromTensor(p.Name, m.State[i])
		if err == nil && len(p.Shape) > 1 {
			t, err = t.narrow(card.Type)
		}
		if err != nil {
			return err
		}
		f.Tensors = append(f.Tensors, t)
		if p.Kind == classifier.RunningVar {
			f.Tensors = append(f.Tensors, Tensor{Name: strings.TrimSuffix(p.Name, "running_var") + tracked, DType: "I64", Shape: []int{}, Data: make([]byte, 8)})
		}
	}
	if err := Write(path, f); err != nil {
		return err
	}
	card.Model, card.Input = m.Name(), [3]int{h, w, c}
	return card.Write(cardPath(path))
}

// tracked is PyTorch's count of training batches, which nothing here uses.
const tracked = "num_batches_tracked"

func cardPath(path string) string { return strings.TrimSuffix(path, ".safetensors") + ".json" }

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

// narrow rounds a tensor of F32 to fp16 or bf16; to no type or fp32 it is itself. What fp16 cannot hold is an error.
func (t Tensor) narrow(to string) (Tensor, error) {
	var round func(float32) uint16
	switch to {
	case "", "fp32":
		return t, nil
	case "fp16":
		round = func(v float32) uint16 { return float16.FromFloat32(v).Bits() }
		t.DType = "F16"
	case "bf16":
		round = func(v float32) uint16 { return bfloat16.FromFloat32(v).Bits() }
		t.DType = "BF16"
	default:
		return t, fmt.Errorf("the type of saved weights is %q, expected fp32, fp16 or bf16", to)
	}
	wide := t.Data
	t.Data = make([]byte, 0, len(wide)/2)
	for i := 0; i < len(wide); i += 4 {
		v := math.Float32frombits(binary.LittleEndian.Uint32(wide[i:]))
		if to == "fp16" && math.Abs(float64(v)) >= 65520 {
			return t, fmt.Errorf("tensor %s holds %g, more than fp16 can; save it as bf16 or fp32", t.Name, v)
		}
		t.Data = binary.LittleEndian.AppendUint16(t.Data, round(v))
	}
	return t, nil
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

// Load reads a model from a safetensors file or from a run folder. The file must say which architecture it holds, as
// those that this program writes do; see LoadAs for others.
func Load(path string) (*classifier.Model, error) {
	path, f, err := open(path)
	if err != nil {
		return nil, err
	}
	text, has := f.Metadata[aboutKey]
	if !has {
		return nil, fmt.Errorf("%s does not say which architecture it holds, as files written by adaad do", path)
	}
	var a about
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return nil, fmt.Errorf("%s: metadata %q is %q, expected model, classes and input", path, aboutKey, text)
	}
	net, err := zoo.New(a.Model, a.Classes, a.Input)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return fill(path, f, net)
}

// LoadAs reads the weights of a known architecture.
func LoadAs(path string, net classifier.Network) (*classifier.Model, error) {
	path, f, err := open(path)
	if err != nil {
		return nil, err
	}
	return fill(path, f, net)
}

// LoadCard reads the card of a model file or run folder; one without a card gives an fs.ErrNotExist.
func LoadCard(path string) (*Card, error) {
	path = cardPath(modelPath(path))
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

func open(path string) (string, *File, error) {
	file := modelPath(path)
	f, err := Read(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && file != path:
		return file, nil, fmt.Errorf("run folder %s holds no %s yet: is its training finished? (%w)", path, Name, fs.ErrNotExist)
	case errors.Is(err, fs.ErrNotExist):
		return file, nil, fmt.Errorf("there is no model file or run folder %s: %w", path, fs.ErrNotExist)
	}
	return file, f, err
}

// fill makes the model of a network out of a file's tensors, which must be exactly the network's.
func fill(path string, f *File, net classifier.Network) (*classifier.Model, error) {
	found := map[string]Tensor{}
	for _, t := range f.Tensors {
		if !strings.HasSuffix(t.Name, tracked) {
			found[t.Name] = t
		}
	}
	var state []*tensors.Tensor
	var missing, wrong []string
	for _, p := range net.Params() {
		t, has := found[p.Name]
		delete(found, p.Name)
		if !has {
			missing = append(missing, p.Name)
			continue
		}
		if !slices.Equal(t.Shape, p.Shape) {
			wrong = append(wrong, fmt.Sprintf("%s is %v, expected %v", p.Name, t.Shape, p.Shape))
			continue
		}
		values, err := t.Floats()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for i, v := range values {
			if d := v - v; d != 0 {
				return nil, fmt.Errorf("%s: tensor %s is %v at index %d, expected finite values", path, p.Name, v, i)
			}
		}
		state = append(state, tensors.FromFlatDataAndDimensions(values, p.Shape...))
	}
	var unexpected []string
	for _, t := range f.Tensors {
		if _, left := found[t.Name]; left {
			unexpected = append(unexpected, t.Name)
		}
	}
	if len(missing)+len(wrong)+len(unexpected) > 0 {
		return nil, fmt.Errorf("%s does not hold a %s: %s", path, net.Name(), mismatch(missing, unexpected, wrong))
	}
	return classifier.NewModel(net, state)
}

// mismatch lists what does not fit, a few of each kind, with the closest unexpected name beside each missing one.
func mismatch(missing, unexpected, wrong []string) string {
	beside := make([]string, len(missing))
	for i, name := range missing {
		beside[i] = name
		if near := closest(name, unexpected); near != "" {
			beside[i] += " (closest: " + near + ")"
		}
	}
	var parts []string
	for _, kind := range []struct {
		what  string
		names []string
	}{{"missing", beside}, {"unexpected", unexpected}, {"wrongly shaped", wrong}} {
		if n := len(kind.names); n > 0 {
			text := strings.Join(kind.names[:min(n, 8)], ", ")
			if n > 8 {
				text += ", ..."
			}
			parts = append(parts, fmt.Sprintf("%d %s: %s", n, kind.what, text))
		}
	}
	return strings.Join(parts, "; ")
}

// closest is the name most like another: the one that shares the longest end with it, as prefixes are what differs.
func closest(name string, among []string) string {
	best, length := "", 0
	for _, other := range among {
		n := 0
		for n < min(len(name), len(other)) && name[len(name)-1-n] == other[len(other)-1-n] {
			n++
		}
		if n > length {
			best, length = other, n
		}
	}
	return best
}
