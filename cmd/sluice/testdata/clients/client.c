/* What an application does with hiredis. Usage: client HOST PORT */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static redisContext *dial(const char *host, int port) {
	struct timeval patience = {20, 0};
	redisContext *c = redisConnectWithTimeout(host, port, patience);
	if (c == NULL || c->err) {
		fprintf(stderr, "connect: %s\n", c ? c->errstr : "no memory");
		exit(1);
	}
	redisSetTimeout(c, patience);
	return c;
}

static void check(redisContext *c, redisReply *r, int type, const char *str, long long n, const char *what) {
	if (r == NULL) {
		fprintf(stderr, "%s: %s\n", what, c->errstr);
		exit(1);
	}
	if (r->type != type || (str && (r->str == NULL || strncmp(r->str, str, strlen(str)))) ||
	    (type == REDIS_REPLY_INTEGER && r->integer != n) || (type == REDIS_REPLY_ARRAY && (long long)r->elements != n)) {
		fprintf(stderr, "%s: got type %d, %s, %lld, %zu elements\n", what, r->type, r->str ? r->str : "", r->integer, r->elements);
		exit(1);
	}
	freeReplyObject(r);
}

#define DO(type, str, n, ...) check(c, redisCommand(c, __VA_ARGS__), type, str, n, #__VA_ARGS__)

int main(int argc, char **argv) {
	char want[16];
	void *r;
	int i;
	redisContext *c = dial(argv[1], atoi(argv[2])), *sub = dial(argv[1], atoi(argv[2]));
	for (i = 0; i < 200; i++) { /* a read sees the write before it */
		snprintf(want, sizeof want, "%d", i);
		DO(REDIS_REPLY_STATUS, "OK", 0, "SET c:k %d", i);
		DO(REDIS_REPLY_STRING, want, 0, "GET c:k");
	}
	for (i = 0; i < 1000; i++) { /* a pipeline */
		redisAppendCommand(c, "SET c:%d %d", i, i);
		redisAppendCommand(c, "GET c:%d", i);
	}
	for (i = 0; i < 1000; i++) {
		snprintf(want, sizeof want, "%d", i);
		redisGetReply(c, &r);
		check(c, r, REDIS_REPLY_STATUS, "OK", 0, "pipelined SET");
		redisGetReply(c, &r);
		check(c, r, REDIS_REPLY_STRING, want, 0, "pipelined GET");
	}
	DO(REDIS_REPLY_STATUS, "OK", 0, "SET c:bin %b", "a\0b\r\nc", (size_t)6);
	DO(REDIS_REPLY_INTEGER, NULL, 6, "STRLEN c:bin");
	DO(REDIS_REPLY_STATUS, "OK", 0, "MULTI");
	DO(REDIS_REPLY_STATUS, "QUEUED", 0, "INCR c:n");
	DO(REDIS_REPLY_STATUS, "QUEUED", 0, "INCR c:n");
	DO(REDIS_REPLY_ARRAY, NULL, 2, "EXEC");
	DO(REDIS_REPLY_STATUS, "OK", 0, "WATCH c:n");
	check(sub, redisCommand(sub, "INCR c:n"), REDIS_REPLY_INTEGER, NULL, 3, "INCR from elsewhere");
	DO(REDIS_REPLY_STATUS, "OK", 0, "MULTI");
	DO(REDIS_REPLY_STATUS, "QUEUED", 0, "INCR c:n");
	DO(REDIS_REPLY_NIL, NULL, 0, "EXEC");
	DO(REDIS_REPLY_INTEGER, NULL, 1, "RPUSH c:q x");
	DO(REDIS_REPLY_ARRAY, NULL, 2, "BLPOP c:q 5");
	DO(REDIS_REPLY_ERROR, "WRONGTYPE", 0, "LPUSH c:k x");
	DO(REDIS_REPLY_ERROR, "ERR unknown command", 0, "NOSUCH");
	DO(REDIS_REPLY_STATUS, "OK", 0, "SELECT 5");
	DO(REDIS_REPLY_NIL, NULL, 0, "GET c:k");
	check(sub, redisCommand(sub, "SUBSCRIBE c:ch"), REDIS_REPLY_ARRAY, NULL, 3, "SUBSCRIBE");
	DO(REDIS_REPLY_INTEGER, NULL, 1, "PUBLISH c:ch hello");
	redisGetReply(sub, &r);
	check(sub, r, REDIS_REPLY_ARRAY, NULL, 3, "message");
	redisFree(c);
	redisFree(sub);
	puts("ok");
	return 0;
}
