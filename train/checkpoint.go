package train

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/weights"
	"github.com/gomlx/gomlx/core/tensors"
)

// Names of the files of a run folder.
const (
	Last     = "last"       // the newest checkpoint
	LastPrev = "last.prev"  // the one before
	Best     = "best"       // the checkpoint of the best epoch so far
	RunFile  = "run.json"   // settings, seed, versions, outcome
	LogFile  = "log.jsonl"  // a Line per line
	Final    = weights.Name // the chosen model, at the end
)

// position is everything about a run that is not a tensor. Random numbers are keyed by epoch and image, so epoch and
// batch are the whole state of the random streams, and of the schedule.
type position struct {
	Network string  `json:"network"`
	Seed    uint64  `json:"seed"`
	Epoch   int     `json:"epoch"` // under way, from 0
	Batch   int     `json:"batch"` // the next of the epoch, from 0
	Step    int     `json:"step"`  // updates made
	Loss    float64 `json:"loss"`  // summed over the epoch's batches so far
	Right   float64 `json:"right"` // accuracy, summed likewise
	Seconds float64 `json:"seconds"`
	Log     int64   `json:"log"` // size of the log that belongs to it
	Best    *Chosen `json:"best,omitempty"`
}

// Chosen is the epoch whose model a run gives.
type Chosen struct {
	Epoch int `json:"epoch"` // counted from 1
	*Score
}

// checkpoint is a run at rest.
type checkpoint struct {
	position position
	tensors  map[string]*tensors.Tensor // on the host; see names
}

// names gives every tensor of a state its name in a checkpoint, in order: student.NAME, optimizer.SLOT.NAME,
// average.NAME and memory.NAME.
func (s *Stepper) names() map[string]**tensors.Tensor {
	all := map[string]**tensors.Tensor{}
	for i, p := range s.params {
		all["student."+p.Name] = &s.state.student[i]
		if len(s.state.average) > 0 {
			all["average."+p.Name] = &s.state.average[i]
		}
	}
	for j, slot := range s.state.slots {
		for k, i := range s.trainable {
			all["optimizer."+strconv.Itoa(j)+"."+s.params[i].Name] = &slot[k]
		}
	}
	for i, c := range s.objective.Memory {
		all["memory."+c.Name] = &s.state.memory[i]
	}
	return all
}

