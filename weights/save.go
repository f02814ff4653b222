package weights

import (
	"archive/zip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute/dtypes/float16"
)

// Save writes a model under PyTorch's names, num_batches_tracked included, so that load_state_dict takes it as it is,
// and its card beside it.
func Save(path string, m *classifier.Model, card Card) error { return SaveAs(path, m, "F32", card) }

// SaveAs is Save with values of type F32, F16 or BF16.
func SaveAs(path string, m *classifier.Model, dtype string, card Card) error {
	h, w, c := m.Input()
	text, err := json.Marshal(about{m.Name(), m.Classes(), [3]int{h, w, c}})
	if err != nil {
		return err
	}
	f, err := stateDictOf(m, dtype)
	if err != nil {
		return err
	}
	f.Metadata[aboutKey] = string(text)
	if err := Write(path, f); err != nil {
		return err
	}
	card.Model, card.Input = m.Name(), [3]int{h, w, c}
	return card.Write(cardPath(path))
}

// stateDictOf is what a PyTorch module of the network holds, under the network's names.
func stateDictOf(m *classifier.Model, dtype string) (*File, error) {
	f := &File{Metadata: map[string]string{"format": "pt"}}
	for i, p := range m.Params() {
		t, err := FromTensor(p.Name, m.State[i])
		if err == nil {
			t, err = t.narrow(dtype)
		}
		if err != nil {
			return nil, err
		}
		f.Tensors = append(f.Tensors, t)
		if p.Kind == classifier.RunningVar {
			f.Tensors = append(f.Tensors, Tensor{Name: strings.TrimSuffix(p.Name, "running_var") + tracked, DType: "I64", Shape: []int{}, Data: make([]byte, 8)})
		}
	}
	return f, nil
}

// narrow is an F32 tensor in another type, rounded to the nearest value.
func (t Tensor) narrow(dtype string) (Tensor, error) {
	if dtype == "F32" {
		return t, nil
	}
	values, err := t.Floats()
	if err != nil {
		return t, err
	}
	t.DType, t.Data = dtype, make([]byte, 0, 2*len(values))
	for _, v := range values {
		var bits uint16
		switch dtype {
		case "F16":
			bits = float16.FromFloat32(v).Bits()
		case "BF16":
			b := math.Float32bits(v)
			bits = uint16((b + 0x7fff + b>>16&1) >> 16) // halves go to the even neighbour
		default:
			return t, fmt.Errorf("values are to be %s, expected F32, F16 or BF16", dtype)
		}
		t.Data = binary.LittleEndian.AppendUint16(t.Data, bits)
	}
	rounded, err := t.Floats()
	if err != nil {
		return t, err
	}
	if i := slices.IndexFunc(rounded, func(v float32) bool { return math.IsInf(float64(v), 0) }); i >= 0 {
		return t, fmt.Errorf("tensor %s is %g at index %d, which is beyond what %s holds", t.Name, values[i], i, dtype)
	}
	return t, nil
}

// ExportPyTorch writes a model for load_state_dict of the module that PyTorch users and RobustBench have for it: as
// torch.save writes it where the path ends in .pt or .pth, else as safetensors. RobustBench's modules keep what they
// normalise with in buffers mu and sigma of shape [1,C,1,1], DeepMind's in constants that a state dict does not hold.
func ExportPyTorch(path string, m *classifier.Model, dtype string) error {
	f, err := stateDictOf(m, dtype)
	if err != nil {
		return err
	}
	if strings.Contains(m.Name(), "-dm") {
		f.Tensors = slices.DeleteFunc(f.Tensors, func(t Tensor) bool { return t.Name == "mean" || t.Name == "std" })
	}
	if strings.HasSuffix(m.Name(), zoo.Normalised) {
		for i, t := range f.Tensors {
			if buffer, is := map[string]string{"mean": "mu", "std": "sigma"}[t.Name]; is {
				f.Tensors[i].Name, f.Tensors[i].Shape = buffer, []int{1, t.Shape[0], 1, 1}
			}
		}
	}
	if strings.HasSuffix(path, ".pt") || strings.HasSuffix(path, ".pth") {
		return writeTorch(path, f)
	}
	return Write(path, f)
}

// storageNames are the classes of storageTypes, by what they hold.
var storageNames = func() map[string]string {
	names := map[string]string{}
	for class, dtype := range storageTypes {
		names[string(dtype)] = strings.TrimPrefix(class, "torch.")
	}
	return names
}()

// writeTorch writes what torch.save writes of an OrderedDict of tensors, each with a storage of its own.
func writeTorch(path string, f *File) error {
	err := WriteFile(path, func(w io.Writer) error {
		z := zip.NewWriter(w)
		add := func(name string, data []byte) error {
			// Created raw, a file has its sizes before its data, where PyTorch looks for them.
			n := uint64(len(data))
			to, err := z.CreateRaw(&zip.FileHeader{
				Name: "archive/" + name, CRC32: crc32.ChecksumIEEE(data), CompressedSize64: n, UncompressedSize64: n,
			})
			if err == nil {
				_, err = to.Write(data)
			}
			return err
		}
		err := errors.Join(add("data.pkl", pickleOf(f.Tensors)), add("version", []byte("3\n")))
		for i, t := range f.Tensors {
			err = errors.Join(err, add(fmt.Sprintf("data/%d", i), t.Data))
		}
		return errors.Join(err, z.Close())
	})
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// pickleOf is, in protocol 2,
//
//	OrderedDict([(name, _rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())), ...])
//
// where storage is the persistent object ("storage", class, key, "cpu", number of values).
func pickleOf(all []Tensor) []byte {
	b := []byte{0x80, 2}
	text := func(s string) {
		b = append(binary.LittleEndian.AppendUint32(append(b, 'X'), uint32(len(s))), s...)
	}
	number := func(n int) {
		b = binary.LittleEndian.AppendUint64(append(b, 0x8a, 8), uint64(n)) // LONG1
	}
	numbers := func(values []int) {
		b = append(b, '(')
		for _, v := range values {
			number(v)
		}
		b = append(b, 't')
	}
	const orderedDict = "ccollections\nOrderedDict\n)R"
	b = append(b, orderedDict+"("...)
	for i, t := range all {
		text(t.Name)
		b = append(b, "ctorch._utils\n_rebuild_tensor_v2\n(("...)
		text("storage")
		b = append(b, "ctorch\n"+storageNames[t.DType]+"\n"...)
		text(fmt.Sprint(i))
		text("cpu")
		number(count(t.Shape))
		b = append(b, "tQ"...)
		number(0)
		numbers(t.Shape)
		strides := make([]int, len(t.Shape))
		for axis, stride := len(t.Shape)-1, 1; axis >= 0; axis-- {
			strides[axis] = stride
			stride *= t.Shape[axis]
		}
		numbers(strides)
		b = append(b, 0x89)
		b = append(b, orderedDict+"tR"...)
	}
	return append(b, "u."...)
}
