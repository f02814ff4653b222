package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/internal/pickle"
)

// PyTorch's files are pickles, programs that Python runs to make a model. Libraries that read them in Go trust them: they
// allocate what a header says, follow any nesting and panic on forms they do not know. So this reader is our own: it runs
// nothing, makes nothing but plain values and views of the file's bytes, and refuses what it does not know by name.

// storageType is the class of a block of values: safetensors' name for what it holds.
type storageType string

var storageTypes = map[string]storageType{
	"torch.DoubleStorage": "F64", "torch.FloatStorage": "F32", "torch.HalfStorage": "F16", "torch.BFloat16Storage": "BF16",
	"torch.LongStorage": "I64", "torch.IntStorage": "I32", "torch.ShortStorage": "I16", "torch.CharStorage": "I8",
	"torch.ByteStorage": "U8", "torch.BoolStorage": "BOOL",
}

// inert are objects that checkpoints hold beside their weights: best accuracies, arguments, random states. They become
// values that nothing looks into.
var inert = []string{
	"argparse.Namespace", "torch.device", "_codecs.encode", "numpy.dtype", "numpy.ndarray",
	"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
	"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
}

// storage is a block of values that tensors are views of.
type storage struct {
	dtype storageType
	size  int // in values
	data  []byte
}

// view is a tensor before its storage is known to hold its values.
type view struct {
	*storage
	offset         int // of its first value
	shape, strides []int
}

// maxAxes is more than any layer's weights have.
const maxAxes = 16

// torch is the host of PyTorch's pickles.
type torch struct {
	storages map[string]*storage
	// find is the bytes of a storage, or nil where they follow the pickle.
	find func(key string, size int) ([]byte, error)
}

// Global allows a list of names and refuses all others.
func (t *torch) Global(name string) (any, error) {
	if kind, known := storageTypes[name]; known {
		return kind, nil
	}
	switch name {
	case "collections.OrderedDict":
		return pickle.Func(orderedDict), nil
	case "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2":
		return pickle.Func(rebuildTensor), nil
	case "torch._utils._rebuild_parameter":
		return pickle.Func(rebuildParameter), nil
	case "torch.Size":
		return pickle.Func(size), nil
	}
	if slices.Contains(inert, name) {
		return pickle.Func(func(pickle.Tuple) (any, error) { return pickle.Inert{Name: name}, nil }), nil
	}
	return nil, fmt.Errorf("the file asks for %s, which is not among the few names that weights need, and nothing in a file is run; "+
		"if it holds a whole model or other objects, save model.state_dict() alone", name)
}

func orderedDict(args pickle.Tuple) (any, error) {
	if len(args) > 0 {
		return nil, errors.New("an OrderedDict is made with arguments, as Python 2 wrote it; load and save the file with Python 3")
	}
	return &pickle.Dict{}, nil
}

func size(args pickle.Tuple) (any, error) {
	if len(args) == 1 {
		if t, isTuple := args[0].(pickle.Tuple); isTuple {
			return t, nil
		}
	}
	return nil, errors.New("a torch.Size is made of something else than a tuple")
}

// rebuildParameter is torch._utils._rebuild_parameter(data, requires_grad, backward_hooks).
func rebuildParameter(args pickle.Tuple) (any, error) {
	if len(args) == 3 {
		if v, isTensor := args[0].(view); isTensor {
			return v, nil
		}
	}
	return nil, errors.New("a parameter is made of something else than a tensor")
}

