/* conv.c - a small convolutional network after LeNet learns to read digits.

       cc -O2 -I. -o conv examples/conv.c -lm && ./conv

   It draws its digits itself. `./conv FOLDER` reads images of MNIST or a relative instead, from unpacked files named
   train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte.

   `./conv --checkpoint conv.safetensors` writes what it has learned to that file as it goes. Kill it and start it again:
   it goes on there, and ends with the same numbers as if nothing had happened. */
#define RP_IMPLEMENTATION
#include "../rp.h"
#include "digits.h"
#include "digits_data.h"

enum { DRAWN = 20000, BATCH = 100, EPOCHS = 3, SEED = 1 };
static const double wanted = 0.97; /* share of the unseen digits that must be read right */

/* Shapes flow by themselves: after the second pooling the images are 4 x 4, and the dense layer reads all 16 as a
   vector. */
static rp_net *describe(void) {
    rp_net *net = rp_net_new(rp_image(1, DIGITS_SIDE, DIGITS_SIDE), NULL);
    rp_conv2d(net, 8, 5, 1, 0); /* 8 filters of 5 x 5, stride 1, no padding */
    rp_activation(net, RP_RELU);
    rp_max_pool2d(net, 2, 2);
    rp_conv2d(net, 16, 5, 1, 0);
    rp_activation(net, RP_RELU);
    rp_max_pool2d(net, 2, 2);
    rp_dense(net, 10);
    rp_loss(net, RP_SOFTMAX_CROSS_ENTROPY);
    return net;
}

static int show_progress(void *user, const rp_progress *p) {
    (void)user;
    if (!p->epoch_done) return 0;
    printf("epoch %d of %d: loss %.4f; unseen digits: loss %.4f, %.2f%% right\n", p->epoch + 1, p->epochs,
           (double)p->loss, (double)p->validation.loss, 100 * (double)p->validation.accuracy);
    fflush(stdout);
    return 0;
}

static rp_status train(rp_net *net, const digits_data *data, const char *checkpoint, rp_fit_report *report) {
    rp_optimizer optimizer = rp_partitioning();
    rp_fit_options options;
    memset(&options, 0, sizeof options); /* all zero is the default */
    options.epochs = EPOCHS;
    options.seed = SEED;
    options.validation = &data->validation;
    options.progress = show_progress;
    options.checkpoint = checkpoint; /* NULL: none */
    options.checkpoint_steps = checkpoint ? 20 : 0;
    return rp_fit(net, &optimizer, &data->train, &options, report);
}

static void print_digit(const rp_real *image) { /* two rows of pixels to a line */
    for (int row = 0; row < DIGITS_SIDE; row += 2) {
        for (int column = 0; column < DIGITS_SIDE; column++) {
            const rp_real *pixel = image + row * DIGITS_SIDE + column;
            double ink = ((double)pixel[0] + (double)pixel[DIGITS_SIDE] + 2) / 4; /* 0..1 */
            putchar(" .:-=+*#%@"[(int)(9 * ink + 0.5)]);
        }
        putchar('\n');
    }
}

/* Shows the first unseen digit that is not read right. */
static rp_status show_mistake(rp_net *net, const rp_data *unseen) {
    for (int i = 0; i < unseen->count; i++) {
        const rp_real *image = unseen->inputs + (ptrdiff_t)i * DIGITS_SIZE;
        int read = 0;
        rp_status status = rp_classify(net, image, 1, &read);
        if (status) return status;
        if (read == unseen->labels[i]) continue;
        printf("\nThis %d was read as %d:\n", unseen->labels[i], read);
        print_digit(image);
        break;
    }
    return RP_OK;
}

static int run(rp_net *net, const digits_data *data, const char *checkpoint) {
    char summary[1024];
    rp_fit_report report;
    rp_status status = rp_net_build(net, BATCH, SEED);
    if (!status) {
        rp_summary(net, summary, sizeof summary);
        puts(summary);
        if (*rp_warning(net)) fprintf(stderr, "conv: %s\n", rp_warning(net));
        status = train(net, data, checkpoint, &report);
    }
    if (!status) status = show_mistake(net, &data->validation);
    if (status) {
        fprintf(stderr, "conv: %s\n", rp_error(net));
        return 0;
    }
    printf("\nOf %d unseen digits %.2f%% were read right; more than %g%% were wanted.\n", data->validation.count,
           100 * (double)report.validation.accuracy, 100 * wanted);
    return (double)report.validation.accuracy > wanted;
}

int main(int count, char **arguments) {
    digits_data data;
    const char *folder = NULL, *checkpoint = NULL;
    int good;
    for (int i = 1; i < count; i++) {
        if (!strcmp(arguments[i], "--checkpoint") && i + 1 < count) checkpoint = arguments[++i];
        else folder = arguments[i];
    }
    good = digits_load(&data, folder, SEED, DRAWN);
    if (good) {
        rp_net *net = describe();
        good = run(net, &data, checkpoint);
        rp_net_free(net);
    }
    digits_free(&data);
    return !good;
}
