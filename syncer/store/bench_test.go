package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// BenchmarkAppend appends and commits as the link does, in pieces of what one
// read of a socket gives; "split" commits at the end of what was appended,
// "middle" 100 bytes before.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{256, 16 << 10, 256 << 10} {
		for _, mode := range []string{"split", "middle"} {
			b.Run(fmt.Sprintf("%s/%d", mode, size), func(b *testing.B) {
				s := mustOpenDir(b, b.TempDir(), OSFS{}, Options{RetainLogBytes: 256 << 20})
				begin(b, s, idA, 0)
				addBase(b, s, idA, 0, 1)
				p := stream(0, repl.Offset(size))
				off, back := repl.Offset(0), repl.Offset(0)
				if mode == "middle" {
					back = 100
				}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					must(b, s.Append(p))
					off += repl.Offset(size)
					must(b, s.Commit(Mark{Offset: off - back, Time: time.Now()}))
				}
				b.StopTimer()
				must(b, s.Close())
			})
		}
	}
}
