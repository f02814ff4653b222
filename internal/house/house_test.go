// Package house holds the rules of the house: who may import whom. Imports point from policy to mathematics.
package house

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/adaad-go/adaad/"

// allowed lists, for each package, the packages of this module it may import. What is not listed may import nothing here.
var allowed = map[string][]string{
	"classifier":  {},
	"threat":      {},
	"distill":     {"classifier", "threat"},
	"attack":      {"classifier", "threat", "internal/rng", "internal/share"},
	"data":        {"internal/rng"},
	"zoo":         {"classifier", "internal/closest", "internal/rng"},
	"weights":     {"classifier", "zoo", "weights/onnx", "internal/closest", "internal/pickle"},
	"train":       {"classifier", "threat", "data", "weights", "internal/rng", "internal/share"},
	"eval":        {"attack", "classifier", "distill", "threat", "data", "internal/rng", "internal/share"},
	"report":      {},
	"recipe":      {"attack", "classifier", "data", "distill", "eval", "report", "threat", "train", "weights", "zoo", "internal/closest", "internal/rng"},
	"backend/vec": {"internal/kern", "backend/vec/internal/conv", "backend/vec/internal/pages"},

	"weights/onnx":              {"classifier", "zoo"},
	"backend/vec/internal/conv": {"internal/kern", "backend/vec/internal/pages"},
	"internal/golden":           {"classifier", "weights"},
	"internal/cli": {"attack", "classifier", "data", "distill", "eval", "recipe", "report", "threat", "train", "weights", "weights/onnx", "zoo",
		"internal/rng", "internal/speed"},
	"internal/speed":   {"attack", "classifier", "distill", "threat", "train", "zoo", "internal/rng"},
	"cmd/adaad":        {"internal/cli", "backend/mesh", "backend/vec"},
	"bench":            {"backend/vec", "classifier", "report", "weights", "weights/onnx", "zoo", "internal/speed"},
	"bench/autoattack": {"attack", "backend/vec", "classifier", "data", "eval", "threat", "weights"},
}

// backends may be imported by cmd and by a backend that builds on another, nowhere else.
var backends = []string{
	module + "backend/",
	"github.com/gomlx/compute/gobackend",
	"github.com/gomlx/go-xla/",
	"github.com/gomlx/gomlx/backends/",
}

func TestImportsPointFromPolicyToMathematics(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		from := strings.TrimPrefix(pkg.ImportPath, module)
		for _, path := range pkg.Imports {
			if to, ours := strings.CutPrefix(path, module); ours && !slices.Contains(allowed[from], to) {
				t.Errorf("%s imports %s, which the house does not allow", from, to)
			}
			backend := slices.ContainsFunc(backends, func(b string) bool { return strings.HasPrefix(path, b) })
			if backend && !strings.HasPrefix(from, "cmd/") && !strings.HasPrefix(from, "backend/") && from != "bench" && !strings.HasPrefix(from, "bench/") {
				t.Errorf("%s imports the backend %s; only cmd and bench may", from, path)
			}
		}
	}
	if seen == 0 {
		t.Fatal("go list named no package")
	}
}
