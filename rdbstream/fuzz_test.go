package rdbstream_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/rdbstream"
)

// A Scanner and a Writer agree on any bytes, and neither panics. The corpus
// ends without a checksum, so that the fuzzer gets past it.
func FuzzScan(f *testing.F) {
	for _, magic := range []string{"REDIS0013", "VALKEY080"} {
		p, _ := everything(magic)
		for _, v := range values {
			f.Add(v.put(newFile(magic).key(v.t, "k")).unchecked(), 1)
		}
		f.Add(p[:1200], 13)
	}
	f.Add(small(), 5)
	f.Fuzz(func(t *testing.T, p []byte, size int) {
		if size < 1 || size > 1<<20 {
			size = 3
		}
		want, wantInfo, scanErr := scan(p)
		got, info, pushErr := push(p, size)
		if (scanErr == nil) != (pushErr == nil) || scanErr != nil && scanErr.Error() != pushErr.Error() {
			t.Fatalf("the Scanner says %v, the Writer %v", scanErr, pushErr)
		}
		if scanErr != nil {
			var e *rdbstream.Error
			if !errors.As(scanErr, &e) || e.Offset < 0 || e.Offset > int64(len(p)) {
				t.Fatalf("%#v", scanErr)
			}
			return
		}
		if !reflect.DeepEqual(want, got) || !reflect.DeepEqual(wantInfo, info) { // cmp.Diff is slow
			t.Fatalf("(-Scanner +Writer):\n%s%s", cmp.Diff(want, got), cmp.Diff(wantInfo, info))
		}
		sum := int64(0)
		for _, r := range got {
			if r.Rec.Payload != int64(len(r.Payload)) || r.Rec.Size < r.Rec.Payload {
				t.Fatalf("%d bytes of payload, not %+v", len(r.Payload), r.Rec)
			}
			sum += r.Rec.Size
		}
		if want := int64(len(p)) - 9 - 1 - 8; sum != want {
			t.Fatalf("the records have %d bytes, the file %d", sum, want)
		}
	})
}
