// Package scripts tests the shell scripts beside it.
package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// machine is a tree of folders that looks like a machine with JAX's CUDA plugin.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T) machine {
	t.Helper()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("there is no bash")
	}
	m := machine{t, t.TempDir()}
	m.write("site/jax_plugins/xla_cuda13/xla_cuda_plugin.so", "")
	m.write("site/nvidia/cu13/lib/libcublas.so.13", "")
	m.write("site/nvidia/cudnn/lib/libcudnn.so.9", "")
	m.write("cuda/bin/ptxas", "#!/bin/sh\n")
	m.write("bin/python3", "#!/bin/sh\ncat >/dev/null\necho "+m.path("site/jax_plugins/xla_cuda13")+"\n")
	m.write("bin/nvidia-smi", "#!/bin/sh\n")
	// The program says what it was given, and fails its first product where the machine says so.
	m.write("adaad-xla", "#!/bin/sh\nif [ \"$1\" = bench ] && [ -n \"$BROKEN\" ]; then echo no libcudnn; exit 1; fi\n"+
		"echo \"args $*\"\nenv | grep -E '^(PJRT|LD_LIB|CUDA|XLA|GOMLX)'\nls -l \"$PJRT_PLUGIN_LIBRARY_PATH\"\n")
	return m
}

func (m machine) path(name string) string { return filepath.Join(m.root, name) }

func (m machine) write(name, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), []byte(text), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

// gpu runs the script on the machine.
func (m machine) gpu(set []string, args ...string) (string, error) {
	cmd := exec.Command("bash", append([]string{"gpu.sh"}, args...)...)
	cmd.Env = append([]string{"PATH=" + m.path("bin") + ":/usr/bin:/bin", "HOME=" + m.root, "CUDA_HOME=" + m.path("cuda"), "ADAAD=" + m.path("adaad-xla")}, set...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m machine) wants(out string, parts ...string) {
	m.t.Helper()
	for _, part := range parts {
		if !strings.Contains(out, part) {
			m.t.Errorf("gpu.sh does not say %q:\n%s", part, out)
		}
	}
}

func TestDryRun(t *testing.T) {
	m := newMachine(t)
	out, err := m.gpu([]string{"LD_LIBRARY_PATH=/driver"}, "--dry-run", "train", "--out", "a run")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	state := m.path(".cache/adaad/gpu")
	m.wants(out,
		"link "+state+"/lib/plugins/pjrt_c_api_cuda_plugin.so -> "+m.path("site/jax_plugins/xla_cuda13/xla_cuda_plugin.so"),
		"link "+state+"/lib/nvidia -> "+m.path("site/nvidia"),
		"set PJRT_PLUGIN_LIBRARY_PATH="+state+"/lib/plugins\n",
		"set LD_LIBRARY_PATH="+m.path("site/nvidia/cu13/lib")+":"+m.path("site/nvidia/cudnn/lib")+":/driver\n",
		"set CUDA_HOME="+m.path("cuda")+"\n",
		"set XLA_FLAGS=--xla_gpu_cuda_data_dir="+m.path("cuda")+" --xla_gpu_per_fusion_autotune_cache_dir="+state+"/autotune\n",
		"set GOMLX_NO_AUTO_INSTALL=1\n",
		"run "+m.path("adaad-xla")+` train --out a\ run --backend xla:cuda`+"\n",
	)
	if _, err := os.Stat(state); err == nil {
		t.Error("a dry run made a folder")
	}
	out, err = m.gpu([]string{"XLA_FLAGS=--xla_dump_to=/x", "ADAAD_XLA_CACHE=0"}, "--dry-run", "bench", "--backend", "xla:cpu")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.wants(out, "set XLA_FLAGS=--xla_dump_to=/x --xla_gpu_cuda_data_dir="+m.path("cuda")+"\n", "bench --backend xla:cpu\n")
}

// The command runs with the plugin under the name that is looked for, after a product that shows that all goes together.
func TestRun(t *testing.T) {
	m := newMachine(t)
	for range 2 { // the second time the links are there
		out, err := m.gpu(nil, "train", "--out", "x")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		m.wants(out, "args train --out x --backend xla:cuda\n", "GOMLX_NO_AUTO_INSTALL=1", "pjrt_c_api_cuda_plugin.so -> "+m.path("site/jax_plugins"))
	}
	out, err := m.gpu([]string{"BROKEN=1"}, "train")
	if err == nil {
		t.Error("the command ran although the check failed")
	}
	said, _ := os.ReadFile(m.path(".cache/adaad/gpu/check.txt"))
	m.wants(out+string(said), "check.txt", "no libcudnn")
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	for _, c := range []struct {
		name, remove string
		set          []string
		want         string
	}{
		{"plugin", "site/jax_plugins/xla_cuda13/xla_cuda_plugin.so", nil, "expected xla_cuda_plugin.so"},
		{"ptxas", "cuda", nil, "set CUDA_HOME"},
		{"python", "", []string{"PYTHON=no-such-python"}, "there is no no-such-python"},
		{"GPU", "bin/nvidia-smi", nil, "no NVIDIA GPU"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if devices, _ := filepath.Glob("/dev/nvidia*"); c.name == "GPU" && len(devices) > 0 {
				t.Skip("there is a GPU")
			}
			if _, err := os.Stat("/usr/local/cuda/bin/ptxas"); c.name == "ptxas" && err == nil {
				t.Skip("CUDA is installed")
			}
			m := newMachine(t)
			if c.remove != "" {
				if err := os.RemoveAll(m.path(c.remove)); err != nil {
					t.Fatal(err)
				}
			}
			out, err := m.gpu(c.set, "train")
			if err == nil {
				t.Errorf("gpu.sh ran:\n%s", out)
			}
			m.wants(out, c.want)
		})
	}
	m := newMachine(t)
	m.write("bin/python3", "#!/bin/sh\ncat >/dev/null\n")
	out, _ := m.gpu(nil, "train")
	m.wants(out, "has no JAX with a CUDA plugin")
	out, _ = m.gpu(nil)
	m.wants(out, "what to run is missing")
}
