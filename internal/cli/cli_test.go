package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
)

// adaad runs a command line in this process.
func adaad(t *testing.T, ctx context.Context, args ...string) (stdout string, err error) {
	t.Helper()
	var out, progress bytes.Buffer
	err = Run(ctx, args, Env{
		Stdout: &out, Stderr: &progress, Backends: []string{"vec", "go"}, Version: "test",
		Open: func(name string, _, _ int) (compute.Backend, error) {
			if name != "vec" {
				return nil, errors.New("this build has the backends vec, go")
			}
			return vec.New("")
		},
	})
	if err != nil {
		t.Logf("adaad %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), err
}

// tiny is a run of a second or two.
func tiny(method, out string, more ...string) []string {
	return append([]string{"train", "--recipe", method + "-shapes-resnet8", "--model", "resnet8-w4", "--train-samples", "64", "--epochs", "2",
		"--batch-size", "32", "--set", "validation_samples=20", "--set", "validation_steps=1", "--out", out}, more...)
}

func TestTrainEvaluateCompare(t *testing.T) {
	dir := t.TempDir()
	teacher, student := filepath.Join(dir, "teacher"), filepath.Join(dir, "student")
	if _, err := adaad(t, t.Context(), tiny("pgd-at", teacher)...); err != nil {
		t.Fatal(err)
	}
	out, err := adaad(t, t.Context(), tiny("adaad", student, "--teacher", teacher, "--seed", "7")...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "adaad evaluate --model "+student) {
		t.Errorf("train does not say what to do next:\n%s", out)
	}
	for _, name := range []string{"run.json", "log.jsonl", "last", "best", "model.safetensors", "model.json"} {
		if _, err := os.Stat(filepath.Join(student, name)); err != nil {
			t.Errorf("the run folder lacks %s", name)
		}
	}
	for _, run := range []string{teacher, student} {
		out, err := adaad(t, t.Context(), "evaluate", "--model", run, "--samples", "30", "--attacks", "clean,fgsm,pgd-2")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"clean", "fgsm eps 8/255", "pgd-2 eps 8/255", "30 images of shapes test", "held-out training images"} {
			if !strings.Contains(out, want) {
				t.Errorf("evaluate does not say %q:\n%s", want, out)
			}
		}
		for line := range strings.Lines(out) {
			if len([]rune(line)) > 101 {
				t.Errorf("a line of %d characters: %s", len([]rune(line)), line)
			}
		}
	}
	table := filepath.Join(dir, "table.json")
	figure, page := filepath.Join(dir, "figure.svg"), filepath.Join(dir, "compared.html")
	out, err = adaad(t, t.Context(), "compare", teacher, student, "--json", table, "--figure", figure, "--page", page)
	if err != nil {
		t.Fatal(err)
	}
	for _, drawn := range []string{figure, page} {
		if text, err := os.ReadFile(drawn); err != nil || !bytes.Contains(text, []byte("student resnet8-w4")) {
			t.Errorf("%s does not show the student (%v)", drawn, err)
		}
	}
	for _, head := range []string{"worst", "latency", "training"} {
		if !strings.Contains(out, head) {
			t.Errorf("compare has no column %q:\n%s", head, out)
		}
	}
	if !strings.Contains(out, "teacher resnet8-w4 (pgd-at)") || !strings.Contains(out, "student resnet8-w4 (adaad)") {
		t.Errorf("compare shows\n%s", out)
	}
	if !strings.Contains(out, "Image by image") || !strings.Contains(out, "pgd-2") {
		t.Errorf("compare shows no images:\n%s", out)
	}
	var comparison struct {
		Models []any
		Differ []struct{ Under string }
	}
	if text, err := os.ReadFile(table); err != nil || json.Unmarshal(text, &comparison) != nil || len(comparison.Models) != 2 {
		t.Errorf("--json wrote %d models (%v)", len(comparison.Models), err)
	}
	// A second evaluation that differs cannot stand beside the first.
	if _, err := adaad(t, t.Context(), "evaluate", "--model", student, "--samples", "20", "--attacks", "clean,pgd-2"); err != nil {
		t.Fatal(err)
	}
	if _, err := adaad(t, t.Context(), "compare", teacher, student); ExitCode(err) != ExitUsage {
		t.Errorf("comparing what was measured differently gives %v", err)
	}
}

// Evaluations outside of run folders: the other norm, a surrogate, a goal for the interval; two records compared.
func TestEvaluateInOtherWays(t *testing.T) {
	dir := t.TempDir()
	model := filepath.Join(dir, "model")
	if _, err := adaad(t, t.Context(), tiny("pgd-at", model)...); err != nil {
		t.Fatal(err)
	}
	records := []string{filepath.Join(dir, "a.jsonl"), filepath.Join(dir, "b.jsonl")}
	for i, record := range records {
		out, err := adaad(t, t.Context(), "evaluate", "--model", model, "--samples", "12", "--norm", "l2", "--eps", "0.02",
			"--attack", "apgd-ce,transfer", "--surrogate", model, "--json", record, "--seed", "3", "--batch-size", []string{"1", "7"}[i])
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"apgd-ce eps 0.02", "transfer eps 0.02", "12 images", "L2 perturbations"} {
			if !strings.Contains(out, want) {
				t.Errorf("evaluate does not say %q:\n%s", want, out)
			}
		}
	}
	a, errA := os.ReadFile(records[0])
	b, errB := os.ReadFile(records[1])
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("batch sizes 1 and 7 wrote different records (%v, %v)", errA, errB)
	}
	out, err := adaad(t, t.Context(), "evaluate", "--model", model, "--samples", "12", "--norm", "l2", "--eps", "0.02",
		"--attacks", "apgd-ce,transfer", "--surrogate", model, "--json", "-", "--seed", "3")
	if err != nil || out != string(a) {
		t.Errorf("on standard output the record is %s (%v)", out, err)
	}
	out, err = adaad(t, t.Context(), "compare", records[0], records[1], "--json", "-")
	var comparison struct {
		Models []any
		Differ []any
	}
	if err != nil || json.Unmarshal([]byte(out), &comparison) != nil || len(comparison.Models) != 2 || len(comparison.Differ) != 0 {
		t.Errorf("two equal records compare as %s (%v)", out, err)
	}
	others := regexp.MustCompile(`"images_sha256":"\w+`).ReplaceAll(a, []byte(`"images_sha256":"0`))
	if err := os.WriteFile(records[1], others, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = adaad(t, t.Context(), "compare", records[0], records[1])
	want := "cannot stand in one table: their 12 images of shapes are not the same ones, expected the same indices, labels and pixels"
	if ExitCode(err) != ExitUsage || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("records of different images compare with %v", err)
	}
	out, err = adaad(t, t.Context(), "evaluate", "--model", model, "--attacks", "fgsm", "--until", "12%")
	if err != nil || strings.Contains(out, " 1000 images") || !strings.Contains(out, "fgsm") {
		t.Errorf("evaluating until an interval of 12%% gives %v and\n%s", err, out)
	}
	if out, err = adaad(t, t.Context(), "compare", model); err != nil || !strings.Contains(out, "fgsm") {
		t.Errorf("what ended early cannot be shown (%v):\n%s", err, out)
	}
}