// snapshot copies the state to the host.
func (s *Stepper) snapshot(p position) (*checkpoint, error) {
	c := &checkpoint{position: p, tensors: map[string]*tensors.Tensor{}}
	for name, t := range s.names() {
		var err error
		if c.tensors[name], err = download(name, *t); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// restore puts a checkpoint's tensors in place of the state.
func (s *Stepper) restore(c *checkpoint) error {
	if c.position.Network != s.net.Name() {
		return fmt.Errorf("it holds network %s, expected %s", c.position.Network, s.net.Name())
	}
	all := s.names()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t := all[name]
		from, found := c.tensors[name]
		if !found {
			return fmt.Errorf("it has no tensor %s", name)
		}
		if !from.Shape().Equal((*t).Shape()) {
			return fmt.Errorf("its tensor %s has shape %s, expected %s", name, from.Shape(), (*t).Shape())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.tensors)) {
		if all[name] == nil {
			return fmt.Errorf("it has a tensor %s that this run has no place for", name)
		}
	}
	for name, t := range all {
		up, err := s.upload([]*tensors.Tensor{c.tensors[name]})
		if err != nil {
			return err
		}
		finalize([]*tensors.Tensor{*t})
		*t = up[0]
	}
	s.state.step = c.position.Step
	return nil
}

// model is the network to use out of a checkpoint: the averaged one where there is one, else the student.
func (c *checkpoint) model(net classifier.Network) (*classifier.Model, error) {
	prefix := "student."
	for name := range c.tensors {
		if strings.HasPrefix(name, "average.") {
			prefix = "average."
		}
	}
	var state []*tensors.Tensor
	for _, p := range net.Params() {
		t, found := c.tensors[prefix+p.Name]
		if !found {
			return nil, fmt.Errorf("it has no tensor %s%s", prefix, p.Name)
		}
		state = append(state, t)
	}
	return classifier.NewModel(net, state)
}

// checksum is SHA-256 over the position and every tensor's name, shape and values, in the order of their names. A
// safetensors file has one of its data; this one covers what the header says too.
func checksum(position string, all []weights.Tensor) string {
	h := sha256.New()
	write := func(b []byte) {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	write([]byte(position))
	for _, t := range all {
		write([]byte(t.Name))
		write([]byte(fmt.Sprint(t.DType, t.Shape)))
		write(t.Data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

const (
	positionKey = "checkpoint"
	sealKey     = "seal"
)

// file is the checkpoint as it is written.
func (c *checkpoint) file() (*weights.File, error) {
	at, err := json.Marshal(c.position)
	if err != nil {
		return nil, err
	}
	f := &weights.File{}
	for _, name := range slices.Sorted(maps.Keys(c.tensors)) {
		t, err := weights.FromTensor(name, c.tensors[name])
		if err != nil {
			return nil, err
		}
		f.Tensors = append(f.Tensors, t)
	}
	f.Metadata = map[string]string{positionKey: string(at), sealKey: checksum(string(at), f.Tensors)}
	return f, nil
}

// save writes the checkpoint to path, whole or not at all.
func (c *checkpoint) save(path string) error {
	f, err := c.file()
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return weights.Write(path, f)
}

// loadCheckpoint reads a checkpoint and refuses one that is damaged.
func loadCheckpoint(path string) (*checkpoint, error) {
	f, err := weights.Read(path)
	if err != nil {
		return nil, err
	}
	c, err := parseCheckpoint(f)
	if err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return c, nil
}

// parseCheckpoint takes a checkpoint out of a file; its errors go on from the file's name.
func parseCheckpoint(f *weights.File) (*checkpoint, error) {
	at, isCheckpoint := f.Metadata[positionKey]
	if !isCheckpoint {
		return nil, errors.New("holds weights, expected a checkpoint")
	}
	slices.SortFunc(f.Tensors, func(a, b weights.Tensor) int { return strings.Compare(a.Name, b.Name) })
	if checksum(at, f.Tensors) != f.Metadata[sealKey] {
		return nil, errors.New("does not match its checksum")
	}
	c := &checkpoint{tensors: map[string]*tensors.Tensor{}}
	if err := json.Unmarshal([]byte(at), &c.position); err != nil {
		return nil, fmt.Errorf("says its position in the run is %q: %w", at, err)
	}
	for _, t := range f.Tensors {
		values, err := t.Floats()
		if err != nil {
			return nil, fmt.Errorf("cannot be used: %w", err)
		}
		if len(values) == 0 {
			return nil, fmt.Errorf("holds no values in tensor %s", t.Name)
		}
		c.tensors[t.Name] = tensors.FromFlatDataAndDimensions(values, t.Shape...)
	}
	return c, nil
}

// find loads the checkpoint to resume from. A run stopped between two renames has no last, and last.prev is its newest.
// A damaged one is refused, and the one before it offered if that is sound. Where there is none at all the error is an
// fs.ErrNotExist.
func find(dir, name string) (*checkpoint, error) {
	c, err := loadCheckpoint(filepath.Join(dir, name))
	if err == nil || name == LastPrev {
		return c, err
	}
	before := filepath.Join(dir, LastPrev)
	prev, errPrev := loadCheckpoint(before)
	switch {
	case name == Last && errors.Is(err, fs.ErrNotExist):
		return prev, errPrev
	case errPrev == nil:
		return nil, fmt.Errorf("%w; the checkpoint before it, %s (epoch %d, step %d), is sound: resume from that", err, before,
			prev.position.Epoch+1, prev.position.Step)
	}
	return nil, fmt.Errorf("%w; there is no sound checkpoint before it either", err)
}

// saveLast writes the newest checkpoint; the one it replaces becomes last.prev. At every moment one of the two is whole.
func (c *checkpoint) saveLast(dir string) error {
	last, fresh := filepath.Join(dir, Last), filepath.Join(dir, Last+".new")
	if err := c.save(fresh); err != nil {
		return err
	}
	if err := os.Rename(last, filepath.Join(dir, LastPrev)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(fresh, last); err != nil {
		return err
	}
	return weights.SyncDir(dir)
}
