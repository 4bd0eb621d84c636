package proxy

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// rateLog logs at most one line each second of what clients can cause at will,
// and says with the next how many were left out. The metrics count them all.
// Any goroutine may use it.
type rateLog struct {
	log *zap.Logger

	mu      sync.Mutex
	last    time.Time
	leftOut int
}

func (l *rateLog) warn(msg string, fields ...zap.Field) {
	l.mu.Lock()
	now := time.Now()
	if now.Sub(l.last) < time.Second {
		l.leftOut++
		l.mu.Unlock()
		return
	}
	if l.leftOut > 0 {
		fields = append(fields, zap.Int("not_logged_before", l.leftOut))
	}
	l.last, l.leftOut = now, 0
	l.mu.Unlock()
	l.log.Warn(msg, fields...)
}
