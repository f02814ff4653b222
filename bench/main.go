// Command bench does the same work here and in PyTorch or ONNX Runtime, alternately, and prints how many times faster it
// is here: the ratio pair by pair, and its median. Both sides get the same weights and images and the same number of
// threads, each in a process of its own, and what they compute is compared.
//
//	go run ./bench -python /usr/bin/python3                       # PyTorch: Debian's python3-torch
//	go run ./bench -python python3 -onnxruntime DIR/node_modules/onnxruntime-node
//	go run ./bench -rows 'AdaAD|PGD' -pairs 5
//
// On an accelerator it compares training steps with PyTorch's, eager in TF32 and compiled in bfloat16; docs/gpu.md has more:
//
//	go run -tags xla ./bench -device cuda
package main

import (
	"bufio"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/internal/speed"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/weights/onnx"
	"github.com/adaad-go/adaad/zoo"
)

//go:embed pytorch.py
var pytorch string

//go:embed onnxruntime.cjs
var onnxruntime string

// job is what one side is to do; the scripts read it as JSON.
type job struct {
	Work         string    `json:"work"` // adaad, pgd-at, pgd, logits, conv, gemm
	Threads      int       `json:"threads"`
	Student      *network  `json:"student,omitempty"`
	Teacher      *network  `json:"teacher,omitempty"`
	Inputs       string    `json:"inputs,omitempty"`
	Batch        int       `json:"batch,omitempty"`
	Steps        int       `json:"steps,omitempty"`
	ChannelsLast bool      `json:"channels_last,omitempty"`
	Conv         *convSpec `json:"conv,omitempty"`
	Gemm         []int     `json:"gemm,omitempty"`
	Repeat       int       `json:"repeat"`  // so often in one run, at least
	Seconds      float64   `json:"seconds"` // and for so long, at least, after one time that does not count
	ONNX         string    `json:"onnx,omitempty"`
	Module       string    `json:"module,omitempty"` // folder of onnxruntime-node
	Backend      string    `json:"backend,omitempty"`
	Device       string    `json:"device,omitempty"`    // PyTorch's: cuda or cpu, the default
	Precision    string    `json:"precision,omitempty"` // PyTorch's: tf32 or bf16
	Compile      bool      `json:"compile,omitempty"`   // with torch.compile
	Ours         string    `json:"ours,omitempty"`      // this side's precision
}

type network struct {
	Name string `json:"name"`
	File string `json:"file"`
}

type convSpec struct {
	N         int             `json:"n"`
	Size      int             `json:"size"`
	Cin       int             `json:"cin"`
	Cout      int             `json:"cout"`
	Kernel    int             `json:"kernel"`
	Stride    int             `json:"stride"`
	Groups    int             `json:"groups"`
	Direction speed.Direction `json:"direction"`
	Depthwise bool            `json:"depthwise"`
}

// result is what one run says.
type result struct {
	Seconds float64 `json:"seconds"` // of one repetition
	Value   float64 `json:"value"`
	Peak    float64 `json:"peak"` // bytes the process has held at most

	// Registers is how many operations a second it did meanwhile where they need nothing but registers, or 0.
	Registers float64 `json:"registers"`
}

// row is a line of the table.
type row struct {
	name   string
	other  string // "PyTorch", "PyTorch channels_last", "ONNX Runtime"
	images int    // per run, for images a second; 0 for milliseconds
	flops  float64
	peak   float64 // operations a second that the device reaches in a matrix product, or 0
	memory bool
	job    job
	rivals []job // the other side's, a line of the table each; without any it does job
}

// steady is how long layers and latencies are measured in a run, in seconds: a single time says more about what was in the
// caches.
const steady = 0.25

