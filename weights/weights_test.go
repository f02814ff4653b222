package weights

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/gomlx/core/tensors"
)

func small(t testing.TB) *classifier.Model {
	t.Helper()
	net, err := zoo.New("resnet8-w4", 10, [3]int{8, 8, 3})
	if err != nil {
		t.Fatal(err)
	}
	return zoo.Init(net, 1)
}

func floats(t *tensors.Tensor) []float32 { return tensors.MustCopyFlatData[float32](t) }

func TestModelRoundTrip(t *testing.T) {
	dir := t.TempDir()
	m := small(t)
	card := Card{Data: "shapes", Seed: 1<<63 + 1, Accuracies: []Measured{{Attack: "clean", Images: 3, Of: "test", Accuracy: 0.5}}}
	if err := Save(filepath.Join(dir, Name), m, card); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, Name)} {
		back, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if back.Name() != m.Name() || back.Classes() != 10 {
			t.Errorf("Load gave %s with %d classes", back.Name(), back.Classes())
		}
		for i, p := range m.Params() {
			if !slices.Equal(floats(back.State[i]), floats(m.State[i])) {
				t.Errorf("%s changed", p.Name)
			}
		}
		c, err := LoadCard(path)
		if err != nil {
			t.Fatal(err)
		}
		if c.Model != "resnet8-w4" || c.Seed != card.Seed || len(c.Accuracies) != 1 {
			t.Errorf("card came back as %+v", c)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("Save left %v (%v), expected the model and its card", left, err)
	}
}

// What PyTorch needs to load a state_dict strictly.
func TestSaveHoldsTheStateDict(t *testing.T) {
	path := filepath.Join(t.TempDir(), Name)
	if err := Save(path, small(t), Card{}); err != nil {
		t.Fatal(err)
	}
	f, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, x := range f.Tensors {
		names = append(names, x.Name)
	}
	want := []string{"conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"}
	if !slices.Equal(names[:6], want) {
		t.Errorf("the file starts with %v, expected %v", names[:6], want)
	}
	if f.Metadata["format"] != "pt" {
		t.Errorf("metadata format is %q, which transformers and safetensors.torch expect to be pt", f.Metadata["format"])
	}
}

func TestNarrowTypes(t *testing.T) {
	for dtype, data := range map[string][]byte{
		"F16": {0x00, 0x3e}, "BF16": {0xc0, 0x3f}, "F32": {0, 0, 0xc0, 0x3f}, "F64": {0, 0, 0, 0, 0, 0, 0xf8, 0x3f},
	} {
		v, err := Tensor{Name: "x", DType: dtype, Shape: []int{1}, Data: data}.Floats()
		if err != nil || len(v) != 1 || v[0] != 1.5 {
			t.Errorf("%s: got %v, %v, expected 1.5", dtype, v, err)
		}
	}
	if _, err := (Tensor{Name: "x", DType: "I64", Shape: []int{1}, Data: make([]byte, 8)}).Floats(); err == nil {
		t.Error("I64 was read as floats")
	}
}

func TestMismatchNamesWhatDoesNotFit(t *testing.T) {
	m := small(t)
	for name, c := range map[string]struct {
		change func(f *File)
		want   []string
	}{
		"prefixed": {func(f *File) { f.Tensors[0].Name = "module.conv1.weight" },
			[]string{"1 missing: conv1.weight (closest: module.conv1.weight)", "1 unexpected: module.conv1.weight"}},
		"shape": {func(f *File) { f.Tensors[1].Shape, f.Tensors[1].Data = []int{2}, f.Tensors[1].Data[:8] },
			[]string{"1 wrongly shaped: bn1.weight is [2], expected [4]"}},
		"NaN": {func(f *File) {
			binary.LittleEndian.PutUint32(f.Tensors[1].Data[4:], math.Float32bits(float32(math.NaN())))
		},
			[]string{"tensor bn1.weight is NaN at index 1"}},
		"no network": {func(f *File) {
			delete(f.Metadata, aboutKey)
			f.Tensors = f.Tensors[:3]
		}, []string{"those of no network here", "conv1.weight, bn1.weight, bn1.bias"}},
		"unknown": {func(f *File) { f.Metadata[aboutKey] = `{"model":"vgg","classes":10,"input":[8,8,3]}` }, []string{"vgg"}},
	} {
		path := filepath.Join(t.TempDir(), "m.safetensors")
		if err := Save(path, m, Card{}); err != nil {
			t.Fatal(err)
		}
		f, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		c.change(f)
		if err := Write(path, f); err != nil {
			t.Fatal(err)
		}
		_, err = Load(path)
		for _, want := range append(c.want, path) {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error is %v, expected it to say %q", name, err, want)
			}
		}
	}
}

func TestMissingFilesAreNamed(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "holds no model.safetensors yet") {
		t.Errorf("an empty run folder gives %v", err)
	}
	if _, err := Load(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "no model file or run folder") {
		t.Errorf("a missing file gives %v", err)
	}
}

// raw builds a file from a header and a body.
func raw(header string, body int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, body)...)
}

