package eventloop

// Chunk is a piece of a connection's output. It stays valid until the bytes
// in it have been written and, on a retaining connection, released.
type Chunk struct {
	buf  []byte
	sent int // bytes of buf that were written
	next *Chunk
	end  uint64 // stream position after buf's last byte
}

// Bytes returns n bytes at off of the chunk.
func (k *Chunk) Bytes(off, n int) []byte { return k.buf[off : off+n] }

// Sizes of output chunks, in bytes.
const (
	smallChunk = 16 << 10
	largeChunk = 64 << 10
)

// queue is the output of a connection: a list of chunks. Positions count the
// bytes of the connection's life. Chunks before next are written and kept only
// where the connection retains its output.
type queue struct {
	head, next, tail *Chunk
	appended         uint64 // position after the last byte appended
	written          uint64 // position after the last byte written
}

func (q *queue) pending() int { return int(q.appended - q.written) }

// room makes sure that the tail has n bytes of room and returns it.
func (l *Loop) room(q *queue, n int) *Chunk {
	if t := q.tail; t != nil && cap(t.buf)-len(t.buf) >= n {
		return t
	}
	size := smallChunk
	if n > smallChunk || q.pending() >= smallChunk {
		size = max(n, largeChunk)
	}
	k := l.chunk(size)
	k.end = q.appended
	if q.tail == nil {
		q.head = k
	} else {
		q.tail.next = k
	}
	if q.next == nil {
		q.next = k
	}
	q.tail = k
	return k
}

// append adds p in one piece and returns where it lies.
func (l *Loop) append(q *queue, p []byte) (*Chunk, int) {
	k := l.room(q, len(p))
	off := len(k.buf)
	k.buf = append(k.buf, p...)
	k.end += uint64(len(p))
	q.appended += uint64(len(p))
	return k, off
}

// advance records that n bytes were written.
func (q *queue) advance(n int) {
	q.written += uint64(n)
	for k := q.next; k != nil; k = q.next {
		step := min(n, len(k.buf)-k.sent)
		k.sent += step
		n -= step
		if k.sent < len(k.buf) {
			return
		}
		if k.next == nil {
			// The tail can still grow; it remains next until then.
			return
		}
		q.next = k.next
	}
}

// release frees the chunks that end at or before pos and are written.
func (l *Loop) release(q *queue, pos uint64) {
	for k := q.head; k != nil && k.end <= pos && k.sent == len(k.buf); k = q.head {
		q.head = k.next
		if q.next == k {
			q.next = k.next
		}
		if q.tail == k {
			q.tail = nil
		}
		l.freeChunk(k)
	}
}

func (l *Loop) chunk(size int) *Chunk {
	k := l.chunks
	if k == nil {
		k = new(Chunk)
	} else {
		l.chunks = k.next
		l.nchunks--
	}
	*k = Chunk{buf: l.pool.get(size)}
	return k
}

func (l *Loop) freeChunk(k *Chunk) {
	l.pool.put(k.buf)
	*k = Chunk{}
	if l.nchunks < maxFreeChunks {
		k.next, l.chunks = l.chunks, k
		l.nchunks++
	}
}

// maxFreeChunks bounds the list of unused Chunk structs of a loop.
const maxFreeChunks = 4096
