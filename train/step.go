package train

import (
	"cmp"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/share"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Stepper holds a student in training on a backend and takes it through one step at a time. It is what [Run] loops
// over, and what a test of a method's numbers drives by hand. A Stepper is not for concurrent use.
type Stepper struct {
	backend   compute.Backend
	net       classifier.Network
	params    []classifier.Param
	trainable []int // indices of the trained params
	untrained []int // indices of the others: running statistics, and constants that no pass moves
	optimizer Optimizer
	clip      float64

	objective     Objective
	teachers      []classifier.Network
	teacherState  []*tensors.Tensor
	sharesTeacher []bool // search takes this teacher's logits of the clean images
	sharesStudent bool   // search takes the student's eval-mode logits of the clean images
	before        int    // how many nodes the objective computes before the search
	progress      float32

	state state

	called    map[*Exec]bool
	compiling time.Duration

	fixed, search, update, derive, settle, endEpoch *Exec
}

// state is what an update changes, on the device.
type state struct {
	student []*tensors.Tensor   // in the order of params
	slots   [][]*tensors.Tensor // per optimizer slot, in the order of trainable
	average []*tensors.Tensor   // in the order of params; nil without averaging
	memory  []*tensors.Tensor   // in the order of the objective's
	step    int                 // updates made
}

// Metrics are what an update found out about its batch, before it changed the student.
type Metrics struct {
	Loss     float64
	Accuracy float64 // of the student as the loss saw it, on the perturbed images if it forwards them
	GradNorm float64 // global L2 norm, before clipping
}

// Outcome are the metrics of a step while they are still on the device. They are read once.
type Outcome struct {
	values *tensors.Tensor // loss, right answers, gradient norm
	images int
}

// Read waits for the metrics and frees what held them.
func (o *Outcome) Read() (Metrics, error) {
	defer o.values.FinalizeAll()
	var m Metrics
	err := tensors.ConstFlatData(o.values, func(v []float32) {
		m = Metrics{Loss: float64(v[0]), Accuracy: float64(v[1]) / float64(o.images), GradNorm: float64(v[2])}
	})
	if err != nil {
		return Metrics{}, fmt.Errorf("reading a step's metrics: %w", err)
	}
	return m, nil
}

// NewStepper puts copies of the student and the teachers on the backend. clip is the largest global gradient norm, or
// 0 for no limit; averaged says whether a running average of the weights is kept beside the student.
func NewStepper(backend compute.Backend, student *classifier.Model, teachers []*classifier.Model, objective Objective,
	optimizer Optimizer, clip float64, averaged bool) (*Stepper, error) {
	if optimizer == nil {
		return nil, errors.New("there is no optimizer")
	}
	s := &Stepper{backend: backend, net: student.Network, params: student.Params(), optimizer: optimizer, clip: clip, called: map[*Exec]bool{}}
	for i, p := range s.params {
		if p.Kind.Trainable() {
			s.trainable = append(s.trainable, i)
		} else {
			s.untrained = append(s.untrained, i)
		}
	}
	if len(s.trainable) == 0 {
		return nil, fmt.Errorf("%s has nothing to train", student.Name())
	}
	h, w, c := student.Input()
	for _, t := range teachers {
		if th, tw, tc := t.Input(); th != h || tw != w || tc != c {
			return nil, fmt.Errorf("teacher %s takes %dx%dx%d images, student %s takes %dx%dx%d", t.Name(), th, tw, tc, student.Name(), h, w, c)
		}
		if t.Classes() != student.Classes() {
			return nil, fmt.Errorf("teacher %s has %d classes, student %s has %d", t.Name(), t.Classes(), student.Name(), student.Classes())
		}
		state, err := s.upload(t.State)
		if err != nil {
			return nil, err
		}
		s.teachers = append(s.teachers, t.Network)
		s.teacherState = append(s.teacherState, state...)
	}
	var err error
	if s.state.student, err = s.upload(student.State); err != nil {
		return nil, err
	}
	if averaged {
		if s.state.average, err = s.upload(student.State); err != nil {
			return nil, err
		}
	}
	for range optimizer.Slots() {
		var slot []*tensors.Tensor
		for _, i := range s.trainable {
			slot = append(slot, tensors.FromShape(student.State[i].Shape()))
		}
		if slot, err = s.upload(slot); err != nil {
			return nil, err
		}
		s.state.slots = append(s.state.slots, slot)
	}
	if s.settle, err = NewExec(backend, s.buildSettle); err != nil {
		return nil, err
	}
	var none share.Batches
	share.Exec(s.settle, backend, none.Then(len(s.params)).Batch(1), nil)
	// What the copies were made of may be garbage now; the programs are about to need as much.
	debug.FreeOSMemory()
	return s, s.SetObjective(objective)
}

// upload copies tensors to the device, into buffers of their own that can be donated.
func (s *Stepper) upload(from []*tensors.Tensor) ([]*tensors.Tensor, error) {
	to := make([]*tensors.Tensor, len(from))
	for i, t := range from {
		var buffer compute.Buffer
		var fault error
		err := t.ConstFlatData(func(flat any) { buffer, fault = s.backend.BufferFromFlatData(0, flat, t.Shape()) })
		if err = cmp.Or(err, fault); err == nil {
			to[i], err = tensors.FromBuffer(buffer)
		}
		if err != nil {
			return nil, fmt.Errorf("copying weights to %s: %w", s.backend.Name(), err)
		}
	}
	return to, nil
}

// SetProgress says how far the run is in the steps that follow; see [classifier.Batch].
func (s *Stepper) SetProgress(share float64) { s.progress = float32(share) }

// SetObjective changes what the steps that follow search for and lower; the graphs are compiled on first use. An
// objective that keeps other tensors than the one before starts with its own.
func (s *Stepper) SetObjective(o Objective) (err error) {
	if err := o.validate(); err != nil {
		return err
	}
	for _, e := range []*Exec{s.fixed, s.search, s.update, s.derive, s.endEpoch} {
		if e != nil {
			e.Finalize()
			delete(s.called, e)
		}
	}
	if !sameMemory(s.objective, o) {
		finalize(s.state.memory)
		var start []*tensors.Tensor
		for _, c := range o.Memory {
			values := c.Values(s.net.Classes())
			start = append(start, tensors.FromFlatDataAndDimensions(values, len(values)))
		}
		if s.state.memory, err = s.upload(start); err != nil {
			return err
		}
	}
	s.objective = o
	if err := s.trace(); err != nil {
		return err
	}
	search := s.buildSearch
	if s.remote() {
		search = s.buildSearchLoop
	}
	// What of the programs is batches, in the order in which they take and give it.
	var none, networks, batch share.Batches
	networks = networks.Then(len(s.params) + len(s.teacherState))
	images := 2 // x, y
	if o.Threat.Steps > 0 {
		images++
	}
	batch = networks.Batch(s.shared() + s.before).Then(len(o.Memory) + 1).Batch(images)
	counter := none
	if s.remote() {
		counter = counter.Then(2)
	}
	found := none.Batch(1).Then(len(o.Memory))
	if o.SearchMode == classifier.Train {
		found = found.Then(len(s.untrained))
	}
	first := none.Then(1 + len(s.optimizer.Inputs(1, 0)) + len(s.state.slots)*len(s.trainable) + len(s.state.average))
	for _, g := range []struct {
		exec    **Exec
		build   func([]*Node) []*Node
		in, out share.Batches
	}{
		{&s.fixed, s.buildFixed, networks.Then(len(o.Memory) + 1).Batch(images), none.Batch(s.shared() + s.before)},
		{&s.search, search, append(counter, batch...), found},
		{&s.update, s.buildUpdate, append(first, batch...), nil},
		{&s.derive, s.buildDerivatives, batch, nil},
		{&s.endEpoch, s.buildEndEpoch, nil, nil},
	} {
		if *g.exec, err = NewExec(s.backend, g.build); err != nil {
			return err
		}
		share.Exec(*g.exec, s.backend, g.in, g.out)
	}
	return nil
}

// remote is whether the device has memory of its own. Such a device stands idle between two programs for as long as many a
// search step takes, so there a whole search is one program. On a processor starting a program costs nothing, and its
// backends compile straight programs better than loops.
func (s *Stepper) remote() bool { return isRemote(s.backend) }

// trace builds the search once, for nothing but to learn what it takes that stays the same over its steps.
func (s *Stepper) trace() error {
	s.sharesTeacher, s.sharesStudent, s.before = make([]bool, len(s.teachers)), false, 0
	if s.objective.Threat.Steps == 0 && s.objective.Before == nil {
		return nil
	}
	g := NewGraph(s.backend, "trace")
	defer g.Finalize()
	err := exceptions.TryCatch[error](func() {
		var in []*Node
		add := func(shape shapes.Shape) { in = append(in, Parameter(g, fmt.Sprintf("p%d", len(in)), shape)) }
		for _, p := range s.params {
			add(shapes.Make(dtypes.Float32, p.Shape...))
		}
		for _, t := range s.teacherState {
			add(t.Shape())
		}
		h, w, c := s.net.Input()
		const images = 2
		for _, t := range s.state.memory {
			add(t.Shape())
		}
		add(shapes.Make(dtypes.Float32))
		add(shapes.Make(dtypes.Float32, images, h, w, c))
		if s.objective.Threat.Steps > 0 {
			add(shapes.Make(dtypes.Float32, images, h, w, c))
		}
		add(shapes.Make(dtypes.Int32, images))
		b := s.bind(&nodes{in}, false)
		if s.objective.Before != nil {
			b.Before = s.objective.Before(b.Batch)
			s.before = len(b.Before)
		}
		if s.objective.Threat.Steps == 0 {
			return
		}
		s.objective.Search(b.Batch)
		for i, t := range b.teachers {
			s.sharesTeacher[i] = t.asked
		}
		s.sharesStudent = b.student.asked && s.objective.SearchMode == classifier.Eval
	})
	if err != nil {
		return fmt.Errorf("building the search: %w", err)
	}
	return nil
}

// nodes are the inputs of a graph, taken from the front.
type nodes struct{ rest []*Node }

func (n *nodes) take(k int) []*Node {
	first := n.rest[:k:k]
	n.rest = n.rest[k:]
	return first
}

// bound is a batch with the networks behind it.
type bound struct {
	*classifier.Batch
	student  *watched
	teachers []*watched
}

// bind makes a batch of the inputs: the student's parameters, the teachers', what was computed before the search if it is
// given, the memory, the progress, then x, xAdv (left out where there is no search) and y.
func (s *Stepper) bind(in *nodes, given bool) bound {
	student := in.take(len(s.params))
	var teachers [][]*Node
	for _, t := range s.teachers {
		teachers = append(teachers, in.take(len(t.Params())))
	}
	var logits, before []*Node
	if given {
		logits, before = in.take(s.shared()), in.take(s.before)
	}
	memory := classifier.Remember(s.objective.Memory, in.take(len(s.objective.Memory)))
	progress := in.take(1)[0]
	x := in.take(1)[0]
	xAdv := x
	if s.objective.Threat.Steps > 0 {
		xAdv = in.take(1)[0]
	}
	b := bound{Batch: &classifier.Batch{X: x, XAdv: xAdv, Y: in.take(1)[0], Progress: progress, Before: before, Memory: memory}}
	b.student = &watched{Network: s.net, clean: x, perturbed: xAdv}
	b.Student = classifier.Bind(b.student, student)
	next := 0
	for i, t := range s.teachers {
		w := &watched{Network: t, clean: x, perturbed: xAdv}
		if given && s.sharesTeacher[i] {
			w.given = logits[next]
			next++
		}
		b.teachers = append(b.teachers, w)
		b.Teachers = append(b.Teachers, classifier.Bind(w, teachers[i]))
	}
	if given && s.sharesStudent {
		b.student.given = logits[next]
	}
	return b
}

// shared is how many sets of logits of the clean images the steps of a search have in common.
func (s *Stepper) shared() int {
	n := 0
	for _, shares := range append(s.sharesTeacher, s.sharesStudent) {
		if shares {
			n++
		}
	}
	return n
}

// buildFixed: student, teachers, memory, progress, x, xAdv, y -> the logits of the clean images that the search takes,
// and what the objective computes before it.
func (s *Stepper) buildFixed(in []*Node) []*Node {
	b := s.bind(&nodes{in}, false)
	var out []*Node
	for i, t := range b.Teachers {
		if s.sharesTeacher[i] {
			out = append(out, t.Logits(b.X, classifier.Eval))
		}
	}
	if s.sharesStudent {
		out = append(out, b.Student.Logits(b.X, classifier.Eval))
	}
	if s.objective.Before != nil {
		out = append(out, s.objective.Before(b.Batch)...)
	}
	return out
}

// buildSearch: as buildDerivatives -> xAdv after one step, the memory, and in train mode the student's running statistics.
func (s *Stepper) buildSearch(in []*Node) []*Node {
	b := s.bind(&nodes{in}, true)
	raise := s.objective.Search(b.Batch)
	grad := Gradient(raise, b.XAdv)[0]
	out := append([]*Node{s.objective.Threat.Ascend(b.X, b.XAdv, grad)}, b.Memory.Nodes()...)
	after := b.Student.Nodes()
	if s.objective.SearchMode == classifier.Train {
		return append(out, s.running(after)...)
	}
	for i, p := range s.params {
		if after[i] != in[i] {
			exceptions.Panicf("the search moves %s, but its batch-norm mode is said to be eval", p.Name)
		}
	}
	return out
}

// buildSearchLoop: how many steps were taken, how many to take, then as buildDerivatives -> as buildSearch, after all of them.
// The functions of the loop take all they use as parameters, since go-xla's cannot use what is outside of them; and a graph
// keeps one constant of a value for all its functions, so they have none in common.
func (s *Stepper) buildSearchLoop(in []*Node) []*Node {
	// What a step of the search replaces, in the order of its results. The inputs end with the memory, the progress, x, xAdv, y.
	changes := []int{len(in) - 2}
	for i := range s.objective.Memory {
		changes = append(changes, len(in)-4-len(s.objective.Memory)+i)
	}
	if s.objective.SearchMode == classifier.Train {
		for _, i := range s.untrained {
			changes = append(changes, 2+i)
		}
	}
	state := func(g *Graph) []*Node {
		nodes := make([]*Node, len(in))
		for i, n := range in {
			nodes[i] = Parameter(g, fmt.Sprintf("state%d", i), n.Shape())
		}
		return nodes
	}
	g := in[0].Graph()
	more := NewClosure(g, func(g *Graph) []*Node {
		now := state(g)
		return []*Node{LessThan(now[0], now[1])}
	})
	step := NewClosure(g, func(g *Graph) []*Node {
		now := state(g)
		next := slices.Clone(now)
		next[0] = AddScalar(now[0], 1)
		for k, found := range s.buildSearch(now[2:]) {
			next[changes[k]] = found
		}
		return next
	})
	end := While(more, step, in...)
	var out []*Node
	for _, i := range changes {
		out = append(out, end[i])
	}
	return out
}

// differentiate is the loss and its gradients by the trained parameters.
func (s *Stepper) differentiate(b bound) (loss *Node, grads []*Node) {
	before := b.Student.Nodes()
	loss = s.objective.Loss(b.Batch)
	var wrt []*Node
	for _, i := range s.trainable {
		wrt = append(wrt, before[i])
	}
	return loss, Gradient(loss, wrt...)
}

// descent is the loss of a batch and its gradients by the trained parameters, at the weights that start and, where
// weights are perturbed, off them by shift (nil for those that are not).
func (s *Stepper) descent(in []*Node) (b bound, loss *Node, grads, start, shift []*Node) {
	b = s.bind(&nodes{in}, true)
	start, shift = b.Student.Nodes(), make([]*Node, len(s.params))
	loss, grads = s.differentiate(b)
	if s.objective.Gamma == 0 {
		return b, loss, grads, start, shift
	}
	for k, i := range s.trainable {
		if len(s.params[i].Shape) > 1 {
			shift[i] = StopGradient(perturb(start[i], grads[k], s.objective.Gamma))
			start[i] = Add(start[i], shift[i])
		}
	}
	b = s.bind(&nodes{append(slices.Clone(start), in[len(s.params):]...)}, true)
	b.student.given = nil // computed with other weights
	loss, grads = s.differentiate(b)
	return b, loss, grads, start, shift
}

// buildDerivatives: student, teachers, what was computed before the search, memory, progress, x, xAdv, y -> loss,
// gradients, student's running statistics.
func (s *Stepper) buildDerivatives(in []*Node) []*Node {
	b, loss, grads, _, _ := s.descent(in)
	return append(append([]*Node{loss}, grads...), s.running(b.Student.Nodes())...)
}

// buildUpdate: rate of averaging, the optimizer's numbers, slots, average, then as buildDerivatives ->
// (loss, right answers, gradient norm), memory, slots, average, student.
func (s *Stepper) buildUpdate(in []*Node) []*Node {
	n := &nodes{in}
	rate := n.take(1)[0]
	numbers := n.take(len(s.optimizer.Inputs(1, 0)))
	slots := make([][]*Node, len(s.state.slots))
	for i := range slots {
		slots[i] = n.take(len(s.trainable))
	}
	average := n.take(len(s.state.average))
	b, loss, grads, start, shift := s.descent(n.rest)
	grads, norm := clip(grads, s.clip)

	student := b.Student.Nodes()
	for k, i := range s.trainable {
		own := make([]*Node, len(slots))
		for j := range slots {
			own[j] = slots[j][k]
		}
		var moved []*Node
		student[i], moved = s.optimizer.Step(start[i], grads[k], own, numbers)
		if shift[i] != nil {
			student[i] = Sub(student[i], shift[i])
		}
		for j := range slots {
			slots[j][k] = moved[j]
		}
	}
	right := ScalarZero(loss.Graph(), dtypes.Float32)
	if b.student.logits != nil {
		right = ReduceAllSum(ConvertDType(Equal(ArgMax(b.student.logits, 1, dtypes.Int32), b.Y), dtypes.Float32))
	}
	out := append([]*Node{Stack([]*Node{loss, right, norm}, 0)}, b.Memory.Nodes()...)
	for _, slot := range slots {
		out = append(out, slot...)
	}
	for i := range average {
		if s.params[i].Kind.Trainable() {
			out = append(out, lerp(average[i], student[i], rate))
		} else {
			out = append(out, Identity(student[i]))
		}
	}
	return append(out, student...)
}

// buildEndEpoch: memory -> memory.
func (s *Stepper) buildEndEpoch(in []*Node) []*Node {
	m := classifier.Remember(s.objective.Memory, in)
	s.objective.EndEpoch(m)
	return m.Nodes()
}

// buildSettle: a network's parameters, x -> its running statistics after a forward pass in train mode.
func (s *Stepper) buildSettle(in []*Node) []*Node {
	b := classifier.Bind(s.net, in[:len(s.params)])
	b.Logits(in[len(s.params)], classifier.Train)
	return s.running(b.Nodes())
}

// running picks the running statistics out of the parameters.
func (s *Stepper) running(params []*Node) []*Node {
	var out []*Node
	for _, i := range s.untrained {
		out = append(out, params[i])
	}
	return out
}

// call runs a graph; an error in it is told as what went wrong while doing. The first call of a graph compiles it, and
// takes so much longer than any other that it is counted as compiling.
func (s *Stepper) call(exec *Exec, doing string, args []any) ([]*tensors.Tensor, error) {
	began := time.Now()
	out, err := exec.Call(args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	if !s.called[exec] {
		s.called[exec] = true
		s.compiling += time.Since(began)
	}
	return out, nil
}

// Compiling is the time spent so far in calls that compiled their graph.
func (s *Stepper) Compiling() time.Duration { return s.compiling }

// networks are the arguments every graph of a batch begins with.
func (s *Stepper) networks() []any {
	return append(asAny(s.state.student), asAny(s.teacherState)...)
}

// Search runs the inner search from start, the images plus the offset the search begins at (not clipped), both
// float32 [N,H,W,C], for labels y, int32 [N], and returns the perturbed images. It is start itself if there are no steps.
func (s *Stepper) Search(x, start, y *tensors.Tensor) (*tensors.Tensor, error) {
	common, err := s.common(x, y)
	if err != nil {
		return nil, err
	}
	defer finalize(common)
	return s.climb(x, start, y, common)
}

// common computes what stays the same over the steps of a search.
func (s *Stepper) common(x, y *tensors.Tensor) ([]*tensors.Tensor, error) {
	if s.shared()+s.before == 0 {
		return nil, nil
	}
	return s.call(s.fixed, "forwarding the clean images", append(s.networks(), s.batch(x, x, y)...))
}

func (s *Stepper) climb(x, start, y *tensors.Tensor, common []*tensors.Tensor) (*tensors.Tensor, error) {
	xAdv := start
	var prefix []any
	calls := s.objective.Threat.Steps
	if s.remote() && calls > 0 {
		prefix, calls = []any{int32(0), int32(calls)}, 1
	}
	for range calls {
		args := slices.Concat(prefix, s.networks(), asAny(common), s.batch(x, xAdv, y))
		out, err := s.call(s.search, "searching", args)
		if err != nil {
			return nil, err
		}
		if xAdv != start {
			finalize([]*tensors.Tensor{xAdv})
		}
		xAdv = out[0]
		memory := len(s.state.memory)
		finalize(s.state.memory)
		s.state.memory = out[1 : 1+memory : 1+memory]
		for k, t := range out[1+memory:] {
			i := s.untrained[k]
			finalize(s.state.student[i : i+1])
			s.state.student[i] = t
		}
	}
	return xAdv, nil
}

// batch is the tail of the arguments of a graph over a batch.
func (s *Stepper) batch(x, xAdv, y *tensors.Tensor) []any {
	args := append(asAny(s.state.memory), s.progress, x)
	if s.objective.Threat.Steps > 0 {
		args = append(args, xAdv)
	}
	return append(args, y)
}

// EndEpoch lets the objective change its memory after the last step of an epoch.
func (s *Stepper) EndEpoch() error {
	if s.objective.EndEpoch == nil {
		return nil
	}
	out, err := s.call(s.endEpoch, "ending the epoch", asAny(s.state.memory))
	if err != nil {
		return err
	}
	finalize(s.state.memory)
	s.state.memory = out
	return nil
}

// Derivatives are the loss of a batch and what follows from it, by parameter name.
type Derivatives struct {
	Loss    float64
	Grads   map[string]*tensors.Tensor // of the trained parameters
	Running map[string]*tensors.Tensor // running statistics after the loss's forward passes
}

// Derivatives computes the loss at the images x and xAdv with labels y, and changes nothing.
func (s *Stepper) Derivatives(x, xAdv, y *tensors.Tensor) (*Derivatives, error) {
	common, err := s.common(x, y)
	if err != nil {
		return nil, err
	}
	defer finalize(common)
	out, err := s.call(s.derive, "differentiating", append(append(s.networks(), asAny(common)...), s.batch(x, xAdv, y)...))
	if err != nil {
		return nil, err
	}
	d := &Derivatives{Loss: float64(tensors.ToScalar[float32](out[0])), Grads: map[string]*tensors.Tensor{}, Running: map[string]*tensors.Tensor{}}
	grads, after := out[1:1+len(s.trainable)], out[1+len(s.trainable):]
	for k, i := range s.trainable {
		d.Grads[s.params[i].Name] = grads[k]
	}
	for k, i := range s.untrained {
		d.Running[s.params[i].Name] = after[k]
	}
	return d, nil
}

// Update takes one optimizer step on the loss at the images x and xAdv with labels y, with learning rate lr, and moves
// the average by rate (see [Average]; ignored where none is kept). After an error the Stepper is of no more use.
func (s *Stepper) Update(x, xAdv, y *tensors.Tensor, lr, rate float64) (*Outcome, error) {
	common, err := s.common(x, y)
	if err != nil {
		return nil, err
	}
	defer finalize(common)
	return s.descend(x, xAdv, y, common, lr, rate)
}

// Step searches and updates: [Stepper.Search], then [Stepper.Update] with what it found.
func (s *Stepper) Step(x, start, y *tensors.Tensor, lr, rate float64) (*Outcome, error) {
	common, err := s.common(x, y)
	if err != nil {
		return nil, err
	}
	defer finalize(common)
	xAdv, err := s.climb(x, start, y, common)
	if err != nil {
		return nil, err
	}
	if xAdv != start {
		defer finalize([]*tensors.Tensor{xAdv})
	}
	return s.descend(x, xAdv, y, common, lr, rate)
}

func (s *Stepper) descend(x, xAdv, y *tensors.Tensor, common []*tensors.Tensor, lr, rate float64) (*Outcome, error) {
	args := []any{float32(rate)}
	for _, v := range s.optimizer.Inputs(s.state.step+1, lr) {
		args = append(args, float32(v))
	}
	// What the update replaces is donated to it. Everything else is an input.
	var err error
	donate := func(ts []*tensors.Tensor) {
		for _, t := range ts {
			d, e := DonateTensorBuffer(t, s.backend, 0)
			args, err = append(args, d), errors.Join(err, e)
		}
	}
	for _, slot := range s.state.slots {
		donate(slot)
	}
	donate(s.state.average)
	donate(s.state.student)
	if err != nil {
		return nil, fmt.Errorf("updating: %w", err)
	}
	args = append(args, asAny(s.teacherState)...)
	args = append(append(args, asAny(common)...), s.batch(x, xAdv, y)...)
	out, err := s.call(s.update, "updating", args)
	if err != nil {
		return nil, err
	}
	take := func(k int) []*tensors.Tensor {
		first := out[:k:k]
		out = out[k:]
		return first
	}
	outcome := &Outcome{values: take(1)[0], images: y.Shape().Dimensions[0]}
	finalize(s.state.memory)
	s.state.memory = take(len(s.state.memory))
	for i := range s.state.slots {
		s.state.slots[i] = take(len(s.trainable))
	}
	s.state.average = take(len(s.state.average))
	s.state.student = take(len(s.params))
	s.state.step++
	return outcome, nil
}

// Settle gives the averaged weights running statistics of their own: those of the student, moved by one forward pass in
// train mode over each batch of images that next returns, until it returns nil.
func (s *Stepper) Settle(next func() (*tensors.Tensor, error)) error {
	if len(s.untrained) == 0 {
		return nil
	}
	args := asAny(s.state.average)
	for _, i := range s.untrained {
		args[i] = s.state.student[i]
	}
	var running []*tensors.Tensor
	for {
		x, err := next()
		if err != nil {
			return err
		}
		if x == nil {
			break
		}
		out, err := s.call(s.settle, "finding the statistics of the averaged weights", append(args, x))
		if err != nil {
			return err
		}
		finalize(running)
		running = out
		for k, i := range s.untrained {
			args[i] = out[k]
		}
	}
	for k, t := range running {
		i := s.untrained[k]
		finalize(s.state.average[i : i+1])
		s.state.average[i] = t
	}
	return nil
}

// Student copies the network in training to the host. Values that are not finite are an [ErrDiverged].
func (s *Stepper) Student() (*classifier.Model, error) { return s.model(s.state.student) }

// Model copies the network to use to the host: the averaged one where an average is kept, else the student. Values that
// are not finite are an [ErrDiverged].
func (s *Stepper) Model() (*classifier.Model, error) {
	if len(s.state.average) > 0 {
		return s.model(s.state.average)
	}
	return s.model(s.state.student)
}

func (s *Stepper) model(state []*tensors.Tensor) (*classifier.Model, error) {
	host := make([]*tensors.Tensor, len(state))
	for i, t := range state {
		var err error
		if host[i], err = download(s.params[i].Name, t); err != nil {
			return nil, err
		}
	}
	return classifier.NewModel(s.net, host)
}

// download copies a tensor to the host. One with a NaN or an infinity in it is nothing to go on from.
func download(name string, t *tensors.Tensor) (*tensors.Tensor, error) {
	host, err := t.LocalClone()
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	finite := true
	err = tensors.ConstFlatData(host, func(flat []float32) {
		for _, v := range flat {
			if v-v != 0 {
				finite = false
			}
		}
	})
	if err == nil && !finite {
		err = fmt.Errorf("%w: %s is not finite", ErrDiverged, name)
	}
	return host, err
}

func asAny(ts []*tensors.Tensor) []any {
	args := make([]any, len(ts))
	for i, t := range ts {
		args[i] = t
	}
	return args
}

// finalize gives buffers back at once; what the collector would free in its own time may be all of a device's memory.
func finalize(ts []*tensors.Tensor) {
	for _, t := range ts {
		t.FinalizeAll()
	}
}
