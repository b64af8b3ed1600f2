/* Every kernel of every instruction set that this machine has, against naive float64 versions of its contract, and what
   rests on them: nets on different sets, on different numbers of threads, in several threads; and how numbers stand in
   files. Sizes are a random sample; with the argument `quick` a smaller one, with `all` every product of sizes up to 70. */
#ifndef KERNELS_H
#define KERNELS_H
#include "options.h"
#include "reference.h"
#if defined(__unix__) || defined(__APPLE__)
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#define HAVE_POSIX
#endif

#ifdef RP_DOUBLE
#define EPSILON DBL_EPSILON
#define DIGITS DBL_MANT_DIG
#define LEAST_EXPONENT DBL_MIN_EXP
#define MOST_EXPONENT DBL_MAX_EXP
#else
#define EPSILON FLT_EPSILON
#define DIGITS FLT_MANT_DIG
#define LEAST_EXPONENT FLT_MIN_EXP
#define MOST_EXPONENT FLT_MAX_EXP
#endif

enum {
    SMALL = 70,       /* sizes up to here count in all combinations */
    LANES = 16,       /* of the longest vectors */
    SETS = 5,         /* most instruction sets that a machine has */
    VALUES = 1 << 16, /* most entries of a result */
    REGION = 1 << 21, /* bytes for an array */
    REGIONS = 20,     /* most arrays at a time */
    CANARY = 64       /* bytes beside an array that must stay */
};

static int quick, all;
static const rpi_kernels *sets[SETS];
static rp_isa_kind set_kinds[SETS];
static int set_count;

static int repeats(int usual) {
    if (sizeof(rp_real) > 4) usual /= 2; /* it has but one set, without shapes of its own */
    if (quick) return (usual + 19) / 20;
    return all ? 20 * usual : usual;
}
static int padded(int n, int lanes) { return (n + lanes - 1) / lanes * lanes; }
static int is_finite(double x) { return x - x == 0; }
static ptrdiff_t entry(int i, int j, ptrdiff_t ld) { return (ptrdiff_t)i * ld + (ptrdiff_t)j; } /* of row i, column j */

static void find_sets(void) {
    for (int isa = RP_ISA_PORTABLE; isa <= RP_ISA_AMX; isa++) {
        rp_isa_kind kind = (rp_isa_kind)isa;
        if (rpi_resolve_isa(&kind)) set_kinds[set_count] = kind, sets[set_count++] = rpi_kernels_of(kind);
    }
    if (set_kinds[set_count - 1] != RP_ISA_AMX && sizeof(rp_real) == 4) { /* in double there is but one set */
        printf("test_kernels: rough products are NOT TESTED: no AMX in this build or on this machine\n");
        test_skipped++;
    }
    for (int i = 0; i < set_count; i++)
        CHECK(!strcmp(sets[i]->name, rpi_isa_names[set_kinds[i]]) && LANES % sets[i]->lanes == 0, "%s", sets[i]->name);
}

/* Arrays whose overruns show. Behind the last entry, or one entry behind it, is a page that may not be touched; so
   arrays begin anywhere in a vector. Fresh ones hold canaries, not-a-numbers of set bits; those beside an array and in
   the gaps between its rows have to stay. */
typedef struct region {
    char *base, *array, *end;
} region;
static region regions[REGIONS];
static int regions_used;

#ifdef HAVE_POSIX
enum { TAIL = 0 };
static char *new_region(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *memory = mmap(NULL, REGION + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect((char *)memory + REGION, page, PROT_NONE)) exit(2);
    return (char *)memory;
}
#else
enum { TAIL = CANARY };
static char *new_region(void) { return (char *)ref_new(REGION / (int)sizeof(double)); }
#endif

static size_t bytes_of(ptrdiff_t reals) { return (size_t)reals * sizeof(rp_real); }

static void *place(size_t bytes, size_t gap) {
    region *r = &regions[regions_used++];
    if (regions_used > REGIONS || CANARY + bytes + gap + TAIL > REGION) exit(2);
    if (!r->base) r->base = new_region();
    r->end = r->base + REGION - TAIL - gap;
    r->array = r->end - bytes;
    memset(r->array - CANARY, 0xFF, CANARY + bytes + gap + TAIL);
    return r->array;
}
/* For each set; what is placed within belongs to the round. */
#define EACH_SET for (int set = 0, mark = regions_used; set < set_count; set++, regions_used = mark)

static int canaries(const void *bytes, size_t size) {
    const unsigned char *byte = (const unsigned char *)bytes;
    while (size > 0 && byte[size - 1] == 0xFF) size--;
    return size == 0;
}
static int intact(void) {
    for (const region *r = regions; r < regions + regions_used; r++)
        if (!canaries(r->array - CANARY, CANARY) || !canaries(r->end, (size_t)(r->base + REGION - r->end))) return 0;
    return 1;
}
static int gaps_intact(const rp_real *x, int rows, int n, ptrdiff_t ld) {
    for (int i = 0; i + 1 < rows; i++)
        if (!canaries(x + (ptrdiff_t)i * ld + n, bytes_of(ld - n))) return 0;
    return 1;
}

static rp_real *blank(test_random *random, ptrdiff_t count) {
    return (rp_real *)place(bytes_of(count), chance(random, 0.5) ? sizeof(rp_real) : 0);
}
/* How far rows of n are apart. */
static ptrdiff_t wider(test_random *random, int n) {
    return (ptrdiff_t)(chance(random, 0.5) ? n : n + test_int(random, 1, 20));
}

/* Whole vectors, of every set or at least of that with the shortest. */
static int some_columns(test_random *random) {
    int grain = chance(random, 0.5) ? sets[0]->lanes : LANES;
    return grain * test_int(random, 1, padded(SMALL, LANES) / grain);
}
static ptrdiff_t extent(int rows, int n, ptrdiff_t ld) { return (ptrdiff_t)(rows - 1) * ld + (ptrdiff_t)n; }

/* From a supply of normal numbers, which are slow to make. */
static void fill(test_random *random, rp_real *x, int n) {
    enum { SUPPLY = 1 << 13 };
    static rp_real supply[SUPPLY];
    for (int i = 0; supply[0] == 0 && i < SUPPLY; i++) supply[SUPPLY - 1 - i] = (rp_real)test_normal(random);
    for (int some; n > 0; n -= some, x += some) {
        some = n < SUPPLY / 2 ? n : SUPPLY / 2;
        memcpy(x, supply + test_int(random, 0, SUPPLY - some), bytes_of(some));
    }
}
static rp_real *matrix(test_random *random, int rows, int n, ptrdiff_t ld) {
    rp_real *x = blank(random, extent(rows, n, ld));
    for (int i = 0; i < rows; i++) fill(random, x + (ptrdiff_t)i * ld, n);
    return x;
}
static rp_real *copy(test_random *random, const rp_real *from, ptrdiff_t count) {
    return (rp_real *)memcpy(blank(random, count), from, bytes_of(count));
}

/* What a sum should be, and the sum of its terms' magnitudes, to which rounding is relative. */
typedef struct exact {
    double value[VALUES], size[VALUES];
} exact;
static exact exact1, exact2;

/* The largest error, in units of what so many roundings allow. */
static double error_of(double got, double value, double size, double roundings) {
    double error = fabs(got - value);
    return error <= 0 ? 0 : error / (roundings * (double)EPSILON * size);
}
static double excess(const rp_real *got, int rows, int n, ptrdiff_t ld, const exact *e, double roundings) {
    double worst = 0;
    for (int i = 0; i < rows * n; i++)
        worst = larger(error_of((double)got[entry(i / n, i % n, ld)], e->value[i], e->size[i], roundings), worst);
    return worst;
}

/* Products. Rough ones, of sets that have them, are within what their halves allow, and in the mean within what the
   header says. */
enum { SPLIT, MAGNITUDES, ROUGH };
static const double rough_most[ROUGH] = {3.0 / (1 << 16), 2.1 / (1 << 8)}; /* of a term */
static const double rough_mean[ROUGH] = {2e-6, 8e-4}, rough_seldom[ROUGH] = {2e-5, 5e-3};
static double rough_squares[ROUGH], rough_peak[ROUGH];
static int rough_count[ROUGH];

static int is_rough(int set, int m, int n, int k) {
    int least = sets[set]->rough_rows;
    return least && m >= least && n >= least && k >= least;
}
static double roundings_of(int terms, int rough, int kind) {
    return terms + (rough ? rough_most[kind] / (double)EPSILON : 0);
}
static void note_rough(int kind, double got, double value, double size) {
    double error = size > 0 ? fabs(got - value) / size : 0;
    rough_squares[kind] += error * error;
    rough_peak[kind] = larger(error, rough_peak[kind]);
    rough_count[kind]++;
}
static void note_rough_rows(int kind, const rp_real *got, int rows, int n, ptrdiff_t ld, const exact *e) {
    for (int i = 0; i < rows * n; i++) note_rough(kind, (double)got[entry(i / n, i % n, ld)], e->value[i], e->size[i]);
}
static void test_rough_errors(void) {
    for (int kind = 0; kind < ROUGH; kind++) {
        double mean = rough_count[kind] ? sqrt(rough_squares[kind] / rough_count[kind]) : 0;
        CHECK(mean <= rough_mean[kind] && rough_peak[kind] <= rough_seldom[kind],
              "%d rough sums, kind %d: errors %g in the mean, at most %g", rough_count[kind], kind, mean,
              rough_peak[kind]);
    }
}
static rp_real *scratch_for(test_random *random, int set, int rows, int columns) {
    rpi_buffers b;
    memset(&b, 0, sizeof b);
    b.kernels = sets[set], b.rough_rows = rows, b.ld = columns;
    return blank(random, rpi_packed_size(&b));
}

/* start: a matrix, or NULL */
static void naive_product(const rpi_product *q, const rp_real *b, int magnitudes, const rp_real *bias,
                          const rp_real *column, const rp_real *start, exact *e) {
    for (int i = 0; i < q->m; i++) {
        double *value = e->value + i * q->n, *size = e->size + i * q->n;
        for (int s = 0; s < q->n; s++) {
            value[s] = (bias ? (double)bias[i] : 0) + (column ? (double)column[s] : 0);
            if (start) value[s] = (double)start[entry(i, s, q->ldc)];
            size[s] = fabs(value[s]);
        }
        for (int p = 0; p < q->k; p++) {
            double a = (double)q->a[(ptrdiff_t)i * q->a_row + (ptrdiff_t)p * q->a_column];
            if (magnitudes) a = fabs(a);
            for (int s = 0; s < q->n; s++) {
                double term = a * (double)b[entry(p, s, q->ldb)];
                value[s] += term, size[s] += fabs(term);
            }
        }
    }
}

static void make_magnitudes(rp_real *x, int rows, int n, ptrdiff_t ld) {
    for (int i = 0; i < rows * n; i++) x[entry(i / n, i % n, ld)] = (rp_real)fabs((double)x[entry(i / n, i % n, ld)]);
}

static void check_product(test_random *random, int m, int n, int k) {
    rpi_product q;
    int by_row = chance(random, 0.5), lines = by_row ? m : k, length = by_row ? k : m, which = test_int(random, 1, 4);
    ptrdiff_t stride = (ptrdiff_t)(chance(random, 0.3) ? padded(length, 256) : length + test_int(random, 0, 2));
    memset(&q, 0, sizeof q);
    regions_used = 0;
    q.m = m, q.n = n, q.k = k, q.add = chance(random, 0.2);
    q.a = matrix(random, lines, length, stride), q.a_row = by_row ? stride : 1, q.a_column = by_row ? 1 : stride;
    q.ldb = wider(random, n), q.ldc = wider(random, n);
    const int may_be_rough = chance(random, 0.7);
    if (which != 1) q.b = matrix(random, k, n, q.ldb);
    if (which != 2) q.b2 = matrix(random, k, n, q.ldb);
    if (may_be_rough && q.b2) make_magnitudes((rp_real *)q.b2, k, n, q.ldb);
    if (chance(random, 0.5)) q.bias = matrix(random, 1, m, 0);
    if (chance(random, 0.5)) q.column = matrix(random, 1, n, 0);
    const rp_real *start = q.add ? matrix(random, m, n, q.ldc) : NULL;
    if (q.b) naive_product(&q, q.b, 0, q.bias, NULL, start, &exact1);
    if (q.b2) naive_product(&q, q.b2, 1, NULL, q.column, start, &exact2);
    EACH_SET {
        ptrdiff_t size = extent(m, n, q.ldc);
        if (n % sets[set]->lanes) continue;
        q.packed = scratch_for(random, set, 0, n);
        q.rough = may_be_rough && is_rough(set, m, n, k);
        if (q.b) q.c = start ? copy(random, start, size) : blank(random, size);
        if (q.b2) q.c2 = start ? copy(random, start, size) : blank(random, size);
        sets[set]->product(&q);
        double error = q.b ? excess(q.c, m, n, q.ldc, &exact1, roundings_of(k + 2, q.rough, SPLIT)) : 0;
        double error2 = q.b2 ? excess(q.c2, m, n, q.ldc, &exact2, roundings_of(k + 2, q.rough, MAGNITUDES)) : 0;
        if (q.rough && q.b) note_rough_rows(SPLIT, q.c, m, n, q.ldc, &exact1);
        if (q.rough && q.b2) note_rough_rows(MAGNITUDES, q.c2, m, n, q.ldc, &exact2);
        int inside = intact() && (!q.b || gaps_intact(q.c, m, n, q.ldc)) && (!q.b2 || gaps_intact(q.c2, m, n, q.ldc));
        CHECK(error <= 1 && error2 <= 1 && inside,
              "%s: product %d x %d x %d%s, A by %s with stride %d, B%s%s%s%s%s: errors %g, %g%s", sets[set]->name, m, n,
              k, q.rough ? ", rough" : "", by_row ? "rows" : "columns", (int)stride, q.b ? " first" : "",
              q.b2 ? " second" : "", q.bias ? " bias" : "", q.column ? " column" : "", q.add ? " add" : "", error,
              error2, inside ? "" : ", overrun");
    }
}

