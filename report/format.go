package report

import (
	"fmt"
	"math"
	"time"
)

// Percent writes a share as papers do: 0.5423 is "54.23".
func Percent(share float64) string { return fmt.Sprintf("%.2f", 100*share) }

// Count writes a number of things with three digits and a unit: 272474 is "272k", 11173962 is "11.2M".
func Count(n int64) string {
	v, units := float64(n), []string{"", "k", "M", "G", "T", "P", "E"}
	for math.Abs(v) >= 999.5 { // what three digits would write as 1000
		v, units = v/1000, units[1:]
	}
	if units[0] == "" {
		return fmt.Sprint(n)
	}
	digits := 0
	for a := math.Abs(v); digits < 2 && a*math.Pow10(digits) < 99.95; {
		digits++
	}
	return fmt.Sprintf("%.*f%s", digits, v, units[0])
}

// Duration writes a time with two units at most: "85µs", "1.32ms", "340ms", "12.3s", "3m05s", "1h02m", "2d04h".
func Duration(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign, d = "-", -d
	}
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case d > 0 && d < 999500*time.Nanosecond:
		return fmt.Sprintf("%s%dµs", sign, d.Round(time.Microsecond)/time.Microsecond)
	case d > 0 && d < 9995*time.Microsecond:
		return fmt.Sprintf("%s%.2fms", sign, d.Seconds()*1000)
	case d < 999500*time.Microsecond:
		return fmt.Sprintf("%s%dms", sign, d.Round(time.Millisecond)/time.Millisecond)
	case d < 59950*time.Millisecond:
		return fmt.Sprintf("%s%.1fs", sign, d.Seconds())
	case s < 3600:
		return fmt.Sprintf("%s%dm%02ds", sign, s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%s%dh%02dm", sign, s/3600, s/60%60)
	default:
		return fmt.Sprintf("%s%dd%02dh", sign, s/(24*3600), s/3600%24)
	}
}
