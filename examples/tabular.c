/* tabular.c - learns to foretell a column of a table from the others: of a CSV file of your own.

       cc -O2 -o tabular examples/tabular.c -lm && ./tabular
       ./tabular table.csv              the last column
       ./tabular table.csv price        that of this name

   The first line names the columns. If the one to foretell holds words, or at most FEW different numbers, these are classes to
   tell apart; otherwise numbers are foretold. Of the other columns each number becomes an input, and so does each of at
   most WORDS different words; columns of more (names, dates) are left out, and the program says so. A cell that is empty,
   NA, nan, null, ? or - counts as average, which stands beside the input. 70% of the rows are trained on, 15% tell when
   to stop, and 15% that the net has not seen judge it.
   tabular.safetensors then takes the table's own numbers: their scaling is folded into the first layer and the last.
   Without an argument the program draws a table itself, drawn.csv. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "random.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BYTES = 1 << 28, ROWS = 1 << 20, COLUMNS = 256, WORDS = 40, FEW = 10, BATCH = 50, LAST_LAYER = 4 };
typedef struct column {
    const char *name, *words[WORDS + 1], *odd; /* odd: the first cell that is not a number */
    int different, numbers, inputs; /* words, of more than WORDS one more; 1: all are numbers; what it becomes */
} column;
typedef struct scale {
    double mean, deviation;
} scale;
static column columns[COLUMNS];
static const char **rows[ROWS];                         /* in random order, each [column_count] */
static int column_count, row_count, trained, validated; /* the rows behind the last are not seen in training */

static void stop_if(int wrong, const char *what) {
    if (!wrong) return;
    fprintf(stderr, "tabular: %s\n", what);
    exit(1);
}
static void check(rp_status status, const rp_net *net) { stop_if(status != RP_OK, rp_error(net)); }
static void *get(int count, int width, size_t size) {
    void *memory = calloc((size_t)count * (size_t)width + 1, size);
    stop_if(!memory, "out of memory");
    return memory;
}

static const char *draw(const char *path) { /* houses and their prices */
    static const char *const places[] = {"centre", "harbour", "hills", "NA"};
    uint64_t random = 1;
    FILE *file = fopen(path, "w");
    stop_if(!file, "cannot write drawn.csv");
    fprintf(file, "metres,year,place,price\n");
    for (int i = 0; i < 2000; i++) {
        int metres = 30 + random_below(&random, 170), year = 1900 + random_below(&random, 120);
        int place = random_below(&random, 4);
        double age = (2020 - year) / 40.0, price = metres * (2000 + 900 * (place == 1) + 1500 * exp(-age * age));
        fprintf(file, "%d,%d,%s,%.0f\n", metres, year, places[place], place == 2 ? 1.3 * price : price);
    }
    stop_if(fclose(file) != 0, "cannot write drawn.csv");
    return path;
}

/* Splits a line into at most `most` cells, which it ends by 0 and takes out of their quotes. Returns the next line. */
static char *split(char *at, char separator, const char **out, int most, int *count) {
    for (*count = 0;; at++) {
        at += strspn(at, " ");
        int quoted = *at == '"';
        char *to = at += quoted, *begin = to;
        stop_if(*count == most, "a line has too many cells");
        out[(*count)++] = to;
        while (*at && (quoted ? *at != '"' || at[1] == '"' : *at != separator && *at != '\r' && *at != '\n')) {
            at += quoted && *at == '"'; /* two quotes stand for one */
            *to++ = *at++;
        }
        at += quoted && *at;
        at += quoted ? strspn(at, " ") : 0;
        while (!quoted && to > begin && to[-1] == ' ') to--;
        char end = *at;
        *to = 0;
        stop_if(quoted && end && end != separator && end != '\r' && end != '\n',
                "a quoted cell goes on behind its quote");
        if (end != separator) return end ? at + 1 + strspn(at + 1, "\r\n") : at;
    }
}

/* The first of the usual ones, outside of quotes. */
static char find_separator(const char *text) {
    stop_if(!*text, "the file is empty");
    for (int inside = 0; *text; text++) {
        if (!inside && strchr(",;\t", *text)) return *text;
        inside ^= *text == '"';
    }
    stop_if(1, "there is only one column");
    return 0;
}

static int is_empty(const char *cell) {
    static const char *const none[] = {"", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "?", "-"};
    for (size_t k = 0; k < sizeof none / sizeof *none; k++)
        if (!strcmp(cell, none[k])) return 1;
    return 0;
}

static void swap(const char **row, int i, int j) {
    const char *held = row[i];
    row[i] = row[j];
    row[j] = held;
}

