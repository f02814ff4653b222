package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/classifier"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/recipe"
	"github.com/adaad-go/adaad/threat"
	"github.com/adaad-go/adaad/train"
	"github.com/adaad-go/adaad/weights"
	"github.com/adaad-go/adaad/zoo"
	"github.com/gomlx/compute"
)

type sweepCmd struct {
	Recipe []string        `help:"Recipes to train, with commas between; see adaad recipes." placeholder:"NAMES" required:""`
	Once   []string        `help:"More recipes, trained with the first seed only." placeholder:"NAMES"`
	Eps    []recipe.Radius `help:"Training radii, such as 8/255,16/255; by default each recipe's own." placeholder:"RADII"`
	Seeds  []uint64        `help:"Training seeds; by default --seed." placeholder:"NUMBERS"`

	changes
	EqualCompute bool     `help:"Give every student the multiply-adds that the first recipe takes; the others' epochs follow."`
	Set          []string `help:"Change any other setting of the students, or of those of one method." placeholder:"[METHOD:]KEY=VALUE" sep:"none"`

	Teacher       []string `help:"Model file or run folder to learn from; again for a second one." placeholder:"FILE"`
	TeacherRecipe []string `help:"Train a teacher by this recipe first; again for a second one." placeholder:"NAME"`
	TeacherSet    []string `help:"Change a setting of the teachers that are trained, such as epochs=8." placeholder:"KEY=VALUE" sep:"none"`

	Attacks   string        `help:"Attacks on every model, with commas between; see adaad attacks." default:"clean,fgsm,pgd-20" placeholder:"NAMES"`
	AttackEps recipe.Radius `help:"Radius of the attacks; by default that of the recipes." default:"0" placeholder:"R"`
	Samples   int           `help:"Test on a class-balanced subset of so many images; 0 takes all." placeholder:"N"`

	DataDir string `help:"Folder the data set is in." placeholder:"DIR" env:"ADAAD_DATA_DIR"`
	Out     string `help:"Folder for the runs, the table and the figures; made if it is not there." placeholder:"DIR" required:""`
}

func (sweepCmd) Help() string {
	return `Trains recipes x radii x seeds, attacks every model, and writes table.md, table.csv, results.json,
figures and report.html.
However it is stopped, the same command goes on with it. Each run is an ordinary run folder in --out.
Methods take as many of the teachers as they need, the robust one first. --seed is that of the teachers trained
here, of the choice of test images and of the attacks.

Examples:
  adaad sweep --recipe adaad-mnist-small-cnn,pgd-at-mnist-small-cnn --model small-cnn-w8 --seeds 1,2,3 \
      --teacher-recipe pgd-at-mnist-small-cnn --data-dir data --attacks clean,pgd-40 --out runs/mnist
  adaad sweep --recipe adaad-cifar10-resnet8,rslad-cifar10-resnet8 --eps 8/255,16/255,24/255,32/255 \
      --teacher runs/teacher --data-dir data --samples 1000 --out runs/radius`
}

// Run makes what is not there yet.
func (c *sweepCmd) Run(ctx context.Context, g *globals) error {
	s, err := c.plan(g)
	if err != nil {
		return usage(err)
	}
	if s.backend, err = g.open(); err != nil {
		return err
	}
	defer s.backend.Finalize()
	if err := s.measure(); err != nil {
		return err
	}
	if err := s.goesOn(); err != nil {
		return usage(err)
	}
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return err
	}
	for i, m := range s.models {
		err := s.make(ctx, i, m)
		var refused *train.Refused
		switch {
		case errors.As(err, &refused):
			return usage(err)
		case errors.Is(err, context.Canceled):
			return fmt.Errorf("%w; the same command goes on with the sweep", err)
		case err != nil:
			return err
		}
	}
	return s.show()
}

// sweep is a sweep under way.
type sweep struct {
	*sweepCmd
	g        *globals
	backend  compute.Backend
	images   *data.Set // all training images
	test     *data.Set
	suites   []attack.Suite
	teachers []*classifier.Model // those still to be trained have their initial weights
	models   []*swept            // teachers first
}

// swept is one model of a sweep.
type swept struct {
	line
	path     string          // run folder or model file
	given    bool            // it is not trained here
	settings recipe.Settings // of its training
	network  classifier.Network
	ledger   string
	macs     int64 // multiply-adds of its training; 0 where that is not known

	trained  bool
	seconds  float64      // of training, over all stops; 0 where that is not known
	diverged error        // why it could not be trained
	attacked float64      // seconds of the attack in this process
	result   *eval.Result // nil until it was attacked
}

// line tells the lines of the table apart; models of one line differ by their seeds.
type line struct {
	name    string        // of the method, or the recipe where methods do not tell
	epsilon recipe.Radius // of the training, where the sweep has several
	teacher int           // counted from 1; 0 is a student
}