static void check_matrix_vector(test_random *random, int m, int k) {
    int by_row = chance(random, 0.5), lines = by_row ? m : k, length = by_row ? k : m, which = test_int(random, 0, 2);
    ptrdiff_t stride = (ptrdiff_t)(length + test_int(random, 0, 3));
    rpi_product q;
    memset(&q, 0, sizeof q);
    regions_used = 0;
    q.m = m, q.n = 1, q.k = k, q.ldb = q.ldc = 1, q.add = chance(random, 0.2);
    q.a_row = by_row ? stride : 1, q.a_column = by_row ? 1 : stride, q.a = matrix(random, lines, length, stride);
    if (which != 1) q.b = matrix(random, 1, k, 0);
    if (which != 2) q.b2 = matrix(random, 1, k, 0);
    if (chance(random, 0.5)) q.bias = matrix(random, 1, m, 0);
    if (chance(random, 0.5)) q.column = matrix(random, 1, 1, 0);
    const rp_real *start = q.add ? matrix(random, 1, m, 0) : NULL;
    if (q.b) naive_product(&q, q.b, 0, q.bias, NULL, start, &exact1);
    if (q.b2) naive_product(&q, q.b2, 1, NULL, q.column, start, &exact2);
    EACH_SET {
        if (q.b) q.c = start ? copy(random, start, m) : blank(random, m);
        if (q.b2) q.c2 = start ? copy(random, start, m) : blank(random, m);
        sets[set]->matrix_vector(&q);
        double error = q.b ? excess(q.c, m, 1, 1, &exact1, k + 2) : 0;
        double error2 = q.b2 ? excess(q.c2, m, 1, 1, &exact2, k + 2) : 0;
        CHECK(error <= 1 && error2 <= 1 && intact(), "%s: matrix_vector %d x %d, A by %s: errors %g, %g",
              sets[set]->name, m, k, by_row ? "rows" : "columns", error, error2);
    }
}

static void test_products(void) {
    static const int rows[] = {RPI_M_BLOCK - 1, RPI_M_BLOCK, RPI_M_BLOCK + 1, 2 * RPI_M_BLOCK + 1};
    static const int inner[] = {RPI_K_BLOCK - 1, RPI_K_BLOCK, RPI_K_BLOCK + 1, 2 * RPI_K_BLOCK + 1};
    static const int rough[] = {31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513};
    test_random random = {1};
    int step = sets[0]->lanes, most = padded(SMALL, LANES);
    for (int trial = repeats(1500); trial > 0; trial--) {
        check_product(&random, test_int(&random, 1, SMALL), some_columns(&random), test_int(&random, 1, SMALL));
        check_matrix_vector(&random, test_int(&random, 1, SMALL), test_int(&random, 1, SMALL));
    }
    for (int edge = 0; edge < 16; edge += quick ? 7 : 1) {
        for (int i = 0; i < 3; i++) check_product(&random, rows[edge / 4], some_columns(&random), inner[edge % 4]);
        check_matrix_vector(&random, rows[edge / 4], inner[edge % 4]);
    }
    for (int trial = set_kinds[set_count - 1] == RP_ISA_AMX ? repeats(60) : 0; trial > 0; trial--)
        check_product(&random, rough[test_int(&random, 0, 14)], LANES * test_int(&random, 2, 6),
                      rough[test_int(&random, 0, 14)]);
    for (int m = 1; all && m <= SMALL; m++)
        for (int n = step; n <= most; n += step)
            for (int k = 1; k <= SMALL; k++) check_product(&random, m, n, k);
}

/* Outer products */

static void naive_outer(const rpi_outer *o, const rp_real *d, double scale, int magnitudes, exact *e) {
    for (int i = 0; i < o->m; i++) {
        const rp_real *row = d + (ptrdiff_t)i * o->ld;
        for (int j = 0; j <= o->n; j++) { /* n: the bias */
            const rp_real *y = o->y + (ptrdiff_t)j * o->ld;
            double value = 0, size = 0;
            for (int s = 0; s < o->count; s++) {
                double term = (double)row[s] * (j < o->n ? (double)y[s] : 1);
                size += fabs(term);
                value += magnitudes && j < o->n ? (double)row[s] * fabs((double)y[s]) : term;
            }
            e->value[i * (o->n + 1) + j] = scale * value, e->size[i * (o->n + 1) + j] = fabs(scale) * size;
        }
    }
}

/* Flat arrays [m][n], then [m] biases, from offset `weights` on, against naive_outer's [m][n + 1]. */
static double outer_excess(const rpi_outer *o, const rp_real *flat, const exact *e, int kind) {
    const double roundings = roundings_of(o->count + 3, o->rough, kind);
    double worst = canaries(flat, bytes_of(o->weights)) ? 0 : HUGE_VAL;
    for (int i = 0; i < o->m; i++)
        for (int j = 0; j < o->n + o->bias; j++) {
            double got = (double)flat[j < o->n ? o->weights + (ptrdiff_t)(i * o->n + j) : o->biases + (ptrdiff_t)i];
            int at = i * (o->n + 1) + j;
            worst = larger(error_of(got, e->value[at], e->size[at], roundings), worst);
            if (o->rough && j < o->n) note_rough(kind, got, e->value[at], e->size[at]);
        }
    return worst;
}

static void zero_columns(rp_real *x, int rows, int from, int end, ptrdiff_t ld) {
    for (int i = 0; i < rows; i++) memset(x + (ptrdiff_t)i * ld + from, 0, bytes_of(end - from));
}

static void check_outer(test_random *random, int m, int n, int count) {
    rpi_outer o;
    int columns = padded(count, LANES), which = test_int(random, 1, 4);
    int middle = test_int(random, 0, n / RPI_PANEL) * RPI_PANEL;
    ptrdiff_t total;
    rp_real *d, *v;
    memset(&o, 0, sizeof o);
    regions_used = 0;
    o.m = m, o.n = n, o.count = count, o.bias = chance(random, 0.5),
    o.ld = (ptrdiff_t)(columns + test_int(random, 0, 9));
    const int may_be_rough = chance(random, 0.7);
    o.scale = (rp_real)test_uniform(random, -2, 2), o.scale2 = (rp_real)test_uniform(random, 0, 2);
    o.weights = (ptrdiff_t)test_int(random, 0, 5), o.biases = o.weights + (ptrdiff_t)(m * n);
    o.y = matrix(random, n, columns, o.ld), d = matrix(random, m, columns, o.ld), v = matrix(random, m, columns, o.ld);
    if (may_be_rough) make_magnitudes(v, m, columns, o.ld);
    zero_columns(d, m, count, columns, o.ld), zero_columns(v, m, count, columns, o.ld);
    if (which != 1) o.d = d, naive_outer(&o, d, (double)o.scale, 0, &exact1);
    if (which != 2) o.v = v, naive_outer(&o, v, (double)o.scale2, 1, &exact2);
    o.panel = blank(random, (ptrdiff_t)(2 * count * RPI_PANEL)), o.tile = blank(random, 2 * RPI_ROWS_MOST * RPI_PANEL);
    total = o.biases + (ptrdiff_t)(o.bias ? m : 0);
    EACH_SET {
        o.rough = may_be_rough && is_rough(set, m, n, count);
        o.packed = o.rough ? scratch_for(random, set, m, count) : NULL;
        rpi_outer part = o;
        rpi_sink sink;
        memset(&sink, 0, sizeof sink);
        sink.take = sets[set]->take_arrays, part.sink = &sink;
        sink.gradient = blank(random, total), sink.curvature = blank(random, total);
        part.from = 0, part.end = middle, part.bias = 0;
        if (middle) sets[set]->outer(&part);
        part.from = middle, part.end = n, part.bias = o.bias;
        sets[set]->outer(&part);
        double error =
            o.d ? outer_excess(&o, sink.gradient, &exact1, SPLIT) : !canaries(sink.gradient, bytes_of(total));
        double error2 =
            o.v ? outer_excess(&o, sink.curvature, &exact2, MAGNITUDES) : !canaries(sink.curvature, bytes_of(total));
        CHECK(error <= (o.d != NULL) && error2 <= (o.v != NULL) && intact(),
              "%s: outer %d x %d x %d%s%s%s%s, parted at %d: errors %g, %g", sets[set]->name, m, n, count,
              o.rough ? " rough" : "", o.d ? " d" : "", o.v ? " v" : "", o.bias ? " bias" : "", middle, error, error2);
    }
}

static void test_outer(void) {
    test_random random = {2};
    for (int trial = repeats(1000); trial > 0; trial--)
        check_outer(&random, test_int(&random, 1, SMALL), test_int(&random, 1, SMALL), test_int(&random, 1, SMALL));
    for (int edge = 0; edge < 12; edge += quick ? 5 : 1)
        check_outer(&random, test_int(&random, 1, 40) + edge * 8, (1 + edge / 3) * RPI_PANEL - 1 + edge % 3,
                    test_int(&random, 1, 150));
    for (int m = 1; all && m <= SMALL; m++)
        for (int n = 1; n <= SMALL; n++)
            for (int count = 1; count <= SMALL; count++) check_outer(&random, m, n, count);
}

/* SGD's steps right out of the registers against those by way of a gradient: parameters that would leave what is finite
   stay, and others differ by the rounding of two products at most (by nothing, unless the compiler rearranges). */
static void check_descent(test_random *random, int m, int n, int count) {
    const rp_real most = (rp_real)(sizeof(rp_real) == sizeof(double) ? DBL_MAX : FLT_MAX);
    const int columns = padded(count, LANES), size = m * n;
    regions_used = 0;
    rpi_outer o;
    rpi_update update;
    memset(&o, 0, sizeof o);
    memset(&update, 0, sizeof update);
    rp_real *d = matrix(random, m, columns, columns), *start = matrix(random, 1, size, 0);
    zero_columns(d, m, count, columns, columns);
    o.m = m, o.n = o.end = n, o.count = count, o.ld = columns, o.d = d, o.scale = (rp_real)0.7;
    o.y = matrix(random, n, columns, columns);
    o.panel = blank(random, (ptrdiff_t)(2 * count * RPI_PANEL)), o.tile = blank(random, 2 * RPI_ROWS_MOST * RPI_PANEL);
    update.method = RP_SGD, update.rate = most / 50;
    for (int i = 0; i < size; i++) start[i] = (rp_real)test_uniform(random, -1, 1) * most;
    EACH_SET {
        rp_real *w[2];
        int stayed = 0, wrong = 0;
        for (int way = 0; way < 2; way++) {
            rpi_sink sink;
            memset(&sink, 0, sizeof sink);
            sink.take = sets[set]->take_step, sink.update = &update;
            sink.parameters = w[way] = blank(random, size);
            memcpy(w[way], start, bytes_of(size));
            if (way) sink.descent = -update.rate;
            o.sink = &sink;
            sets[set]->outer(&o);
        }
        for (int i = 0; i < size; i++) {
            stayed += w[0][i] == start[i];
            wrong += !(fabs((double)w[0][i] - (double)w[1][i]) <= 2 * (double)EPSILON * (double)most);
        }
        CHECK(!wrong && intact(), "%s: descent %d x %d x %d: %d wrong", sets[set]->name, m, n, count, wrong);
        CHECK(size < 1000 || (stayed && stayed < size), "%s: %d of %d stayed", sets[set]->name, stayed, size);
    }
}
static void test_descent(void) {
    test_random random = {3};
    for (int n = RPI_PANEL - 1; n <= 3 * RPI_PANEL; n += quick ? 31 : 7)
        check_descent(&random, test_int(&random, 1, 30), n, test_int(&random, 1, 70));
}

/* Shared weights and windows: rows found by their offsets */

static void random_offsets(test_random *random, ptrdiff_t *offsets, int count, int rows, ptrdiff_t ld) {
    for (int i = 0; i < count; i++) offsets[i] = (ptrdiff_t)test_int(random, 0, rows - 1) * ld;
}

