/* A fuzzer of everything that reads a file or a text: what is taken is built, saved and opened again, and must then be
   the same. It needs clang; the corpus begins with files of its own making (seeds) and those of tests/files.

       clang -g -O1 -DRP_NO_SIMD -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o fuzz tests/fuzz_files.c -lm
       cp -r tests/files corpus
       ./fuzz -max_len=4096 -rss_limit_mb=4096 -max_total_time=1200 corpus */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "fuzz.h"

/* Memory for a net is limited, since a text may ask for any size. */
static void *some(void *user, size_t size) {
    (void)user;
    return size > (size_t)1 << 22 ? NULL : malloc(size);
}
static void release(void *user, void *pointer) {
    (void)user;
    free(pointer);
}
static rp_config limited(void) {
    rp_config config;
    memset(&config, 0, sizeof config);
    config.allocate = some;
    config.release = release;
    return config;
}

/* What a built net writes is read as the same, and written the same. */
static void again(rp_net *net) {
    rp_config config = limited();
    size_t size = 0, other_size = 0;
    must(!rp_save_memory(net, NULL, 0, &size));
    char *bytes = (char *)malloc(size), *others = (char *)malloc(size);
    must(bytes && others && !rp_save_memory(net, bytes, size, &size));
    rp_net *other = rp_open_memory(bytes, size, &config);
    rp_status status = rp_net_build(other, 1, 2);
    if (!status) {
        must(!rp_save_memory(other, others, size, &other_size));
        must(size == other_size && !memcmp(bytes, others, size));
        must(!rp_load_memory(net, bytes, size));
    } else must(status == RP_ERR_MEMORY);
    rp_net_free(other);
    free(bytes);
    free(others);
}

/* An rp_fit goes on where the file says that one was. */
static void go_on(rp_net *net) {
    enum { SAMPLES = 3, WIDTH = 64 };
    static rp_real x[SAMPLES * WIDTH], targets[SAMPLES * WIDTH];
    rp_optimizer o = rpi_optimizer_like(net->method, net->first != NULL, net->second != NULL);
    rp_data data = rp_targeted(x, targets, net->place.samples < SAMPLES ? net->place.samples : SAMPLES);
    rp_fit_options options;
    if (!net->place.active || !net->method || rp_inputs(net) > WIDTH || rp_outputs(net) > WIDTH) return;
    memset(&options, 0, sizeof options);
    options.epochs = net->place.epoch + 1;
    options.keep_order = net->place.keep_order;
    rp_status status = rp_fit(net, &o, &data, &options, NULL);
    must(!status == !*rp_error(net));
}

static void read_file(const uint8_t *data, size_t size) {
    rp_config config = limited();
    rp_net *net = rp_open_memory(data, size, &config);
    if (!net) return;
    rp_status status = rp_net_build(net, 1, 1);
    must(!status == !*rp_error(net));
    if (!status) again(net);
    if (!status) go_on(net);
    rp_net_free(net);
}

/* A file into nets that are built already; or names, for the file of such a net. */
static void import_file(const uint8_t *data, size_t size) {
    static const char *const nets[] = {
        "input vector 5; dense 7; tanh; dense 3", "input sequence 5x3; recurrent 4 tanh; dense 2",
        "input image 4x7x6; conv2d 6 3x2 stride 2x1 padding 1x2 groups 2; dense 3 no_bias"};
    static uint8_t file[8000]; /* in doubles */
    char names[400];
    size_t length = size < sizeof names ? size : sizeof names - 1, file_size;
    memcpy(names, data, length);
    names[length] = 0;
    for (int i = 0; i < 3; i++) {
        rp_net *net = rp_net_text(nets[i], NULL);
        must(!rp_net_build(net, 1, 1) && !rp_save_memory(net, file, sizeof file, &file_size));
        rp_import_memory(net, data, size, NULL);
        if (rp_import_memory(net, file, file_size, names)) must(*rp_error(net) != 0);
        rp_load_memory(net, data, size);
        rp_net_free(net);
    }
}