// cancelled is a context that is done once training has begun to write.
func cancelled(t *testing.T, dir string) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(filepath.Join(dir, "log.jsonl")); err == nil {
				cancel()
			}
		}
	}()
	return ctx
}

func TestInterruptAndResume(t *testing.T) {
	dir := t.TempDir()
	whole, stopped := filepath.Join(dir, "whole"), filepath.Join(dir, "stopped")
	if _, err := adaad(t, t.Context(), tiny("pgd-at", whole)...); err != nil {
		t.Fatal(err)
	}
	_, err := adaad(t, cancelled(t, stopped), tiny("pgd-at", stopped)...)
	if ExitCode(err) != ExitInterrupted || !strings.Contains(err.Error(), "adaad train --resume --out "+stopped) {
		t.Fatalf("an interrupted run gives %v with exit code %d", err, ExitCode(err))
	}
	again := filepath.Join(dir, "again")
	if _, err := adaad(t, t.Context(), "train", "--settings", filepath.Join(whole, "run.json"), "--out", again); err != nil {
		t.Fatal(err)
	}
	if _, err := adaad(t, t.Context(), "train", "--resume", "--out", stopped, "--epochs", "3"); ExitCode(err) != ExitUsage {
		t.Errorf("resuming with another setting gives %v", err)
	}
	if _, err := adaad(t, t.Context(), "train", "--resume", "--out", stopped); err != nil {
		t.Fatal(err)
	}
	a, errA := os.ReadFile(filepath.Join(whole, "model.safetensors"))
	b, errB := os.ReadFile(filepath.Join(stopped, "model.safetensors"))
	c, errC := os.ReadFile(filepath.Join(again, "model.safetensors"))
	if errA != nil || errB != nil || errC != nil || !bytes.Equal(a, b) || !bytes.Equal(a, c) {
		t.Errorf("the resumed run, or the one by the settings of the first, did not end with the same bits (%v, %v, %v)", errA, errB, errC)
	}
}

