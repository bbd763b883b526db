/*
 * A program that knows pugmark by its C header only. It is compiled as C and as C++.
 *
 *     program bad-input
 *     program write PATH ROUNDS PASSES
 *
 * The second maps the memory at PATH, and writes the slots and marks the pages in it, each in a
 * thread, while another process reads them.
 */

#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "pugmark.h"

static int failures = 0;

/* The first ones say enough. */
static void failed(void) {
    if (__atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED) == 20) {
        exit(1);
    }
}

static void expect(int line, PugmarkStatus status, PugmarkStatus expected) {
    if (status != expected) {
        fprintf(stderr, "line %d: status %u, not %u\n", line, (unsigned)status, (unsigned)expected);
        failed();
    }
}

static void expect_true(int line, const char *condition, int holds) {
    if (!holds) {
        fprintf(stderr, "line %d: not so: %s\n", line, condition);
        failed();
    }
}

#define EXPECT(status, call) expect(__LINE__, (call), PUGMARK_STATUS_##status)
#define EXPECT_TRUE(condition) expect_true(__LINE__, #condition, (condition))

/* Bad input: a status each, and nothing is written. */

enum { WORD_BITS = 8 * sizeof(size_t) };

/* An address one byte up: no number, but for a char, is aligned there. */
static void *askew(void *pointer) {
    return (char *)pointer + 1;
}

static void bad_bitmaps(void) {
    /* 1000 bits, and a word for the summary of their two lines of 512. */
    enum { BITS = 1000, LEAVES = (BITS + WORD_BITS - 1) / WORD_BITS, WORDS = LEAVES + 1 };
    size_t words[WORDS] = {0};
    const size_t none[WORDS] = {0};
    const PugmarkBitmap good = {words, WORDS, BITS};
    PugmarkBitmap bad;
    size_t misaligned[1 + sizeof(PugmarkBitmap) / sizeof(size_t)];

    EXPECT(NULL, pugmark_mark(NULL, 0));
    EXPECT(NULL, pugmark_mark_range(NULL, 0, 1));
    memcpy(askew(misaligned), &good, sizeof good);
    EXPECT(MISALIGNED, pugmark_mark((PugmarkBitmap *)askew(misaligned), 0));
    EXPECT(MISALIGNED, pugmark_mark_range((PugmarkBitmap *)askew(misaligned), 0, 1));

    bad = good;
    bad.words = NULL;
    EXPECT(NULL, pugmark_mark(&bad, 0));
    EXPECT(NULL, pugmark_mark_range(&bad, 0, 1));
    bad.words = (size_t *)askew(words);
    EXPECT(MISALIGNED, pugmark_mark(&bad, 0));
    EXPECT(MISALIGNED, pugmark_mark_range(&bad, 0, 1));

    bad = good;
    bad.word_count = LEAVES;
    EXPECT(TOO_SMALL, pugmark_mark(&bad, 0));
    EXPECT(TOO_SMALL, pugmark_mark_range(&bad, 0, 1));
    bad.word_count = 0;
    EXPECT(TOO_SMALL, pugmark_mark(&bad, 0));
    bad = good;
    bad.bits = SIZE_MAX;
    EXPECT(TOO_SMALL, pugmark_mark(&bad, 0));
    bad.word_count = SIZE_MAX;
    EXPECT(TOO_SMALL, pugmark_mark(&bad, 0));

    EXPECT(OUT_OF_RANGE, pugmark_mark(&good, BITS));
    EXPECT(OUT_OF_RANGE, pugmark_mark(&good, SIZE_MAX));
    EXPECT(OUT_OF_RANGE, pugmark_mark_range(&good, 0, BITS + 1));
    EXPECT(OUT_OF_RANGE, pugmark_mark_range(&good, BITS, 1));
    EXPECT(OUT_OF_RANGE, pugmark_mark_range(&good, BITS + 1, 0));
    EXPECT(OUT_OF_RANGE, pugmark_mark_range(&good, 1, SIZE_MAX));
    EXPECT(OUT_OF_RANGE, pugmark_mark_range(&good, SIZE_MAX, 2));

    EXPECT(OK, pugmark_mark_range(&good, 0, 0));
    EXPECT(OK, pugmark_mark_range(&good, BITS, 0));
    EXPECT_TRUE(memcmp(words, none, sizeof words) == 0);

    EXPECT(OK, pugmark_mark(&good, BITS - 1));
    EXPECT_TRUE(words[LEAVES - 1] == (size_t)1 << (BITS - 1) % WORD_BITS);
    EXPECT_TRUE(words[LEAVES] == 2);
    EXPECT(OK, pugmark_mark_range(&good, 1, WORD_BITS));
    EXPECT_TRUE(words[0] == ~(size_t)1 && words[1] == 1);
    EXPECT_TRUE(words[LEAVES] == 3);
}

