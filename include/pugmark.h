/* Marks and slots of pugmark, for C and C++. The functions are behind its feature `capi`. */

#ifndef PUGMARK_H
#define PUGMARK_H

/* Made from the Rust source by `cargo xtask header --bless`. */

#include <stddef.h>
#include <stdint.h>

// What became of a call. Any that is not OK has changed nothing.
enum PugmarkStatus
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  // It is done.
  PUGMARK_STATUS_OK = 0,
  // A pointer is null.
  PUGMARK_STATUS_NULL = 1,
  // A pointer is not aligned to what it points at.
  PUGMARK_STATUS_MISALIGNED = 2,
  // The bitmap's memory is too small for its bits and their summary.
  PUGMARK_STATUS_TOO_SMALL = 3,
  // The bitmap does not have all of these bits.
  PUGMARK_STATUS_OUT_OF_RANGE = 4,
  // The slot's stride is zero, no multiple of a machine word, or more than memory has.
  PUGMARK_STATUS_BAD_STRIDE = 5,
  // The value is not as long as the slot's stride.
  PUGMARK_STATUS_WRONG_LENGTH = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum PugmarkStatus PugmarkStatus;
#else
typedef uint32_t PugmarkStatus;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A dirty bitmap as plain addresses.
typedef struct PugmarkBitmap {
  // The bitmap's memory: its bits, from the lowest of the first word on, then their summary.
  size_t *words;
  // How many words that is.
  size_t word_count;
  // How many bits the bitmap has.
  size_t bits;
} PugmarkBitmap;

// A slot as plain addresses, for a writer that shares no types with us: C code, another process,
// a WebAssembly worker. `SlotWriter::into_binding` makes it.
//
// The addresses are those of the process that the arena is in. Where another one maps the memory
// elsewhere, it moves all four by the same distance.
//
// In C11 terms, for the one writer of the slot, which `slot` points to:
//
// ```c
// _Atomic(uint32_t) *version = (void *)slot->version;
// _Atomic(uintptr_t) *payload = (void *)slot->payload;
// _Atomic(uint8_t) *hint = (void *)slot->hint, *chunk_hint = (void *)slot->chunk_hint;
//
// uint32_t odd = atomic_load_explicit(version, memory_order_relaxed) | 1;
// atomic_store_explicit(version, odd, memory_order_relaxed);
// atomic_thread_fence(memory_order_release);
// for (size_t i = 0; i < slot->stride / sizeof(uintptr_t); i++)
//     atomic_store_explicit(&payload[i], words[i], memory_order_relaxed);
// atomic_store_explicit(version, odd + 1, memory_order_release);
// atomic_store_explicit(hint, 1, memory_order_release);
// atomic_store_explicit(chunk_hint, 1, memory_order_release);
// ```
typedef struct PugmarkSlotBinding {
  // The slot's version: 32 bits, aligned to them.
  uint32_t *version;
  // The slot's bytes, aligned to a machine word.
  uint8_t *payload;
  // The slot's hint byte.
  uint8_t *hint;
  // The hint byte of its chunk.
  uint8_t *chunk_hint;
  // How many bytes the slot has: a multiple of a machine word.
  size_t stride;
  // The slot's chunk in its arena.
  uint32_t chunk;
  // The slot in its chunk.
  uint32_t slot;
} PugmarkSlotBinding;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Marks one bit.
//
// Any number of threads may mark at the same time, in C and in Rust, while others drain. What the
// caller wrote before it marks, whoever drains the mark finds written.
//
// Returns OK, NULL, MISALIGNED, TOO_SMALL, or OUT_OF_RANGE.
//
// # Safety
//
// What `bitmap` points at is a bitmap, and its words are memory that only pugmark accesses, or
// others atomically.
PugmarkStatus pugmark_mark(const struct PugmarkBitmap *bitmap, size_t bit);

// Marks `count` bits, from `first` on, with one atomic operation a word. Zero bits are none.
//
// Returns OK, NULL, MISALIGNED, TOO_SMALL, or OUT_OF_RANGE.
//
// # Safety
//
// As of `pugmark_mark`.
PugmarkStatus pugmark_mark_range(const struct PugmarkBitmap *bitmap, size_t first, size_t count);

// Writes the whole value of a slot, and tells the arena's reader of it.
//
// It waits for nobody. The reader finds this value or the one before, never a part of each.
//
// Returns OK, NULL, MISALIGNED, BAD_STRIDE, or WRONG_LENGTH where `len` is not the stride.
//
// # Safety
//
// What `slot` points at is a binding that pugmark made, of an arena that is still there. At
// `bytes`, with any alignment, are `len` bytes, none of them the slot's own. Nobody else writes
// the slot at the same time, and its owner has not freed or recovered it since.
PugmarkStatus pugmark_slot_write(const struct PugmarkSlotBinding *slot,
                                 const void *bytes,
                                 size_t len);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PUGMARK_H */
