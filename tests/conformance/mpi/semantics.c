/* What the standard promises of messages, asked of an MPI library by its calls: exits with the
 * number of the promise that was broken. Two ranks or more. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOLDS(number, promise)                                                     \
    do {                                                                           \
        if (!(promise)) {                                                          \
            fprintf(stderr, "promise %d is broken: %s\n", number, #promise);       \
            MPI_Abort(MPI_COMM_WORLD, number);                                     \
        }                                                                          \
    } while (0)

static int rank, size;

/* A synchronous send is over only after its match, whatever its length. */
static void synchronous(void) {
    static char bytes[1 << 20];
    for (int length = 0; length <= 1 << 20; length = length ? length * 32 : 1) {
        MPI_Request request;
        int over = 0;
        if (rank == 0) {
            MPI_Issend(bytes, length, MPI_CHAR, 1, 1, MPI_COMM_WORLD, &request);
            for (int i = 0; i < 1000; i++) {
                MPI_Test(&request, &over, MPI_STATUS_IGNORE);
                HOLDS(1, !over);
            }
        }
        MPI_Barrier(MPI_COMM_WORLD);
        if (rank == 0) MPI_Wait(&request, MPI_STATUS_IGNORE);
        if (rank == 1) MPI_Recv(bytes, length, MPI_CHAR, 0, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
}

/* Buffered sends take of the buffer until it is exhausted, and it is free again after detaching. */
static void buffered(void) {
    static char bytes[1000], space[3 * (1000 + MPI_BSEND_OVERHEAD)];
    void *back;
    int length, sent = 0, other = 1;
    if (rank == 0) {
        MPI_Buffer_attach(space, sizeof space);
        static char large[sizeof space + 1];
        HOLDS(2, MPI_Bsend(large, sizeof large, MPI_CHAR, 1, 2, MPI_COMM_WORLD) != MPI_SUCCESS);
        for (sent = 0; sent < 3; sent++)
            HOLDS(3, MPI_Bsend(bytes, 1000, MPI_CHAR, 1, 2, MPI_COMM_WORLD) == MPI_SUCCESS);
        MPI_Send(&sent, 1, MPI_INT, 1, 3, MPI_COMM_WORLD);
        MPI_Buffer_detach(&back, &length);
        HOLDS(4, back == (void *)space && length == (int)sizeof space);
        HOLDS(5, MPI_Bsend(bytes, 1, MPI_CHAR, 1, 2, MPI_COMM_WORLD) != MPI_SUCCESS);
    } else if (rank == 1) {
        MPI_Recv(&other, 1, MPI_INT, 0, 3, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        for (int i = 0; i < other; i++)
            MPI_Recv(bytes, 1000, MPI_CHAR, 0, 2, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

/* What does not fit is an error of its receive, and nothing is written beyond the buffer. */
static void truncated(void) {
    static int numbers[100000];
    for (int count = 10; count <= 100000; count *= 100) {
        if (rank == 0) MPI_Send(numbers, count, MPI_INT, 1, 4, MPI_COMM_WORLD);
        if (rank == 1) {
            MPI_Status status;
            int class, fence[8] = {7, 7, 7, 7, 7, 7, 7, 7};
            int error = MPI_Recv(fence, 4, MPI_INT, 0, 4, MPI_COMM_WORLD, &status);
            MPI_Error_class(error, &class);
            HOLDS(6, class == MPI_ERR_TRUNCATE);
            HOLDS(7, fence[4] == 7 && fence[7] == 7);
        }
        MPI_Barrier(MPI_COMM_WORLD);
    }
}

/* Wildcards: everybody sends at once, short and long; each sender's come in their order. */
static void wild(void) {
    enum { COUNT = 300 };
    static int numbers[20000];
    if (rank != 0) {
        for (int i = 0; i < COUNT; i++) {
            numbers[0] = i;
            MPI_Send(numbers, i % 10 ? 1 + i : 20000, MPI_INT, 0, i % 7, MPI_COMM_WORLD);
        }
    } else {
        int *next = calloc((size_t)size, sizeof *next);
        for (int i = 0; i < COUNT * (size - 1); i++) {
            MPI_Status status;
            int count;
            MPI_Recv(numbers, 20000, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &status);
            MPI_Get_count(&status, MPI_INT, &count);
            int expected = next[status.MPI_SOURCE]++;
            HOLDS(8, numbers[0] == expected && status.MPI_TAG == expected % 7);
            HOLDS(9, count == (expected % 10 ? 1 + expected : 20000));
        }
        free(next);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    synchronous();
    buffered();
    truncated();
    wild();
    if (rank == 0) printf("all promises are kept\n");
    MPI_Finalize();
    return 0;
}
