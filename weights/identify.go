package weights

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/closest"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/gomlx/core/tensors"
)

// Hints are what is taken instead of what a file says or would be recognised as.
type Hints struct {
	Model     string    // the network's name
	Input     [3]int    // height, width, channels of its images; all zero takes the usual
	Mean, Std []float64 // what it normalises images in [0,1] with, one value per channel
}

func (h Hints) none() bool {
	return h.Model == "" && h.Input == [3]int{} && len(h.Mean)+len(h.Std) == 0
}

// Identity is what a file's tensors are: the weights of a network, under its names.
type Identity struct {
	Network classifier.Network
	// Prefix is what all names in the file begin with and the network's do not, such as "module.".
	Prefix string
	// Normalisation says where the constants come from that the network normalises its images with; it is empty where it
	// does not.
	Normalisation string
	// Assumed is what the file leaves open and was taken.
	Assumed []string
	// Missing, Unexpected and Wrong are the tensors that do not fit the network.
	Missing, Unexpected []string
	Wrong               []Misfit

	path    string
	tensors map[string]Tensor // by the network's names
}

// Misfit is a tensor of another shape than its network has it.
type Misfit struct {
	Name        string
	Shape, Want []int
}

func (m Misfit) String() string { return fmt.Sprintf("%s is %v, expected %v", m.Name, m.Shape, m.Want) }

// Identify finds the network that a file holds the weights of: the one that it names, if adaad wrote it, else the one
// whose names and shapes it has. For that a prefix is taken off that all names share, torchvision's names become those of
// the networks here, and the constants are set apart that images are normalised with.
//
// Where some tensors do not fit the network, the identity says which; only where no network is found there is an error.
func (f *File) Identify(h Hints) (*Identity, error) {
	id, err := f.identify(h)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return id, nil
}

func (f *File) identify(h Hints) (*Identity, error) {
	if text, ours := f.Metadata[aboutKey]; ours && h.none() {
		var a about
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			return nil, fmt.Errorf("metadata %q is %q, expected model, classes and input", aboutKey, text)
		}
		net, err := zoo.New(a.Model, a.Classes, a.Input)
		if err != nil {
			return nil, err
		}
		id := f.as(net)
		if strings.HasSuffix(a.Model, zoo.Normalised) {
			id.Normalisation = "mean and std in the file"
		}
		return id, nil
	}
	id := &Identity{path: f.Path, tensors: map[string]Tensor{}}
	found, constants := splitNormalisation(f.parameters())
	if len(found) == 0 {
		return nil, errors.New("it holds no weights")
	}
	id.Prefix = sharedPrefix(found)
	torchvision := slices.ContainsFunc(found, func(t Tensor) bool { return t.Name == id.Prefix+"layer1.0.conv1.weight" })
	shapes := map[string][]int{}
	for i := range found {
		found[i].Name = strings.TrimPrefix(found[i].Name, id.Prefix)
		if torchvision {
			found[i].Name = torchvisionNames(found[i].Name)
		}
		shapes[found[i].Name] = found[i].Shape
	}
	model := h.Model
	if model == "" {
		if model, id.Assumed = zoo.Recognise(shapes); model == "" {
			return nil, fmt.Errorf("the names and shapes of its %d tensors are those of no network here; with --model NAME it is compared with one. Its first: %s",
				len(found), listNames(namesOf(found)))
		}
	}
	model = strings.TrimSuffix(model, zoo.Normalised)
	classes, input, err := id.size(model, shapes, h.Input)
	if err != nil {
		return nil, err
	}
	if err := id.normalise(h, constants, model, classes, input[2]); err != nil {
		return nil, err
	}
	if id.Normalisation != "" || strings.HasSuffix(h.Model, zoo.Normalised) {
		model += zoo.Normalised
	}
	net, err := zoo.New(model, classes, input)
	if err != nil {
		return nil, err
	}
	id.match(net, found)
	return id, nil
}

// as takes a file's tensors for those of a network, under its own names.
func (f *File) as(net classifier.Network) *Identity {
	id := &Identity{path: f.Path, tensors: map[string]Tensor{}}
	id.match(net, f.parameters())
	return id
}

// parameters are a file's tensors without PyTorch's counts of batches.
func (f *File) parameters() []Tensor {
	kept := make([]Tensor, 0, len(f.Tensors))
	for _, t := range f.Tensors {
		if t.Name != tracked && !strings.HasSuffix(t.Name, "."+tracked) {
			kept = append(kept, t)
		}
	}
	return kept
}