// rebuildTensor is torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks,
// metadata) and its ancestor of four arguments.
func rebuildTensor(args pickle.Tuple) (any, error) {
	if len(args) < 4 {
		return nil, fmt.Errorf("a tensor is made of %d arguments, expected storage, offset, size and stride", len(args))
	}
	s, isStorage := args[0].(*storage)
	offset, isInt := args[1].(int64)
	shape, err := axes(args[2])
	strides, err2 := axes(args[3])
	switch {
	case !isStorage:
		return nil, fmt.Errorf("a tensor is made of %s, expected a storage", pickle.Kind(args[0]))
	case !isInt || offset < 0 || offset > int64(s.size):
		return nil, fmt.Errorf("a tensor starts at value %v of a storage of %d", number(args[1]), s.size)
	case err != nil || err2 != nil:
		return nil, errors.Join(err, err2)
	case len(shape) != len(strides):
		return nil, fmt.Errorf("a tensor has %d dimensions and %d strides", len(shape), len(strides))
	}
	v := view{s, int(offset), shape, strides}
	if _, err := byteCount(string(s.dtype), shape); err != nil {
		return nil, fmt.Errorf("a tensor of %w", err)
	}
	last, empty := new(big.Int).SetInt64(offset), false
	for i, d := range shape {
		empty = empty || d == 0
		last.Add(last, new(big.Int).Mul(big.NewInt(int64(d)-1), big.NewInt(int64(strides[i]))))
	}
	if !empty && last.Cmp(big.NewInt(int64(s.size))) >= 0 {
		return nil, fmt.Errorf("a tensor of shape %v and strides %v reaches value %v of a storage of %d", shape, strides, last, s.size)
	}
	if n := count(shape); n > s.size {
		return nil, fmt.Errorf("a tensor of shape %v repeats the values of a storage of %d; save it with .contiguous()", shape, s.size)
	}
	return v, nil
}

// axes reads a tuple of dimensions or strides.
func axes(v any) ([]int, error) {
	t, isTuple := v.(pickle.Tuple)
	if !isTuple || len(t) > maxAxes {
		return nil, fmt.Errorf("a tensor's size or stride is %s, expected a tuple of at most %d integers", pickle.Kind(v), maxAxes)
	}
	out := make([]int, len(t))
	for i, d := range t {
		n, isInt := d.(int64)
		if !isInt || n < 0 {
			return nil, fmt.Errorf("a tensor's size or stride holds %v, expected an integer of at least 0", number(d))
		}
		out[i] = int(n)
	}
	return out, nil
}

// number is how an integer is shown, and what else it is where it is none.
func number(v any) any {
	if n, isInt := v.(int64); isInt {
		return n
	}
	return pickle.Kind(v)
}

// Persistent is the storage of a tuple ("storage", class, key, device, number of values), followed in old files by None.
func (t *torch) Persistent(id any) (any, error) {
	tuple, _ := id.(pickle.Tuple)
	if len(tuple) > 0 && tuple[0] == "module" {
		return nil, errors.New("the file holds a whole module and its source code; save model.state_dict() alone")
	}
	if len(tuple) < 5 || len(tuple) > 6 || tuple[0] != "storage" {
		return nil, fmt.Errorf("an object outside of the pickle is named by %s, expected the description of a storage", pickle.Kind(id))
	}
	dtype, isType := tuple[1].(storageType)
	key, isText := tuple[2].(string)
	size, isInt := tuple[4].(int64)
	switch {
	case !isType || !isText:
		return nil, fmt.Errorf("a storage is of class %s and has key %s", pickle.Kind(tuple[1]), pickle.Kind(tuple[2]))
	case len(tuple) == 6 && tuple[5] != nil:
		return nil, fmt.Errorf("storage %q is a part of another, as PyTorch before 0.4 wrote it; load and save the file with a newer one", key)
	case !isInt || size < 0 || size > 1<<56:
		return nil, fmt.Errorf("storage %q is said to hold %v values", key, number(tuple[4]))
	}
	if s, known := t.storages[key]; known {
		if s.dtype != dtype || s.size != int(size) {
			return nil, fmt.Errorf("storage %q holds %d values of %s here, but %d of %s before", key, size, dtype, s.size, s.dtype)
		}
		return s, nil
	}
	data, err := t.find(key, int(size)*sizes[string(dtype)])
	if err != nil {
		return nil, err
	}
	s := &storage{dtype, int(size), data}
	t.storages[key] = s
	return s, nil
}