enum gathered_start { NOTHING, COLUMN, ROW, ITSELF };
static void check_gemm(test_random *random, int m, int n, int k) {
    enum { ENTRIES = 50, ROWS = 30 };
    rpi_gemm q;
    ptrdiff_t a_at[SMALL], b_at[SMALL], ldb = (ptrdiff_t)(n + test_int(random, 0, 9));
    int from = test_int(random, NOTHING, ITSELF), tables = chance(random, 0.5);
    regions_used = 0;
    memset(&q, 0, sizeof q);
    q.m = m, q.n = n, q.k = k;
    q.a_row = (ptrdiff_t)test_int(random, 1, ENTRIES), q.ldc = (ptrdiff_t)(n + test_int(random, 0, 9));
    q.a = matrix(random, 1, (m - 1) * (int)q.a_row + ENTRIES, 0), q.b = matrix(random, ROWS, n, ldb);
    q.per_row = from == COLUMN, q.start_row = from == ITSELF ? q.ldc : 0;
    random_offsets(random, a_at, k, ENTRIES, 1), random_offsets(random, b_at, k, ROWS, ldb);
    if (tables) q.a_at = a_at, q.b_at = b_at;
    else q.a_column = (ptrdiff_t)test_int(random, 0, (ENTRIES - 1) / (k + 1)), q.ldb = k <= ROWS ? ldb : 0;
    for (int p = 0; p < k && !tables; p++) a_at[p] = p * q.a_column, b_at[p] = p * q.ldb;
    const rp_real *start = matrix(random, m, n, q.ldc), *line = matrix(random, 1, m + n, 0);
    for (int i = 0; i < m * n; i++) {
        double first[] = {0, (double)line[i / n], (double)line[i % n], (double)start[entry(i / n, i % n, q.ldc)]};
        exact1.value[i] = first[from], exact1.size[i] = fabs(first[from]);
        for (int p = 0; p < k; p++) {
            double term = (double)q.a[entry(i / n, 0, q.a_row) + a_at[p]] * (double)q.b[b_at[p] + (ptrdiff_t)(i % n)];
            exact1.value[i] += term, exact1.size[i] += fabs(term);
        }
    }
    EACH_SET {
        if (n % sets[set]->lanes) continue;
        q.c = copy(random, start, extent(m, n, q.ldc)), q.start = from == ITSELF ? q.c : line;
        if (from == NOTHING) q.start = NULL;
        sets[set]->gemm(&q);
        double error = excess(q.c, m, n, q.ldc, &exact1, k + 2);
        CHECK(error <= 1 && gaps_intact(q.c, m, n, q.ldc) && intact(), "%s: gemm %d x %d x %d%s, start %d: error %g",
              sets[set]->name, m, n, k, tables ? " by tables" : "", from, error);
    }
}

/* What becomes of the samples' sums: added up, weighted by their size, or added up for each sample. */
enum correlation_way { ALL_SAMPLES, WEIGHTED, TOTALS, CORRELATION_WAYS };
static void exact_correlation(const rpi_correlation *q, enum correlation_way way) {
    for (int i = 0; i < q->m * q->taps * q->n; i++) {
        int s = i % q->n, tap = i / q->n % q->taps, row = i / q->n / q->taps, place = way == TOTALS ? s : i / q->n;
        double z = 0, size = 0, factor = 1;
        for (int t = 0; t < q->positions; t++) {
            double x = (double)q->y[t * RPI_TAPS_MOST + tap][q->from + s];
            double d = (double)q->d[entry(row, q->from + s, q->d_row) + t * q->d_step];
            z += d * (q->magnitudes ? fabs(x) : x), size += fabs(d * x);
        }
        if (way == WEIGHTED) factor = (double)q->weight[q->from + s];
        if (way != ALL_SAMPLES) z = q->squares ? z * z : fabs(z), size = q->squares ? 2 * size * size : size;
        exact1.value[place] += factor * z, exact1.size[place] += fabs(factor) * size;
    }
}

static void check_correlation(test_random *random, int m, int n, int positions) {
    enum { ROWS = 40, MOST_POSITIONS = 130, FROM = 16 };
    rpi_correlation q;
    const rp_real *y[RPI_TAPS_MOST * MOST_POSITIONS];
    ptrdiff_t ld = (ptrdiff_t)(FROM + n + test_int(random, 0, 9));
    enum correlation_way way = (enum correlation_way)test_int(random, 0, CORRELATION_WAYS - 1);
    regions_used = 0;
    memset(&q, 0, sizeof q);
    q.m = m, q.n = n, q.taps = test_int(random, 1, RPI_TAPS_MOST), q.positions = positions;
    q.magnitudes = chance(random, 0.5), q.squares = chance(random, 0.5), q.from = chance(random, 0.5) ? FROM : 0;
    q.d_step = ld * test_int(random, 0, 2), q.d_row = ld * test_int(random, 1, 3), q.sums_row = q.taps + 1;
    q.d = matrix(random, 3 * m + 2 * positions, FROM + n, ld), q.y = y;
    const rp_real *rows = matrix(random, ROWS, FROM + n, ld), *weight = matrix(random, 1, FROM + n, 0);
    for (int i = 0; i < RPI_TAPS_MOST * positions; i++) y[i] = rows + test_int(random, 0, ROWS - 1) * ld;
    if (way == WEIGHTED) q.weight = weight;
    const int results = way == TOTALS ? n : m * q.taps, length = way == TOTALS ? FROM + n : m * (q.taps + 1) * 16;
    const rp_real *start = matrix(random, 1, length, 0);
    EACH_SET {
        const int lanes = sets[set]->lanes;
        double error = 0;
        if (n % lanes) continue;
        for (int i = 0; i < results; i++) {
            double *value = &exact1.value[i], *size = &exact1.size[i];
            ptrdiff_t place = entry(i / q.taps, i % q.taps, q.sums_row) * lanes;
            *value = *size = 0;
            for (int lane = 0; way != TOTALS && lane < lanes; lane++)
                *value += (double)start[place + lane], *size += fabs((double)start[place + lane]);
            if (way == TOTALS) *size = fabs(*value = (double)start[q.from + i]);
        }
        exact_correlation(&q, way);
        rp_real *out = copy(random, start, length);
        if (way == TOTALS) q.total = out;
        else q.sums = out;
        sets[set]->correlate(&q);
        for (int i = 0; i < results; i++) {
            ptrdiff_t place = entry(i / q.taps, i % q.taps, q.sums_row) * lanes;
            double got = 0;
            for (int lane = 0; way != TOTALS && lane < lanes; lane++) got += (double)out[place + lane];
            if (way == TOTALS) got = (double)out[q.from + i];
            error = larger(error_of(got, exact1.value[i], exact1.size[i], positions * n * m * q.taps + 20), error);
        }
        CHECK(error <= 1 && intact(), "%s: correlate %d x %d, %d positions, n %d from %d, way %d%s%s: error %g",
              sets[set]->name, m, q.taps, positions, n, q.from, (int)way, q.magnitudes ? " magnitudes" : "",
              q.squares ? " squares" : "", error);
    }
}

static void check_window(test_random *random, int k, int n) {
    enum { ROWS = 40 };
    ptrdiff_t places[ROWS], ld = (ptrdiff_t)(n + test_int(random, 0, 9));
    rpi_window w = {k, n, 0, places, NULL};
    regions_used = 0;
    rp_real *x = matrix(random, ROWS, n, ld), *in = matrix(random, ROWS, n, ld), *d = matrix(random, 1, n, 0);
    for (int i = 0; i < ROWS; i++)
        for (int s = 0; s < n; s++) /* so that some are equal */
            x[entry(i, s, ld)] = (rp_real)floor(2 * (double)x[entry(i, s, ld)]);
    for (int j = 0; j < ROWS; j++) places[j] = (ptrdiff_t)((j * 7 + k) % ROWS) * ld;
    w.x = x;
    EACH_SET {
        const rpi_kernels *kernels = sets[set];
        double error = 0;
        if (n % kernels->lanes) continue;
        rp_real *sums = blank(random, (ptrdiff_t)n), *chosen = blank(random, (ptrdiff_t)n);
        rp_real *back = copy(random, in, extent(ROWS, n, ld)), *alone = copy(random, in, extent(ROWS, n, ld));
        kernels->window_magnitudes(&w, sums), kernels->select(&w, in, chosen), kernels->select_back(&w, d, back);
        w.alone = 1;
        kernels->select_back(&w, d, alone);
        w.alone = 0;
        for (int s = 0; s < n; s++) {
            int best = 0;
            double sum = 0;
            for (int j = 0; j < k; j++) {
                sum += fabs((double)x[places[j] + (ptrdiff_t)s]);
                if (x[places[j] + (ptrdiff_t)s] > x[places[best] + (ptrdiff_t)s]) best = j;
            }
            error = larger(error_of((double)sums[s], sum, sum, k), error);
            error = larger(error_of((double)chosen[s], (double)in[places[best] + (ptrdiff_t)s], 0, 1), error);
            for (int j = 0; j < ROWS; j++) {
                ptrdiff_t place = places[j] + (ptrdiff_t)s;
                double before = (double)in[place], added = j == best ? (double)d[s] : 0;
                error = larger(error_of((double)back[place], before + added, fabs(before) + fabs(added), 1), error);
                error = larger(error_of((double)alone[place], j < k ? added : before, 0, 1), error);
            }
        }
        CHECK(error <= 1 && gaps_intact(back, ROWS, n, ld) && gaps_intact(alone, ROWS, n, ld) && intact(),
              "%s: window of %d, n %d: error %g", kernels->name, k, n, error);
    }
}

static void test_offsets(void) {
    test_random random = {9};
    for (int trial = repeats(300); trial > 0; trial--) {
        int n = some_columns(&random);
        check_gemm(&random, test_int(&random, 1, 20), n, test_int(&random, 0, SMALL));
        check_correlation(&random, test_int(&random, 1, 9), n, test_int(&random, 1, trial % 4 ? 9 : RPI_POSITIONS));
        check_window(&random, test_int(&random, 1, 25), n);
    }
}

/* Optimizers: updates from gradient and curvature, and the sinks' pieces of them. */

static rpi_update random_update(test_random *random, int method, int time, rp_optimizer *o) {
    rpi_update u;
    memset(o, 0, sizeof *o), memset(&u, 0, sizeof u);
    int ruled = method == RP_PARTITIONING || method == RPI_PACED;
    o->method = ruled ? RP_PARTITIONING : (rp_method)method, o->rate = (rp_real)0.1, o->damping = (rp_real)0.01,
    o->epsilon = (rp_real)1e-6;
    if (chance(random, 0.5)) o->weight_decay = (rp_real)0.01;
    if ((ruled || method == RP_SGD) && chance(random, 0.5)) o->momentum = (rp_real)0.9;
    if (ruled && chance(random, 0.5)) o->curvature_average = (rp_real)0.99;
    o->nesterov = method == RP_SGD && o->momentum > 0 && chance(random, 0.5);
    o->beta1 = o->rho = (rp_real)0.9, o->beta2 = (rp_real)0.999;
    double mean1 = (double)(method == RP_ADAM ? o->beta1 : o->momentum);
    double mean2 = (double)(method == RP_ADAM ? o->beta2 : o->curvature_average);
    u.method = method, u.rate = o->rate, u.weight_decay = o->weight_decay;
    u.shrink = (rp_real)(chance(random, 0.5) ? 0.001 : 0);
    u.momentum = o->momentum, u.average = o->curvature_average, u.damping = o->damping, u.nesterov = o->nesterov;
    u.beta1 = o->beta1, u.beta2 = o->beta2, u.rho = o->rho, u.epsilon = o->epsilon;
    u.fold = (rp_real)test_uniform(random, 0, 1);
    u.correct1 = (rp_real)(1 / (1 - pow(mean1, time))), u.correct2 = (rp_real)(1 / (1 - pow(mean2, time)));
    return u;
}

static void square(rp_real *x, int n) {
    for (int i = 0; i < n; i++) x[i] *= x[i];
}

/* What an update works on; with states only where the method keeps them. */
typedef struct parameters {
    int n;
    rp_real *g, *h, *w, *first, *second, *averages;
    rp_real scale, scale2;
} parameters;

static parameters random_parameters(test_random *random, const rpi_update *u, int n) {
    parameters p;
    memset(&p, 0, sizeof p);
    p.n = n, p.scale = (rp_real)test_uniform(random, 0.5, 2), p.scale2 = (rp_real)test_uniform(random, 0.5, 2);
    p.g = matrix(random, 1, n, 0), p.w = matrix(random, 1, n, 0);
    int paced = u->method == RPI_PACED;
    if (u->method == RP_PARTITIONING || paced) p.h = matrix(random, 1, n, 0), square(p.h, n);
    if (paced) p.averages = matrix(random, 1, n, 0);
    if ((u->method > RP_SGD && !paced) || u->momentum > 0) p.first = matrix(random, 1, n, 0);
    if (u->method >= RP_ADAGRAD && !paced) square(p.first, n);
    if (u->method == RP_ADAM || u->method == RP_ADADELTA || u->average > 0)
        p.second = matrix(random, 1, n, 0), square(p.second, n);
    return p;
}
static parameters copy_parameters(test_random *random, const parameters *from) {
    parameters p = *from;
    p.w = copy(random, p.w, (ptrdiff_t)p.n);
    if (p.first) p.first = copy(random, p.first, (ptrdiff_t)p.n);
    if (p.second) p.second = copy(random, p.second, (ptrdiff_t)p.n);
    if (p.averages) p.averages = copy(random, p.averages, (ptrdiff_t)p.n);
    return p;
}

static rp_real *offset(rp_real *array, ptrdiff_t at) { return array ? array + at : NULL; }