var damaged = map[string]struct {
	raw  []byte
	want string
}{
	"empty":      {nil, "at byte 0"},
	"short":      {[]byte{1, 2, 3}, "at byte 3"},
	"page":       {[]byte("<!DOCTYPE html><html>404</html>"), "web page"},
	"header":     {raw(`{}`, 0)[:9], "said to have 2 bytes, but 1 follow"},
	"huge":       {append(bytes.Repeat([]byte{0xff}, 8), "{}"...), "at byte 0"},
	"not json":   {raw(`nonsense`, 0), "at byte 8"},
	"array":      {raw(`[]`, 0), "expected {"},
	"twice":      {raw(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), "twice"},
	"dtype":      {raw(`{"a":{"dtype":"F8","shape":[1],"data_offsets":[0,1]}}`, 1), `dtype is "F8"`},
	"negative":   {raw(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, 4), "negative"},
	"backwards":  {raw(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, 4), "starts at byte 4"},
	"before":     {raw(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[-4,0]}}`, 4), "starts at byte -4"},
	"gap":        {raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), "starts at byte 1"},
	"overlap":    {raw(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3), `"b" starts at byte 1`},
	"lying":      {raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 4), "takes 8"},
	"overflow":   {raw(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0), "too large"},
	"truncated":  {raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 4), "ends inside tensor"},
	"trailing":   {raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 2), "1 bytes follow the last tensor"},
	"unknown":    {raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"code":"x"}}`, 1), "unknown field"},
	"after":      {raw(`{}{}`, 0), "follows the closing brace"},
	"checksum":   {raw(`{"__metadata__":{"sha256":"00"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), "checksum"},
	"deep":       {raw(`{"a":`+strings.Repeat("[", 20000)+strings.Repeat("]", 20000)+`}`, 0), "at byte"},
	"triple":     {raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}`, 1), "expected a list and a pair"},
	"single":     {raw(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0]}}`, 0), "expected a list and a pair"},
	"no shape":   {raw(`{"a":{"dtype":"U8","data_offsets":[0,1]}}`, 1), "expected a list and a pair"},
	"null":       {raw(`{"a":null}`, 0), "expected a list and a pair"},
	"metadata":   {raw(`{"__metadata__":{"k":1}}`, 0), "at byte"},
	"fractional": {raw(`{"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}}`, 1), "shape"},
}

func TestDamagedFilesAreRefused(t *testing.T) {
	for name, c := range damaged {
		if _, err := Parse(c.raw); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, expected it to say %q", name, err, c.want)
		}
	}
}

// Any single flipped bit is found: in the data by the checksum, in the header by what it says or by the checksum.
func TestFlippedBits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	f := &File{Tensors: []Tensor{{"a", "F32", []int{2, 3}, bytes.Repeat([]byte{7}, 24)}, {"b", "U8", []int{3}, []byte{1, 2, 3}}}}
	if err := Write(path, f); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data := len(whole) - 27
	for bit := range 27 * 8 {
		broken := slices.Clone(whole)
		broken[data+bit/8] ^= 1 << (bit % 8)
		if _, err := Parse(broken); err == nil || !strings.Contains(err.Error(), "checksum") {
			t.Fatalf("bit %d of the data flipped: error is %v", bit, err)
		}
	}
	for n := range whole {
		if _, err := Parse(whole[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes were taken for a whole file", n, len(whole))
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range damaged {
		if len(c.raw) < 4096 {
			f.Add(c.raw)
		}
	}
	f.Add(raw(`{"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}`, 8))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := Parse(raw)
		if err != nil {
			return
		}
		total := 0
		for _, x := range file.Tensors {
			total += len(x.Data)
			if err := x.validate(); err != nil {
				t.Errorf("accepted %v", err)
			}
		}
		if total > len(raw) {
			t.Errorf("%d bytes of tensors out of a file of %d", total, len(raw))
		}
	})
}

func TestWriteRefusesWhatCannotBeRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	for _, f := range []File{
		{Tensors: []Tensor{{"a", "F32", []int{2}, make([]byte, 4)}}},
		{Tensors: []Tensor{{"a", "U8", []int{}, []byte{1}}, {"a", "U8", []int{}, []byte{1}}}},
		{Tensors: []Tensor{{"__metadata__", "U8", []int{}, []byte{1}}}},
	} {
		if err := Write(path, &f); err == nil {
			t.Errorf("%v was written", f.Tensors)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a refused file was left behind")
	}
}

func TestInterruptedWriteLeavesTheOldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := WriteFile(path, func(w io.Writer) error {
		if _, err := w.Write([]byte("new")); err != nil {
			return err
		}
		return fmt.Errorf("disk on fire")
	})
	if err == nil {
		t.Error("WriteFile swallowed the error")
	}
	if b, _ := os.ReadFile(path); string(b) != "old" {
		t.Errorf("the file holds %q, expected the old content", b)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("%d files are left, expected 1", len(left))
	}
	var c Card
	if err := json.Unmarshal([]byte(`{"seed":18446744073709551615}`), &c); err != nil || c.Seed != math.MaxUint64 {
		t.Errorf("a seed of 64 bits came back as %d (%v)", c.Seed, err)
	}
}
