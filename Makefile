# rp.h needs no build. This builds and runs its examples, tests and benchmarks; `make help` lists what there is.
CFLAGS = -O2
CPPFLAGS = -I.
LDLIBS = -lm
BUILD = build
ARGS = # of the program that `make run` starts
QUICK = # 1: `make reproduce` on drawn digits only
RUN = # a command to run each test program with: valgrind, qemu-aarch64
INSIDE = -DLIBRARY_TESTS# what test_kernels and test_corpus want; empty: without them the library compiles sooner
MAKEFLAGS += -j$(shell getconf _NPROCESSORS_ONLN || echo 1) # all cores, unless the command line says otherwise

HEADERS = rp.h $(wildcard examples/*.h tests/*.h bench/*.h bench/papers/*.h)
SOURCES = $(wildcard examples/*.c tests/*.c bench/*.c bench/papers/*.c)
MPI = $(shell command -v mpicc)
EXAMPLES = $(patsubst %.c,$(BUILD)/%,$(filter-out $(if $(MPI),,examples/mpi.c),$(wildcard examples/*.c)))
BENCHES = $(patsubst %.c,$(BUILD)/%,$(wildcard bench/*.c bench/papers/*.c))
TESTS = $(patsubst %.c,$(BUILD)/%,$(wildcard tests/test_*.c))
PAIRS = $(patsubst %_a.c,$(BUILD)/%,$(wildcard tests/*_a.c))
PROGRAMS = $(TESTS:=_double) $(TESTS) $(PAIRS)
RESULTS = $(if $(filter 1,$(QUICK)),_quick)# part of the names of the files of `make reproduce`
CHECKSUMS = $(BUILD)/tests/checksum $(BUILD)/tests/checksum_double
QUICK_TESTS = $(filter %_misuse %_idx %_fit %_files,$(TESTS)) $(PAIRS)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile
run: $(BUILD)/examples/digits ## race the default, without a rate, against Adam and SGD on drawn digits; ARGS="--help"
	$< $(ARGS)
test: $(PROGRAMS) ## run all tests
	@RUN="$(RUN)" CC="$(CC)" tests/run.sh tests/inclusion.sh $^
test-quick: $(QUICK_TESTS) ## run those that take a moment
	@RUN="$(RUN)" tests/run.sh $^
test-all: all test ## run all tests, some over all sizes, and see that everything else builds
	$(BUILD)/tests/test_kernels all
	$(BUILD)/tests/test_platform all
checksum: $(CHECKSUMS) ## print checksums of results, to compare before and after a change
	@$(BUILD)/tests/checksum $(ARGS)
	@$(BUILD)/tests/checksum_double $(ARGS)
examples: $(EXAMPLES) ## build the examples
bench: $(BENCHES) ## measure steps, products, predictions and files against the machine, and look for cliffs
	$(BUILD)/bench/bench
	$(BUILD)/bench/sweep
	$(BUILD)/bench/files $(BUILD)
bench-auto: $(BUILD)/bench/auto ## train without a rate, and by Adam at the best of five; ARGS="--help" lists the options
	$< $(ARGS)
reproduce: $(addprefix $(BUILD)/bench/papers/,reproduce low_rank conjugate poster) ## the papers' experiments, 4 to 8 hours of CPU time; QUICK=1: a minute, without data
	for paper in low_rank conjugate poster; do \
	    $(BUILD)/bench/papers/$$paper $(RESULTS:%=--quick) $(BUILD)/$${paper}$(RESULTS).csv || exit 1; done
	$(BUILD)/bench/papers/reproduce $(RESULTS:%=--quick) $(BUILD)/reproduce$(RESULTS).csv $(BUILD)/curves$(RESULTS).csv $(ARGS)
	bench/papers/plot.sh $(BUILD) $(RESULTS)
bench-peers: ## the same beside OpenBLAS, FANN and PyTorch, as far as they are installed
	CC="$(CC)" BUILD="$(BUILD)" bench/peers/compare.sh
all: $(EXAMPLES) $(BENCHES) $(PROGRAMS) $(CHECKSUMS) ## build everything
format: ## format the code with clang-format
	clang-format -i $(filter-out tests/torch_numbers.h tests/torch_layers.h,$(HEADERS)) $(SOURCES)
clean: ## remove what was built
	rm -rf $(BUILD)
.PHONY: help run test test-quick test-all checksum examples bench bench-auto reproduce bench-peers all format clean

DIRECTORIES = $(addprefix $(BUILD)/,examples tests bench bench/papers)
$(DIRECTORIES):
	mkdir -p $@
$(BUILD)/tests/%: LDLIBS += -lpthread
$(BUILD)/bench/%: LDLIBS += -lpthread
$(BUILD)/examples/threads: LDLIBS += -lpthread
$(TESTS) $(TESTS:=_double): OPTIONS = -O1 -DTEST_FOLDER='"$(CURDIR)/tests"' # for what only checks: less time to compile
$(BUILD)/tests/library.o $(BUILD)/tests/library_double.o: CPPFLAGS += $(INSIDE)
$(BUILD)/tests/library_double.o: OPTIONS = -O1 # half the time to compile, and none to run: the portable kernels say their vectors
$(BUILD)/examples/mpi: examples/mpi.c $(HEADERS) | $(DIRECTORIES)
	OMPI_CC="$(CC)" mpicc $(CPPFLAGS) $(CFLAGS) $< -o $@ $(LDLIBS)
$(filter-out %/hostile,$(PAIRS)): CPPFLAGS += -DRP_NO_SIMD # without the kernels for each instruction set: time
$(TESTS): $(BUILD)/tests/library.o
$(TESTS:=_double): $(BUILD)/tests/library_double.o
$(BUILD)/%: %.c $(HEADERS) | $(DIRECTORIES)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(OPTIONS) $(filter %.c %.o,$^) -o $@ $(LDLIBS)
$(BUILD)/%_double: %.c $(HEADERS) | $(DIRECTORIES)
	$(CC) $(CPPFLAGS) $(CFLAGS) -DRP_DOUBLE $(OPTIONS) $(filter %.c %.o,$^) -o $@ $(LDLIBS)
$(BUILD)/%: %_a.c %_b.c $(HEADERS) | $(DIRECTORIES) # of what compiles and links: not worth the time to optimise
	$(CC) $(CPPFLAGS) $(CFLAGS) -O0 $(filter %.c,$^) -o $@ $(LDLIBS)
$(BUILD)/%.o: %.c $(HEADERS) $(wildcard tests/fuzz_*.c) | $(DIRECTORIES)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@
$(BUILD)/%_double.o: %.c $(HEADERS) $(wildcard tests/fuzz_*.c) | $(DIRECTORIES)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(OPTIONS) -DRP_DOUBLE -c $< -o $@

# Fuzzers and coverage want clang and llvm, and are built in directories of their own.
SECONDS = 60
FUZZERS = $(patsubst tests/fuzz_%.c,%,$(wildcard tests/fuzz_*.c))
FUZZED = clang -g -O1 -DRP_NO_SIMD -fno-sanitize-recover=all -I. -o $@ $< -lm
MEASURED = -O1 -fprofile-instr-generate -fcoverage-mapping -Wno-pass-failed
fuzz: $(foreach kind,undefined address memory,$(FUZZERS:%=$(BUILD)/fuzz/$(kind)_%)) ## fuzz the interface, files and IDX; SECONDS=60 each
	@tests/fuzz.sh $(SECONDS) $^
$(BUILD)/fuzz/undefined_%: tests/fuzz_%.c $(HEADERS)
	@mkdir -p $(@D)
	$(FUZZED) -fsanitize=fuzzer,undefined
$(BUILD)/fuzz/address_%: tests/fuzz_%.c $(HEADERS) # under which clang is silent about some undefined behaviour
	@mkdir -p $(@D)
	$(FUZZED) -fsanitize=fuzzer,address,undefined
$(BUILD)/fuzz/memory_%: tests/fuzz_%.c $(HEADERS) # that nobody has written, by the vectors of this machine
	@mkdir -p $(@D)
	$(FUZZED) -fsanitize=fuzzer,memory -URP_NO_SIMD
soak: $(BUILD)/soak ## train, save, open, clone and free random nets for SECONDS=60 and see that memory stays flat
	cd $(BUILD) && ASAN_OPTIONS=quarantine_size_mb=16 ./soak $(SECONDS) soak.safetensors
$(BUILD)/soak: tests/soak.c $(HEADERS) | $(DIRECTORIES)
	$(CC) -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -I. -o $@ $< -lm -lpthread
coverage: ## lines and branches of rp.h that `make test` runs, and functions that it does not
	@rm -rf $(BUILD)/coverage/profiles
	@LLVM_PROFILE_FILE=$(abspath $(BUILD))/coverage/profiles/%m.profraw \
	    MAKEFLAGS= $(MAKE) -s BUILD=$(BUILD)/coverage CC=clang CFLAGS="$(MEASURED)" test; \
	    failed=$$?; tests/coverage.sh $(BUILD)/coverage && exit $$failed
release: ## write build/release: rp.h and its SHA-256
	@mkdir -p $(BUILD)/release
	@cp rp.h $(BUILD)/release
	@cd $(BUILD)/release && sha256sum rp.h | tee rp.h.sha256
.PHONY: fuzz soak coverage release