/* n of them from `at` on. */
static rpi_update_call update_call(const parameters *p, ptrdiff_t at, int n) {
    rpi_update_call call;
    memset(&call, 0, sizeof call);
    call.rows = 1, call.n = n, call.scale = p->scale, call.scale2 = p->scale2;
    call.g = p->g + at, call.h = offset(p->h, at), call.w = p->w + at;
    call.first = offset(p->first, at), call.second = offset(p->second, at);
    call.averages = offset(p->averages, at);
    return call;
}

/* Of the method without a rate: -rate m / sqrt(p), 0 where p is; g's and h's roundings are those of their terms. */
static double paced_step(const rpi_update *u, double g, double g_size, double h, double *first, double *second,
                         double *first_size, double *second_size, double *size) {
    double beta = (double)u->momentum, average = (double)u->average, root;
    *second_size = average * *second + (1 - average) * h * g_size;
    *second = average * *second + (1 - average) * h * fabs(g);
    *first_size = beta * fabs(*first) + (1 - beta) * g_size;
    *first = beta * *first + (1 - beta) * g;
    root = sqrt(*second * (double)u->correct2);
    *size = root == 0 ? 0 : (double)u->rate * *first_size / root * (1 + *second_size / *second);
    return root == 0 ? 0 : -(double)u->rate * *first / root;
}

/* exact1: the step; exact2: first, then second. Sizes: those of a gradient in which nothing cancels. */
static void naive_update(const rpi_update *u, const rp_optimizer *o, int time, const parameters *p) {
    for (int i = 0; i < p->n; i++) {
        double w = (double)p->w[i], decay = (double)u->weight_decay * w, shrink = (double)u->shrink * w;
        double g = (double)p->scale * (double)p->g[i], rate = (double)o->rate;
        double h = p->h ? (double)p->scale2 * (double)p->h[i] + (double)u->weight_decay : 0;
        double *first = exact2.value + i, *second = first + p->n, *size1 = exact2.size + i, *size2 = size1 + p->n;
        *first = p->first ? (double)p->first[i] : 0, *second = *size2 = p->second ? (double)p->second[i] : 0;
        *size1 = fabs(*first);
        if (u->method == RPI_PACED) {
            double size;
            exact1.value[i] =
                paced_step(u, g + decay, fabs(g) + fabs(decay), h, first, second, size1, size2, &size) - shrink;
            exact1.size[i] = size + fabs(shrink);
            continue;
        }
        exact1.value[i] = -ref_step(o, time, rate, g + decay, h, first, second) - shrink;
        exact1.size[i] = fabs(ref_step(o, time, rate, fabs(g) + fabs(decay), h, size1, size2)) + fabs(shrink);
    }
}

/* Against what should be; where that is not finite, it must not have been taken. */
static double taken_excess(const rp_real *got, const rp_real *before, int n, const double *step, const double *size) {
    double worst = 0;
    for (int i = 0; i < n; i++) {
        double from = before ? (double)before[i] : 0;
        double error = error_of((double)got[i], from + step[i], fabs(from) + size[i], 16);
        if (!is_finite(step[i])) error = is_finite((double)got[i]) ? 0 : HUGE_VAL;
        worst = larger(error, worst);
    }
    return worst;
}

static void check_update(test_random *random, int method, int n) {
    int time = test_int(random, 2, 100), wild = chance(random, 0.2), to = !wild && chance(random, 0.5);
    rp_optimizer o;
    rpi_update u = random_update(random, method, time, &o);
    regions_used = 0;
    parameters start = random_parameters(random, &u, n);
    for (int i = 0; wild && i < n; i += test_int(random, 1, 9)) {
        start.g[i] = chance(random, 0.5) ? (rp_real)HUGE_VAL : 0;
        if (start.h) start.h[i] = 0, u.damping = o.damping = 0;
    }
    naive_update(&u, &o, time, &start);
    EACH_SET {
        parameters p = copy_parameters(random, &start);
        rp_real *step = to ? blank(random, (ptrdiff_t)n) : NULL;
        rpi_update_call call = update_call(&p, 0, n);
        call.to = step;
        sets[set]->update(&u, &call);
        double error = taken_excess(to ? step : p.w, to ? NULL : start.w, n, exact1.value, exact1.size);
        if (p.first) error = larger(taken_excess(p.first, NULL, n, exact2.value, exact2.size), error);
        if (p.second) error = larger(taken_excess(p.second, NULL, n, exact2.value + n, exact2.size + n), error);
        for (int i = 0; p.averages && i < n; i++) {
            double w = (double)start.w[i], average = (double)start.averages[i];
            error = larger(error_of((double)p.averages[i], average + (double)u.fold * (w - average),
                                    fabs(w) + 2 * fabs(average), 2),
                           error);
        }
        int kept = !to || !memcmp(p.w, start.w, bytes_of(n));
        CHECK(error <= 1 && kept && intact(), "%s: update %d of %d%s%s%s%s: error %g", sets[set]->name, (int)method, n,
              p.first ? " first" : "", p.second ? " second" : "", to ? " to" : "", wild ? " wild" : "", error);
        if (!to) continue;
        sets[set]->move(n, (rp_real)0.5, step, p.w);
        for (int i = 0; i < n; i++) exact1.value[i] = (double)step[i] / 2;
        error = taken_excess(p.w, start.w, n, exact1.value, exact1.size);
        CHECK(error <= 1 && intact(), "%s: move of %d: error %g", sets[set]->name, n, error);
        naive_update(&u, &o, time, &start);
    }
}

/* A move whose result is not finite is not made. */
static void check_wild_move(test_random *random, int n) {
    regions_used = 0;
    rp_real *start = matrix(random, 1, n, 0), *step = matrix(random, 1, n, 0);
    int at = test_int(random, 0, n - 1);
    step[at] = (rp_real)(chance(random, 0.5) ? HUGE_VAL : -HUGE_VAL);
    EACH_SET {
        rp_real *w = copy(random, start, (ptrdiff_t)n);
        sets[set]->move(n, 2, step, w);
        int good = intact() && memcmp(&w[at], &start[at], sizeof *w) == 0;
        for (int i = 0; i < n; i++) {
            double error = fabs((double)w[i] - (double)start[i] - 2 * (double)step[i]);
            good = good && (i == at || error <= 20 * (double)EPSILON);
        }
        CHECK(good, "%s: move of %d, entry %d not finite", sets[set]->name, n, at);
    }
}

/* A piece whose last entry is the last of the flat arrays, `total` long. */
static rpi_piece random_piece(test_random *random, ptrdiff_t *total) {
    rpi_piece piece;
    rp_real *curvature;
    piece.rows = test_int(random, 1, RPI_ROWS_MOST), piece.n = test_int(random, 1, RPI_PANEL), piece.ld = RPI_PANEL;
    piece.offset = (ptrdiff_t)test_int(random, 0, 9), piece.stride = (ptrdiff_t)(piece.n + test_int(random, 0, 9));
    piece.scale = (rp_real)test_uniform(random, -2, 2), piece.scale2 = (rp_real)test_uniform(random, 0.5, 2);
    piece.gradient = matrix(random, piece.rows, RPI_PANEL, RPI_PANEL);
    piece.curvature = curvature = matrix(random, piece.rows, RPI_PANEL, RPI_PANEL);
    square(curvature, piece.rows * RPI_PANEL);
    *total = piece.offset + extent(piece.rows, piece.n, piece.stride);
    return piece;
}

/* Is the piece's part of `flat` that of `before` (NULL: 0) plus scale times `tile`, and the rest as `before`? */
static double piece_excess(const rpi_piece *piece, const rp_real *flat, const rp_real *before, rp_real scale,
                           const rp_real *tile) {
    double worst = 0;
    for (ptrdiff_t at = 0; at < piece->offset + extent(piece->rows, piece->n, piece->stride); at++) {
        ptrdiff_t from = at - piece->offset, row = from / piece->stride, column = from % piece->stride;
        double start = before ? (double)before[at] : 0, step = 0;
        int inside = at >= piece->offset && column < (ptrdiff_t)piece->n;
        if (inside) step = (double)scale * (double)tile[row * RPI_PANEL + column];
        double error = error_of((double)flat[at], start + step, fabs(start) + fabs(step), 2);
        if (!inside && !before) error = canaries(flat + at, sizeof *flat) ? 0 : HUGE_VAL;
        worst = larger(error, worst);
    }
    return worst;
}

static void check_take(test_random *random) {
    regions_used = 0;
    ptrdiff_t total;
    rpi_piece piece = random_piece(random, &total);
    rp_real *start = matrix(random, 1, (int)total, 0);
    EACH_SET {
        rpi_piece gradient = piece, curvature = piece;
        rpi_sink sink;
        memset(&sink, 0, sizeof sink);
        gradient.curvature = NULL, curvature.gradient = NULL;
        sink.gradient = blank(random, total), sink.curvature = blank(random, total);
        sets[set]->take_arrays(&sink, &gradient);
        int apart = canaries(sink.curvature, bytes_of(total));
        sets[set]->take_arrays(&sink, &curvature);
        double error = larger(piece_excess(&piece, sink.gradient, NULL, piece.scale, piece.gradient),
                              piece_excess(&piece, sink.curvature, NULL, piece.scale2, piece.curvature));
        CHECK(error <= 1 && apart && intact(), "%s: take_arrays %d x %d: error %g", sets[set]->name, piece.rows,
              piece.n, error);
        sink.curvature = copy(random, start, total);
        sets[set]->take_sum(&sink, &curvature);
        error = piece_excess(&piece, sink.curvature, start, piece.scale2, piece.curvature);
        CHECK(error <= 1 && intact(), "%s: take_sum %d x %d: error %g", sets[set]->name, piece.rows, piece.n, error);
    }
}

/* The same as an update of each row; with the piece's curvature, or the sink's. */
static void check_take_step(test_random *random, int method) {
    rp_optimizer o;
    rpi_update u = random_update(random, method, 3, &o);
    ptrdiff_t total;
    regions_used = 0;
    rpi_piece piece = random_piece(random, &total);
    parameters start = random_parameters(random, &u, (int)total);
    int own = start.h && chance(random, 0.5); /* curvature of the sink's */
    EACH_SET {
        parameters taken = copy_parameters(random, &start), p = copy_parameters(random, &start);
        rpi_sink sink;
        memset(&sink, 0, sizeof sink);
        sink.update = &u, sink.parameters = taken.w, sink.first = taken.first, sink.second = taken.second;
        sink.averages = taken.averages;
        sink.curvature = own ? start.h : NULL;
        sets[set]->take_step(&sink, &piece);
        for (int r = 0; r < piece.rows; r++) {
            ptrdiff_t at = piece.offset + (ptrdiff_t)r * piece.stride, from = (ptrdiff_t)r * piece.ld;
            const rp_real *h = own ? start.h + at : piece.curvature + from;
            if (!start.h) h = NULL;
            rpi_update_call call = update_call(&p, at, piece.n);
            call.scale = piece.scale, call.scale2 = own ? 1 : piece.scale2;
            call.g = piece.gradient + from, call.h = h;
            sets[set]->update(&u, &call);
        }
        size_t bytes = bytes_of(total);
        int same = !memcmp(taken.w, p.w, bytes) && (!p.first || !memcmp(taken.first, p.first, bytes)) &&
                   (!p.second || !memcmp(taken.second, p.second, bytes)) &&
                   (!p.averages || !memcmp(taken.averages, p.averages, bytes));
        CHECK(same && intact(), "%s: take_step %d, %d x %d", sets[set]->name, (int)method, piece.rows, piece.n);
    }
}

static void test_updates(void) {
    static const int methods[] = {RP_PARTITIONING, RP_SGD, RP_ADAM, RP_ADAGRAD, RP_ADADELTA, RPI_PACED};
    test_random random = {3};
    for (int trial = repeats(400); trial > 0; trial--) {
        for (int m = 0; m < (int)(sizeof methods / sizeof *methods); m++) {
            check_update(&random, methods[m], test_int(&random, 1, SMALL));
            check_take_step(&random, methods[m]);
        }
        check_wild_move(&random, test_int(&random, 1, SMALL));
        check_take(&random);
    }
}

/* Rows: transposed, added, summed, weighed, their signs and peak */

static void check_transpose(test_random *random, int rows, int columns) {
    ptrdiff_t ldi = wider(random, columns), ldo = wider(random, padded(rows, LANES));
    regions_used = 0;
    rp_real *in = matrix(random, rows, columns, ldi);
    EACH_SET {
        int n = chance(random, 0.5) ? rows : padded(rows, sets[set]->lanes), good = 1;
        rp_real *out = blank(random, extent(columns, n, ldo));
        sets[set]->transpose(in, ldi, rows, columns, out, ldo, n);
        for (int c = 0; c < columns; c++)
            for (int r = 0; r < n; r++)
                good = good && rpi_bits(out[entry(c, r, ldo)]) == rpi_bits(in[entry(r < rows ? r : rows - 1, c, ldi)]);
        CHECK(good && gaps_intact(out, columns, n, ldo) && intact(), "%s: transpose %d x %d to %d", sets[set]->name,
              rows, columns, n);
    }
}

