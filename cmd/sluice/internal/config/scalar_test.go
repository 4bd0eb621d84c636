package config

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"pgregory.net/rapid"
)

func TestParseSizeIsRedisConfs(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "12": 12, "12b": 12, "64mb": 67108864, "64m": 64000000, "1M": 1000000, "1GB": 1 << 30,
		"1g": 1e9, "3k": 3000, "3Kb": 3072, "9223372036854775807": math.MaxInt64,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "b", "mb", "-1", "-1mb", "+1", "1.5mb", "1 mb", "1tb", "1mib", "0x10", "1_000", "9223372036854775808", "9007199254740992kb"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}

func TestSizeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom([]int64{1, 1000, 1 << 10, 1 << 20, 1 << 30}).Draw(t, "unit")
		s := Size(unit * rapid.Int64Range(0, 1<<30).Draw(t, "n"))
		if got, err := ParseSize(s.String()); err != nil || got != s {
			t.Fatalf("%d prints as %s, which parses as %d, %v", int64(s), s, got, err)
		}
	})
}

func TestSecretIsNeverPrinted(t *testing.T) {
	const text = "hunter2"
	c := Default()
	c.Upstream.Password = text
	outputs := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s", "%t"} {
		outputs["secret "+verb] = fmt.Sprintf(verb, c.Upstream.Password)
		outputs["config "+verb] = fmt.Sprintf(verb, c)
		outputs["pointer "+verb] = fmt.Sprintf(verb, &c.Upstream)
	}
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	y, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&log), zap.InfoLevel)
	zap.New(core).Info("m", zap.Any("config", c), zap.Any("s", c.Upstream.Password), zap.Stringer("p", c.Upstream.Password))
	outputs["json"], outputs["yaml"], outputs["zap"] = string(j), string(y), log.String()
	for how, out := range outputs {
		if strings.Contains(out, text) || strings.Contains(strings.ToLower(out), fmt.Sprintf("%x", text)) {
			t.Errorf("%s shows the secret: %s", how, out)
		}
	}
	for _, how := range []string{"json", "yaml", "zap", "secret %v", "config %+v", "secret %q"} {
		if !strings.Contains(outputs[how], redacted) {
			t.Errorf("%s does not say %s: %s", how, redacted, outputs[how])
		}
	}
	if got := fmt.Sprint(Secret("")); got != "" {
		t.Errorf("an empty secret prints as %q", got)
	}
}
