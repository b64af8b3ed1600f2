/* What fuzzers found, and enough to reach most of what they do: each file of tests/corpus, and of tests/files, goes
   through its fuzzer once. A fuzzer ends the program where something does not hold. */
#define FUZZ_CORPUS
#define LLVMFuzzerTestOneInput fuzz_interface
#include "fuzz_interface.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_files
#include "fuzz_files.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_idx
#include "fuzz_idx.c"
#undef LLVMFuzzerTestOneInput
#include <dirent.h>

typedef int fuzzer(const uint8_t *data, size_t size);

/* One file; its name is printed first, since a failure ends the program. */
static void run_file(const char *folder, const char *name, fuzzer *fuzz) {
    char path[1000];
    static uint8_t bytes[1 << 16];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL, "cannot open '%s'", path);
    if (!file) return;
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    printf("%s\n", path);
    fflush(stdout);
    CHECK(fuzz(bytes, size) == 0, "'%s'", path);
}

static void run_folder(const char *folder, fuzzer *fuzz) {
    DIR *entries = opendir(folder);
    int files = 0;
    CHECK(entries != NULL, "cannot open the folder '%s'", folder);
    if (!entries) return;
    for (struct dirent *entry = readdir(entries); entry; entry = readdir(entries)) {
        if (entry->d_name[0] == '.') continue;
        run_file(folder, entry->d_name, fuzz);
        files++;
    }
    closedir(entries);
    CHECK(files > 0, "'%s' is empty", folder);
}

int main(void) {
    run_folder(TEST_FOLDER "/corpus/interface", fuzz_interface);
    run_folder(TEST_FOLDER "/corpus/idx", fuzz_idx);
    run_folder(TEST_FOLDER "/corpus/files", fuzz_files);
    run_folder(TEST_FOLDER "/files", fuzz_files);
    return test_end();
}