/* Entries between the steps must stay as they are. */
static void check_move_rows(test_random *random, int rows, int n) {
    ptrdiff_t in_step = test_int(random, 1, 3), out_step = test_int(random, 1, 3);
    int reach = (n - 1) * (int)in_step + 1, span = (n - 1) * (int)out_step + 1, add = chance(random, 0.5);
    ptrdiff_t in_row = chance(random, 0.3) ? 1 : wider(random, reach), out_row = wider(random, span);
    regions_used = 0;
    rp_real *in = matrix(random, rows, reach, in_row), *start = matrix(random, rows, span, out_row);
    EACH_SET {
        int good = 1;
        rp_real *out = copy(random, start, extent(rows, span, out_row));
        sets[set]->move_rows(rows, n, in, in_row, in_step, out, out_row, out_step, add);
        for (int i = 0; i < rows; i++)
            for (int c = 0; c < span; c++) {
                rp_real want = start[entry(i, c, out_row)], moved = in[i * in_row + c / out_step * in_step];
                if (c % out_step == 0) want = add ? want + moved : moved;
                good = good && rpi_bits(out[entry(i, c, out_row)]) == rpi_bits(want);
            }
        CHECK(good && gaps_intact(out, rows, span, out_row) && intact(), "%s: move_rows %d x %d, steps %d and %d%s",
              sets[set]->name, rows, n, (int)in_step, (int)out_step, add ? ", added" : "");
    }
}

static void check_add_rows(test_random *random, int rows, int n) {
    ptrdiff_t ldi = chance(random, 0.5) ? 0 : wider(random, n), ldo = wider(random, n);
    rp_real scale = (rp_real)test_uniform(random, -2, 2);
    regions_used = 0;
    rp_real *in = matrix(random, rows, n, ldi), *start = matrix(random, rows, n, ldo);
    for (int i = 0; i < rows * n; i++) {
        double before = (double)start[entry(i / n, i % n, ldo)];
        double added = (double)scale * (double)in[entry(i / n, i % n, ldi)];
        exact1.value[i] = before + added, exact1.size[i] = fabs(before) + fabs(added);
    }
    EACH_SET {
        if (n % sets[set]->lanes) continue;
        rp_real *out = copy(random, start, extent(rows, n, ldo));
        sets[set]->add_rows(rows, n, scale, in, ldi, out, ldo);
        double error = excess(out, rows, n, ldo, &exact1, 1);
        CHECK(error <= 1 && gaps_intact(out, rows, n, ldo) && intact(), "%s: add_rows %d x %d: error %g",
              sets[set]->name, rows, n, error);
    }
}

/* exact1: column sums of magnitudes or squares; exact2: products with a factor */
static void naive_rows(int rows, int n, const rp_real *x, ptrdiff_t ld, const rp_real *factor, ptrdiff_t stride,
                       int magnitudes) {
    memset(exact1.value, 0, (size_t)n * sizeof *exact1.value);
    for (int i = 0; i < rows; i++)
        for (int s = 0; s < n; s++) {
            double value = (double)x[entry(i, s, ld)];
            exact1.value[s] = exact1.size[s] = exact1.value[s] + (magnitudes ? fabs(value) : value * value);
            exact2.value[i * n + s] = (double)factor[entry(i, s, stride)] * (magnitudes ? fabs(value) : value);
            exact2.size[i * n + s] = fabs(exact2.value[i * n + s]);
        }
}

static void check_rows(test_random *random, int rows, int n) {
    ptrdiff_t ld = (ptrdiff_t)(n + test_int(random, 0, 20)), stride = chance(random, 0.5) ? 0 : ld;
    int magnitudes = chance(random, 0.5);
    regions_used = 0;
    rp_real *start = matrix(random, rows, n, ld), *factor = matrix(random, rows, n, ld);
    naive_rows(rows, n, start, ld, factor, stride, magnitudes);
    EACH_SET {
        const rpi_kernels *k = sets[set];
        if (n % k->lanes) continue;
        rp_real *x = copy(random, start, extent(rows, n, ld)), *sums = blank(random, (ptrdiff_t)n), most = 0;
        k->column_sums(rows, n, x, ld, sums, !magnitudes);
        double error = excess(sums, 1, n, 0, &exact1, rows + 1);
        CHECK(error <= 1 && intact(), "%s: column_sums %d x %d, squares %d: error %g", k->name, rows, n, !magnitudes,
              error);
        for (int i = 0; i < rows * n; i++) most = (rp_real)fmax((double)most, fabs((double)x[entry(i / n, i % n, ld)]));
        CHECK(k->peak(rows, n, x, ld) == rpi_bits(most), "%s: peak %d x %d", k->name, rows, n);
        k->weigh(rows, n, x, ld, factor, stride, magnitudes);
        error = excess(x, rows, n, ld, &exact2, 1);
        CHECK(error <= 1 && gaps_intact(x, rows, n, ld) && intact(), "%s: weigh %d x %d, stride %d: error %g", k->name,
              rows, n, (int)stride, error);
        x[entry(test_int(random, 0, rows - 1), test_int(random, 0, n - 1), ld)] =
            (rp_real)(chance(random, 0.5) ? -HUGE_VAL : HUGE_VAL - HUGE_VAL);
        CHECK(k->peak(rows, n, x, ld) >= RPI_EXPONENT, "%s: peak %d x %d, not finite", k->name, rows, n);
    }
}

/* The same signs on every set, whatever the vectors' length; as many of either. */
static void check_signs(test_random *random, int rows, int count) {
    ptrdiff_t ld = (ptrdiff_t)padded(count, LANES);
    uint64_t seed = test_bits(random), end = 0;
    int ups = 0, total = rows * count;
    regions_used = 0;
    rp_real *h = matrix(random, rows, (int)ld, ld), *first = blank(random, extent(rows, (int)ld, ld));
    square(h, rows * (int)ld);
    EACH_SET {
        uint64_t state = seed;
        int good = 1, n = padded(count, sets[set]->lanes);
        rp_real *e = blank(random, extent(rows, n, ld));
        sets[set]->signs(rows, n, h, e, ld, &state);
        for (int sample = 0; sample < total; sample++) {
            ptrdiff_t i = entry(sample / count, sample % count, ld);
            if (set == 0) ups += e[i] > 0, first[i] = e[i];
            good = good && rpi_bits(e[i]) == rpi_bits(first[i]);
            good = good && error_of(fabs((double)e[i]), sqrt((double)h[i]), sqrt((double)h[i]), 1) <= 1;
        }
        if (set == 0) end = state;
        CHECK(good && state == end && gaps_intact(e, rows, n, ld) && intact(), "%s: signs %d x %d", sets[set]->name,
              rows, count);
    }
    CHECK(fabs(ups - total / 2.0) <= 3 * sqrt(total) + 1, "%d of %d signs are positive", ups, total);
}

static void test_rows(void) {
    test_random random = {4};
    for (int trial = repeats(1000); trial > 0; trial--) {
        int n = some_columns(&random);
        check_transpose(&random, test_int(&random, 1, SMALL), test_int(&random, 1, SMALL));
        check_rows(&random, test_int(&random, 1, SMALL), n);
        check_add_rows(&random, test_int(&random, 1, SMALL), n);
        check_move_rows(&random, test_int(&random, 1, 20), test_int(&random, 1, SMALL));
        check_signs(&random, test_int(&random, 1, 20), test_int(&random, 1, 2 * SMALL));
    }
}

/* Activations and losses */

/* sigma, sigma', sigma'' without cancellation, for any z */
static void exact_activation(rp_activation_kind kind, double alpha, double z, double *out) {
    const double root_2 = 1.4142135623730951, root_2_pi = 2.5066282746310002;
    double p = 1 / (1 + exp(-z)), q = p / (1 + exp(z)), below, density;
    out[0] = z, out[1] = 1, out[2] = 0;
    switch (kind) {
    case RP_IDENTITY: break;
    case RP_RELU:
    case RP_LEAKY_RELU:
        if (kind == RP_RELU) alpha = 0;
        if (z <= 0) out[0] = alpha * z, out[1] = alpha;
        break;
    case RP_TANH: out[0] = tanh(z), out[1] = 1 / (cosh(z) * cosh(z)), out[2] = -2 * out[0] * out[1]; break;
    case RP_SIGMOID: out[0] = p, out[1] = q, out[2] = -q * tanh(z / 2); break;
    case RP_SOFTPLUS: out[0] = fmax(z, 0) + log1p(exp(-fabs(z))), out[1] = p, out[2] = q; break;
    case RP_ELU:
        if (z <= 0) out[0] = alpha * expm1(z), out[1] = out[2] = alpha * exp(z);
        break;
    case RP_GELU:
        below = erfc(-z / root_2) / 2, density = exp(-z * z / 2) / root_2_pi;
        out[0] = z * below, out[1] = below + z * density, out[2] = density > 0 ? density * (2 - z * z) : 0;
        break;
    case RP_SILU: out[0] = z * p, out[1] = p + z * q, out[2] = q * (2 - z * tanh(z / 2)); break;
    }
}

static void check_activate(test_random *random, rp_activation_kind kind, int rows, int n) {
    rpi_activate a;
    int with_u = chance(random, 0.5), with_slope = chance(random, 0.8);
    int with_second = rpi_activations[kind].curved && chance(random, 0.6);
    memset(&a, 0, sizeof a);
    regions_used = 0;
    a.kind = kind, a.alpha = (rp_real)test_uniform(random, 0, 2), a.rows = rows, a.n = n, a.ld = wider(random, n);
    rp_real *z = matrix(random, rows, n, a.ld), *u = matrix(random, rows, n, a.ld);
    for (int i = 0; i < rows * n; i++) z[entry(i / n, i % n, a.ld)] *= i % 7 ? 3 : 0;
    EACH_SET {
        ptrdiff_t count = extent(rows, n, a.ld);
        double error = 0, error1 = 0, error2 = 0;
        int bad = 0;
        if (n % sets[set]->lanes) continue;
        a.y = copy(random, z, count), a.slope = with_slope ? blank(random, count) : NULL;
        a.u = with_u ? copy(random, u, count) : NULL, a.second = with_second ? blank(random, count) : NULL;
        a.bad = with_slope ? &bad : NULL;
        sets[set]->activate(&a);
        for (int i = 0; i < rows * n; i++) {
            ptrdiff_t p = entry(i / n, i % n, a.ld);
            double sigma[3], size = 1 + fabs((double)z[p]), own = with_u ? (double)u[p] : 1;
            exact_activation(kind, (double)a.alpha, (double)z[p], sigma);
            error = larger(error_of((double)a.y[p], sigma[0], size, 4), error);
            if (a.slope) error1 = larger(error_of((double)a.slope[p], sigma[1], size, 4), error1);
            if (a.u) error1 = larger(error_of((double)a.u[p], fabs(sigma[1]) * own, size * fabs(own), 4), error1);
            if (a.second) error2 = larger(error_of((double)a.second[p], sigma[2] * own, size * fabs(own), 4), error2);
        }
        int inside = intact() && gaps_intact(a.y, rows, n, a.ld) && (!a.slope || gaps_intact(a.slope, rows, n, a.ld)) &&
                     (!a.second || gaps_intact(a.second, rows, n, a.ld)) && (!a.u || gaps_intact(a.u, rows, n, a.ld));
        CHECK(error <= 1 && error1 <= 1 && error2 <= 1 && !bad && inside, "%s: %s %d x %d%s%s: errors %g, %g, %g",
              sets[set]->name, rpi_activations[kind].name, rows, n, with_slope ? " slope" : "", with_u ? " u" : "",
              error, error1, error2);
    }
}

/* What activate_back makes of one number: d, v and second, and the sizes of what is added up in them. */
static void exact_back(rpi_flow flow, double slope, double second, double d, double v, double *out, double *size) {
    out[0] = slope * d, size[0] = fabs(out[0]);
    out[1] = slope * v, size[1] = fabs(out[1]) + fabs(second) * (flow == RPI_BOUND ? fabs(d) : 1);
    if (flow == RPI_BOUND) out[1] = fabs(fabs(slope) * v + second * d);
    if (flow == RPI_BENT) out[1] += second;
    out[2] = flow == RPI_FOLDED ? second * d : second, size[2] = fabs(out[2]);
}

static void check_activate_back(test_random *random, int rows, int n) {
    rpi_activate a;
    rpi_flow flow = (rpi_flow)test_int(random, RPI_BOUND, RPI_BENT);
    int which = flow == RPI_FOLDED ? 1 : flow == RPI_BENT ? 2 : test_int(random, 1, 3), curved = chance(random, 0.7);
    memset(&a, 0, sizeof a);
    regions_used = 0;
    a.kind = RP_TANH, a.rows = rows, a.n = n, a.ld = (ptrdiff_t)(n + test_int(random, 0, 9));
    a.slope = matrix(random, rows, n, a.ld);
    rp_real *d0 = matrix(random, rows, n, a.ld), *v0 = matrix(random, rows, n, a.ld);
    rp_real *second = curved ? matrix(random, rows, n, a.ld) : NULL;
    if (which == 2 && flow == RPI_BOUND) second = NULL; /* it needs d */
    EACH_SET {
        ptrdiff_t count = extent(rows, n, a.ld);
        double error = 0;
        if (n % sets[set]->lanes) continue;
        rp_real *d = which & 1 ? copy(random, d0, count) : NULL, *v = which & 2 ? copy(random, v0, count) : NULL;
        a.second = second ? copy(random, second, count) : NULL;
        sets[set]->activate_back(&a, d, v, flow);
        for (int i = 0; i < rows * n; i++) {
            ptrdiff_t p = entry(i / n, i % n, a.ld);
            double out[3], size[3];
            exact_back(flow, (double)a.slope[p], second ? (double)second[p] : 0, (double)d0[p], (double)v0[p], out,
                       size);
            if (d) error = larger(error_of((double)d[p], out[0], size[0], 1), error);
            if (v) error = larger(error_of(fabs((double)v[p]), fabs(out[1]), size[1], 2), error);
            if (v && flow != RPI_BOUND) error = larger(error_of((double)v[p], out[1], size[1], 2), error);
            if (second) error = larger(error_of((double)a.second[p], out[2], size[2], 1), error);
        }
        int inside = intact() && (!d || gaps_intact(d, rows, n, a.ld)) && (!v || gaps_intact(v, rows, n, a.ld));
        CHECK(error <= 1 && inside, "%s: activate_back %d x %d%s%s%s, flow %d: error %g", sets[set]->name, rows, n,
              d ? " d" : "", v ? " v" : "", second ? " second" : "", (int)flow, error);
    }
}

