package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
)

func TestPretrained(t *testing.T) {
	dir := t.TempDir()
	if _, err := adaad(t, t.Context(), "models", "--pretrained", "--dir", filepath.Join(dir, "none")); ExitCode(err) != ExitUsage {
		t.Errorf("a folder that is not there: %v", err)
	}
	out, err := adaad(t, t.Context(), "models", "--pretrained", "--dir", dir, "--json", "-")
	if err != nil || strings.TrimSpace(out) != "[]" {
		t.Errorf("an empty folder: %q, %v", out, err)
	}
	net, err := zoo.New("resnet8-w4", 10, [3]int{8, 8, 3})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "best.safetensors")
	card := weights.Card{Data: "shapes", Method: "adaad", Accuracies: []weights.Measured{
		{Attack: "clean", Images: 100, Of: "test", Accuracy: 0.5}, {Attack: "autoattack", Norm: "Linf", Epsilon: "8/255", Images: 100, Of: "test", Accuracy: 0.25},
		{Attack: "pgd-10", Norm: "Linf", Epsilon: "8/255", Images: 50, Of: "held-out training images", Accuracy: 0.75},
	}}
	if err := weights.Save(file, zoo.Init(net, 1), card); err != nil {
		t.Fatal(err)
	}
	out, err = adaad(t, t.Context(), "models", "--pretrained", "--dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"best.safetensors", "resnet8-w4", "adaad clean 50.00 100", "autoattack Linf 8/255 25.00 100"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("the list does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "75.00") {
		t.Errorf("the list has an accuracy of training images:\n%s", out)
	}
	out, err = adaad(t, t.Context(), "models", "--pretrained", "--dir", dir, "--json", "-")
	var list []released
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 || list[0].Card.Method != "adaad" || list[0].Bytes == 0 {
		t.Errorf("as JSON: %v\n%s", err, out)
	}
	// Weights without a card are not released.
	if err := os.Remove(filepath.Join(dir, "best.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := adaad(t, t.Context(), "models", "--pretrained", "--dir", dir); err == nil || !strings.Contains(err.Error(), "best") {
		t.Errorf("without a card: %v", err)
	}
}
