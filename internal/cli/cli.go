// Package cli is the command line: one file per command, each an options struct with a Run method. Commands return
// errors; only main turns them into exit codes.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/adaad-go/adaad/weights"
	"github.com/alecthomas/kong"
	"github.com/gomlx/compute"
)

// Exit codes.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitInterrupted = 130
)

// Env is what a command needs of the world.
type Env struct {
	Stdout, Stderr io.Writer
	// Backends names the backends built in; the first is the default.
	Backends []string
	// Open makes the backend of a name; threads 0 takes every core. Batches are shared out among so many of its devices.
	Open func(name string, threads, devices int) (compute.Backend, error)
	// Version of the program, for run.json.
	Version string
}

// usageError is a mistake in what the user asked for: exit code 2, nothing written.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usage marks an error as the user's to mend.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// ExitCode is the exit code an error asks for.
func ExitCode(err error) int {
	var u usageError
	switch {
	case err == nil:
		return ExitDone
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	case errors.As(err, &u):
		return ExitUsage
	}
	return ExitFailed
}

// globals are the flags of every command.
type globals struct {
	Seed    *uint64 `help:"Seed of every random draw (0, or that of the run)." placeholder:"N"`
	Backend string  `help:"Where to compute: ${backends}." default:"${backend}" placeholder:"NAME"`
	Threads int     `help:"Threads to compute with; 0 takes every core." default:"0"`
	Devices int     `help:"Devices of the backend, such as GPUs, among which each batch is shared out." default:"1"`
	Quiet   bool    `short:"q" help:"No progress, results only."`
	JSON    string  `name:"json" help:"Write the result as JSON to this file too; - is standard output." placeholder:"FILE"`

	env Env
}

// open makes the backend that was asked for.
func (g *globals) open() (compute.Backend, error) {
	b, err := g.env.Open(g.Backend, g.Threads, g.Devices)
	if err != nil {
		return nil, usage(fmt.Errorf("--backend %s: %w", g.Backend, err))
	}
	return b, nil
}

// writeText writes to the file --json names.
func (g *globals) writeText(text []byte) error {
	if g.JSON == "-" {
		_, err := g.env.Stdout.Write(text)
		return err
	}
	return weights.WriteFile(g.JSON, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}

// seed is the seed of draws that no run's settings decide.
func (g *globals) seed() uint64 {
	if g.Seed == nil {
		return 0
	}
	return *g.Seed
}

// explainData says how to get a data set whose files are not there, if nobody said where they are.
func explainData(err error, dir string) error {
	if !errors.Is(err, fs.ErrNotExist) || dir != "" {
		return err
	}
	return fmt.Errorf("%w; name its folder with --data-dir DIR, or get it with: adaad datasets --download NAME --data-dir DIR", err)
}

type commands struct {
	globals

	Demo     demoCmd     `cmd:"" help:"Teacher, students, attacks and a table, with no data, no network and no flags."`
	Train    trainCmd    `cmd:"" help:"Train a model by a recipe or a method."`
	Evaluate evaluateCmd `cmd:"" help:"Attack a model and report what holds."`
	Inspect  inspectCmd  `cmd:"" help:"Say what a file of weights is, and whether it is sound."`
	Import   importCmd   `cmd:"" help:"Make a model of a PyTorch or safetensors file."`
	Export   exportCmd   `cmd:"" help:"Write a model for other programs."`
	Compare  compareCmd  `cmd:"" help:"Put runs side by side."`
	Sweep    sweepCmd    `cmd:"" help:"Train methods over radii and seeds, attack them all, and make the table."`
	Bench    benchCmd    `cmd:"" help:"Measure this machine: kernels, training steps, attacks."`
	Models   modelsCmd   `cmd:"" help:"List the networks."`
	Methods  methodsCmd  `cmd:"" help:"List the training methods."`
	Recipes  recipesCmd  `cmd:"" help:"List the recipes."`
	Datasets datasetsCmd `cmd:"" help:"List the data sets, or download one."`
	Attacks  attacksCmd  `cmd:"" help:"List the attacks."`
}

// Run parses the arguments and runs the command they name.
func Run(ctx context.Context, args []string, env Env) error {
	var c commands
	exited := false
	parser, err := kong.New(&c,
		kong.Name("adaad"),
		kong.Description("Make small image classifiers robust by distilling a robust teacher into them, and measure it honestly."),
		kong.UsageOnError(),
		kong.Writers(env.Stdout, env.Stderr),
		kong.Exit(func(int) { exited = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Vars{"backends": strings.Join(env.Backends, ", "), "backend": env.Backends[0]},
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if exited {
		return nil
	}
	if err != nil {
		return usage(err)
	}
	c.env = env
	return parsed.Run(&c.globals)
}