func rows(threads int) []row {
	var list []row
	step := func(student, teacher string, batch int, channelsLast, bf16 bool) {
		r := row{name: fmt.Sprintf("AdaAD step, %s of %s, batch %d, K 10", student, teacher, batch), other: "PyTorch", images: batch, memory: true,
			job: job{Work: "adaad", Threads: threads, Student: &network{Name: student}, Teacher: &network{Name: teacher}, Batch: batch, Steps: 10, Repeat: 1, ChannelsLast: channelsLast}}
		if channelsLast {
			r.other = "PyTorch channels_last"
		}
		if bf16 {
			r.name += ", bf16"
			r.other += " autocast"
			r.job.Ours, r.job.Precision = "bf16", "bf16"
		}
		list = append(list, r)
	}
	for _, bf16 := range []bool{false, true} {
		step("resnet18", "resnet18", 32, false, bf16)
		step("mobilenet-v2", "resnet18", 32, false, bf16)
		step("mobilenet-v2", "resnet18", 32, true, bf16)
		step("resnet20", "wrn-16-4", 128, false, bf16)
	}
	list = append(list, row{name: "PGD-20 evaluation, resnet18, batch 128", other: "PyTorch", images: 128, memory: true,
		job: job{Work: "pgd", Threads: threads, Student: &network{Name: "resnet18"}, Batch: 128, Steps: 20, Repeat: 1}})
	for _, model := range []string{"resnet18", "mobilenet-v2"} {
		for _, batch := range []int{1, 64} {
			for _, n := range []int{1, 2} {
				list = append(list, row{name: fmt.Sprintf("latency, %s, batch %d, %d threads", model, batch, n), other: "ONNX Runtime",
					job: job{Work: "logits", Threads: n, Student: &network{Name: model}, Batch: batch, Seconds: steady}})
			}
		}
	}
	for _, k := range speed.Kernels() {
		r := row{name: k.Name, other: "PyTorch", flops: k.FLOPs(), job: job{Work: "conv", Threads: threads, Seconds: steady}}
		if k.Size == 0 {
			r.job.Work, r.job.Gemm = "gemm", []int{k.M, k.N, k.K}
		} else {
			groups := 1
			if k.Depthwise {
				groups = k.Cin
			}
			r.name += ", " + string(k.Direction)
			r.job.Conv = &convSpec{k.N, k.Size, k.Cin, k.Cout, k.Kernel, k.Stride, groups, k.Direction, k.Depthwise}
		}
		list = append(list, r)
	}
	return list
}

