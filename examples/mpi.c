/* mpi.c - several machines train one network. Each works on its part of the batch; gradient and curvature are sums over
   samples, so one MPI_Allreduce gives all machines those of the whole batch, and with them the step that one machine
   would take. Most steps need the gradient alone (rp_measures); the others two numbers more, for the step's length.

       mpicc -O2 -o mpi examples/mpi.c -lm && mpirun -n 2 ./mpi
       mpirun -n 2 ./mpi ordered        the same bits for 1, 2 and 4 ranks
       mpirun -n 2 ./mpi die            rank 1 is killed half-way; start again without `die`, and it goes on

   (Debian: apt-get install libopenmpi-dev openmpi-bin. As root, and with fewer cores than ranks, mpirun wants
   --allow-run-as-root --oversubscribe.) The batch is always cut into SHARDS, so that the samples do not depend on the
   number of ranks, which must divide it. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "random.h"
#include <math.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARDS = 4, SHARD = 64, BATCH = SHARDS * SHARD, STEPS = 400, KEPT_EVERY = 50, SHOWN_EVERY = 100 };
static int rank, ranks, ordered;

static void check(rp_status status, const rp_net *net) {
    if (!status) return;
    fprintf(stderr, "mpi: rank %d: %s\n", rank, rp_error(net));
    MPI_Abort(MPI_COMM_WORLD, 1); /* ends the others as well */
}

static float *room(size_t count) {
    float *array = (float *)malloc(count * sizeof *array);
    if (!array) MPI_Abort(MPI_COMM_WORLD, 1);
    return array;
}

/* The points of a shard of a batch: two arms that wind around each other. A real program reads its own part. */
static rp_data draw(int step, int shard, rp_real points[SHARD][2], int labels[SHARD]) {
    uint64_t random = (uint64_t)(step * SHARDS + shard);
    for (int i = 0; i < SHARD; i++) {
        double radius = (double)random_uniform(&random, 0, 1), angle = 7 * radius + 3.14159265358979 * (i % 2);
        points[i][0] = (rp_real)(radius * cos(angle)) + (rp_real)random_uniform(&random, -0.02f, 0.02f);
        points[i][1] = (rp_real)(radius * sin(angle)) + (rp_real)random_uniform(&random, -0.02f, 0.02f);
        labels[i] = i % 2;
    }
    return rp_labelled(points[0], labels, SHARD);
}