/* What is read as a text is described by one that is read as the same. */
static void read_text(const uint8_t *data, size_t size) {
    rp_config config = limited();
    char *text = (char *)malloc(size + 1);
    must(text != NULL);
    memcpy(text, data, size);
    text[size] = 0;
    rp_net *net = rp_net_text(text, &config);
    free(text);
    if (!net) return;
    if (!net->broken) {
        size_t length = rp_describe(net, NULL, 0);
        char *one = (char *)malloc(length + 1), *two = (char *)malloc(length + 1);
        must(one && two && rp_describe(net, one, length + 1) == length);
        rp_net *other = rp_net_text(one, NULL);
        must(!other->broken && rp_describe(other, two, length + 1) == length && !strcmp(one, two));
        rp_net_free(other);
        free(one);
        free(two);
    } else must(*rp_error(net) != 0);
    if (size < 300 && !rp_net_build(net, 1, 1)) again(net);
    rp_net_free(net);
}

#ifndef FUZZ_CORPUS /* without libFuzzer nothing is changed */
static const char *const texts[] = {
    "input vector 2; dense 2 frozen; elu slope 0.3; dense 1 no_bias; loss huber delta 2",
    "input image 1x4x4; conv2d 2 3x3 stride 1 padding 1 groups 1; relu; max_pool2d 2x2 stride 2; add 2; dense 2; "
    "loss "
    "softmax_cross_entropy",
    "input sequence 3x2; recurrent 2 tanh all_states; add input; recursive 2 leaky_relu slope 0.1; loss poisson",
    "0 weight = 0.weight; 0 bias = 0.bias + 0.bias; 2 = 2", /* names */
    "0 weight_ih = 0.weight_ih; 0 weight_hh=0.weight_hh;\n0 bias = 0.bias; 1 = 1; 0 = 0"};
enum { NETS = 3, TEXTS = sizeof texts / sizeof *texts };

/* Files of nets with a state, which a fuzzer would take long to find. */
static size_t seed_file(int which, uint8_t *bytes, size_t most) {
    rp_optimizer optimizers[3];
    rp_real x[32] = {1, 2, -1, 0}, targets[8] = {1, 0};
    rp_net *net = rp_net_text(texts[which % NETS], NULL);
    rp_data data = rp_targeted(x, targets, 1);
    size_t length = 0;
    optimizers[0] = rp_adam((rp_real)0.1);
    optimizers[1] = rp_partitioning();
    optimizers[2] = rp_newton();
    must(!rp_net_build(net, 1, 1));
    rp_train(net, &optimizers[which / 3 % 3], &data, NULL);
    if (which >= 9) { /* in the midst of an rp_fit */
        net->place.active = net->place.batch = 1;
        net->place.step = which % 2;
        net->place.tally.count = which % 2;
        net->place.samples = 3;
        net->place.epochs = 2;
        net->place.report.steps = 4;
    }
    if (rp_save_memory(net, bytes, most, &length)) length = 0;
    rp_net_free(net);
    return length;
}

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

/* Now and then a whole file or text; otherwise a change, after which the length of the header mostly fits again. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
    size_t length, old = 0;
    if (seed % 512 == 1 && most >= 400) {
        const char *text = texts[seed / 512 % TEXTS];
        memcpy(data, text, strlen(text));
        return strlen(text);
    }
    if (seed % 512 == 0 && most >= 4000) return seed_file((int)(seed / 512 % 18), data, most);
    for (int i = 7; i >= 0 && size > 8; i--) old = old << 8 | data[i];
    length = LLVMFuzzerMutate(data, size, most);
    if (seed % 8 == 0 || length < 16 || old > size) return length;
    old += length - size;
    for (int i = 0; i < 8; i++) data[i] = (uint8_t)((uint64_t)old >> 8 * i);
    return length;
}
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    read_file(data, size);
    import_file(data, size);
    read_text(data, size);
    return 0;
}