static void check_activate_tangent(test_random *random, int rows, int n) {
    rpi_activate a;
    int curved = chance(random, 0.7), with_t2 = chance(random, 0.5);
    memset(&a, 0, sizeof a);
    regions_used = 0;
    a.kind = RP_TANH, a.rows = rows, a.n = n, a.ld = (ptrdiff_t)(n + test_int(random, 0, 9));
    a.slope = matrix(random, rows, n, a.ld), a.second = curved ? matrix(random, rows, n, a.ld) : NULL;
    rp_real *t0 = matrix(random, rows, n, a.ld), *u0 = matrix(random, rows, n, a.ld);
    EACH_SET {
        ptrdiff_t count = extent(rows, n, a.ld);
        double error = 0;
        if (n % sets[set]->lanes) continue;
        rp_real *t = copy(random, t0, count), *t2 = with_t2 ? copy(random, u0, count) : NULL;
        rp_real *bend = with_t2 ? NULL : blank(random, count);
        sets[set]->activate_tangent(&a, t, t2, bend);
        for (int i = 0; i < rows * n; i++) {
            ptrdiff_t p = entry(i / n, i % n, a.ld);
            double slope = (double)a.slope[p], second = curved ? (double)a.second[p] : 0, x = (double)t0[p];
            double half = second * x * x / 2, by = slope * (double)u0[p];
            error = larger(error_of((double)t[p], slope * x, fabs(slope * x), 1), error);
            if (t2) error = larger(error_of((double)t2[p], by + half, fabs(by) + fabs(half), 4), error);
            if (bend) error = larger(error_of((double)bend[p], second * x, fabs(second * x), 1), error);
        }
        int inside = intact() && gaps_intact(t, rows, n, a.ld) && (!t2 || gaps_intact(t2, rows, n, a.ld)) &&
                     (!bend || gaps_intact(bend, rows, n, a.ld));
        CHECK(error <= 1 && inside, "%s: activate_tangent %d x %d%s%s: error %g", sets[set]->name, rows, n,
              curved ? " second" : "", with_t2 ? " t2" : " bend", error);
    }
}

static void check_vectors(test_random *random, int n) {
    regions_used = 0;
    rp_real *x = matrix(random, 1, n, 0), *f = chance(random, 0.5) ? matrix(random, 1, n, 0) : NULL;
    rp_real *y0 = matrix(random, 1, n, 0), a = (rp_real)test_normal(random);
    rp_real b = chance(random, 0.3) ? 0 : (rp_real)test_normal(random);
    EACH_SET {
        double error = 0, sum = 0, size = 0;
        rp_real *y = copy(random, y0, (ptrdiff_t)n);
        double dot = sets[set]->dot((ptrdiff_t)n, x, y), sizes = sets[set]->dot_sizes((ptrdiff_t)n, x, y);
        if (b == 0) y[n - 1] = (rp_real)(HUGE_VAL - HUGE_VAL); /* not read */
        sets[set]->blend((ptrdiff_t)n, a, x, f, b, y);
        for (int i = 0; i < n; i++) {
            double term = (double)a * (double)x[i] * (f ? (double)f[i] : 1), rest = (double)b * (double)y0[i];
            error = larger(error_of((double)y[i], term + rest, fabs(term) + fabs(rest), 3), error);
            sum += (double)x[i] * (double)y0[i], size += fabs((double)x[i] * (double)y0[i]);
        }
        error = larger(error_of(dot, sum, size, 64), error); /* blocks of 64 in each lane */
        error = larger(error_of(sizes, size, size, 64), error);
        CHECK(error <= 1 && intact(), "%s: dot, blend of %d, b %g: error %g", sets[set]->name, n, (double)b, error);
    }
}

/* d, h and the loss of one sample against the reference's; the largest error. */
static double sample_excess(const ref_objective *loss, const rpi_loss_call *call, const rp_real *targets, int s) {
    double y[SMALL] = {0}, t[SMALL], d[SMALL], h[SMALL], total = 0, worst = 0;
    for (int i = 0; i < loss->outputs; i++) {
        y[i] = (double)call->y[entry(i, s, call->ld)];
        t[i] = (double)targets[entry(i, s, call->ld)];
        total += 1 + y[i] * y[i] + t[i] * t[i] + (loss->kind == RP_POISSON ? exp(y[i]) : 0);
    }
    ref_loss_gradient(loss, y, t, d);
    ref_loss_second(loss, RP_BOUND_TIGHT, y, t, h);
    for (int i = 0; i < loss->outputs; i++) {
        ptrdiff_t p = entry(i, s, call->ld);
        double size = 1 + fabs(y[i]) + fabs(t[i]) + fabs(h[i]) + fabs(d[i]);
        worst = larger(error_of((double)call->d[p], d[i], size, 16), worst);
        if (call->exact && loss->kind == RP_HUBER) h[i] = fabs(y[i] - t[i]) <= loss->delta;
        if (call->h) worst = larger(error_of((double)call->h[p], h[i], size, 16), worst);
    }
    return larger(error_of(call->loss[s], ref_loss(loss, y, t), total, 16), worst);
}

static void check_loss(test_random *random, rp_loss_kind kind, int outputs, int count) {
    rpi_loss_call call;
    int with_h = chance(random, 0.5);
    regions_used = 0;
    int columns = padded(count, LANES);
    call.outputs = outputs, call.count = count, call.exact = chance(random, 0.5), call.ld = wider(random, columns);
    call.delta = (rp_real)test_uniform(random, 0.2, 2);
    const ref_objective loss = {kind, (double)call.delta, outputs};
    rp_real *y = matrix(random, outputs, columns, call.ld), *t = matrix(random, outputs, columns, call.ld);
    for (int i = 0; kind != RP_SQUARED_ERROR && kind != RP_HUBER && i < outputs; i++)
        for (int s = 0; s < columns; s++) t[entry(i, s, call.ld)] = (rp_real)test_int(random, 0, 4) / 4;
    call.y = y;
    EACH_SET {
        int n = padded(count, sets[set]->lanes);
        ptrdiff_t size = extent(outputs, n, call.ld);
        double error = 0;
        call.loss = (double *)place((size_t)count * sizeof *call.loss, 0);
        call.d = copy(random, t, size), call.h = with_h ? blank(random, size) : NULL;
        sets[set]->loss[kind](&call);
        for (int s = 0; s < count; s++) error = larger(sample_excess(&loss, &call, t, s), error);
        CHECK(error <= 1 && intact() && (!call.h || gaps_intact(call.h, outputs, n, call.ld)),
              "%s: %s %d x %d%s: error %g", sets[set]->name, rpi_losses[kind].name, outputs, count, with_h ? " h" : "",
              error);
    }
}

static void test_activations(void) {
    test_random random = {5};
    for (int trial = repeats(150); trial > 0; trial--) {
        for (int kind = RP_RELU; kind <= RP_SILU; kind++)
            check_activate(&random, (rp_activation_kind)kind, test_int(&random, 1, 9), some_columns(&random));
        for (int i = 0; i < 8; i++) check_activate_back(&random, test_int(&random, 1, 20), some_columns(&random));
        for (int i = 0; i < 3; i++) check_activate_tangent(&random, test_int(&random, 1, 20), some_columns(&random));
        for (int i = 0; i < 3; i++) check_vectors(&random, test_int(&random, 1, 3 * SMALL));
        for (int kind = RP_SQUARED_ERROR; kind <= RP_POISSON; kind++) {
            check_loss(&random, (rp_loss_kind)kind, test_int(&random, 1, SMALL), test_int(&random, 1, SMALL / 3));
            check_loss(&random, (rp_loss_kind)kind, test_int(&random, 1, 5), test_int(&random, 1, 3 * RPI_PANEL));
        }
    }
}

/* Accuracy: of the functions over all numbers of single precision, in ulp, the distance of numbers at the result. */

enum {
    EXP = RP_SILU + 1, /* a kind of function beside the activations */
    KINDS,
    CHUNK = 1024
};

typedef struct accuracy {
    double worst, where;
} accuracy;
static accuracy accuracies[KINDS][3][SETS];

/* Limits for value, sigma', sigma''. Derivatives are made of rounded values, so that a rounding or two more are in
   them. Results below `least` count as if they were so large: GELU and SiLU have products that cancel, the others'
   derivatives are multiples of numbers that may be subnormal. GELU's slope begins with a product of three numbers, each
   rounded. */
static const struct {
    double limit[3], least;
} promises[KINDS] = {
    [RP_TANH] = {{2, 2.5, 4}, 1e-36}, [RP_SIGMOID] = {{2, 2.5, 4}, 1e-36}, [RP_SOFTPLUS] = {{2, 2, 2.5}, 1e-36},
    [RP_ELU] = {{1, 1, 1}, 0},        [RP_GELU] = {{1.5, 2.5, 1.5}, 1},    [RP_SILU] = {{2, 1.5, 1}, 1},
    [EXP] = {{1, 0, 0}, 0},
};
static const char *kind_name(int kind) { return kind == EXP ? "exp" : rpi_activations[kind].name; }

/* Infinity counts as the power of two behind the largest number. */
static double ulps(double got, double value, double least) {
    const double most = ldexp(1, MOST_EXPONENT);
    int exponent;
    if (got != got) return HUGE_VAL;
    frexp(fmin(fmax(fabs(value), least), most / 2), &exponent);
    got = fmax(-most, fmin(most, got)), value = fmax(-most, fmin(most, value));
    return fabs(got - value) / ldexp(1, (exponent > LEAST_EXPONENT ? exponent : LEAST_EXPONENT) - DIGITS);
}

/* y, slope, second: value, sigma' and sigma'' of one function. Returns whether a z was seen that is not finite. */
static int evaluate_one(const rpi_kernels *k, int kind, int n, const rp_real *z, rp_real *y, rp_real *slope,
                        rp_real *second) {
    static rp_real u[CHUNK];
    static double loss[CHUNK];
    int bad = 0;
    rpi_activate a = {(rp_activation_kind)kind, 1, 1, n, CHUNK, y, slope, second, u, &bad};
    rpi_loss_call call = {1, n, 0, CHUNK, 1, z, second, y, loss}; /* whose second derivative is exp(z) */
    for (int i = 0; i < n; i++) y[i] = z[i], u[i] = 1, second[i] = 0;
    if (kind == EXP) k->loss[RP_POISSON](&call);
    else k->activate(&a);
    return bad;
}

static void measure(int n, const rp_real *z) {
    static double exact_y[CHUNK][3];
    static rp_real y[3][CHUNK];
    for (int kind = RP_TANH; kind < KINDS; kind++) {
        for (int i = 0; i < n; i++) {
            if (kind == EXP) exact_y[i][0] = exp((double)z[i]);
            else exact_activation((rp_activation_kind)kind, 1, (double)z[i], exact_y[i]);
        }
        for (int set = 0; set < set_count; set++) {
            CHECK(!evaluate_one(sets[set], kind, n, z, y[0], y[1], y[2]), "%s: %s", sets[set]->name, kind_name(kind));
            for (int order = 0; order < (kind == EXP ? 1 : 3); order++)
                for (int i = 0; i < n; i++) {
                    accuracy *a = &accuracies[kind][order][set];
                    double error = ulps((double)y[order][i], exact_y[i][order], promises[kind].least);
                    if (error > a->worst) a->worst = error, a->where = (double)z[i];
                }
        }
    }
}

static rp_real from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Where something changes, and the numbers next to it. */
static void measure_edges(void) {
    static const float edges[] = {0,         FLT_MIN,    FLT_MAX,    0.625f, 1,        88.72284f, 89,
                                  87.33655f, 103.27893f, 103.97208f, 105,    3e-8f,    6e-8f,     1e-4f,
                                  16,        17.4f,      1e19f,      2e19f,  9.01091f, 44.36142f, 1e-38f};
    enum { EDGES = sizeof edges / sizeof *edges };
    static rp_real z[CHUNK];
    int n = 0;
    for (int e = 0; e < EDGES; e++)
        for (int step = -8; step < 8; step++) {
            uint32_t bits;
            memcpy(&bits, &edges[e], sizeof bits);
            bits = (bits + (uint32_t)step) & 0x7FFFFFFF;
            if (bits > 0x7F7FFFFF) bits = 0;
            z[n++] = from_bits(bits), z[n++] = from_bits(bits | 0x80000000u);
        }
    measure(n, z);
}