// Mistakes in what is asked for end with exit code 2 and one sentence that names the culprit, and write nothing.
func TestMistakes(t *testing.T) {
	dir := t.TempDir()
	teacher := filepath.Join(dir, "teacher")
	if _, err := adaad(t, t.Context(), tiny("pgd-at", teacher)...); err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(dir, "page.safetensors")
	if err := os.WriteFile(page, []byte("<!DOCTYPE html><title>404</title>"), 0o644); err != nil {
		t.Fatal(err)
	}
	idx := filepath.Join(dir, "mnist")
	writeMNIST(t, idx)
	seven := filepath.Join(dir, "seven.safetensors") // tells 7 classes apart
	net, err := zoo.New("resnet8-w4", 7, [3]int{32, 32, 3})
	if err != nil {
		t.Fatal(err)
	}
	card := weights.Card{Classes: []string{"a", "b", "c", "d", "e", "f", "g"}}
	if err := weights.Save(seven, zoo.Init(net, 1), card); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	to := func(method string, more ...string) []string { return tiny(method, out, more...) }
	adaadTo := func(more ...string) []string { return tiny("adaad", out, more...) }
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"unknown command":  {[]string{"fly"}, []string{"fly"}},
		"unknown flag":     {adaadTo("--warp", "9"), []string{"--warp"}},
		"no recipe":        {[]string{"train", "--out", out}, []string{"--recipe", "--method"}},
		"two beginnings":   {[]string{"train", "--recipe", "pgd-at-shapes-resnet8", "--settings", teacher, "--out", out}, []string{"--recipe", "--settings"}},
		"settings of none": {[]string{"train", "--settings", filepath.Join(dir, "nobody.json"), "--out", out}, []string{"nobody.json"}},
		"page as settings": {[]string{"train", "--settings", page, "--out", out}, []string{page, "run.json"}},
		"unknown recipe":   {[]string{"train", "--recipe", "adaad-cifar11", "--out", out}, []string{`"adaad-cifar11"`, "adaad-cifar10-resnet8"}},
		"unknown method":   {[]string{"train", "--method", "magic", "--out", out}, []string{`"magic"`, "pgd-at"}},
		"unknown model":    {adaadTo("--teacher", teacher, "--model", "resnet21"), []string{"resnet21"}},
		"unknown data":     {adaadTo("--teacher", teacher, "--data", "imagenet"), []string{"imagenet", "cifar10"}},
		"unknown backend":  {adaadTo("--teacher", teacher, "--backend", "tpu"), []string{"--backend tpu", "vec"}},
		"unknown setting":  {adaadTo("--teacher", teacher, "--set", "speed=9"), []string{`"speed"`, "run.json"}},
		"no value":         {adaadTo("--teacher", teacher, "--set", "lr"), []string{"KEY=VALUE"}},
		"one of two":       {to("iad-2", "--teacher", teacher), []string{"iad-2 takes 2 teachers", "robust one first", "found 1"}},
		"one of two again": {to("mtard", "--teacher", teacher), []string{"mtard takes 2 teachers", "found 1"}},
		"one too many":     {adaadTo("--teacher", teacher, "--teacher", teacher), []string{"adaad takes 1 teacher", "found 2"}},
		"one for nothing":  {to("trades", "--teacher", teacher), []string{"trades takes no teacher", "found 1"}},
		"other classes":    {adaadTo("--teacher", seven), []string{seven, "7 classes", "shapes has"}},
		"second's classes": {to("mtard", "--teacher", teacher, "--teacher", seven), []string{seven, "7 classes"}},
		"missing teacher":  {adaadTo(), []string{"--teacher", "adaad takes 1"}},
		"absent teacher":   {adaadTo("--teacher", filepath.Join(dir, "nobody")), []string{"--teacher", "nobody"}},
		"page as teacher":  {adaadTo("--teacher", page), []string{page, "web page"}},
		"grey into colour": {adaadTo("--teacher", teacher, "--data", "mnist", "--data-dir", idx), []string{"32x32x3", "28x28x1"}},
		"eps in 255ths":    {adaadTo("--teacher", teacher, "--eps", "8"), []string{"8/255 meant"}},
		"eps is no number": {adaadTo("--teacher", teacher, "--eps", "big"), []string{"eps", "8/255"}},
		"temperature":      {adaadTo("--teacher", teacher, "--set", "temperature=0"), []string{"temperature is 0"}},
		"alpha":            {adaadTo("--teacher", teacher, "--set", "alpha=2"), []string{"alpha is 2"}},
		"reduction":        {adaadTo("--teacher", teacher, "--set", "kl_reduction=median"), []string{"median", "batchmean"}},
		"eps in settings":  {to("trades", "--set", "search.epsilon=8"), []string{"8/255 meant"}},
		"ard temperature":  {to("ard", "--teacher", teacher, "--set", "temperature=0"), []string{"temperature is 0"}},
		"beta":             {to("trades", "--set", "beta=-6"), []string{"beta is -6", "at least 0"}},
		"not its setting":  {adaadTo("--teacher", teacher, "--set", "beta=6"), []string{"beta is set, but method adaad takes alpha"}},
		"takes no setting": {to("natural", "--set", "alpha=0.5"), []string{"alpha is set, but method natural takes none"}},
		"another method's": {adaadTo("--teacher", teacher, "--method", "trades"), []string{"alpha is set, but method trades takes beta"}},
		"weights over 1":   {to("iad-2", "--teacher", teacher, "--teacher", teacher, "--set", "alpha=0.9"), []string{"alpha is 0.9", "natural_weight"}},
		"igdm on nothing":  {to("igdm", "--teacher", teacher, "--set", "base=kd"), []string{`base is "kd"`, "adaad"}},
		"igdm on what":     {to("igdm", "--teacher", teacher, "--set", "base=magic"), []string{"base", `"magic"`, "trades"}},
		"begin":            {to("iad-1", "--teacher", teacher, "--set", "begin=-1"), []string{"begin is -1"}},
		"begins too late":  {to("iad-1", "--teacher", teacher, "--set", "begin=2"), []string{"begin is 2", "the run has 2 epochs"}},
		"awp too late":     {to("trades", "--set", "awp=0.01", "--set", "awp_warm_up=2"), []string{"awp_warm_up is 2", "2 epochs"}},
		"mode":             {to("score", "--set", "search.batch_norm=both"), []string{`"both"`, "frozen"}},
		"awp":              {to("trades", "--set", "awp=8"), []string{"awp is 8"}},
		"awp warm-up":      {to("trades", "--set", "awp=0.01", "--set", "awp_warm_up=-2"), []string{"awp_warm_up is -2"}},
		"validation eps":   {to("trades", "--set", "validation_epsilon=8"), []string{"8/255 meant"}},
		"no such recipes":  {[]string{"recipes", "adaad", "imagenet"}, []string{"adaad imagenet", "adaad recipes"}},
		"optimizer":        {adaadTo("--teacher", teacher, "--set", "optimizer=lion"), []string{"lion", "sgd"}},
		"nesterov":         {adaadTo("--teacher", teacher, "--set", "optimizer=adam", "--set", "nesterov=true"), []string{"nesterov", "adam"}},
		"schedule":         {adaadTo("--teacher", teacher, "--set", "schedule=random"), []string{"random", "cosine"}},
		"epochs":           {adaadTo("--teacher", teacher, "--set", "epochs=0"), []string{"epochs is 0"}},
		"no data":          {adaadTo("--teacher", teacher, "--data", "cifar10"), []string{"data_batch_1.bin", "--data-dir"}},
		"nothing to go on": {[]string{"train", "--resume", "--out", out}, []string{out, "no run"}},
		"used folder":      {tiny("pgd-at", teacher), []string{teacher, "resume"}},
		"evaluate none":    {[]string{"evaluate", "--model", filepath.Join(dir, "nobody")}, []string{"--model", "nobody"}},
		"evaluate attack":  {[]string{"evaluate", "--model", teacher, "--attacks", "clean,laser"}, []string{"--attacks", "laser", "fgsm"}},
		"evaluate grey":    {[]string{"evaluate", "--model", teacher, "--data", "mnist", "--data-dir", idx}, []string{"32x32x3", "28x28x1"}},
		"evaluate eps":     {[]string{"evaluate", "--model", teacher, "--eps", "8"}, []string{"8/255 meant"}},
		"evaluate until":   {[]string{"evaluate", "--model", teacher, "--until", "3"}, []string{`"3"`, "0.5%"}},
		"evaluate norm":    {[]string{"evaluate", "--model", teacher, "--norm", "l7"}, []string{"--norm", "linf", "l2"}},
		"evaluate cw-l2":   {[]string{"evaluate", "--model", teacher, "--attacks", "cw-l2"}, []string{"cw-l2", "Linf"}},
		"no surrogate":     {[]string{"evaluate", "--model", teacher, "--attacks", "transfer"}, []string{"transfer", "surrogate"}},
		"absent surrogate": {[]string{"evaluate", "--model", teacher, "--surrogate", page}, []string{"--surrogate", page}},
		"evaluate samples": {[]string{"evaluate", "--model", teacher, "--samples=-1"}, []string{"--samples is -1"}},
		"compare nothing":  {[]string{"compare", dir}, []string{dir, "run.json"}},
		"compare raw":      {[]string{"compare", teacher}, []string{"adaad evaluate --model " + teacher}},
		"sweep nothing":    {[]string{"sweep", "--out", out}, []string{"--recipe"}},
		"sweep what":       {[]string{"sweep", "--recipe", "adaad-cifar11", "--out", out}, []string{`"adaad-cifar11"`}},
		"sweep twice":      {small(out, "--seeds", "3,3"), []string{"--seeds", "twice"}},
		"sweep two sets":   {[]string{"sweep", "--recipe", "pgd-at-shapes-resnet8,pgd-at-mnist-small-cnn", "--out", out}, []string{"mnist", "one data set"}},
		"sweep no teacher": {small(out, "--teacher-recipe", "pgd-at-shapes"), []string{"--teacher-recipe", "no recipe"}},
		"sweep no ball":    {[]string{"sweep", "--recipe", "natural-shapes-resnet8", "--out", out}, []string{"--attack-eps"}},
		"sweep eps":        {small(out, "--eps", "8"), []string{"8/255 meant"}},
		"sweep attack eps": {small(out, "--attack-eps", "8"), []string{"8/255 meant"}},
		"sweep attack":     {small(out, "--attacks", "clean,laser"), []string{"--attacks", "laser"}},
		"sweep samples":    {small(out, "--samples=-1"), []string{"--samples is -1"}},
		"sweep setting":    {small(out, "--set", "adaad:temperature=0"), []string{"adaad-shapes-resnet8", "temperature is 0"}},
		"sweep method":     {small(out, "--set", "ard:temperature=1"), []string{"ard:temperature=1", `"ard"`}},
		"sweep untaught":   {[]string{"sweep", "--recipe", "adaad-shapes-resnet8", "--out", out}, []string{"adaad takes 1 teacher", "found 0"}},
		"sweep one of two": {small(out, "--once", "mtard-shapes-resnet8"), []string{"mtard takes 2 teachers", "found 1"}},
		"sweep needless":   {[]string{"sweep", "--recipe", "trades-shapes-resnet8", "--teacher", teacher, "--out", out}, []string{"1 teachers", "no recipe"}},
		"sweep classes":    {[]string{"sweep", "--recipe", "adaad-shapes-resnet8", "--teacher", seven, "--out", out}, []string{seven, "7 classes"}},
		"sweep pupils":     {small(out, "--teacher-recipe", "adaad-shapes-resnet8"), []string{"--teacher-recipe adaad-shapes-resnet8", "adaad takes 1"}},
		"sweep epochs":     {small(out, "--epochs", "0"), []string{"epochs is 0"}},
		"download where":   {[]string{"datasets", "--download", "cifar10"}, []string{"--data-dir"}},
		"download what":    {[]string{"datasets", "--download", "imagenet", "--data-dir", dir}, []string{"imagenet", "cifar10"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := adaad(t, t.Context(), c.args...)
			if ExitCode(err) != ExitUsage {
				t.Fatalf("exit code %d, expected %d (%v)", ExitCode(err), ExitUsage, err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error takes several lines: %v", err)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("something was written")
				os.RemoveAll(out)
			}
		})
	}
}

