/* The structs that describe something to the library, each field by its name, and lists of its choices. Include after
   rp.h. */
#ifndef OPTIONS_H
#define OPTIONS_H
#include <string.h>

static const rp_rule_kind rule_kinds[] = {RP_PATHS, RP_JACOBIAN, RP_SAMPLED};
enum { RULE_KINDS = sizeof rule_kinds / sizeof *rule_kinds };

static inline const char *rule_name(rp_rule_kind kind) {
    if (kind == RP_PATHS) return "paths";
    return kind == RP_JACOBIAN ? "Jacobian" : "sampled";
}
static inline rp_rule rule_of(rp_rule_kind kind, rp_bound_kind bound, rp_scale_kind scale) {
    rp_rule rule;
    rule.kind = kind;
    rule.bound = bound;
    rule.scale = scale;
    return rule;
}

/* All combinations of the first so many kinds with bounds and scales, in turn. */
static inline rp_rule nth_rule(int kinds, int n) {
    static const rp_bound_kind bounds[] = {RP_BOUND_TIGHT, RP_BOUND_JENSEN};
    static const rp_scale_kind scales[] = {RP_SCALE_ONE, RP_SCALE_FAN_IN};
    return rule_of(rule_kinds[n % kinds], bounds[n / kinds % 2], scales[n / kinds / 2 % 2]);
}

static inline rp_config config_of(rp_isa_kind isa, int threads) {
    rp_config config;
    memset(&config, 0, sizeof config);
    config.isa = isa;
#if !defined(__wasi__) && !defined(TEST_ALONE) /* as in library.c */
    config.threads = threads;
#else
    (void)threads;
#endif
    return config;
}
static inline rp_config inference_config(void) {
    rp_config config = config_of(RP_ISA_AUTO, 0);
    config.inference_only = 1;
    return config;
}

/* Square but for what is set afterwards; stride 1, no padding. */
static inline rp_conv2d_desc conv2d_of(int filters, int kernel, int groups) {
    rp_conv2d_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.filters = filters;
    desc.kernel_height = desc.kernel_width = kernel;
    desc.stride_height = desc.stride_width = 1;
    desc.groups = groups;
    return desc;
}
static inline rp_recurrent_desc all_states_of(int units, rp_activation_kind activation) {
    rp_recurrent_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.units = units;
    desc.activation = activation;
    desc.all_states = 1;
    return desc;
}
static inline rp_fit_options fit_of(int epochs) {
    rp_fit_options options;
    memset(&options, 0, sizeof options);
    options.epochs = epochs;
    return options;
}
#endif
