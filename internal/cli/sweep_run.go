package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/recipe"
	"github.com/adaad-go/adaad/report"
	"github.com/adaad-go/adaad/train"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
)

// make trains and attacks one model, as far as that was not done before.
func (s *sweep) make(ctx context.Context, i int, m *swept) error {
	if !m.trained {
		s.announce(i, m, "training")
		err := s.train(ctx, m)
		if errors.Is(err, train.ErrDiverged) && m.teacher == 0 {
			// The others can still be compared.
			m.diverged = err
			fmt.Fprintf(s.g.env.Stderr, "%s: %v\n", m.path, err)
			return nil
		}
		if err != nil {
			return err
		}
	}
	if m.teacher > 0 && !m.given {
		model, err := weights.Load(m.path)
		if err != nil {
			return err
		}
		s.teachers[m.teacher-1] = model
	}
	if err := s.attack(ctx, i, m); err != nil {
		return err
	}
	return s.write()
}

// train starts a run, or goes on with it.
func (s *sweep) train(ctx context.Context, m *swept) error {
	job, err := recipe.Join(m.settings, s.images, s.teachersOf(m.settings))
	if err != nil {
		return err
	}
	options := recipe.Options{Dir: m.path, Reporter: train.NewReporter(s.g.env.Stderr, s.g.Quiet), Version: s.g.env.Version}
	switch _, err := train.ReadRecord(m.path); {
	case err == nil:
		options.Resume = train.Last
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	result, err := job.Run(ctx, s.backend, options)
	if err != nil {
		return err
	}
	m.trained, m.seconds = true, result.Seconds
	return nil
}

// evaluation is how a trained model is measured.
func (s *sweep) evaluation(m *swept) (e eval.Evaluation, err error) {
	model, err := weights.Load(m.path)
	if err != nil {
		return e, err
	}
	card, err := weights.LoadCard(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		card, err = &weights.Card{}, nil
	}
	if err != nil {
		return e, err
	}
	return eval.Evaluation{
		Model: model, Set: s.test, Epsilon: float64(s.AttackEps), Suites: s.suites, Seed: s.g.seed(),
		Selection: card.Selection, Ledger: m.ledger, Resume: true,
	}, nil
}

// attack measures a model, or reads what was measured.
func (s *sweep) attack(ctx context.Context, i int, m *swept) error {
	e, err := s.evaluation(m)
	if err != nil {
		return err
	}
	header, err := e.Header(s.backend)
	if err != nil {
		return err
	}
	if done, err := eval.Read(m.ledger); err == nil && done.Complete() {
		was := done.Header
		was.Versions = header.Versions // a finished measurement stays one when the program changes
		if reflect.DeepEqual(was, header) {
			m.result = done
			return s.page(ctx, m, e, false)
		}
	}
	s.announce(i, m, "attacking")
	progress, end := s.g.attackProgress()
	e.Progress = progress
	result, err := eval.Run(ctx, s.backend, e)
	end()
	if err != nil {
		return err
	}
	for _, w := range result.Warnings {
		fmt.Fprintf(s.g.env.Stderr, "%s: warning: %s\n", m.path, w)
	}
	m.result, m.attacked = result, result.Elapsed.Seconds()
	return s.page(ctx, m, e, true)
}

// page puts what was measured into the card of a run's model and makes the run's page, where there is none or what it shows
// has changed.
func (s *sweep) page(ctx context.Context, m *swept, e eval.Evaluation, changed bool) error {
	if _, err := os.Stat(filepath.Join(m.path, pageName)); m.given || err == nil && !changed {
		return nil
	}
	card, err := weights.LoadCard(m.path)
	if err != nil {
		return err
	}
	if err := record(m.path, card, m.result, 0); err != nil {
		return err
	}
	var teacher *classifier.Model
	if taught := s.teachersOf(m.settings); len(taught) > 0 {
		teacher = taught[0]
	}
	if err := showExamples(ctx, s.backend, e, teacher, m.path); err != nil {
		return err
	}
	_, err = writePage(m.path)
	return err
}

// announce says what comes next and how long the rest of the sweep takes.
func (s *sweep) announce(i int, m *swept, doing string) {
	if s.g.Quiet {
		return
	}
	left := ""
	if d := s.remaining(); d > 0 {
		left = ", about " + report.Duration(d) + " left in all"
	}
	fmt.Fprintf(s.g.env.Stderr, "\n%d/%d  %s %s%s\n", i+1, len(s.models), doing, m.path, left)
}

// remaining is how long the rest takes at the pace so far, by the multiply-adds of runs and of networks; 0 while nothing is
// known.
func (s *sweep) remaining() time.Duration {
	var training, attacking pace
	for _, m := range s.models {
		if !m.given && m.diverged == nil {
			training.add(float64(max(m.macs, 1)), m.seconds, m.trained)
		}
		if m.diverged == nil {
			attacking.add(float64(zoo.MACs(m.network)), m.attacked, m.result != nil)
		}
	}
	return time.Duration((training.left() + attacking.left()) * float64(time.Second))
}

// pace is how fast work was done.
type pace struct{ work, seconds, todo float64 }

func (p *pace) add(work, seconds float64, done bool) {
	switch {
	case !done:
		p.todo += work
	case seconds > 0:
		p.work, p.seconds = p.work+work, p.seconds+seconds
	}
}

// left are the seconds that the rest takes, 0 while nothing is known.
func (p *pace) left() float64 {
	if p.work == 0 {
		return 0
	}
	return p.todo * p.seconds / p.work
}