// small is the shortest sweep there is: a teacher and two methods with two seeds.
func small(out string, more ...string) []string {
	return append([]string{"sweep", "--recipe", "pgd-at-shapes-resnet8,adaad-shapes-resnet8", "--once", "natural-shapes-resnet8", "--seeds", "1,2",
		"--model", "resnet8-w4", "--train-samples", "64", "--batch-size", "32", "--epochs", "2",
		"--set", "validation_samples=20", "--set", "pgd-at:validation_steps=1", "--set", "adaad:validation_steps=1",
		"--teacher-recipe", "pgd-at-shapes-resnet8", "--teacher-set", "model=resnet8-w4", "--teacher-set", "train_samples=64", "--teacher-set", "epochs=2",
		"--attacks", "clean,pgd-2", "--samples", "20", "--out", out}, more...)
}

// A sweep that is stopped goes on with the same command, to the same models and measurements as one that was not.
func TestSweepGoesOn(t *testing.T) {
	dir := t.TempDir()
	whole, stopped := filepath.Join(dir, "whole"), filepath.Join(dir, "stopped")
	want, err := adaad(t, t.Context(), small(whole)...)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"teacher resnet8-w4 (pgd-at)", "pgd-at ", "adaad ", "natural ", "±", "seeds", "pgd-2 eps", "20 images of shapes test", "compute"} {
		if !strings.Contains(want, text) {
			t.Errorf("the table does not say %q:\n%s", text, want)
		}
	}
	runs := []string{"teacher-pgd-at-shapes-resnet8", "pgd-at-shapes-resnet8-seed1", "adaad-shapes-resnet8-seed1", "natural-shapes-resnet8-seed1",
		"pgd-at-shapes-resnet8-seed2", "adaad-shapes-resnet8-seed2"}
	for _, run := range runs[:3] { // stopped while each of these is trained
		_, err := adaad(t, cancelled(t, filepath.Join(stopped, run)), small(stopped)...)
		if ExitCode(err) != ExitInterrupted || !strings.Contains(err.Error(), "same command") {
			t.Fatalf("an interrupted sweep gives %v with exit code %d", err, ExitCode(err))
		}
	}
	if _, err := adaad(t, t.Context(), small(stopped)...); err != nil {
		t.Fatal(err)
	}
	for _, run := range runs {
		for _, name := range []string{"model.safetensors", "evaluation.jsonl"} {
			a, errA := os.ReadFile(filepath.Join(whole, run, name))
			b, errB := os.ReadFile(filepath.Join(stopped, run, name))
			if errA != nil || errB != nil || !bytes.Equal(a, b) {
				t.Errorf("%s/%s is not as without the stops (%v, %v)", run, name, errA, errB)
			}
		}
	}
	for _, name := range []string{"table.md", "table.csv", "results.json", "scatter.svg", "report.html", filepath.Join(runs[1], "report.html")} {
		if _, err := os.Stat(filepath.Join(whole, name)); err != nil {
			t.Error(err)
		}
	}
	before, err := os.ReadFile(filepath.Join(whole, runs[1], "log.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := adaad(t, t.Context(), small(whole)...)
	if after, _ := os.ReadFile(filepath.Join(whole, runs[1], "log.jsonl")); err != nil || again != want || !bytes.Equal(before, after) {
		t.Errorf("a finished sweep is done again (%v):\n%s", err, again)
	}
	// What is there must be what is asked for.
	for _, c := range []struct{ args, want []string }{
		{[]string{"--set", "pgd-at:lr=0.03"}, []string{runs[1], "settings.lr is 0.03", "started with 0.1"}},
		{[]string{"--teacher-set", "seed=4"}, []string{runs[0], "settings.seed is 4"}},
		{[]string{"--samples", "10"}, []string{"evaluation.jsonl", "images is 20"}},
	} {
		_, err := adaad(t, t.Context(), small(whole, c.args...)...)
		if ExitCode(err) != ExitUsage {
			t.Fatalf("%v gives %v with exit code %d", c.args, err, ExitCode(err))
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: the error does not say %q: %v", c.args, want, err)
			}
		}
	}
}

