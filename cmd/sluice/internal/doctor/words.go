package doctor

import (
	"fmt"
	"math"
	"time"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// size words a number of bytes: "512 B", "1.5 MiB".
func size(bytes float64) string {
	switch {
	case bytes < kib:
		return fmt.Sprintf("%.0f B", bytes)
	case bytes < mib:
		return fmt.Sprintf("%.1f KiB", bytes/kib)
	case bytes < gib:
		return fmt.Sprintf("%.1f MiB", bytes/mib)
	}
	return fmt.Sprintf("%.1f GiB", bytes/gib)
}

// setting words a number of bytes for redis.conf, rounded up to the next power
// of two of at least one MiB: "64mb".
func setting(bytes float64) string {
	n := math.Max(1, math.Pow(2, math.Ceil(math.Log2(bytes/mib))))
	if n >= 1024 {
		return fmt.Sprintf("%.0fgb", n/1024)
	}
	return fmt.Sprintf("%.0fmb", n)
}

// seconds words a time: "25 ms", "0.3 s", "42 s", "1h5m0s".
func seconds(s float64) string {
	switch {
	case s > 0 && s < 0.1:
		return fmt.Sprintf("%.0f ms", 1000*s)
	case s < 10:
		return fmt.Sprintf("%.1f s", s)
	case s < 120:
		return fmt.Sprintf("%.0f s", s)
	case s > 1e6:
		return "weeks"
	}
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}
