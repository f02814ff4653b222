// Command adaad makes small image classifiers robust: it distils a robust teacher into a small student, attacks what
// came out and reports it. Run it without arguments for help.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/adaad-go/adaad/backend/mesh"
	_ "github.com/adaad-go/adaad/backend/vec"
	"github.com/adaad-go/adaad/internal/cli"
	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute/gobackend"
)

// backends are the names --backend takes, the default first; a build tag may add more.
var backends = []string{"vec", "go"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	err := cli.Run(ctx, os.Args[1:], cli.Env{
		Stdout: os.Stdout, Stderr: os.Stderr, Backends: backends, Open: open, Version: version(),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "adaad:", err)
	}
	os.Exit(cli.ExitCode(err))
}

// open makes a backend from a name such as "go" or "xla:cuda". Threads bounds the whole process, not the backend alone;
// several devices share batches out.
func open(name string, threads, devices int) (compute.Backend, error) {
	if threads < 0 {
		return nil, fmt.Errorf("--threads is %d, expected 0 (every core) or more", threads)
	}
	if threads > 0 {
		runtime.GOMAXPROCS(threads)
	}
	kind, _, _ := strings.Cut(name, ":")
	for _, known := range backends {
		if known, _, _ = strings.Cut(known, ":"); known == kind {
			if name == "go" {
				name = "go:ops_sequential" // side by side, its convolution gradients can wait for each other forever
			}
			b, err := compute.NewWithConfig(name)
			if err != nil || devices == 1 {
				return b, err
			}
			several, err := mesh.New(b, devices)
			if err != nil {
				b.Finalize()
				return nil, err
			}
			return several, nil
		}
	}
	return nil, fmt.Errorf("this build has the backends %s (xla needs go build -tags xla)", strings.Join(backends, ", "))
}

// version is the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && info.Main.Version == "(devel)" {
			return "(devel) " + s.Value
		}
	}
	return info.Main.Version
}