func main() {
	python := flag.String("python", "python3", "Python with PyTorch")
	module := flag.String("onnxruntime", "", "folder of the npm module onnxruntime-node; without it the latency rows are left out")
	pattern := flag.String("rows", ".", "regular expression of the rows to run")
	pairs := flag.Int("pairs", 3, "how often both sides run each row")
	threads := flag.Int("threads", 2, "threads of both sides, but in latency rows")
	backend := flag.String("backend", "vec", "backend of this side")
	markdown := flag.Bool("markdown", false, "print the table as Markdown")
	var on device
	flag.StringVar(&on.name, "device", "", "compare training steps on this device of PyTorch's instead: cuda or cpu")
	flag.StringVar(&on.networks, "networks", "resnet18,wrn-28-10", "with -device: networks to train, and to teach AdaAD's student by the last of them")
	flag.IntVar(&on.batch, "batch", 256, "with -device: images in a step")
	flag.IntVar(&on.steps, "steps", 10, "with -device: steps of the search")
	flag.IntVar(&on.repeat, "repeat", 10, "with -device: steps in a run")
	flag.IntVar(&on.product, "product", 8192, "with -device: size of the matrix product that peaks are measured with")
	work := flag.String("job", "", "do one side's job, on request from standard input (the program runs itself with this)")
	flag.Parse()
	var err error
	if *work != "" {
		err = serve(*work)
	} else {
		err = compare(*python, *module, *pattern, *pairs, *threads, *backend, on, *markdown)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// compare runs the rows and prints the table.
func compare(python, module, pattern string, pairs, threads int, backend string, on device, markdown bool) error {
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		return fmt.Errorf("-rows: %w", err)
	}
	if pairs < 1 {
		return fmt.Errorf("-pairs is %d, expected 1 or more", pairs)
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	script, node := filepath.Join(dir, "pytorch.py"), filepath.Join(dir, "onnxruntime.cjs")
	if err := errors.Join(os.WriteFile(script, []byte(pytorch), 0o644), os.WriteFile(node, []byte(onnxruntime), 0o644)); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Printf("%s, %s, %d processors\n", processor(), runtime.Version(), runtime.NumCPU())
	b, err := compute.NewWithConfig(fmt.Sprintf("vec:threads=%d", threads))
	if err != nil {
		return err
	}
	v := b.(*vec.Backend)
	fmt.Printf("%s; multiply-adds in registers: %.0f GFLOP/s\n", v.Description(), v.PeakFLOPS()/1e9)
	b.Finalize()
	var list []row
	all := rows(threads)
	if on.name != "" {
		if backend == "vec" && on.name == "cuda" {
			backend = "xla:cuda"
		}
		if all, err = on.rows(python, script, threads); err != nil {
			return err
		}
	}
	for _, r := range all {
		if wanted.MatchString(r.name) && (r.other != "ONNX Runtime" || module != "") {
			list = append(list, r)
		}
	}
	table := &report.Table{Columns: []report.Column{{Name: "work"}, {Name: "against"}, {Name: "here", Align: report.Right}, {Name: "there", Align: report.Right},
		{Name: "times faster", Align: report.Right}, {Name: "pair by pair"}, {Name: "peak memory", Align: report.Right}}}
	var failed []error
	for i, r := range list {
		fmt.Fprintf(os.Stderr, "%d of %d: %s\n", i+1, len(list), r.name)
		if err := r.fill(dir); err != nil {
			return err
		}
		r.job.Backend = backend
		ours, theirs := []string{self, "-job"}, []string{python, script}
		if r.other == "ONNX Runtime" {
			r.job.ONNX, r.job.Module = filepath.Join(dir, "student.onnx"), module
			if err := export(r.job.Student.File, r.job.ONNX); err != nil {
				return fmt.Errorf("%s: exporting: %w", r.name, err)
			}
			theirs = []string{"node", node}
		}
		lines, err := r.compare(ours, theirs, pairs)
		if err != nil {
			// What the other rows took hours or rented time to measure is not thrown away.
			err = fmt.Errorf("%s: %w", r.name, err)
			fmt.Fprintln(os.Stderr, " ", err)
			failed = append(failed, err)
		}
		for _, cells := range lines {
			fmt.Fprintf(os.Stderr, "  %s\n", strings.Join(cells[1:], "  "))
			table.Add(cells...)
		}
	}
	write := table.Text
	if markdown {
		write = table.Markdown
	}
	return errors.Join(append(failed, write(os.Stdout))...)
}

// export writes a model as ONNX, batch norms folded, as adaad export does.
func export(model, path string) error {
	m, err := weights.Load(model)
	if err != nil {
		return err
	}
	f, err := onnx.Export(m, onnx.Options{})
	if err != nil {
		return err
	}
	return weights.SaveONNX(path, f)
}

// processor is the processor's name, where the system tells.
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(text)) {
			if key, name, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				return strings.TrimSpace(name)
			}
		}
	}
	return runtime.GOARCH
}

// fill writes the weights and images of the row.
func (r *row) fill(dir string) error {
	for i, n := range []*network{r.job.Student, r.job.Teacher} {
		if n == nil {
			continue
		}
		net, err := zoo.New(n.Name, 10, [3]int{32, 32, 3})
		if err != nil {
			return err
		}
		n.File = filepath.Join(dir, []string{"student", "teacher"}[i]+".safetensors")
		m := zoo.Init(net, uint64(i+1))
		spread(m)
		if err := weights.Save(n.File, m, weights.Card{Model: n.Name, Input: [3]int{32, 32, 3}}); err != nil {
			return err
		}
	}
	if r.job.Batch == 0 {
		return nil
	}
	b := speed.RandomImages(r.job.Batch)
	r.job.Inputs = filepath.Join(dir, "inputs.safetensors")
	f := &weights.File{}
	for name, t := range map[string]*tensors.Tensor{"x": b.X, "start": b.Start} {
		w, err := weights.FromTensor(name, t)
		if err != nil {
			return err
		}
		f.Tensors = append(f.Tensors, w)
	}
	labels := weights.Tensor{Name: "y", DType: "I32", Shape: []int{r.job.Batch}}
	for _, y := range tensors.MustCopyFlatData[int32](b.Y) {
		labels.Data = binary.LittleEndian.AppendUint32(labels.Data, uint32(y))
	}
	f.Tensors = append(f.Tensors, labels)
	return weights.Write(r.job.Inputs, f)
}

// spread makes the running statistics of a network that was never trained such that its logits are of the order of one,
// like those of a trained one: each batch norm halves what comes in.
func spread(m *classifier.Model) {
	for i, p := range m.Params() {
		if p.Kind == classifier.RunningVar {
			flat := make([]float32, p.Size())
			for j := range flat {
				flat[j] = 4
			}
			m.State[i] = tensors.FromFlatDataAndDimensions(flat, p.Shape...)
		}
	}
}

