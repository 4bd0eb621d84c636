// Package resp is the codec of the Redis protocol, RESP2 and RESP3: it finds
// where requests and replies begin and end, and writes them. It builds no tree:
// the bytes of a request or a reply are forwarded as they came, and only the
// arguments that somebody asks for are looked at.
//
// A request is an array of bulk strings, or a line of words (inline):
//
//	*2 CR LF  $3 CR LF  GET CR LF  $5 CR LF  key:1 CR LF
//	GET key:1 LF
//
// [ScanRequest] finds one in a buffer and gives its arguments as [Span]s into
// it; [RequestSkimmer] follows one that is too large to be kept. Both accept
// and refuse exactly what Redis's processMultibulkBuffer and
// processInlineBuffer do, within [Limits], and refuse it in Redis's words: a
// [ProtocolError].
//
// A reply is a value of one of these forms, n in decimal. Where n may be -1 the
// value is null, where it may be ? the value is streamed:
//
//	+text    simple string     $n|-1|?   n bytes CR LF       (? chunks ;n … ;0)
//	-text    error             !n =n     n bytes CR LF
//	:text    integer           *n|-1|?   n values            (? values … .)
//	,text    double            ~n|?      n values: a set     (? values … .)
//	(text    big number        >n        n values: a push
//	#text    boolean           %n|?      n pairs of values   (? values … .)
//	_        null              |n        n pairs of values, then the value that
//	                                     they are attributes of
//
// [ScanReply] finds the end of one in a buffer; [ReplyScanner] follows one of
// any size in bounded memory. A push is a value on its own.
//
// The Append functions write requests and replies. Nothing here does I/O,
// starts goroutines or keeps a buffer. Functions may be called by any
// goroutine, a RequestSkimmer or ReplyScanner by one at a time.
package resp