// tensor is the view's values, row-major: the file's own bytes where they lie like that, else a copy.
func (v view) tensor(name string) (Tensor, error) {
	t := Tensor{Name: name, DType: string(v.dtype), Shape: v.shape}
	width, n := sizes[t.DType], count(v.shape)
	if v.data == nil && n > 0 {
		return t, fmt.Errorf("tensor %q: the file does not hold its values", name)
	}
	if n == 0 || rowMajor(v.shape, v.strides) {
		t.Data = v.data[v.offset*width : (v.offset+n)*width : (v.offset+n)*width]
		return t, nil
	}
	t.Data = make([]byte, 0, n*width)
	index := make([]int, len(v.shape))
	for at := v.offset; len(t.Data) < n*width; {
		t.Data = append(t.Data, v.data[at*width:(at+1)*width]...)
		for axis := len(index) - 1; axis >= 0; axis-- {
			index[axis]++
			at += v.strides[axis]
			if index[axis] < v.shape[axis] {
				break
			}
			at -= index[axis] * v.strides[axis]
			index[axis] = 0
		}
	}
	return t, nil
}

func rowMajor(shape, strides []int) bool {
	want := 1
	for i := len(shape) - 1; i >= 0; i-- {
		if shape[i] != 1 && strides[i] != want {
			return false
		}
		want *= shape[i]
	}
	return true
}

// legacyMagic and legacyVersion open a file of PyTorch before 1.6.
var legacyMagic, _ = new(big.Int).SetString("1950a86a20f9469cfc6c", 16)

const legacyVersion = int64(1001)

// parseLegacy reads the format of PyTorch before 1.6: pickles of a magic number, a version, the writer's system, the
// object and the keys of its storages; then each storage, its number of values in 8 bytes before them.
func parseLegacy(raw []byte) (any, error) {
	t := &torch{storages: map[string]*storage{}, find: func(string, int) ([]byte, error) { return nil, nil }}
	var parts [5]any
	at := 0
	for i := range parts {
		var err error
		if parts[i], at, err = pickle.Load(raw, at, t); err != nil {
			return nil, err
		}
		if magic, isBig := parts[0].(*big.Int); i == 0 && (!isBig || magic.Cmp(legacyMagic) != 0) {
			return nil, errors.New("at byte 0: this is a pickle, but not one of torch.save: PyTorch's magic number is missing")
		}
	}
	if parts[1] != legacyVersion {
		return nil, fmt.Errorf("the format's version is %v, expected %d", number(parts[1]), legacyVersion)
	}
	if system, isDict := parts[2].(*pickle.Dict); isDict {
		if little, has := system.Get("little_endian"); has && little != true {
			return nil, errBigEndian
		}
	}
	keys, isList := parts[4].(*pickle.List)
	if !isList {
		return nil, fmt.Errorf("before byte %d: the keys of the storages are %s, expected a list", at, pickle.Kind(parts[4]))
	}
	for _, k := range keys.Items {
		key, _ := k.(string)
		s, known := t.storages[key]
		if !known || s.data != nil {
			return nil, fmt.Errorf("at byte %d: storage %q follows, which no tensor is in or which came before", at, key)
		}
		if len(raw)-at < 8 {
			return nil, cutOff(raw, "before storage %q", key)
		}
		n := binary.LittleEndian.Uint64(raw[at:])
		if n != uint64(s.size) {
			return nil, fmt.Errorf("at byte %d: storage %q has %d values, expected %d", at, key, n, s.size)
		}
		at += 8
		width := sizes[string(s.dtype)]
		if s.size > (len(raw)-at)/width {
			return nil, cutOff(raw, "inside storage %q, which goes on to byte %d", key, at+s.size*width)
		}
		s.data = raw[at : at+s.size*width]
		at += s.size * width
	}
	if at != len(raw) {
		return nil, fmt.Errorf("at byte %d: %d bytes follow the last storage, expected none", at, len(raw)-at)
	}
	return parts[3], nil
}

var errBigEndian = errors.New("its values were written by a big-endian machine, expected little-endian ones")

func cutOff(raw []byte, where string, args ...any) error {
	return fmt.Errorf("at byte %d: the file ends %s: is the download complete?", len(raw), fmt.Sprintf(where, args...))
}

// maxShared is how much more than the file its tensors may hold together, as they may share values.
const maxShared = 4