// rest is how long one side waits for the threads of the other to stop looking for work and go to sleep.
const rest = 300 * time.Millisecond

// compare starts the sides and lets them run in turn. It returns the lines of the table, one for each rival. A kernel alone
// meets PyTorch in the layout that turns out to suit it better.
func (r *row) compare(ours, theirs []string, pairs int) ([][]string, error) {
	jobs := append([]job{r.job}, r.rivals...)
	if len(r.rivals) == 0 {
		jobs = append(jobs, r.job)
	}
	if r.job.Conv != nil {
		jobs = append(jobs, r.job)
		jobs[2].ChannelsLast = true
	}
	sides := make([]*side, len(jobs))
	for i, j := range jobs {
		command := theirs
		if i == 0 {
			command = ours
		} else {
			j.Student, j.Teacher, j.Inputs = r.job.Student, r.job.Teacher, r.job.Inputs // as filled in meanwhile
		}
		text, err := json.Marshal(j)
		if err != nil {
			return nil, err
		}
		if sides[i], err = start(append(slices.Clone(command), string(text))); err != nil {
			return nil, err
		}
		defer sides[i].stop()
	}
	all := make([][]float64, len(sides))
	var shares []float64 // of what registers allow, here
	last := make([]result, len(sides))
	for pair := -1; pair < pairs; pair++ { // the first is a warm-up, and compares what was computed
		for i, s := range sides {
			time.Sleep(rest)
			var err error
			if last[i], err = s.run(); err != nil {
				return nil, err
			}
			if pair >= 0 {
				all[i] = append(all[i], last[i].Seconds)
				if x := last[i]; x.Registers > 0 {
					shares = append(shares, r.flops/x.Seconds/x.Registers)
				}
			}
		}
		near := 0.02
		if r.job.Ours == "bf16" {
			near = 0.1 // after some steps in bfloat16
		}
		for _, rival := range last[1:] {
			if a, b := last[0].Value, rival.Value; pair < 0 && math.Abs(a-b) > near*max(math.Abs(a), math.Abs(b)) {
				return nil, fmt.Errorf("the sides computed different things: %v here, %v there", a, b)
			}
		}
	}
	if r.job.Conv != nil {
		rival, against := 1, r.other
		if median(all[2]) < median(all[1]) {
			rival, against = 2, "PyTorch channels_last"
		}
		return [][]string{r.line(against, all[0], all[rival], last[0], last[rival], shares)}, nil
	}
	var lines [][]string
	for i, s := range sides[1:] {
		against := r.other
		if r.job.Device != "" {
			against = s.name // what PyTorch made of what was asked for
		}
		lines = append(lines, r.line(against, all[0], all[i+1], last[0], last[i+1], shares))
	}
	return lines, nil
}

// line is a line of the table: seconds of the runs here and of the rival's, and what each said last.
func (r *row) line(against string, ours, theirs []float64, last, rival result, shares []float64) []string {
	var ratios []float64
	for i := range ours {
		ratios = append(ratios, theirs[i]/ours[i])
	}
	show := func(seconds float64) string {
		switch {
		case r.peak > 0:
			return fmt.Sprintf("%.1f images/s, %.0f%% of peak", float64(r.images)/seconds, 100*r.flops/seconds/r.peak)
		case r.images > 0:
			return fmt.Sprintf("%.1f images/s", float64(r.images)/seconds)
		case r.flops > 0:
			return fmt.Sprintf("%.0f GFLOP/s", r.flops/seconds/1e9)
		}
		return fmt.Sprintf("%.2f ms", 1000*seconds)
	}
	var each []string
	for _, x := range ratios {
		each = append(each, fmt.Sprintf("%.2f", x))
	}
	memory := ""
	if r.memory {
		memory = fmt.Sprintf("%.2f of %.2f GB: %.2f", last.Peak/1e9, rival.Peak/1e9, last.Peak/rival.Peak)
	}
	here := show(median(ours))
	if len(shares) > 0 {
		here += fmt.Sprintf(", %.0f%% of peak", 100*median(shares))
	}
	return []string{r.name, against, here, show(median(theirs)), fmt.Sprintf("%.2f", median(ratios)), strings.Join(each, " "), memory}
}

