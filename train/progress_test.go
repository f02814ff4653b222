package train

import (
	"os"
	"strings"
	"testing"
	"time"
)

func story(r Reporter) {
	r.Begin(Plan{Dir: "runs/a", Epochs: 2, Batches: 4, BatchSize: 8})
	for b := 1; b <= 4; b++ {
		r.Step(Status{Epoch: 1, Epochs: 2, Batch: b, Batches: 4, Loss: 2.5, ImagesPerSecond: 40, Elapsed: time.Duration(b) * 6 * time.Second,
			Remaining: 90 * time.Second})
	}
	r.Validating(1)
	r.Epoch(Line{Epoch: 1, Loss: 2.25, Score: &Score{Clean: 0.5, Robust: 0.25, Images: 100, Attack: "pgd-10 eps 8/255"}, Best: true, ImagesPerSecond: 40, Seconds: 63})
	r.Note("a remark")
	r.Epoch(Line{Epoch: 2, Loss: 2, ImagesPerSecond: 40, Seconds: 120})
	r.End()
}

func TestLines(t *testing.T) {
	var w strings.Builder
	story(&Lines{W: &w, Every: 10 * time.Second})
	want := `training in runs/a: 2 epochs of 4 batches of 8 images
epoch 1/2 batch 2/4  loss 2.5000  40 images/s  1m30s left
epoch 1/2 batch 4/4  loss 2.5000  40 images/s  1m30s left
epoch 1/2  loss 2.2500  held-out (100) clean 50.00%, pgd-10 eps 8/255 25.00%  (best)  40 images/s  1m3s
a remark
epoch 2/2  loss 2.0000  40 images/s  2m0s
`
	if w.String() != want {
		t.Errorf("got\n%s\nwant\n%s", w.String(), want)
	}
	w.Reset()
	(&Lines{W: &w}).Begin(Plan{Dir: "runs/a", Epochs: 2, Batches: 4, Step: 3})
	if want := "going on in runs/a after step 3 of 8\n"; w.String() != want {
		t.Errorf("got %q, want %q", w.String(), want)
	}
}

func TestBar(t *testing.T) {
	var w strings.Builder
	story(&Bar{W: &w, Every: 10 * time.Second})
	want := "training in runs/a: 2 epochs of 4 batches of 8 images\n" +
		"\repoch 1/2 [======                  ]  25%  loss 2.5000  40 images/s  1m30s left\x1b[K" +
		"\repoch 1/2 [==================      ]  75%  loss 2.5000  40 images/s  1m30s left\x1b[K" +
		"\repoch 1/2 [========================] 100%  loss 2.5000  40 images/s  1m30s left\x1b[K" +
		"\repoch 1/2 validating\x1b[K" +
		"\r\x1b[Kepoch 1/2  loss 2.2500  held-out (100) clean 50.00%, pgd-10 eps 8/255 25.00%  (best)  40 images/s  1m3s\n" +
		"a remark\n" +
		"epoch 2/2  loss 2.0000  40 images/s  2m0s\n"
	if w.String() != want {
		t.Errorf("got\n%q\nwant\n%q", w.String(), want)
	}
}

func TestReporterFitsTheOutput(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, ok := NewReporter(null, false).(*Lines); !ok {
		t.Error("a file that is no terminal is not reported to in lines")
	}
	if _, ok := NewReporter(null, true).(silent); !ok {
		t.Error("quiet is not")
	}
}