// plan reads the flags, opens what they name and checks that it fits together. It writes nothing.
func (c *sweepCmd) plan(g *globals) (*sweep, error) {
	s := &sweep{sweepCmd: c, g: g}
	if c.Samples < 0 {
		return nil, fmt.Errorf("--samples is %d, expected 0 (all) or more", c.Samples)
	}
	if len(c.Seeds) == 0 {
		c.Seeds = []uint64{g.seed()}
	}
	presets, err := c.presets()
	if err != nil {
		return nil, err
	}
	if s.suites, err = attack.Parse(c.Attacks, threat.Model{Epsilon: float64(c.AttackEps)}, nil); err != nil {
		return nil, fmt.Errorf("--attacks: %w", err)
	}
	if s.images, err = data.Open(presets[0].Data, c.DataDir, data.Train, data.Options{}); err != nil {
		return nil, explainData(err, c.DataDir)
	}
	if s.test, err = data.Open(presets[0].Data, c.DataDir, data.Test, data.Options{}); err != nil {
		return nil, explainData(err, c.DataDir)
	}
	s.test = s.test.Subset(c.Samples, g.seed())
	if err := s.addTeachers(); err != nil {
		return nil, err
	}
	return s, s.addStudents(presets)
}

// presets finds the recipes, and the radius of the attacks where it is not given: that at which they are judged, the same
// for all recipes of a data set.
func (c *sweepCmd) presets() (all []recipe.Preset, err error) {
	for _, list := range []struct {
		flag  string
		given int
		apart int
	}{{"--eps", len(c.Eps), distinct(c.Eps)}, {"--seeds", len(c.Seeds), distinct(c.Seeds)}, {"--recipe", len(c.Recipe) + len(c.Once), distinct(slices.Concat(c.Recipe, c.Once))}} {
		if list.apart < list.given {
			return nil, fmt.Errorf("%s names something twice", list.flag)
		}
	}
	for _, name := range slices.Concat(c.Recipe, c.Once) {
		p, err := recipe.Find(name)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
		if p.Data != all[0].Data {
			return nil, fmt.Errorf("recipe %s is for %s, but %s is for %s; a sweep has one data set", name, p.Data, all[0].Recipe, all[0].Data)
		}
		if c.AttackEps == 0 {
			c.AttackEps = p.AttackedAt()
		}
	}
	if c.AttackEps == 0 {
		return nil, errors.New("no recipe has a radius; say with --attack-eps at which to attack, such as 8/255")
	}
	return all, nil
}

func distinct[T comparable](all []T) int {
	seen := map[T]bool{}
	for _, v := range all {
		seen[v] = true
	}
	return len(seen)
}

// addTeachers opens the teachers that are given and plans those that are trained.
func (s *sweep) addTeachers() error {
	for i, path := range s.Teacher {
		model, err := weights.Load(path)
		if err != nil {
			return fmt.Errorf("--teacher: %w", err)
		}
		s.teachers = append(s.teachers, model)
		m := &swept{line: line{name: "teacher " + model.Name(), teacher: i + 1}, path: path, given: true, trained: true, network: model.Network,
			ledger: filepath.Join(s.Out, fmt.Sprintf("teacher-%d.jsonl", i+1))}
		if record, err := train.ReadRecord(path); err == nil {
			m.seconds = record.Seconds
		}
		s.models = append(s.models, m)
	}
	for _, name := range s.TeacherRecipe {
		p, err := recipe.Find(name)
		if err != nil {
			return fmt.Errorf("--teacher-recipe: %w", err)
		}
		if p.Data != s.images.Name {
			return fmt.Errorf("--teacher-recipe %s is for %s, but the students are trained on %s", name, p.Data, s.images.Name)
		}
		p.Seed = s.g.seed()
		if err := set(&p.Settings, "--teacher-set", s.TeacherSet); err != nil {
			return err
		}
		job, err := recipe.Join(p.Settings, s.images, nil)
		if err != nil {
			return fmt.Errorf("--teacher-recipe %s: %w", name, err)
		}
		s.teachers = append(s.teachers, job.Student)
		s.add(&swept{line: line{name: fmt.Sprintf("teacher %s (%s)", p.Model, p.Method), teacher: len(s.teachers)},
			path: filepath.Join(s.Out, "teacher-"+name), settings: p.Settings, network: job.Student.Network})
	}
	if len(s.TeacherSet) > 0 && len(s.TeacherRecipe) == 0 {
		return errors.New("--teacher-set is given, but no --teacher-recipe that it changes")
	}
	return nil
}

func (s *sweep) add(m *swept) {
	m.ledger = filepath.Join(m.path, ledgerName)
	s.models = append(s.models, m)
}