static void bad_slots(void) {
    enum { STRIDE = 4 * sizeof(size_t) };
    struct {
        size_t payload[STRIDE / sizeof(size_t)];
        uint32_t version;
        uint8_t hint, chunk_hint;
    } memory, untouched;
    char value[1 + STRIDE + 1];
    size_t misaligned[1 + sizeof(PugmarkSlotBinding) / sizeof(size_t)];
    PugmarkSlotBinding good, bad;

    memset(&memory, 0, sizeof memory);
    memset(&untouched, 0, sizeof untouched);
    memset(&good, 0, sizeof good);
    memset(value, 'v', sizeof value);
    good.version = &memory.version;
    good.payload = (uint8_t *)memory.payload;
    good.hint = &memory.hint;
    good.chunk_hint = &memory.chunk_hint;
    good.stride = STRIDE;

    EXPECT(NULL, pugmark_slot_write(NULL, value, STRIDE));
    EXPECT(NULL, pugmark_slot_write(&good, NULL, STRIDE));
    memcpy(askew(misaligned), &good, sizeof good);
    EXPECT(MISALIGNED, pugmark_slot_write((PugmarkSlotBinding *)askew(misaligned), value, STRIDE));

    bad = good;
    bad.version = NULL;
    EXPECT(NULL, pugmark_slot_write(&bad, value, STRIDE));
    bad.version = (uint32_t *)askew(&memory.version);
    EXPECT(MISALIGNED, pugmark_slot_write(&bad, value, STRIDE));
    bad = good;
    bad.payload = NULL;
    EXPECT(NULL, pugmark_slot_write(&bad, value, STRIDE));
    bad.payload = (uint8_t *)askew(memory.payload);
    EXPECT(MISALIGNED, pugmark_slot_write(&bad, value, STRIDE));
    bad = good;
    bad.hint = NULL;
    EXPECT(NULL, pugmark_slot_write(&bad, value, STRIDE));
    bad = good;
    bad.chunk_hint = NULL;
    EXPECT(NULL, pugmark_slot_write(&bad, value, STRIDE));

    bad = good;
    bad.stride = 0;
    EXPECT(BAD_STRIDE, pugmark_slot_write(&bad, value, 0));
    bad.stride = STRIDE + 1;
    EXPECT(BAD_STRIDE, pugmark_slot_write(&bad, value, STRIDE + 1));
    bad.stride = 0 - sizeof(size_t);
    EXPECT(BAD_STRIDE, pugmark_slot_write(&bad, value, 0 - sizeof(size_t)));

    EXPECT(WRONG_LENGTH, pugmark_slot_write(&good, value, 0));
    EXPECT(WRONG_LENGTH, pugmark_slot_write(&good, value, STRIDE - 1));
    EXPECT(WRONG_LENGTH, pugmark_slot_write(&good, value, STRIDE + 1));
    EXPECT_TRUE(memcmp(&memory, &untouched, sizeof memory) == 0);

    EXPECT(OK, pugmark_slot_write(&good, askew(value), STRIDE));
    EXPECT_TRUE(memcmp(memory.payload, value, STRIDE) == 0);
    EXPECT_TRUE(memory.version == 2);
    EXPECT_TRUE(memory.hint == 1 && memory.chunk_hint == 1);
}