/* What is infinite has the limit as its value; what is not a number stays so. */
static void check_not_finite(void) {
    static const double limits[KINDS][2] = {
        [RP_RELU] = {HUGE_VAL, 0}, [RP_LEAKY_RELU] = {HUGE_VAL, -HUGE_VAL}, [RP_TANH] = {1, -1},
        [RP_SIGMOID] = {1, 0},     [RP_SOFTPLUS] = {HUGE_VAL, 0},           [RP_ELU] = {HUGE_VAL, -1},
        [EXP] = {HUGE_VAL, 0},
    };
    static const double not_finite[] = {HUGE_VAL, -HUGE_VAL, HUGE_VAL - HUGE_VAL};
    rp_real z[LANES], y[LANES], slope[LANES], second[LANES];
    for (int i = 0; i < LANES; i++) z[i] = (rp_real)not_finite[i % 3];
    for (int kind = RP_RELU; kind < KINDS; kind++)
        for (int set = 0; set < set_count; set++) {
            int good = evaluate_one(sets[set], kind, LANES, z, y, slope, second) || kind == EXP;
            for (int i = 0; i < LANES; i++) {
                double limit = i % 3 == 2 ? 0 : limits[kind][i % 3], got = (double)y[i];
                if (i % 3 == 2) good = good && got != got;
                else if (kind < RP_GELU || kind == EXP) good = good && got >= limit && got <= limit;
            }
            CHECK(good, "%s: %s: %g, %g, %g", sets[set]->name, kind_name(kind), (double)y[0], (double)y[1],
                  (double)y[2]);
        }
}

static void test_accuracy(void) {
    static rp_real z[CHUNK];
    test_random random = {6};
    double factor = 1;
#ifdef RP_DOUBLE
    factor = 8; /* the reference is as inexact as the C library that it tests */
#endif
    for (uint32_t exponent = 0; exponent < 255; exponent++) {
        int often = exponent > 110 && exponent < 135 ? 4 : 1, n = repeats(256 * often);
        for (int some; n > 0; n -= some) {
            some = n < CHUNK ? padded(n, LANES) : CHUNK;
            for (int i = 0; i < some; i++)
                z[i] = from_bits((uint32_t)(i & 1) << 31 | exponent << 23 | (uint32_t)(test_bits(&random) >> 41));
            measure(some, z);
        }
    }
    measure_edges();
    check_not_finite();
    printf("largest error, ulp     value at               sigma' at              sigma'' at\n");
    for (int kind = RP_TANH; kind < KINDS; kind++)
        for (int set = 0; set < set_count; set++) {
            printf("%-8s %-9s", kind_name(kind), sets[set]->name);
            for (int order = 0; order < (kind == EXP ? 1 : 3); order++)
                printf(" %7.4g %-14.9g", accuracies[kind][order][set].worst, accuracies[kind][order][set].where);
            printf("\n");
        }
    for (int kind = RP_TANH; kind < KINDS; kind++)
        for (int i = 0; i < 3 * set_count; i++)
            CHECK(accuracies[kind][i % 3][i / 3].worst <= factor * promises[kind].limit[i % 3], "%s: %s, derivative %d",
                  sets[i / 3]->name, kind_name(kind), i % 3);
}

/* Whole nets */

enum { WIDEST = 350, SAMPLES = 100, PLANS = 5, METHODS = 6, THREADS = 5 };

typedef struct plan {
    int width[6]; /* inputs, then units of dense layers, then 0 */
    rp_activation_kind activation;
    rp_loss_kind loss;
    int batch, side; /* side: of an image that is convolved and pooled first, or 0 */
} plan;
/* All but the last are large enough to be shared between threads. */
static const plan plans[PLANS] = {
    {{330, 90, 70, 5, 0, 0}, RP_SOFTPLUS, RP_SOFTMAX_CROSS_ENTROPY, 64, 0},
    {{160, 200, 40, 160, 0, 0}, RP_TANH, RP_SQUARED_ERROR, SAMPLES, 0},
    {{WIDEST, 64, WIDEST, 0, 0, 0}, RP_RELU, RP_BINARY_CROSS_ENTROPY, 33, 0},
    {{18 * 18, 5, 0, 0, 0, 0}, RP_RELU, RP_SOFTMAX_CROSS_ENTROPY, 33, 18},
    {{9, 30, 7, 0, 0, 0}, RP_GELU, RP_HUBER, 5, 0},
};
static rp_real inputs[SAMPLES * WIDEST], targets[SAMPLES * WIDEST];

static void make_data(void) {
    test_random random = {7};
    for (int i = 0; i < SAMPLES * WIDEST; i++)
        inputs[i] = (rp_real)test_normal(&random), targets[i] = (rp_real)test_uniform(&random, 0, 1);
}

static int outputs_of(const plan *p) {
    int layer = 1;
    while (p->width[layer + 1]) layer++;
    return p->width[layer];
}

static rp_net *new_net(const plan *p, rp_isa_kind isa, int threads) {
    rp_config config = config_of(isa, threads);
    rp_net *net = rp_net_new(p->side ? rp_image(1, p->side, p->side) : rp_vector(p->width[0]), &config);
    if (p->side) rp_conv2d(net, 9, 5, 1, 2), rp_activation(net, p->activation), rp_max_pool2d(net, 3, 3);
    for (int l = 1; p->width[l]; l++) {
        rp_dense(net, p->width[l]);
        if (p->width[l + 1]) rp_activation(net, p->activation);
    }
    rp_loss(net, p->loss);
    if (!CHECK(rp_net_build(net, p->batch, 1) == RP_OK, "%s", rp_error(net))) exit(test_end());
    return net;
}

static rp_optimizer nth_optimizer(int n) {
    const rp_rule rules[] = {
        rule_of(RP_PATHS, RP_BOUND_TIGHT, RP_SCALE_ONE), rule_of(RP_PATHS, RP_BOUND_JENSEN, RP_SCALE_FAN_IN),
        rule_of(RP_SAMPLED, RP_BOUND_TIGHT, RP_SCALE_FAN_IN), rule_of(RP_JACOBIAN, RP_BOUND_TIGHT, RP_SCALE_ONE)};
    rp_optimizer optimizer = n == 0 ? rp_sgd((rp_real)0.01) : rp_adam((rp_real)0.001);
    if (n > 1) optimizer = rp_algorithm_1(1), optimizer.rule = rules[n - 2];
    return optimizer;
}
static int too_slow(const plan *p, int optimizer) { return optimizer == METHODS - 1 && outputs_of(p) > 10; }

/* A net on its way, possibly in a thread of its own. */
typedef struct training {
    const plan *plan;
    rp_net *net;
    rp_optimizer optimizer;
    rp_real loss;
    rp_status status;
} training;

static void train_steps(training *t, int steps) {
    rp_data data = rp_targeted(inputs, targets, t->plan->batch);
    t->status = RP_OK;
    for (; steps > 0 && !t->status; steps--) t->status = rp_train(t->net, &t->optimizer, &data, &t->loss);
}
static training train_new(const plan *p, rp_isa_kind isa, int threads, int optimizer, int steps) {
    training t = {p, new_net(p, isa, threads), nth_optimizer(optimizer), 0, RP_OK};
    train_steps(&t, steps);
    CHECK(t.status == RP_OK, "%s", rp_error(t.net));
    return t;
}

/* Largest difference of two arrays, relative to the largest entry. */
static double difference(const rp_real *a, const rp_real *b, ptrdiff_t count) {
    double largest = 0, error = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)a[i]));
        error = larger(fabs((double)a[i] - (double)b[i]), error);
    }
    return error > 0 ? error / largest : error;
}

/* The same numbers on every set, to rounding that has grown over some steps. Where products are rough, so are Adam's
   quotients of small gradients and their sizes. */
static void test_nets_on_sets(void) {
    for (int n = 0; set_count > 1 && n < PLANS * METHODS; n += quick ? 6 : 1) {
        const plan *p = &plans[n % PLANS];
        int optimizer = n / PLANS;
        if (too_slow(p, optimizer)) continue;
        training first = train_new(p, set_kinds[0], 1, optimizer, 4);
        for (int set = 1; set < set_count; set++) {
            const double allowed = (sets[set]->rough_rows ? 16000 : 2000) * (double)EPSILON;
            training t = train_new(p, set_kinds[set], 1, optimizer, 4);
            double error =
                difference(rp_parameters(first.net), rp_parameters(t.net), (ptrdiff_t)rp_parameter_count(t.net));
            CHECK(!strcmp(rp_isa(t.net), sets[set]->name), "%s", rp_isa(t.net));
            CHECK(error <= allowed && difference(&first.loss, &t.loss, 1) <= allowed,
                  "%s: plan %d, optimizer %d: parameters differ by %g, losses %g and %g", sets[set]->name, n % PLANS,
                  optimizer, error, (double)first.loss, (double)t.loss);
            rp_net_free(t.net);
        }
        rp_net_free(first.net);
    }
}

/* The same bits for every number of threads: parameters, loss, predictions. */
static void test_thread_counts(void) {
    static rp_real expected[SAMPLES * WIDEST], out[SAMPLES * WIDEST];
    const int most = sizeof(rp_real) > 4 ? 3 : THREADS;
    for (int n = 0; n < PLANS * METHODS; n += quick ? 8 : 1) {
        const plan *p = &plans[n % PLANS];
        int optimizer = n / PLANS, set = (n + optimizer) % set_count;
        size_t bytes = bytes_of(p->batch * outputs_of(p));
        if (too_slow(p, optimizer)) continue;
        training alone = train_new(p, set_kinds[set], 1, optimizer, 2);
        rp_predict(alone.net, inputs, p->batch, expected);
        for (int threads = 2; threads <= most; threads++) {
            training t = train_new(p, set_kinds[set], threads, optimizer, 2);
            double work = (double)p->width[0] * (p->side ? 9 * 25 : p->width[1]) * p->batch;
            int parts = rpi_parts(t.net->buffers.team, work, p->width[1], 1);
            CHECK(p == &plans[PLANS - 1] || parts > 1, "%d parts: the net is too small for this test", parts);
            CHECK(!memcmp(rp_parameters(alone.net), rp_parameters(t.net), rp_parameter_count(t.net) * sizeof *out) &&
                      !memcmp(&alone.loss, &t.loss, sizeof t.loss),
                  "%s: plan %d, optimizer %d, %d threads: losses %g and %g", sets[set]->name, n % PLANS, optimizer,
                  threads, (double)alone.loss, (double)t.loss);
            CHECK(rp_predict(t.net, inputs, p->batch, out) == RP_OK && !memcmp(out, expected, bytes),
                  "%s: plan %d, predictions of %d threads", sets[set]->name, n % PLANS, threads);
            rp_net_free(t.net);
        }
        rp_net_free(alone.net);
    }
}

#ifdef HAVE_POSIX
static int gate[2]; /* a pipe */
static rpi_counter late;
static void come_late(int signal) {
    char byte;
    (void)signal;
    rpi_add(&late, 1);
    while (read(gate[0], &byte, 1) != 1) continue;
}
static void count_part(const void *context, int part, int parts) {
    (void)parts;
    rpi_add((rpi_counter *)context + part, 1);
}

/* The caller does what no helper has begun, and each part is done once. */
static void test_late_helpers(void) {
    enum { ROUNDS = 2000 };
    rp_net *net = new_net(&plans[0], RP_ISA_AUTO, 3);
    rpi_team *team = net->buffers.team;
    rpi_counter done[3];
    struct sigaction action, before;
    for (int part = 0; part < 3; part++) rpi_counter_init(&done[part]);
    rpi_counter_init(&late);
    memset(&action, 0, sizeof action);
    action.sa_handler = come_late;
    sigaction(SIGUSR1, &action, &before);
    if (!CHECK(!pipe(gate), "no pipe")) return;
    for (int i = 0; i < 2; i++) pthread_kill(team->helpers[i].thread, SIGUSR1);
    while (rpi_get(&late) < 2) rpi_yield();
    alarm(60); /* instead of waiting for ever */
    for (int round = 0; round < ROUNDS; round++) rpi_share(team, 2 + round % 2, count_part, done);
    alarm(0);
    CHECK(write(gate[1], "ab", 2) == 2, "the helpers are not let go");
    for (int round = 0; round < ROUNDS; round++) rpi_share(team, 2 + round % 2, count_part, done);
    CHECK(rpi_get(&done[0]) == 2 * ROUNDS && rpi_get(&done[1]) == 2 * ROUNDS && rpi_get(&done[2]) == ROUNDS,
          "%u, %u and %u of %d", rpi_get(&done[0]), rpi_get(&done[1]), rpi_get(&done[2]), 2 * ROUNDS);
    sigaction(SIGUSR1, &before, NULL);
    rp_net_free(net);
    close(gate[0]);
    close(gate[1]);
}
#endif

static RPI_THREAD_RESULT train_in_thread(void *argument) {
    train_steps((training *)argument, 6);
    return 0;
}

