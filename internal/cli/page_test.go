package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/weights"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A run's page grows with what is known of the run, and every file it is made of may lie.
func TestPages(t *testing.T) {
	dir := t.TempDir()
	teacher, student := filepath.Join(dir, "teacher"), filepath.Join(dir, "student")
	if _, err := adaad(t, t.Context(), tiny("pgd-at", teacher)...); err != nil {
		t.Fatal(err)
	}
	if _, err := adaad(t, t.Context(), tiny("adaad", student, "--teacher", teacher)...); err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(student, pageName)
	has := func(when string, wants map[string]bool) {
		t.Helper()
		text := read(t, page)
		for want, there := range wants {
			if strings.Contains(text, want) != there {
				t.Errorf("%s: that the page has %q should be %t", when, want, there)
			}
		}
	}
	has("trained", map[string]bool{"Not evaluated yet": true, "Training loss": true, "held-out training images": true, "search.epsilon": true,
		"adaad-shapes-resnet8": true, "Images under attack": false})

	out, err := adaad(t, t.Context(), "evaluate", "--model", student, "--samples", "20", "--attacks", "clean,pgd-1")
	if err != nil || !strings.Contains(out, page) {
		t.Errorf("evaluate names no page (%v):\n%s", err, out)
	}
	has("evaluated", map[string]bool{"Not evaluated yet": false, "pgd-1 eps 8/255": true, "Accuracy in each class": true, "20 images of shapes test": true,
		"Images under attack": true, "teacher resnet8-w4": true, "student resnet8-w4": true, "data:image/png;base64,": true, "matches its teacher": false})

	gap := filepath.Join(dir, "gap.json")
	out, err = adaad(t, t.Context(), "evaluate", "--model", student, "--samples", "6", "--match-gap", "--json", gap)
	if err != nil || !strings.Contains(out, "KL(T||S), mean") {
		t.Errorf("--match-gap says (%v)\n%s", err, out)
	}
	var measured eval.Gap
	if err := json.Unmarshal([]byte(read(t, gap)), &measured); err != nil || measured.Images != 6 || len(measured.PerImage) != 6 || measured.Divergence.Worst.Mean <= 0 {
		t.Errorf("--match-gap wrote %+v (%v)", measured, err)
	}
	if out, err = adaad(t, t.Context(), "evaluate", "--model", student, "--samples", "6", "--match-gap"); err != nil || !strings.Contains(out, page) {
		t.Errorf("--match-gap names no page (%v):\n%s", err, out)
	}
	has("measured beside its teacher", map[string]bool{"matches its teacher": true, "KL(T||S), 95th percentile": true, "pgd-1 eps 8/255": true})
	if _, err := adaad(t, t.Context(), "train", "--resume", "--out", student); err != nil {
		t.Fatal(err)
	}
	has("resumed", map[string]bool{"matches its teacher": true, "pgd-1 eps 8/255": true, "Images under attack": true})

	if _, err := adaad(t, t.Context(), "evaluate", "--model", teacher, "--samples", "20", "--attacks", "clean,pgd-1"); err != nil {
		t.Fatal(err)
	}
	page = filepath.Join(dir, "comparison.html")
	if _, err := adaad(t, t.Context(), "compare", teacher, student, "--page", page); err != nil {
		t.Fatal(err)
	}
	has("compared", map[string]bool{"Clean and robust accuracy": true, "Worst classes": true, "Held-out training images under attack": true,
		"Images under attack": true, `href="teacher/report.html"`: true, `href="student/report.html"`: true})

	// What was measured of other weights is not shown.
	other := filepath.Join(dir, "other")
	if err := os.CopyFS(other, os.DirFS(student)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{weights.Name, "model.json"} {
		if err := os.WriteFile(filepath.Join(other, name), []byte(read(t, filepath.Join(teacher, name))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	page = filepath.Join(other, pageName)
	if _, err := writePage(other); err != nil {
		t.Fatal(err)
	}
	has("other weights", map[string]bool{"Not evaluated yet": true, "matches its teacher": false, "Images under attack": false})

	// Nor does a page run what its files say.
	const script = `<script>alert(1)</script>`
	evil, err := json.Marshal(script)
	if err != nil {
		t.Fatal(err)
	}
	for file, changes := range map[string][]string{
		"model.json": {`"adaad"`, `"shapes"`, `"Linf"`},
		"run.json":   {`"adaad"`, `"shapes"`, `"sgd"`, `"choice": "`},
		"log.jsonl":  {`"pgd-1 eps 8/255"`},
		ledgerName:   {`"shapes"`, `"disc"`, `"Linf"`},
		gapName:      {`"shapes"`, `"Linf"`, `"resnet8-w4"`},
		examplesName: {`"shapes test"`, `"disc"`, `"student resnet8-w4"`},
	} {
		path := filepath.Join(student, file)
		text := read(t, path)
		for _, old := range changes {
			if strings.HasSuffix(old, ": \"") {
				text = strings.ReplaceAll(text, old, old+strings.Trim(string(evil), `"`))
			} else {
				text = strings.ReplaceAll(text, old, string(evil))
			}
		}
		if !strings.Contains(text, strings.Trim(string(evil), `"`)) {
			t.Errorf("%s has none of %q to change", file, changes)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	page = filepath.Join(student, pageName)
	if _, err := writePage(student); err != nil {
		t.Fatal(err)
	}
	has("hostile", map[string]bool{"<script": false, "&lt;script&gt;alert(1)&lt;/script&gt;": true, "matches its teacher": true, "Images under attack": true})
	if n := len(read(t, page)); n > 500_000 {
		t.Errorf("the page has %d bytes", n)
	}
	if err := os.WriteFile(filepath.Join(student, gapName), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := writePage(student); err == nil || !strings.Contains(err.Error(), gapName) {
		t.Errorf("a file that is cut off gives %v", err)
	}
}

func TestMatchGapMistakes(t *testing.T) {
	dir := t.TempDir()
	teacher := filepath.Join(dir, "teacher")
	if _, err := adaad(t, t.Context(), tiny("pgd-at", teacher)...); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no teacher":     {nil, "--match-gap needs --teacher FILE"},
		"absent teacher": {[]string{"--teacher", filepath.Join(dir, "nobody")}, "--teacher: there is no model file or run folder"},
		"resume":         {[]string{"--teacher", teacher, "--resume"}, "neither --resume nor --until"},
		"until":          {[]string{"--teacher", teacher, "--until", "1%"}, "neither --resume nor --until"},
		"255ths":         {[]string{"--teacher", teacher, "--eps", "8"}, "8/255 meant"},
	} {
		_, err := adaad(t, t.Context(), append([]string{"evaluate", "--model", teacher, "--samples", "4", "--match-gap"}, c.args...)...)
		if ExitCode(err) != ExitUsage || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(teacher, gapName)); err == nil {
		t.Error("mistakes wrote a match gap")
	}
	// A model beside itself.
	out, err := adaad(t, t.Context(), "evaluate", "--model", teacher, "--teacher", teacher, "--samples", "4", "--match-gap", "--json", "-")
	var gap eval.Gap
	if err != nil || json.Unmarshal([]byte(out), &gap) != nil || gap.Divergence != (eval.Divergences{}) || gap.Probabilities.Worst.Ratio != 1 {
		t.Errorf("a model beside itself gives %+v (%v)", gap.Divergence, err)
	}
}