/* The column of that name, NULL: the last one, becomes the last. */
static void read_table(const char *path, const char *target) {
    static char text[BYTES];
    const char *names[COLUMNS];
    uint64_t random = 1;
    int count, last, to = 0;
    FILE *file = fopen(path, "rb");
    stop_if(!file || fread(text, 1, BYTES - 1, file) == BYTES - 1 || fclose(file), "cannot read it, or it is too long");
    char between = find_separator(text), *at = text + (strncmp(text, "\xEF\xBB\xBF", 3) ? 0 : 3); /* a mark of UTF-8 */
    at = split(at, between, names, COLUMNS, &column_count);
    last = column_count - 1;
    while (target && to < last && strcmp(names[to], target)) to++;
    if (!target) to = last;
    stop_if(target && strcmp(names[to], target), "there is no column of that name");
    swap(names, to, last);
    for (int j = 0; j < column_count; j++) columns[j].name = names[j];
    for (int line = 2; *at; line++) {
        char what[100];
        const char **row = (const char **)get(column_count, 1, sizeof *row);
        int place = random_below(&random, row_count + 1);
        at = split(at, between, row, column_count, &count);
        snprintf(what, sizeof what, "line %d has %d cells instead of %d", line, count, column_count);
        stop_if(count < column_count, what);
        stop_if(row_count == ROWS, "there are too many lines");
        swap(row, to, last);
        if (is_empty(row[last])) continue;
        rows[row_count++] = rows[place];
        rows[place] = row;
    }
    stop_if(row_count < 20, "there are fewer than 20 rows");
    trained = row_count / 20 * 14;
    validated = row_count / 20 * 17;
}

static int find(const column *c, const char *cell) {
    int k = 0;
    while (k < c->different && strcmp(c->words[k], cell)) k++;
    return k;
}
static void look_at(column *c, int j) {
    c->numbers = 1;
    for (int i = 0; i < row_count; i++) {
        char *end;
        if (is_empty(rows[i][j])) continue;
        if (!isfinite(strtod(rows[i][j], &end)) || *end) {
            if (c->numbers) c->odd = rows[i][j];
            c->numbers = 0;
        }
        if (c->different <= WORDS && find(c, rows[i][j]) == c->different) c->words[c->different++] = rows[i][j];
    }
    c->inputs = c->numbers ? c->different > 0 : c->different;
    if (c->inputs > WORDS) c->inputs = 0;
}
static void say_left_out(const column *c) {
    if (!c->different) printf("left out: %s, which is empty\n", c->name);
    else if (!c->inputs) printf("left out: %s, of more than %d words, such as \"%s\"\n", c->name, WORDS, c->odd);
}

/* Column j of every row, or whether it is that word, into raw[0], raw[stride], ..., and scaled by what it is in the
   rows that are trained on. */
static scale fill(int j, const char *word, int stride, rp_real *raw, rp_real *scaled) {
    scale s = {0, 0};
    int known = 0;
    for (int i = 0; i < row_count; i++) {
        double x = word ? !strcmp(rows[i][j], word) : strtod(rows[i][j], NULL), off = x - s.mean;
        raw[(ptrdiff_t)i * stride] = (rp_real)x;
        if (i >= trained || is_empty(rows[i][j])) continue;
        s.mean += off / ++known; /* Welford */
        s.deviation += off * (x - s.mean);
    }
    s.deviation = s.deviation > 0 ? sqrt(s.deviation / known) : 1;
    for (int i = 0; i < row_count; i++, raw += stride, scaled += stride) {
        if (is_empty(rows[i][j])) *raw = (rp_real)s.mean;
        *scaled = (rp_real)(((double)*raw - s.mean) / s.deviation);
    }
    return s;
}

static rp_net *train(int inputs, int outputs, const rp_data *training, const rp_data *validation) {
    char text[200];
    rp_optimizer optimizer = rp_partitioning(); /* without a rate */
    rp_fit_options options = {0};
    rp_fit_report report;
    snprintf(text, sizeof text, "input vector %d; dense 64; tanh; dense 64; tanh; dense %d; loss %s", inputs, outputs,
             training->labels ? "softmax_cross_entropy" : "squared_error");
    rp_net *net = rp_net_text(text, NULL);
    check(rp_net_build(net, BATCH, 1), net);
    options.epochs = 200;
    options.validation = validation;
    options.patience = 20;
    options.keep_best = 1;
    check(rp_fit(net, &optimizer, training, &options, &report), net);
    printf("trained for %d epochs, of which number %d was the best\n", report.epochs, report.best_epoch + 1);
    return net;
}