// entries are the names under which training programs put a state dict into a checkpoint, the first of these first:
// averages only where there is nothing else.
var entries = []string{
	"state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params",
	"ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema_model", "swa", "swa_state_dict",
}

// stateDict is a dict with tensors in it, and the names that lead to it.
type stateDict struct {
	path []string
	dict *pickle.Dict
}

func (s stateDict) name() string { return strings.Join(s.path, ".") }

// rank orders state dicts: those under known names first, in the order of entries, then the file's top, then others.
func (s stateDict) rank() (ranks []int, known bool) {
	for _, name := range s.path {
		i := slices.Index(entries, name)
		if i < 0 {
			return []int{len(entries) + 1}, false
		}
		ranks = append(ranks, i)
	}
	if len(s.path) == 0 {
		return []int{len(entries)}, true
	}
	return ranks, true
}

// maxDepth is how many names may lead to a state dict.
const maxDepth = 3

// stateDicts finds the dicts that hold tensors, nearest to the top first. Each dict is looked at once, so that cycles end.
func stateDicts(root any) []stateDict {
	d, isDict := root.(*pickle.Dict)
	if !isDict {
		return nil
	}
	var found []stateDict
	seen := map[*pickle.Dict]bool{d: true}
	for queue := []stateDict{{nil, d}}; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		has := false
		for i, k := range s.dict.Keys {
			name, isText := k.(string)
			if !isText {
				continue
			}
			switch v := s.dict.Values[i].(type) {
			case view:
				has = true
			case *pickle.Dict:
				if !seen[v] && len(s.path) < maxDepth {
					seen[v] = true
					queue = append(queue, stateDict{append(slices.Clone(s.path), name), v})
				}
			}
		}
		if has {
			found = append(found, s)
		}
	}
	return found
}

// choose takes the state dict that entry names, or the one of the best rank.
func choose(root any, entry string) (chosen stateDict, others []string, err error) {
	found := stateDicts(root)
	if len(found) == 0 {
		return chosen, nil, fmt.Errorf("it holds %s, in which no state dict is found (names with tensors)", pickle.Kind(root))
	}
	var names []string
	for _, s := range found {
		names = append(names, s.name())
	}
	if entry != "" {
		i := slices.Index(names, entry)
		if i < 0 {
			return chosen, nil, fmt.Errorf("it holds no state dict %q; found: %s", entry, listNames(names))
		}
		return found[i], slices.Delete(names, i, i+1), nil
	}
	best := slices.MinFunc(found, func(a, b stateDict) int {
		ra, _ := a.rank()
		rb, _ := b.rank()
		return slices.Compare(ra, rb)
	})
	if _, known := best.rank(); !known && len(found) > 1 {
		return chosen, nil, fmt.Errorf("it holds several state dicts, none under a usual name; choose one with --entry: %s", listNames(names))
	}
	i := slices.Index(names, best.name())
	return best, slices.Delete(names, i, i+1), nil
}

// parsePyTorch reads a file of torch.save from memory; tensors share that memory where their values lie row-major.
// What is no tensor in the state dict is left out.
func parsePyTorch(raw []byte, entry string) (*File, error) {
	f := &File{Format: PyTorchZip, Metadata: map[string]string{}}
	read := parseZip
	if !looksZip(raw) {
		f.Format, read = PyTorchLegacy, parseLegacy
	}
	root, err := read(raw)
	if err != nil {
		return nil, err
	}
	chosen, others, err := choose(root, entry)
	if err != nil {
		return nil, err
	}
	f.Entry, f.Others = chosen.name(), others
	total := 0
	for i, k := range chosen.dict.Keys {
		v, isTensor := chosen.dict.Values[i].(view)
		name, isText := k.(string)
		if !isTensor || !isText {
			continue
		}
		if total += count(v.shape) * sizes[string(v.dtype)]; total > maxShared*len(raw) {
			return nil, fmt.Errorf("tensor %q: so many tensors share values that together they hold more than %d times the file", name, maxShared)
		}
		t, err := v.tensor(name)
		if err != nil {
			return nil, err
		}
		f.Tensors = append(f.Tensors, t)
	}
	return f, nil
}