// With --equal-compute each student computes as much as the first; radii make a figure.
func TestSweepOverRadii(t *testing.T) {
	dir := t.TempDir()
	teacher, out := filepath.Join(dir, "teacher"), filepath.Join(dir, "out")
	if _, err := adaad(t, t.Context(), tiny("pgd-at", teacher)...); err != nil {
		t.Fatal(err)
	}
	text, err := adaad(t, t.Context(), "sweep", "--recipe", "adaad-shapes-resnet8,pgd-at-shapes-resnet8", "--eps", "8/255,16/255", "--equal-compute",
		"--model", "resnet8-w4", "--train-samples", "64", "--batch-size", "32", "--epochs", "2", "--set", "validation_samples=20", "--set", "validation_steps=1",
		"--teacher", teacher, "--attacks", "clean,pgd-2", "--samples", "20", "--out", out, "--json", "-")
	if err != nil {
		t.Fatal(err)
	}
	var lines []struct {
		Name    string
		Teacher bool
		Eps     string `json:"training_eps"`
		Epochs  int
		Compute int64 `json:"training_macs"`
		Runs    []string
	}
	if err := json.Unmarshal([]byte(text), &lines); err != nil || len(lines) != 5 || !lines[0].Teacher || lines[4].Eps != "16/255" {
		t.Fatalf("results are %s (%v)", text, err)
	}
	adaad, pgd := lines[1], lines[3]
	perEpoch := pgd.Compute / int64(pgd.Epochs)
	if apart := adaad.Compute - pgd.Compute; adaad.Compute == 0 || max(apart, -apart) > perEpoch/2 || pgd.Epochs <= adaad.Epochs {
		t.Errorf("adaad computes %d in %d epochs, pgd-at %d in %d", adaad.Compute, adaad.Epochs, pgd.Compute, pgd.Epochs)
	}
	for _, name := range []string{"radius.svg", "radius-clean.svg"} {
		if svg, err := os.ReadFile(filepath.Join(out, name)); err != nil || !bytes.Contains(svg, []byte("pgd-at")) {
			t.Errorf("%s is not drawn (%v)", name, err)
		}
	}
	settings, err := os.ReadFile(filepath.Join(out, "adaad-shapes-resnet8-eps16-seed0", "run.json"))
	if err != nil || !bytes.Contains(settings, []byte(`"validation_epsilon": "8/255"`)) || !bytes.Contains(settings, []byte(`"epsilon": "16/255"`)) {
		t.Errorf("the run at 16/255 has settings %s (%v)", settings, err)
	}
}

