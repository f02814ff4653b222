package recipe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/adaad-go/adaad/train"
)

// ReadSettings reads the settings of a run: of a run folder, or of a file like its run.json. A setting that is not known is
// refused.
func ReadSettings(path string) (s Settings, err error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, train.RunFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	var record struct {
		Settings json.RawMessage `json:"settings"`
	}
	if err = json.Unmarshal(text, &record); err == nil {
		d := json.NewDecoder(bytes.NewReader(record.Settings))
		d.DisallowUnknownFields()
		err = d.Decode(&s)
	}
	if err != nil {
		return s, fmt.Errorf("%s: the settings cannot be read, expected those of a run.json: %w", path, err)
	}
	return s, nil
}

// Set changes one setting by its name in run.json, such as "lr" or "search.epsilon", to a value written as there, quotes
// around words left out: "0.05", "16/255", "[50,75]".
func (s *Settings) Set(key, value string) error {
	tree := map[string]any{}
	at := tree
	path := strings.Split(key, ".")
	for _, name := range path[:len(path)-1] {
		inner := map[string]any{}
		at[name] = inner
		at = inner
	}
	last := path[len(path)-1]
	for _, v := range []any{json.RawMessage(value), value} { // as JSON, else as a word
		at[last] = v
		text, err := json.Marshal(tree)
		if err != nil {
			continue
		}
		changed := *s
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err = d.Decode(&changed); err == nil {
			*s = changed
			return nil
		}
		if strings.Contains(err.Error(), "unknown field") {
			return fmt.Errorf("there is no setting %q; run.json of any run names them all", key)
		}
	}
	return fmt.Errorf("setting %s cannot be %q", key, value)
}

// SetEpsilon changes the radius of the search and keeps the step in proportion, as the papers do: 8/255 with steps of
// 2/255 becomes 16/255 with steps of 4/255.
func (s *Settings) SetEpsilon(eps Radius) {
	if s.Search.Epsilon > 0 {
		s.Search.StepSize *= eps / s.Search.Epsilon
		if n := math.Round(float64(s.Search.StepSize) * 255); math.Abs(n/255-float64(s.Search.StepSize)) < 1e-12 {
			s.Search.StepSize = Radius(n / 255)
		}
	}
	s.Search.Epsilon = eps
}

// SetEpochs changes the length of the run and keeps what is counted in its epochs in proportion, as milestones are: a method
// that begins at epoch 60 of 200 begins at 3 of 10.
func (s *Settings) SetEpochs(n int) {
	if s.Epochs > 0 {
		for _, at := range []*int{&s.Begin, &s.AWPWarmUp, &s.Search.Ramp} {
			*at = *at * n / s.Epochs
		}
		s.WarmUp *= float64(n) / float64(s.Epochs)
	}
	s.Epochs = n
}