/* mine: [own shards][count], overwritten. out = the mean over all shards of all ranks, the same on each. */
static void mean_of_shards(float *mine, int count, float *out) {
    int own = SHARDS / ranks;
    if (ordered) { /* added up in one order, whoever has them */
        float *all = room(SHARDS * (size_t)count);
        MPI_Allgather(mine, own * count, MPI_FLOAT, all, own * count, MPI_FLOAT, MPI_COMM_WORLD);
        memset(out, 0, (size_t)count * sizeof *out);
        for (int i = 0; i < SHARDS * count; i++) out[i % count] += all[i] / SHARDS;
        free(all);
        return;
    }
    for (int i = count; i < own * count; i++) mine[i % count] += mine[i];
    for (int i = 0; i < count; i++) mine[i] /= SHARDS;
    MPI_Allreduce(mine, out, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

/* arrays: room for the shards of this rank and their mean, each loss, gradient and, where it is measured, curvature.
   Returns the loss. */
static double take_step(rp_net *net, const rp_optimizer *optimizer, int step, float *arrays) {
    int own = SHARDS / ranks, measured = rp_measures(net, optimizer); /* as in rp_train; the same on every rank */
    size_t count = rp_parameter_count(net), length = 1 + (measured ? 2 : 1) * count;
    float *mean = arrays + (size_t)own * length, along[SHARDS][2], both[2] = {-1, 0}, alpha;
    rp_real points[SHARDS][SHARD][2];
    int labels[SHARDS][SHARD];
    rp_data part[SHARDS];
    for (int i = 0; i < own; i++) {
        float *to = arrays + (size_t)i * length;
        part[i] = draw(step, rank * own + i, points[i], labels[i]);
        check(rp_backward(net, &part[i], measured ? &optimizer->rule : NULL, to), net);
        memcpy(to + 1, rp_gradient(net), count * sizeof *to);
        if (measured) memcpy(to + 1 + count, rp_curvature(net), count * sizeof *to);
    }
    mean_of_shards(arrays, (int)length, mean);
    memcpy(rp_gradient(net), mean + 1, count * sizeof *mean);
    if (measured) memcpy(rp_curvature(net), mean + 1 + count, count * sizeof *mean);
    check(rp_direction(net, optimizer), net); /* from the same arrays the same direction on every rank, */
    for (int i = 0; i < own && measured; i++) {
        check(rp_gauss_newton_directional(net, &part[i], rp_step_array(net), &along[i][0]), net);
        check(rp_loss_limits(net, &part[i], NULL, &along[i][1]), net); /* the least is 0 with labels */
    }
    if (measured) mean_of_shards(along[0], 2, both); /* and from the same curvature along it the same length */
    check(rp_step_length(net, optimizer, BATCH, mean[0], both[1], both[0], &alpha), net);
    check(rp_move(net, alpha), net);
    return (double)mean[0];
}

/* Rank 0 keeps the net in a file that has the step in its name, and removes the one before. */
static void forget(int step) {
    char path[64];
    snprintf(path, sizeof path, "mpi-%d.safetensors", step);
    remove(path);
}
static void keep(rp_net *net, int step) {
    char path[64];
    snprintf(path, sizeof path, "mpi-%d.safetensors", step);
    check(rp_save(net, path), net);
    forget(step - KEPT_EVERY);
}

/* From the latest file, which every rank reads (a common disk). Returns the first step. */
static int resume(rp_net *net) {
    for (int step = STEPS - KEPT_EVERY; step > 0; step -= KEPT_EVERY) {
        char path[64];
        snprintf(path, sizeof path, "mpi-%d.safetensors", step);
        FILE *file = fopen(path, "rb");
        if (!file) continue;
        fclose(file);
        check(rp_load(net, path), net);
        if (rank == 0) printf("goes on at step %d\n", step);
        return step;
    }
    return 0;
}

/* By rank 0: new points, and a sum of the parameters' bits, to compare runs. */
static void report(rp_net *net) {
    static rp_real points[SHARD][2];
    static int labels[SHARD];
    rp_data unseen = draw(STEPS, 0, points, labels);
    rp_score score;
    unsigned bits = 0;
    for (size_t i = 0; i < rp_parameter_count(net); i++) {
        unsigned one;
        memcpy(&one, &rp_parameters(net)[i], sizeof one);
        bits = 31 * bits + one;
    }
    check(rp_average(net, 1), net);
    check(rp_evaluate(net, &unseen, &score, NULL), net);
    printf("%.1f%% of new points right; bits %08x\n", 100 * (double)score.accuracy, bits);
}

int main(int count, char **arguments) {
    rp_optimizer optimizer = rp_partitioning();
    optimizer.rule.kind = RP_JACOBIAN; /* RP_SAMPLED serves as well, but draws anew for each shard that a rank has */
    MPI_Init(&count, &arguments);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    ordered = count > 1 && !strcmp(arguments[1], "ordered");
    int die = count > 1 && !strcmp(arguments[1], "die");
    rp_net *net = rp_net_text("input vector 2; dense 32; tanh; dense 32; tanh; dense 2; loss softmax_cross_entropy",
                              NULL); /* one seed, so that all begin with the same parameters */
    check(SHARDS % ranks ? RP_ERR_VALUE : rp_net_build(net, SHARD, 1), net);
    float *arrays = room((SHARDS + 1) * (2 * rp_parameter_count(net) + 1));
    int first = resume(net);
    MPI_Barrier(MPI_COMM_WORLD); /* all have read it before rank 0 writes another */
    for (int step = first; step < STEPS; step++) {
        if (rank == 0 && step && step % KEPT_EVERY == 0) keep(net, step);
        if (die && rank == ranks - 1 && step == STEPS / 2 + 10) raise(SIGKILL);
        double loss = take_step(net, &optimizer, step, arrays);
        if (rank == 0 && (step + 1) % SHOWN_EVERY == 0) printf("step %3d  loss %.4f\n", step + 1, loss);
    }
    if (rank == 0) report(net);
    if (rank == 0) forget(STEPS - KEPT_EVERY);
    free(arrays);
    rp_net_free(net);
    MPI_Finalize();
    return 0;
}