/* Writing while another process reads. It knows this layout, and the values, too. */

enum { SLOTS = 1000, SLOT_WORDS = 8, PAGES = 5000 };

struct shared {
    /* Where the other process has it. */
    size_t start;
    /* Its addresses there. */
    PugmarkBitmap bitmap;
    PugmarkSlotBinding slots[SLOTS];
    /* What the marks tell of. */
    uint32_t pages[PAGES];
};

static struct shared *shared;
static unsigned long rounds, passes;

/* The address here of what the other process has at `pointer`. */
static void *here(void *pointer) {
    return (char *)shared + ((size_t)pointer - shared->start);
}

static void *write_slots(void *unused) {
    static PugmarkSlotBinding slots[SLOTS];
    size_t value[SLOT_WORDS];
    size_t slot, word, round;

    for (slot = 0; slot < SLOTS; slot++) {
        slots[slot] = shared->slots[slot];
        slots[slot].version = (uint32_t *)here(slots[slot].version);
        slots[slot].payload = (uint8_t *)here(slots[slot].payload);
        slots[slot].hint = (uint8_t *)here(slots[slot].hint);
        slots[slot].chunk_hint = (uint8_t *)here(slots[slot].chunk_hint);
    }
    for (round = 1; round <= rounds; round++) {
        for (slot = 0; slot < SLOTS; slot++) {
            for (word = 0; word < SLOT_WORDS; word++) {
                value[word] = round * SLOTS * SLOT_WORDS + slot * SLOT_WORDS + word;
            }
            EXPECT(OK, pugmark_slot_write(&slots[slot], value, sizeof value));
        }
    }
    return unused;
}

static void write_page(size_t page, uint32_t pass) {
    __atomic_store_n(&shared->pages[page], pass, __ATOMIC_RELAXED);
}

static void mark_pages(void) {
    /* Of 5000 it is no divisor, so that each pass comes by every page. */
    enum { STEP = 7 * 11, RANGE = 100 };
    PugmarkBitmap bitmap = shared->bitmap;
    uint32_t pass;
    size_t page, i;

    bitmap.words = (size_t *)here(bitmap.words);
    for (pass = 1; pass <= passes; pass++) {
        if (pass % 2 == 0) {
            for (page = 0; page < PAGES; page += RANGE) {
                for (i = 0; i < RANGE; i++) {
                    write_page(page + i, pass);
                }
                EXPECT(OK, pugmark_mark_range(&bitmap, page, RANGE));
            }
        } else {
            for (i = 0; i < PAGES; i++) {
                page = i * STEP % PAGES;
                write_page(page, pass);
                EXPECT(OK, pugmark_mark(&bitmap, page));
            }
        }
    }
}

static void write_and_mark(const char *path) {
    struct stat status;
    pthread_t writer;
    int file = open(path, O_RDWR);

    if (file < 0 || fstat(file, &status) != 0) {
        perror(path);
        exit(1);
    }
    shared = (struct shared *)mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED,
                                   file, 0);
    if ((void *)shared == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    EXPECT_TRUE(pthread_create(&writer, NULL, write_slots, NULL) == 0);
    mark_pages();
    EXPECT_TRUE(pthread_join(writer, NULL) == 0);
}

int main(int count, char **words) {
    if (count == 2 && strcmp(words[1], "bad-input") == 0) {
        bad_bitmaps();
        bad_slots();
    } else if (count == 5 && strcmp(words[1], "write") == 0) {
        rounds = strtoul(words[3], NULL, 10);
        passes = strtoul(words[4], NULL, 10);
        write_and_mark(words[2]);
    } else {
        fprintf(stderr, "program bad-input | write PATH ROUNDS PASSES\n");
        return 2;
    }
    return failures != 0;
}