func median(x []float64) float64 {
	x = slices.Clone(x)
	slices.Sort(x)
	if n := len(x); n%2 == 0 {
		return (x[n/2-1] + x[n/2]) / 2
	}
	return x[len(x)/2]
}

// side is a process that does a job whenever it is sent a line.
type side struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	errors  strings.Builder
	name    string // as it says
}

func start(command []string) (*side, error) {
	s := &side{command: exec.Command(command[0], command[1:]...)}
	s.command.Stderr = &s.errors
	in, err := s.command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := s.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.in, s.out = in, bufio.NewReader(out)
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	line, err := s.out.ReadString('\n')
	name, ready := strings.CutPrefix(line, "ready")
	if err != nil || !ready {
		s.stop()
		return nil, fmt.Errorf("%s did not start: %s%s", command[0], line, s.errors.String())
	}
	s.name = strings.TrimSpace(name)
	return s, nil
}

func (s *side) run() (r result, err error) {
	if _, err = io.WriteString(s.in, "run\n"); err != nil {
		return r, err
	}
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.stop()
		return r, fmt.Errorf("%s stopped: %s", s.command.Path, s.errors.String())
	}
	return r, json.Unmarshal([]byte(line), &r)
}

// stop ends the process, which ends with its input.
func (s *side) stop() {
	s.in.Close()
	if err := s.command.Wait(); err != nil && s.errors.Len() == 0 {
		s.errors.WriteString(err.Error())
	}
}

// serve is this side: it does the job once for every line of standard input.
func serve(text string) error {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return fmt.Errorf("-job: %w", err)
	}
	runtime.GOMAXPROCS(max(j.Threads, 1))
	backend, err := compute.NewWithConfig(j.Backend)
	if err != nil {
		return err
	}
	defer backend.Finalize()
	work, err := prepare(backend, j)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var r result
		if j.Seconds > 0 {
			if _, err := work(); err != nil {
				return err
			}
		}
		before := registers(backend, j)
		begin, runs := time.Now(), 0
		for ; runs < max(j.Repeat, 1) || time.Since(begin).Seconds() < j.Seconds; runs++ {
			if r.Value, err = work(); err != nil {
				return err
			}
		}
		r.Seconds = time.Since(begin).Seconds() / float64(runs)
		r.Registers = (before + registers(backend, j)) / 2
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			return err
		}
		r.Peak = float64(usage.Maxrss) * 1024
		if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// registers is the backend's peak at this moment for a matrix product, which is judged by it; else 0.
func registers(backend compute.Backend, j job) float64 {
	if b, ok := backend.(interface{ PeakFLOPS() float64 }); ok && j.Gemm != nil {
		return b.PeakFLOPS()
	}
	return 0
}

func prepare(backend compute.Backend, j job) (speed.Work, error) {
	if j.Conv != nil || j.Gemm != nil {
		k := speed.Kernel{Name: "kernel"}
		if c := j.Conv; c != nil {
			k.N, k.Size, k.Cin, k.Cout, k.Kernel, k.Stride, k.Depthwise, k.Direction = c.N, c.Size, c.Cin, c.Cout, c.Kernel, c.Stride, c.Depthwise, c.Direction
		} else {
			k.M, k.N, k.K = j.Gemm[0], j.Gemm[1], j.Gemm[2]
		}
		run, _, err := k.Prepare(backend)
		return func() (float64, error) { return 0, run() }, err
	}
	student, err := weights.Load(j.Student.File)
	if err != nil {
		return nil, err
	}
	if student.Network, err = zoo.InPrecision(student.Network, zoo.Precision(j.Ours)); err != nil {
		return nil, err
	}
	images := speed.RandomImages(j.Batch)
	switch j.Work {
	case "pgd-at":
		return speed.PGDAT(backend, student, images, j.Steps)
	case "adaad":
		teacher, err := weights.Load(j.Teacher.File)
		if err != nil {
			return nil, err
		}
		if teacher.Network, err = zoo.InPrecision(teacher.Network, zoo.Precision(j.Ours)); err != nil {
			return nil, err
		}
		return speed.AdaAD(backend, student, teacher, images, j.Steps)
	case "pgd":
		return speed.PGD(backend, student, images, j.Steps)
	}
	return speed.Logits(backend, student, images)
}