// addStudents plans the students: every recipe with the first seed, then with the next.
func (s *sweep) addStudents(presets []recipe.Preset) error {
	var methods []string
	for _, p := range presets {
		methods = append(methods, p.Method)
	}
	taken := 0
	for i, seed := range s.Seeds {
		for k, p := range presets {
			if k >= len(s.Recipe) && i > 0 {
				continue
			}
			radii := s.Eps
			if len(radii) == 0 || p.Search.Steps == 0 {
				radii = []recipe.Radius{0}
			}
			for _, eps := range radii {
				settings, err := s.student(p, eps, seed, methods)
				if err != nil {
					return err
				}
				taken = max(taken, len(settings.Teachers))
				net, err := zoo.New(settings.Model, len(s.images.Classes), [3]int{s.images.Height, s.images.Width, s.images.Channels})
				if err != nil {
					return err
				}
				m := &swept{line: line{name: p.Method, epsilon: eps}, settings: settings, network: net}
				if distinct(methods) < len(methods) {
					m.name = p.Recipe
				}
				folder := p.Recipe
				if eps > 0 {
					folder += "-eps" + strings.TrimSuffix(threat.Format(float64(eps)), "/255")
				}
				m.path = filepath.Join(s.Out, fmt.Sprintf("%s-seed%d", folder, seed))
				s.add(m)
				if i > 0 {
					continue // but for the seed it is as the first
				}
				if _, err := recipe.Join(settings, s.images, s.teachersOf(settings)); err != nil {
					return fmt.Errorf("recipe %s: %w", p.Recipe, err)
				}
			}
		}
	}
	if len(s.teachers) > taken {
		return fmt.Errorf("there are %d teachers, but no recipe takes more than %d", len(s.teachers), taken)
	}
	return nil
}

// student are the settings of one run.
func (s *sweep) student(p recipe.Preset, eps recipe.Radius, seed uint64, methods []string) (recipe.Settings, error) {
	own := p.Settings
	own.Seed = seed
	s.changes.apply(&own)
	if eps > 0 {
		own.SetEpsilon(eps)
		own.ValidationEpsilon = s.AttackEps // as the papers do: however far it searches, it is judged at one radius
	}
	for _, change := range s.Set {
		key, _, _ := strings.Cut(change, "=")
		if method, _, found := strings.Cut(key, ":"); found {
			if !slices.Contains(methods, method) {
				return own, fmt.Errorf("--set %s: no recipe here has the method %q", change, method)
			}
			if method != p.Method {
				continue
			}
			change = strings.TrimPrefix(change, method+":")
		}
		if err := set(&own, "--set", []string{change}); err != nil {
			return own, err
		}
	}
	takes, err := own.TeacherCount()
	if err != nil {
		return own, err
	}
	for _, m := range s.models {
		if m.teacher > 0 && m.teacher <= takes {
			own.Teachers = append(own.Teachers, m.path)
		}
	}
	return own, nil
}

// teachersOf are the models that a run learns from.
func (s *sweep) teachersOf(settings recipe.Settings) []*classifier.Model {
	return slices.Clip(s.teachers[:len(settings.Teachers)])
}

// measure counts what every run computes, and with --equal-compute sets their epochs.
func (s *sweep) measure() error {
	if _, counts := s.backend.(interface{ MACs() int64 }); !counts {
		if s.EqualCompute {
			return usage(fmt.Errorf("--equal-compute needs a backend that counts multiply-adds, such as vec; --backend is %s", s.g.Backend))
		}
		return nil
	}
	type known struct {
		cost   recipe.Compute
		images int
	}
	measured := map[line]known{} // neither radius nor seed changes it
	var budget int64
	for _, m := range s.models {
		if m.given {
			continue
		}
		of := m.line
		of.epsilon = 0
		c, done := measured[of]
		if !done {
			job, err := recipe.Join(m.settings, s.images, s.teachersOf(m.settings))
			if err != nil {
				return err
			}
			if c.cost, err = job.Compute(s.backend); err != nil {
				return fmt.Errorf("%s: %w", m.settings.Recipe, err)
			}
			c.images = job.Train.Len()
			measured[of] = c
		}
		switch {
		case !s.EqualCompute || m.teacher > 0:
		case budget == 0:
			budget = m.settings.MACs(c.cost, c.images)
		default:
			m.settings.Spend(budget, c.cost, c.images)
		}
		m.macs = m.settings.MACs(c.cost, c.images)
	}
	return nil
}

// goesOn checks that what is in --out already is part of this sweep.
func (s *sweep) goesOn() error {
	for _, m := range s.models {
		if !m.given {
			record, err := train.ReadRecord(m.path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = record.SettingsDiffer(m.settings)
			}
			if err != nil {
				return fmt.Errorf("%s cannot go on: %w", m.path, err)
			}
			m.trained, m.seconds = record.Complete, record.Seconds
		}
		was, err := eval.Read(m.ledger)
		if err != nil || !m.trained {
			continue // there is none, or only the beginning of one
		}
		e, err := s.evaluation(m)
		if err != nil {
			return err
		}
		now, err := e.Header(s.backend)
		if err == nil {
			err = sameConditions(was, &eval.Result{Header: now})
		}
		if err != nil {
			return fmt.Errorf("%s was measured otherwise: %w; remove it to attack this model anew", m.ledger, err)
		}
	}
	return nil
}
