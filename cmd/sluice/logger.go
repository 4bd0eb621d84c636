package main

import (
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/sluice-io/sluice/cmd/sluice/internal/config"
)

// Of the same message within a second the first logFirst are logged, then every
// logThereafter-th: ten thousand clients that fail alike must not drown the rest.
const (
	logFirst      = 100
	logThereafter = 100
)

// newLogger logs to w as a valid configuration says; level changes what is
// logged while it runs.
func newLogger(c config.Log, w io.Writer) (log *zap.Logger, level zap.AtomicLevel, err error) {
	if level, err = zap.ParseAtomicLevel(c.Level); err != nil {
		return nil, level, usageError{err}
	}
	ec := zap.NewProductionEncoderConfig()
	ec.TimeKey, ec.EncodeTime = "time", zapcore.RFC3339NanoTimeEncoder
	ec.EncodeDuration = zapcore.StringDurationEncoder
	enc := zapcore.NewJSONEncoder(ec)
	if c.Format == config.FormatConsole {
		ec.EncodeTime = zapcore.TimeEncoderOfLayout("2006-01-02 15:04:05.000")
		ec.EncodeLevel = zapcore.CapitalLevelEncoder
		enc = zapcore.NewConsoleEncoder(ec)
	}
	core := zapcore.NewCore(enc, zapcore.Lock(zapcore.AddSync(w)), level)
	return zap.New(zapcore.NewSamplerWithOptions(core, time.Second, logFirst, logThereafter)), level, nil
}
