// The writer: it knows of slots nothing but their addresses.

import { parentPort, workerData } from 'node:worker_threads';
import { WORDS, fill } from './sample.mjs';

const { module, memory, slots } = workerData;
const env = { memory, bound() {}, changed() {}, descended() {} };
const { exports } = new WebAssembly.Instance(module, { env });
// Behind the module's data is room: first for one sample, and from the memory's end down the stack,
// for it must not be the main thread's.
const buffer = new Uint32Array(memory.buffer, exports.__heap_base.value, WORDS);
exports.__stack_pointer.value = memory.buffer.byteLength;

const words = new Uint32Array(memory.buffer);
const bytes = new Uint8Array(memory.buffer);

/** By the protocol that `SlotBinding` states, without pugmark. */
function writePlain({ version, payload, hint, chunkHint }, value) {
  const odd = Atomics.load(words, version / 4) | 1;
  Atomics.store(words, version / 4, odd);
  value.forEach((word, at) => Atomics.store(words, payload / 4 + at, word));
  Atomics.store(words, version / 4, odd + 1);
  Atomics.store(bytes, hint, 1);
  Atomics.store(bytes, chunkHint, 1);
}

/** By `SlotBinding::write`. */
function writeBinding({ version, payload, hint, chunkHint }, value) {
  buffer.set(value);
  if (!exports.write(version, payload, hint, chunkHint, buffer.byteOffset)) {
    throw new Error('a slot of another length');
  }
}

const value = new Uint32Array(WORDS);

// Writes samples `numbers` to each slot of `indices`, all of one number before the next one.
parentPort.on('message', ({ indices, numbers: [first, last], done }) => {
  for (let number = first; number <= last; number++) {
    for (const index of indices) {
      fill(value, index, number);
      const write = index % 2 ? writePlain : writeBinding;
      write(slots[index], value);
    }
  }
  Atomics.store(done, 0, 1);
});
