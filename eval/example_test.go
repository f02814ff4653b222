package eval_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"

	"github.com/adaad-go/adaad/attack"
	"github.com/adaad-go/adaad/data"
	"github.com/adaad-go/adaad/eval"
	"github.com/adaad-go/adaad/threat"
)

const height, width, channels, classes = 8, 8, 1, 2

// remote is a model behind HTTP: images go there as JSON, logits come back. It has no gradients.
type remote struct{ url string }

func (*remote) Input() (int, int, int) { return height, width, channels }
func (*remote) Classes() int           { return classes }

func (r *remote) Logits(ctx context.Context, images []float32) ([]float32, error) {
	body, err := json.Marshal(images)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var logits []float32
	return logits, json.NewDecoder(response.Body).Decode(&logits)
}

// serve answers images with how much brighter their left half is than their right, and the opposite.
func serve(w http.ResponseWriter, request *http.Request) {
	var images []float32
	if err := json.NewDecoder(request.Body).Decode(&images); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var logits []float32
	for image := range slices.Chunk(images, height*width) {
		var brighter float32
		for i, v := range image {
			if i%width < width/2 {
				brighter += v
			} else {
				brighter -= v
			}
		}
		logits = append(logits, brighter, -brighter)
	}
	_ = json.NewEncoder(w).Encode(logits) // the client sees a failure
}

// A model behind HTTP is attacked with Square, which asks for nothing but logits.
func Example() {
	server := httptest.NewServer(http.HandlerFunc(serve))
	defer server.Close()

	// Images whose halves differ more and more.
	set := &data.Set{Name: "halves", Height: height, Width: width, Channels: channels, Classes: []string{"left", "right"}}
	for i := range 40 {
		for p := range height * width {
			v := 128 - i/2
			if (p%width < width/2) == (i%2 == 0) {
				v = 128 + i/2
			}
			set.Pixels = append(set.Pixels, uint8(v))
		}
		set.Labels, set.Index = append(set.Labels, i%2), append(set.Index, i)
	}

	const eps = 8. / 255
	square := attack.NewSquare(threat.Linf, eps)
	square.Queries = 200
	result, err := eval.Run(context.Background(), nil, eval.Evaluation{
		Other: &eval.Other{Classifier: &remote{server.URL}, Label: "halves over HTTP"}, Set: set, Epsilon: eps,
		Suites: []attack.Suite{{Name: "square", Attacks: []attack.Attack{square}}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, a := range result.Accuracies() {
		low, high := a.Wilson()
		fmt.Printf("%s: %d of %d right, between %.0f%% and %.0f%%\n", a.Name, a.Hits, a.Total, 100*low, 100*high)
	}
	// Output:
	// clean: 39 of 40 right, between 87% and 100%
	// square: 23 of 40 right, between 42% and 71%
}
