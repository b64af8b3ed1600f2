/* What fuzzers found, and enough to reach most of what they do: each file of tests/corpus, and of tests/files, goes
   through its fuzzer once. A fuzzer ends the program where something does not hold. */
#include "../rp.h"
#include "library.h"
#include "test.h"
#include <dirent.h>

/* One file; its name is printed first, since a failure ends the program. */
static void run_file(const char *folder, const char *name, library_fuzzer *fuzz) {
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

static void run_folder(const char *folder, library_fuzzer *fuzz) {
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
    run_folder(TEST_FOLDER "/corpus/interface", library_fuzz_interface);
    run_folder(TEST_FOLDER "/corpus/idx", library_fuzz_idx);
    run_folder(TEST_FOLDER "/corpus/files", library_fuzz_files);
    run_folder(TEST_FOLDER "/files", library_fuzz_files);
    return test_end();
}
