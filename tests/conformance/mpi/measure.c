/* What two ranks or more measure of an MPI library, by the standard's own calls: the shapes of the
 * usual micro-benchmarks. One line for each size: the work, bytes, and microseconds or MB/s.
 *
 * measure WORK MAX_BYTES ROUNDS: WORK is latency, bw, bibw, bcast, allreduce, barrier or alltoall. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW 64

static int rank, size;
static char *one, *other;

static int rounds_of(long bytes, int rounds) {
    return bytes > 65536 ? rounds / 20 + 1 : bytes > 8192 ? rounds / 4 + 1 : rounds;
}

static double latency(long bytes, int rounds) {
    double start = 0;
    for (int i = -rounds / 10; i < rounds; i++) {
        if (i == 0) {
            MPI_Barrier(MPI_COMM_WORLD);
            start = MPI_Wtime();
        }
        if (rank == 0) {
            MPI_Send(one, (int)bytes, MPI_CHAR, 1, 1, MPI_COMM_WORLD);
            MPI_Recv(other, (int)bytes, MPI_CHAR, 1, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        } else if (rank == 1) {
            MPI_Recv(other, (int)bytes, MPI_CHAR, 0, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            MPI_Send(one, (int)bytes, MPI_CHAR, 0, 1, MPI_COMM_WORLD);
        }
    }
    return (MPI_Wtime() - start) * 1e6 / rounds / 2;
}

static double bandwidth(long bytes, int rounds, int both) {
    MPI_Request requests[2 * WINDOW];
    double start = 0;
    rounds = rounds / WINDOW + 2;
    for (int i = -rounds / 10 - 1; i < rounds; i++) {
        int count = 0;
        if (i == 0) {
            MPI_Barrier(MPI_COMM_WORLD);
            start = MPI_Wtime();
        }
        if (rank > 1) continue;
        if (both || rank == 1)
            for (int w = 0; w < WINDOW; w++)
                MPI_Irecv(other, (int)bytes, MPI_CHAR, 1 - rank, 2, MPI_COMM_WORLD, &requests[count++]);
        if (both || rank == 0)
            for (int w = 0; w < WINDOW; w++)
                MPI_Isend(one, (int)bytes, MPI_CHAR, 1 - rank, 2, MPI_COMM_WORLD, &requests[count++]);
        MPI_Waitall(count, requests, MPI_STATUSES_IGNORE);
        if (rank == 0)
            MPI_Recv(other, 4, MPI_CHAR, 1, 3, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        else
            MPI_Send(one, 4, MPI_CHAR, 0, 3, MPI_COMM_WORLD);
    }
    return (both ? 2.0 : 1.0) * bytes * WINDOW * rounds / (MPI_Wtime() - start) / 1e6;
}

static double together(const char *work, long bytes, int rounds) {
    double sum = 0;
    for (int i = -rounds / 10; i < rounds; i++) {
        MPI_Barrier(MPI_COMM_WORLD);
        double start = MPI_Wtime();
        if (!strcmp(work, "bcast"))
            MPI_Bcast(one, (int)bytes, MPI_CHAR, 0, MPI_COMM_WORLD);
        else if (!strcmp(work, "allreduce"))
            MPI_Allreduce(one, other, (int)(bytes / 4), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        else if (!strcmp(work, "alltoall"))
            MPI_Alltoall(one, (int)bytes, MPI_CHAR, other, (int)bytes, MPI_CHAR, MPI_COMM_WORLD);
        else
            MPI_Barrier(MPI_COMM_WORLD);
        if (i >= 0) sum += MPI_Wtime() - start;
    }
    double mine = sum * 1e6 / rounds, mean = 0;
    MPI_Reduce(&mine, &mean, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
    return mean / size;
}

int main(int argc, char **argv) {
    const char *work = argc > 1 ? argv[1] : "latency";
    long max = argc > 2 ? atol(argv[2]) : 1 << 20;
    int rounds = argc > 3 ? atoi(argv[3]) : 10000;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    int many = !strcmp(work, "alltoall") ? size : 1;
    one = malloc((size_t)max * many + 8);
    other = malloc((size_t)max * many + 8);
    memset(one, 0, (size_t)max * many + 8);
    memset(other, 0, (size_t)max * many + 8);
    int barrier = !strcmp(work, "barrier");
    for (long bytes = barrier ? 0 : 4; bytes <= max; bytes = bytes ? bytes * 4 : max + 1) {
        int count = rounds_of(bytes, rounds);
        double result;
        if (!strcmp(work, "latency")) result = latency(bytes, count);
        else if (!strcmp(work, "bw")) result = bandwidth(bytes, count, 0);
        else if (!strcmp(work, "bibw")) result = bandwidth(bytes, count, 1);
        else result = together(work, bytes, count);
        if (rank == 0) printf("%s %ld %.3f\n", work, bytes, result);
    }
    free(one);
    free(other);
    MPI_Finalize();
    return 0;
}
