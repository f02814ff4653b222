package golden

import (
	"os"
	"os/exec"
	"testing"
)

// Python finds a Python that has the module. The test is skipped without one, and fails where ADAAD_REQUIRE_TORCH is set.
func Python(t testing.TB, module string) string {
	t.Helper()
	tried := []string{os.Getenv("ADAAD_PYTHON"), "python3", "/usr/bin/python3"}
	for _, name := range tried {
		if name != "" && exec.Command(name, "-c", "import "+module).Run() == nil {
			return name
		}
	}
	if os.Getenv("ADAAD_REQUIRE_TORCH") != "" {
		t.Fatalf("ADAAD_REQUIRE_TORCH is set, but none of %q has the module %s", tried, module)
	}
	t.Skipf("no python3 with the module %s; name one with ADAAD_PYTHON (Debian: apt install python3-torch)", module)
	return ""
}
