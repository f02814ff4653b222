package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/adaad-go/adaad/zoo"
)

// device is a comparison of training steps on one device.
type device struct {
	name     string // PyTorch's name
	networks string // with commas between
	batch    int
	steps    int
	repeat   int
	product  int
}

// rows are PGD-AT of every network, and AdaAD of the first by the last, against PyTorch eager in TF32 and compiled in
// bfloat16 with channels last. This side computes in bfloat16, and once more as eager PyTorch does.
func (d device) rows(python, script string, threads int) ([]row, error) {
	if d.name != "cuda" && d.name != "cpu" {
		return nil, fmt.Errorf("-device is %q, expected cuda or cpu", d.name)
	}
	if min(d.batch, d.steps, d.repeat, d.product) < 1 {
		return nil, errors.New("-batch, -steps, -repeat and -product must be at least 1")
	}
	peaks := map[string]float64{}
	for _, precision := range []string{"tf32", "bf16"} {
		rate, err := d.rate(python, script, threads, precision)
		if err != nil {
			return nil, err
		}
		fmt.Printf("PyTorch's matrix product of size %d in %s: %.3g TFLOP/s\n", d.product, precision, rate/1e12)
		peaks[precision] = rate
	}
	names := strings.Split(d.networks, ",")
	var list []row
	add := func(title, work, student, teacher string, forwards map[string]int) error {
		r := row{images: d.batch, job: job{
			Work: work, Threads: threads, Student: &network{Name: student}, Batch: d.batch, Steps: d.steps, Repeat: d.repeat, Device: d.name,
		}}
		if teacher != "" {
			r.job.Teacher = &network{Name: teacher}
		}
		for name, n := range forwards {
			net, err := zoo.New(name, 10, [3]int{32, 32, 3})
			if err != nil {
				return err
			}
			r.flops += 2 * float64(zoo.MACs(net)) * float64(d.batch*n)
		}
		r.peak = peaks["bf16"]
		eager, compiled := r.job, r.job
		eager.Precision = "tf32"
		compiled.Precision, compiled.Compile, compiled.ChannelsLast = "bf16", true, true
		for _, side := range []struct {
			precision string
			rivals    []job
		}{{"bf16", []job{eager, compiled}}, {"fp32", []job{eager}}} {
			r.name = fmt.Sprintf("%s, batch %d, K %d, %s here", title, d.batch, d.steps, side.precision)
			r.job.Ours, r.rivals = side.precision, side.rivals
			list = append(list, r)
		}
		return nil
	}
	// A backward pass costs as much as a forward one for the images alone, and twice that for the weights too.
	for _, name := range names {
		if err := add("PGD-AT step, "+name, "pgd-at", name, "", map[string]int{name: 2*d.steps + 3}); err != nil {
			return nil, err
		}
	}
	student, teacher := names[0], names[len(names)-1]
	forwards := map[string]int{student: 2*d.steps + 4}
	forwards[teacher] += 2*d.steps + 1
	return list, add(fmt.Sprintf("AdaAD step, %s of %s", student, teacher), "adaad", student, teacher, forwards)
}

// rate is how many operations a second PyTorch does in a large matrix product: the peak that shares are of.
func (d device) rate(python, script string, threads int, precision string) (float64, error) {
	n := d.product
	text, err := json.Marshal(job{Work: "gemm", Threads: threads, Gemm: []int{n, n, n}, Device: d.name, Precision: precision, Repeat: 10})
	if err != nil {
		return 0, err
	}
	s, err := start([]string{python, script, string(text)})
	if err != nil {
		return 0, err
	}
	defer s.stop()
	best := 0.0
	for range 4 {
		r, err := s.run()
		if err != nil {
			return 0, err
		}
		best = max(best, 2*float64(n)*float64(n)*float64(n)/r.Seconds)
	}
	return best, nil
}