// writeMNIST writes ten grey images in MNIST's layout.
func writeMNIST(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	images := append([]byte{0, 0, 8, 3, 0, 0, 0, 10, 0, 0, 0, 28, 0, 0, 0, 28}, make([]byte, 10*28*28)...)
	labels := append([]byte{0, 0, 8, 1, 0, 0, 0, 10}, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	for _, split := range []string{"train", "t10k"} {
		for name, raw := range map[string][]byte{split + "-images-idx3-ubyte": images, split + "-labels-idx1-ubyte": labels} {
			if err := os.WriteFile(filepath.Join(dir, name), raw, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestLists(t *testing.T) {
	for command, want := range map[string]string{
		"models": "resnet20", "methods": "adaad", "recipes": "adaad-cifar10-resnet20", "datasets": "shapes", "attacks": "pgd-N",
	} {
		out, err := adaad(t, t.Context(), command)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("adaad %s does not list %s (%v):\n%s", command, want, err, out)
		}
		out, err = adaad(t, t.Context(), command, "--json", "-")
		var list []map[string]any
		if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) == 0 {
			t.Errorf("adaad %s --json - is no JSON list (%v):\n%s", command, err, out)
		}
	}
}

// The list of recipes fits a terminal, and words narrow it down.
func TestRecipesAreFiltered(t *testing.T) {
	names := func(words ...string) (names []string) {
		t.Helper()
		text, err := adaad(t, t.Context(), append([]string{"recipes", "--json", "-"}, words...)...)
		var list []struct{ Recipe string }
		if err == nil {
			err = json.Unmarshal([]byte(text), &list)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			names = append(names, p.Recipe)
		}
		return names
	}
	if got := names(); slices.ContainsFunc(got, func(n string) bool { return strings.Contains(n, "eps") }) || len(got) < 100 {
		t.Errorf("without words there are %d recipes: %v", len(got), got)
	}
	want := []string{"adaad-cifar10-resnet18-eps32", "adaad-cifar10-resnet18-eps32-code"}
	if got := names("AdaAD-cifar10-", "resnet18", "eps32"); !slices.Equal(got, want) {
		t.Errorf("the words find %v, want %v", got, want)
	}
	out, err := adaad(t, t.Context(), "recipes", "cifar")
	if err != nil || !strings.Contains(out, "85.58/51.37*") {
		t.Errorf("no published numbers (%v) in\n%s", err, out)
	}
	for line := range strings.Lines(out) {
		if len([]rune(strings.TrimSuffix(line, "\n"))) > 100 {
			t.Errorf("a line of %d characters: %s", len([]rune(line)), line)
		}
	}
}

func TestHelpNamesEveryCommand(t *testing.T) {
	out, err := adaad(t, t.Context(), "--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"demo", "train", "evaluate", "compare", "sweep", "bench", "models", "methods", "recipes", "datasets", "attacks"} {
		if !strings.Contains(out, "  "+command) {
			t.Errorf("help does not name %s", command)
		}
		help, err := adaad(t, t.Context(), command, "--help")
		if err != nil || !strings.Contains(help, "adaad "+command) || !strings.Contains(help, "Example") {
			t.Errorf("adaad %s --help shows no example (%v):\n%s", command, err, help)
		}
	}
}

func TestBench(t *testing.T) {
	out, err := adaad(t, t.Context(), "bench", "1x1", "160", "--time", "1ms")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1x1, 160 to 960 at 4x4", "forward", "input", "kernel", "GFLOP/s"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	for _, args := range [][]string{{"bench", "nosuch"}, {"bench", "--time", "0s"}} {
		if _, err := adaad(t, t.Context(), args...); ExitCode(err) != ExitUsage {
			t.Errorf("%v: %v, expected a usage error", args, err)
		}
	}
}