/* Makes the net take the table's own numbers, and, unless it tells classes (NULL), give them. */
static void fold(rp_net *net, const scale *in, const scale *out) {
    rp_layer first, last;
    check(rp_layer_info(net, 0, &first), net);
    check(rp_layer_info(net, LAST_LAYER, &last), net);
    rp_real *p = rp_parameters(net), *weight = p + first.weights;
    for (size_t unit = 0; unit < first.bias_count; unit++)
        for (int k = 0; k < rp_inputs(net); k++, weight++) {
            *weight /= (rp_real)in[k].deviation;
            p[first.biases + unit] -= (rp_real)((double)*weight * in[k].mean);
        }
    if (!out) return;
    for (size_t k = 0; k < last.weight_count; k++) p[last.weights + k] *= (rp_real)out->deviation;
    p[last.biases] = (rp_real)((double)p[last.biases] * out->deviation + out->mean);
}

/* How well the net in the file foretells: the share of classes, or of the numbers' variance. 1 is perfect. */
static double judge(const char *path, const rp_data *unseen, const scale *out) {
    rp_net *net = rp_open(path, NULL);
    rp_score score;
    check(rp_net_build(net, BATCH, 1), net);
    check(rp_evaluate(net, unseen, &score, NULL), net);
    rp_net_free(net);
    double error = sqrt(2 * (double)score.loss);
    printf("%d rows that it has not seen: ", unseen->count);
    if (out) printf("off by %g (root mean square; numbers vary by %g)\n", error, out->deviation);
    else printf("%.1f%% right\n", 100 * (double)score.accuracy);
    return out ? 1 - pow(error / out->deviation, 2) : (double)score.accuracy;
}

static rp_data part(const rp_real *x, int inputs, const rp_real *targets, const int *labels, int begin, int end) {
    x += (ptrdiff_t)begin * inputs;
    return labels ? rp_labelled(x, labels + begin, end - begin) : rp_targeted(x, targets + begin, end - begin);
}

int main(int count, char **arguments) {
    int inputs = 0, *labels = NULL, at = 0, counts[WORDS + 1] = {0};
    read_table(count > 1 ? arguments[1] : draw("drawn.csv"), count > 2 ? arguments[2] : NULL);
    const int target = column_count - 1;
    const column *c = &columns[target];
    for (int j = 0; j < column_count; j++) look_at(&columns[j], j);
    for (int j = 0; j < target; j++) inputs += columns[j].inputs;
    stop_if(!inputs || (!c->numbers && !c->inputs), "there are no inputs, or too many classes");
    stop_if(c->different < 2, "the column to foretell is the same everywhere");
    rp_real *raw = (rp_real *)get(row_count, inputs, sizeof *raw), *x = (rp_real *)get(row_count, inputs, sizeof *x);
    rp_real *raw_targets = (rp_real *)get(row_count, 1, sizeof *x), *targets = (rp_real *)get(row_count, 1, sizeof *x);
    scale *scales = (scale *)get(inputs, 1, sizeof *scales), out = {0, 1};
    for (int j = 0; j < target; j++) {
        say_left_out(&columns[j]);
        for (int k = 0; k < columns[j].inputs; k++, at++) {
            const char *word = columns[j].numbers ? NULL : columns[j].words[k];
            scales[at] = fill(j, word, inputs, raw + at, x + at);
            printf("input %d: %s%s%s; missing: %.7g\n", at, columns[j].name, word ? " is " : "", word ? word : "",
                   scales[at].mean);
        }
    }
    if (c->numbers && c->different > FEW) out = fill(target, NULL, 1, raw_targets, targets);
    else labels = (int *)get(row_count, 1, sizeof *labels);
    for (int i = 0; labels && i < row_count; i++) counts[labels[i] = find(c, rows[i][target])]++;
    printf("to foretell: %s, %s\n", c->name, labels ? "classes:" : "a number");
    for (int k = 0; labels && k < c->different; k++)
        printf("class %d: %s, %.1f%% of the rows\n", k, c->words[k], 100.0 * counts[k] / row_count);
    rp_data training = part(x, inputs, targets, labels, 0, trained);
    rp_data validation = part(x, inputs, targets, labels, trained, validated);
    rp_data unseen = part(raw, inputs, raw_targets, labels, validated, row_count);
    rp_net *net = train(inputs, labels ? c->different : 1, &training, &validation);
    fold(net, scales, labels ? NULL : &out);
    check(rp_save(net, "tabular.safetensors"), net);
    rp_net_free(net);
    return judge("tabular.safetensors", &unseen, labels ? NULL : &out) < 0.95 && count == 1;
}