func namesOf(tensors []Tensor) []string {
	names := make([]string, len(tensors))
	for i, t := range tensors {
		names[i] = t.Name
	}
	return names
}

// splitNormalisation takes out the one pair of tensors that holds what images are normalised with: side by side, named
// mean and std or mu and sigma, with a value or one per channel. Without exactly one such pair nothing is taken.
func splitNormalisation(all []Tensor) (rest []Tensor, constants *[2]Tensor) {
	byName := map[string]Tensor{}
	for _, t := range all {
		byName[t.Name] = t
	}
	pairs := 0
	var pair [2]Tensor
	for _, t := range all {
		for _, names := range [][2]string{{"mean", "std"}, {"mu", "sigma"}} {
			module, last := splitName(t.Name)
			std, has := byName[module+names[1]]
			if last == names[0] && has && count(t.Shape) == count(std.Shape) && count(t.Shape) <= 4 {
				pairs++
				pair = [2]Tensor{t, std}
			}
		}
	}
	if pairs != 1 {
		return all, nil
	}
	rest = slices.DeleteFunc(all, func(t Tensor) bool { return t.Name == pair[0].Name || t.Name == pair[1].Name })
	return rest, &pair
}

// splitName splits a.b.c into "a.b." and "c".
func splitName(name string) (module, last string) {
	i := strings.LastIndexByte(name, '.') + 1
	return name[:i], name[i:]
}

// sharedPrefix is the modules that all names begin with: "module.", "model.", "1." of a Sequential, or several.
func sharedPrefix(all []Tensor) string {
	prefix, _ := splitName(all[0].Name)
	for _, t := range all {
		for !strings.HasPrefix(t.Name, prefix) {
			prefix, _ = splitName(strings.TrimSuffix(prefix, "."))
		}
	}
	return prefix
}

// torchvisionNames are the names here of what torchvision's ResNets call otherwise.
func torchvisionNames(name string) string {
	if strings.HasPrefix(name, "layer") {
		return strings.Replace(name, ".downsample.", ".shortcut.", 1)
	}
	if last, is := strings.CutPrefix(name, "fc."); is {
		return "linear." + last
	}
	return name
}

// size finds the number of classes in a network's last weight and that of channels in its first, and takes the usual
// height and width where the hint names none.
func (id *Identity) size(model string, shapes map[string][]int, hint [3]int) (classes int, input [3]int, err error) {
	sample, err := zoo.New(model, 10, [3]int{32, 32, 3})
	if err != nil {
		return 0, input, err
	}
	classes, input = 10, hint
	channels, first := 3, true
	for _, p := range sample.Params() {
		shape := shapes[p.Name]
		switch {
		case p.Kind == classifier.ConvWeight && first:
			if first = false; len(shape) == 4 {
				channels = shape[1]
			}
		case p.Kind == classifier.LinearWeight && len(shape) == 2:
			classes = shape[0]
		}
	}
	if input == [3]int{} {
		input = [3]int{32, 32, channels}
		if channels == 1 {
			input = [3]int{28, 28, 1}
		}
		id.Assumed = append(id.Assumed, fmt.Sprintf("images of %dx%d pixels, which weights do not say", input[0], input[1]))
	}
	return classes, input, nil
}

// normalise decides what the network normalises images with: what the hints say, what the file holds, or what the code of
// its authors has as constants.
func (id *Identity) normalise(h Hints, constants *[2]Tensor, model string, classes, channels int) error {
	mean, std := h.Mean, h.Std
	switch {
	case len(mean) > 0 || len(std) > 0:
		id.Normalisation = "as told"
	case constants != nil:
		id.Normalisation = fmt.Sprintf("%s and %s in the file", constants[0].Name, constants[1].Name)
		for i, to := range []*[]float64{&mean, &std} {
			values, err := constants[i].Floats()
			if err != nil {
				return err
			}
			for _, v := range values {
				*to = append(*to, float64(v))
			}
		}
	case strings.Contains(model, "-dm"):
		if mean, std = zoo.DeepMindConstants(classes); mean == nil {
			return fmt.Errorf("networks of DeepMind's code normalise images with constants that their files do not hold, and of %d classes they are not known here: "+
				"give them with --mean and --std", classes)
		}
		id.Normalisation = fmt.Sprintf("constants of DeepMind's code for CIFAR-%d", classes)
		id.Assumed = append(id.Assumed, fmt.Sprintf("mean and deviation of CIFAR-%d, which DeepMind's code normalises with and its files do not hold", classes))
	default:
		return nil
	}
	for i, values := range [][]float64{mean, std} {
		name := [...]string{"mean", "std"}[i]
		if len(values) == 1 {
			values = slices.Repeat(values, channels)
		}
		if len(values) != channels {
			return fmt.Errorf("it would normalise images with %d values of %s, but they have %d channels", len(values), name, channels)
		}
		t := Tensor{Name: name, DType: "F32", Shape: []int{channels}}
		for _, v := range values {
			if i == 1 && !(v > 0) {
				return fmt.Errorf("it would divide images by a std of %g, expected more than 0", v)
			}
			t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(float32(v)))
		}
		id.tensors[name] = t
	}
	return nil
}