/* Two nets, each with its team, trained at the same time: as if alone. */
static void test_two_teams(void) {
    for (int round = repeats(20); round > 0; round--) {
        training t[2];
        rpi_thread thread[2];
        for (int i = 0; i < 2; i++) {
            t[i].plan = &plans[i], t[i].optimizer = nth_optimizer((round + i) % (METHODS - 1));
            t[i].net = new_net(t[i].plan, RP_ISA_AUTO, 2 + (round + i) % 2);
        }
        for (int i = 0; i < 2; i++)
            if (!CHECK(rpi_thread_new(&thread[i], train_in_thread, &t[i]), "no thread")) exit(test_end());
        for (int i = 0; i < 2; i++) rpi_thread_join(thread[i]);
        for (int i = 0; i < 2; i++) {
            training alone = train_new(t[i].plan, RP_ISA_AUTO, 1, (round + i) % (METHODS - 1), 6);
            CHECK(t[i].status == RP_OK, "%s", rp_error(t[i].net));
            CHECK(difference(rp_parameters(alone.net), rp_parameters(t[i].net),
                             (ptrdiff_t)rp_parameter_count(alone.net)) <= 0,
                  "round %d, net %d", round, i);
            rp_net_free(alone.net), rp_net_free(t[i].net);
        }
    }
}

/* Teams that are never asked for anything, or once. */
static void test_idle_teams(void) {
    for (int round = repeats(60); round > 0; round--) {
        rp_real y[WIDEST];
        rp_net *net = new_net(&plans[round % PLANS], RP_ISA_AUTO, 1 + round % THREADS);
        if (round % 3 == 0) CHECK(rp_predict(net, inputs, 1, y) == RP_OK, "%s", rp_error(net));
        rp_net_free(net);
    }
}

/* One sample at a time, by matrix-vector products, against the same samples together. */
static void test_single_samples(void) {
    enum { COUNT = 7 };
    static rp_real together[COUNT * SMALL], single[COUNT * SMALL];
    test_random random = {8};
    for (int trial = repeats(200); trial > 0; trial--) {
        plan p = {{1, 1, 1, 1, 0, 0}, RP_IDENTITY, RP_SQUARED_ERROR, COUNT, 0};
        p.activation = (rp_activation_kind)test_int(&random, RP_IDENTITY, RP_SILU);
        for (int l = 0; l < 4; l++) p.width[l] = test_int(&random, 1, SMALL);
        for (int set = 0; set < set_count; set++) {
            rp_net *net = new_net(&p, set_kinds[set], 1);
            rp_workspace *one = rp_workspace_new(net, 1), *more = rp_workspace_new(net, 1 + trial % COUNT);
            ptrdiff_t count = (ptrdiff_t)(COUNT * p.width[3]);
            CHECK(one && more && rp_predict(net, inputs, COUNT, together) == RP_OK, "%s", rp_error(net));
            for (int way = 0; way < 3; way++) {
                rp_status status = way == 2 ? rp_predict_with(net, more, inputs, COUNT, single) : RP_OK;
                for (int s = 0; way < 2 && !status && s < COUNT; s++) {
                    const rp_real *x = inputs + s * p.width[0];
                    rp_real *y = single + s * p.width[3];
                    status = way ? rp_predict_with(net, one, x, 1, y) : rp_predict(net, x, 1, y);
                }
                double error = difference(together, single, count);
                CHECK(status == RP_OK && error <= 100 * (double)EPSILON, "%s: %d %d %d %d %s, way %d: %g",
                      sets[set]->name, p.width[0], p.width[1], p.width[2], p.width[3],
                      rpi_activations[p.activation].name, way, error);
            }
            rp_workspace_free(one), rp_workspace_free(more), rp_net_free(net);
        }
    }
}

/* What would be subnormal is a zero of its sign. */
static void test_subnormal(void) {
    const rp_real least = (rp_real)ldexp(1, LEAST_EXPONENT - 1);
    EACH_SET {
        rp_real slope[LANES], d[LANES], v[LANES];
        rpi_activate a;
        memset(&a, 0, sizeof a);
        for (int i = 0; i < LANES; i++) slope[i] = (rp_real)0.5, d[i] = i % 2 ? -least : 2 * least, v[i] = least;
        a.rows = 1, a.n = LANES, a.ld = LANES, a.slope = slope;
        sets[set]->activate_back(&a, d, v, RPI_BOUND);
        for (int i = 0; i < LANES; i++)
            CHECK(d[i] == (i % 2 ? 0 : least) && (i % 2 == 0 || signbit(d[i])) && v[i] == 0, "%s: %g, %g",
                  sets[set]->name, (double)d[i], (double)v[i]);
        for (int i = 0; i < LANES; i++) v[i] = -(rp_real)ldexp((double)least, i % 2 ? 27 : 25);
        sets[set]->weigh(1, LANES, v, LANES, slope, LANES, 1);
        for (int i = 0; i < LANES; i++)
            CHECK(v[i] == (i % 2 ? (rp_real)ldexp((double)least, 26) : 0), "%s: weighed to %g", sets[set]->name,
                  (double)v[i]);
    }
}

/* Means of what is zero from some step on end as zeros. */
static void test_vanishing(void) {
    enum { N = LANES + 3 };
    static const int methods[] = {RP_PARTITIONING, RP_SGD, RP_ADAM, RP_ADADELTA, RPI_PACED};
    const rp_real least = (rp_real)ldexp(1, LEAST_EXPONENT - 1), half = (rp_real)0.5;
    EACH_SET for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
        rp_real w[N], g[N] = {0}, first[N], second[N];
        rpi_update u;
        rpi_update_call call;
        memset(&u, 0, sizeof u);
        memset(&call, 0, sizeof call);
        for (int i = 0; i < N; i++) w[i] = 1, first[i] = i % 2 ? -least : least, second[i] = least;
        u.method = methods[m], u.rate = u.damping = u.epsilon = u.correct1 = u.correct2 = 1;
        u.momentum = u.average = u.beta1 = u.beta2 = u.rho = half;
        call.rows = 1, call.n = N, call.scale = call.scale2 = 1;
        call.g = call.h = g, call.w = w, call.first = first, call.second = second;
        sets[set]->update(&u, &call);
        for (int i = 0; i < N; i++)
            CHECK(first[i] == 0 && (second[i] == 0 || u.method == RP_SGD) && w[i] == 1, "%s, method %d: %g, %g, %g",
                  sets[set]->name, u.method, (double)first[i], (double)second[i], (double)w[i]);
    }
}

/* Adam's step is as long as ever where the gradient's square is subnormal and epsilon as small. */
static void test_small_squares(void) {
    const rp_real least = (rp_real)ldexp(1, LEAST_EXPONENT - 1), size = (rp_real)sqrt((double)least) / 2;
    EACH_SET {
        rp_real w[LANES], g[LANES], first[LANES] = {0}, second[LANES] = {0};
        rpi_update u;
        rpi_update_call call;
        memset(&u, 0, sizeof u);
        memset(&call, 0, sizeof call);
        for (int i = 0; i < LANES; i++) w[i] = 1, g[i] = size;
        u.method = RP_ADAM, u.rate = (rp_real)0.5, u.beta1 = u.beta2 = (rp_real)0.5, u.correct1 = u.correct2 = 2;
        call.rows = 1, call.n = LANES, call.scale = 1;
        call.g = g, call.w = w, call.first = first, call.second = second;
        sets[set]->update(&u, &call);
        for (int i = 0; i < LANES; i++)
            CHECK(fabs((double)w[i] - 0.5) < 1e-3, "%s: to %g", sets[set]->name, (double)w[i]);
    }
}

/* Equal parameters stay equal to the bit, in whole vectors and behind them: a step in pieces is the same step. */
static void test_alike(void) {
    enum { N = LANES + 3, ARRAYS = 5 };
    static const int methods[] = {RP_PARTITIONING, RP_SGD,          RP_ADAM,  RP_ADAGRAD,
                                  RP_ADADELTA,     RP_PER_VARIABLE, RPI_PACED};
    test_random random = {5};
    for (size_t trial = 0; trial < 200; trial++) {
        rp_real start[ARRAYS];
        rpi_update u;
        for (int k = 0; k < ARRAYS; k++) start[k] = (rp_real)test_uniform(&random, 0.1, 2);
        memset(&u, 0, sizeof u);
        u.method = methods[trial % (sizeof methods / sizeof *methods)];
        rp_real *constants[] = {&u.rate,  &u.weight_decay, &u.shrink,  &u.momentum, &u.average,  &u.damping, &u.beta1,
                                &u.beta2, &u.rho,          &u.epsilon, &u.sigma,    &u.correct1, &u.correct2};
        for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
            *constants[i] = (rp_real)test_uniform(&random, 0.1, 0.9);
        EACH_SET {
            rp_real arrays[ARRAYS][N];
            rpi_update_call call;
            int unlike = 0;
            memset(&call, 0, sizeof call);
            for (int k = 0; k < ARRAYS; k++)
                for (int i = 0; i < N; i++) arrays[k][i] = start[k];
            call.rows = 1, call.n = N, call.scale = (rp_real)0.3, call.scale2 = (rp_real)0.7;
            call.w = arrays[0], call.g = arrays[1], call.h = arrays[2], call.first = arrays[3], call.second = arrays[4];
            sets[set]->update(&u, &call);
            for (int k = 0; k < ARRAYS; k++)
                for (int i = 1; i < N; i++) unlike += memcmp(&arrays[k][i], &arrays[k][0], sizeof(rp_real)) != 0;
            CHECK(!unlike && arrays[0][0] != start[0], "%s, method %d: %d unlike", sets[set]->name, u.method, unlike);
        }
    }
}

/* Numbers as they are written are read as the same bits, and by strtod. */
static void test_numbers(void) {
    test_random random = {1};
    for (int i = 0; i < 1500; i++) {
        const rpi_binary *format = i % 2 ? &rpi_float32 : &rpi_float64;
        uint64_t bits = test_bits(&random) >> 1;
        uint32_t few = (uint32_t)bits & 0x7FFFFFFF;
        double x = 0, again = 0;
        float single;
        char word[64];
        rpi_text text = {word, sizeof word, 0};
        if (i % 3) bits = (bits & 0xFFFFFFFFFFFFF) | (uint64_t)test_int(&random, 1023 - 40, 1023 + 40) << 52;
        memcpy(&x, &bits, sizeof x);
        memcpy(&single, &few, sizeof single);
        if (i % 2) x = (double)single;
        if (!rpi_finite_double(x)) continue;
        if (i % 7 == 0) x = -x;
        rpi_put_exactly(&text, format, x);
        word[text.length] = 0;
        CHECK(rpi_read_exactly(word, format, &again) && !memcmp(&again, &x, sizeof x), "%s is %.17g, not %.17g", word,
              again, x);
        again = i % 2 ? (double)strtof(word, NULL) : strtod(word, NULL);
        CHECK(!memcmp(&again, &x, sizeof x), "%s is %.17g, not %.17g", word, again, x);
    }
    static const char *const halves[] = {"1.00000005960464477539", "16777217",      "16777219", "0.1", "1e-46", "8e-46",
                                         "3.4028235e38",           "1.17549428e-38"};
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
        double x = 0, expected = (double)strtof(halves[i], NULL);
        if (strlen(halves[i]) > 20) continue;
        CHECK(rpi_read_exactly(halves[i], &rpi_float32, &x) && x == expected, "%s: %.9g", halves[i], x);
    }
}

/* Bytes in the other order, and halves: what a machine of the other kind does. */
static void test_number_formats(void) {
    static const struct {
        int dtype;
        unsigned char at[8];
        double x;
    } numbers[] = {
        {RPI_F32, {0, 0, 0x80, 0x3F}, 1},
        {RPI_F32, {0, 0, 0x20, 0xC1}, -10},
        {RPI_F64, {0, 0, 0, 0, 0, 0, 0xF8, 0x3F}, 1.5},
        {RPI_F16, {0, 0x3C}, 1},
        {RPI_F16, {0xFF, 0x7B}, 65504},
        {RPI_F16, {1, 0}, 1.0 / 16777216},
        {RPI_F16, {1, 0x80}, -1.0 / 16777216},
        {RPI_F16, {0xFF, 3}, 1023.0 / 16777216},
        {RPI_F16, {0, 0x04}, 1.0 / 16384},
        {RPI_F16, {0, 0xFC}, -INFINITY},
        {RPI_BF16, {0x80, 0x3F}, 1},
        {RPI_BF16, {0x20, 0xC1}, -10},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        rp_real x = 0;
        rpi_decode(numbers[i].at, numbers[i].dtype, 1, &x);
        CHECK((double)x == numbers[i].x, "number %d is %g, not %g", (int)i, (double)x, numbers[i].x);
        x = rpi_number_of(numbers[i].at, numbers[i].dtype); /* byte by byte */
        CHECK((double)x == numbers[i].x, "number %d is %g, not %g", (int)i, (double)x, numbers[i].x);
    }
}

int library_test_kernels(int argc, char **argv) {
    quick = argc > 1 && !strcmp(argv[1], "quick"), all = argc > 1 && !strcmp(argv[1], "all");
    find_sets();
    test_products();
    test_outer();
    test_descent();
    test_rough_errors();
    test_offsets();
    test_updates();
    test_rows();
    test_activations();
    test_accuracy();
    make_data();
    test_nets_on_sets();
    test_thread_counts();
#ifdef HAVE_POSIX
    test_late_helpers();
#endif
    test_two_teams();
    test_idle_teams();
    test_single_samples();
    test_subnormal();
    test_vanishing();
    test_small_squares();
    test_alike();
    test_numbers();
    test_number_formats();
    return test_end();
}
#endif
