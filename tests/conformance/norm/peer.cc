/* A node of NRL's libnorm that sends or receives one stream of known bytes.
 *
 * peer send|receive GROUP PORT INTERFACE BYTES RATE
 *
 * The byte at place i of the stream is i % 251. RATE is in bytes per second, 0 for libnorm's
 * congestion control. Prints one line and exits 0 when all went well. */

#include <normApi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SEGMENT 1400
#define BLOCK 64
#define PARITY 8
#define MEMORY (8 << 20)
#define MESSAGE 1000

static unsigned char byte_at(unsigned long place) { return (unsigned char)(place % 251); }

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int fail(const char *what) {
    fprintf(stderr, "peer: %s\n", what);
    return 1;
}

/* Writes all bytes, then waits until libnorm has flushed them as often as it does. */
static int send_stream(NormInstanceHandle instance, NormSessionHandle session, unsigned long total) {
    NormObjectHandle stream = NormStreamOpen(session, MEMORY, NULL, 0);
    if (stream == NORM_OBJECT_INVALID) return fail("no stream");
    char message[MESSAGE];
    unsigned long written = 0;
    NormEvent event;
    while (written < total) {
        unsigned int len = total - written < MESSAGE ? (unsigned int)(total - written) : MESSAGE;
        for (unsigned int i = 0; i < len; i++) message[i] = (char)byte_at(written + i);
        unsigned int taken = NormStreamWrite(stream, message, len);
        written += taken;
        if (taken == len) {
            NormStreamMarkEom(stream);
        } else if (!NormGetNextEvent(instance, &event, true)) {
            return fail("no event");
        }
    }
    NormStreamFlush(stream, true, NORM_FLUSH_ACTIVE);
    do {
        if (!NormGetNextEvent(instance, &event, true)) return fail("no event");
    } while (event.type != NORM_TX_FLUSH_COMPLETED);
    printf("sent %lu\n", written);
    return 0;
}

/* Reads and checks all bytes. */
static int receive_stream(NormInstanceHandle instance, unsigned long total) {
    unsigned long place = 0;
    char piece[4096];
    double started = 0;
    NormEvent event;
    while (place < total) {
        if (!NormGetNextEvent(instance, &event, true)) return fail("no event");
        if (event.type != NORM_RX_OBJECT_UPDATED) continue;
        for (;;) {
            unsigned int len = sizeof piece;
            if (!NormStreamRead(event.object, piece, &len)) return fail("the stream broke");
            if (len == 0) break;
            if (started == 0) started = seconds();
            for (unsigned int i = 0; i < len; i++) {
                if ((unsigned char)piece[i] == byte_at(place + i)) continue;
                fprintf(stderr, "peer: byte %lu is %d\n", place + i, (unsigned char)piece[i]);
                return 1;
            }
            place += len;
        }
    }
    printf("received %lu in %.3f s\n", place, seconds() - started);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 7) return fail("send|receive GROUP PORT INTERFACE BYTES RATE");
    int sends = strcmp(argv[1], "send") == 0;
    unsigned long total = strtoul(argv[5], NULL, 10);
    double rate = strtod(argv[6], NULL);
    NormInstanceHandle instance = NormCreateInstance(false);
    NormSessionHandle session = NormCreateSession(
        instance, argv[2], (UINT16)atoi(argv[3]), (NormNodeId)(sends ? 101 : 102));
    if (session == NORM_SESSION_INVALID) return fail("no session");
    NormSetRxPortReuse(session, true, NULL, NULL, 0);
    NormSetMulticastInterface(session, argv[4]);
    NormSetMulticastLoopback(session, true);
    NormSetTTL(session, 1);
    NormSetGroupSize(session, 10);
    if (sends) {
        if (rate > 0) NormSetTxRate(session, 8 * rate);
        else NormSetCongestionControl(session, true, true);
        NormSetGrttEstimate(session, 0.02);
        if (!NormStartSender(session, 1, MEMORY, SEGMENT, BLOCK, PARITY)) return fail("no sender");
        return send_stream(instance, session, total);
    }
    if (!NormStartReceiver(session, MEMORY)) return fail("no receiver");
    NormSetRxSocketBuffer(session, 4 << 20);
    printf("ready\n");
    fflush(stdout);
    return receive_stream(instance, total);
}