// match compares tensors, under the network's names, with those that the network takes.
func (id *Identity) match(net classifier.Network, found []Tensor) {
	id.Network = net
	for _, t := range found {
		id.tensors[t.Name] = t
	}
	expected := map[string]bool{}
	for _, p := range net.Params() {
		expected[p.Name] = true
		switch t, has := id.tensors[p.Name]; {
		case !has:
			id.Missing = append(id.Missing, p.Name)
		case !slices.Equal(t.Shape, p.Shape):
			id.Wrong = append(id.Wrong, Misfit{p.Name, t.Shape, p.Shape})
		}
	}
	for _, t := range found {
		if !expected[t.Name] {
			id.Unexpected = append(id.Unexpected, t.Name)
		}
	}
}

// Fits is nil where every tensor fits, else an error that lists a few that are missing, unexpected and wrongly shaped, with
// the closest unexpected name beside each that is missing.
func (id *Identity) Fits() error {
	missing := make([]string, len(id.Missing))
	for i, name := range id.Missing {
		missing[i] = name
		if i < listed {
			if near := id.Closest(name); near != "" {
				missing[i] += " (closest: " + near + ")"
			}
		}
	}
	wrong := make([]string, len(id.Wrong))
	for i, m := range id.Wrong {
		wrong[i] = m.String()
	}
	var parts []string
	for _, kind := range []struct {
		what  string
		names []string
	}{{"missing", missing}, {"unexpected", id.Unexpected}, {"wrongly shaped", wrong}} {
		if n := len(kind.names); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s: %s", n, kind.what, listNames(kind.names)))
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return fmt.Errorf("%s does not hold a %s: %s", id.path, id.Network.Name(), strings.Join(parts, "; "))
}

// Closest is the unexpected name that comes closest to a missing one, or empty.
func (id *Identity) Closest(name string) string {
	const longest = 200 // a layer's name has 40 bytes; comparing takes time by the product of lengths
	names := slices.DeleteFunc(slices.Clone(id.Unexpected), func(s string) bool { return len(s) > longest })
	if near := closest.Names(name, names, 1); len(near) > 0 {
		return near[0]
	}
	return ""
}

// Assumptions are sentences of what the file leaves open and was taken.
func (id *Identity) Assumptions() []string {
	var all []string
	for _, a := range id.Assumed {
		all = append(all, fmt.Sprintf("%s is taken to have %s", id.path, a))
	}
	return all
}

// Constants are the mean and the deviation that the network normalises its images with, nil where it does not.
func (id *Identity) Constants() (mean, std []float32, err error) {
	for _, p := range id.Network.Params() {
		t, has := id.tensors[p.Name]
		switch {
		case !has:
		case p.Kind == classifier.InputMean:
			mean, err = t.Floats()
		case p.Kind == classifier.InputStd:
			std, err = t.Floats()
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", id.path, err)
		}
	}
	return mean, std, nil
}

// Model makes the model; every tensor has to fit and to be finite.
func (id *Identity) Model() (*classifier.Model, error) {
	if err := id.Fits(); err != nil {
		return nil, err
	}
	var state []*tensors.Tensor
	for _, p := range id.Network.Params() {
		values, err := id.tensors[p.Name].Floats()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", id.path, err)
		}
		for i, v := range values {
			if d := v - v; d != 0 {
				return nil, fmt.Errorf("%s: tensor %s is %v at index %d, expected finite values", id.path, p.Name, v, i)
			}
		}
		state = append(state, tensors.FromFlatDataAndDimensions(values, p.Shape...))
	}
	return classifier.NewModel(id.Network, state)
}
