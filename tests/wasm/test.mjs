// node test.mjs MODULE.wasm: one thread writes slots in shared WebAssembly memory, by plain
// addresses; the main thread descends meanwhile.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { WORDS, numberOf } from './sample.mjs';

const PAGES = 32;
const STRIDE = WORDS * 4;
const memory = new WebAssembly.Memory({ initial: PAGES, maximum: PAGES, shared: true });
const module = new WebAssembly.Module(readFileSync(process.argv[2]));

// What the main thread is told.
const slots = [];
let ranges = [];
let counts;
const { exports } = new WebAssembly.Instance(module, {
  env: {
    memory,
    bound: (version, payload, hint, chunkHint, stride) =>
      slots.push({ version, payload, hint, chunkHint, stride }),
    changed: (offset, bytes, length) => ranges.push({ offset, bytes, length }),
    descended: (visited, updated, torn) => (counts = { visited, updated, torn }),
  },
});
exports.start();

/** The last sample of each slot that a descend gave. */
const numbers = new Array(slots.length).fill(0);

/** Descends, and checks every value that it gave. */
function descend() {
  ranges = [];
  exports.descend();
  let end = -1;
  for (const { offset, bytes, length } of ranges) {
    assert(offset > end, 'ranges ascend, and neighbours come as one');
    end = offset + length;
    for (let at = 0; at < length; at += STRIDE) {
      const slot = (offset + at) / STRIDE;
      const number = numberOf(new Uint32Array(memory.buffer, bytes + at, WORDS), slot);
      assert(number !== undefined, `slot ${slot} is torn`);
      assert(number >= numbers[slot], `slot ${slot} went back in time`);
      numbers[slot] = number;
    }
  }
  const given = ranges.reduce((sum, { length }) => sum + length / STRIDE, 0);
  assert.equal(given, counts.updated);
  return counts;
}

const worker = new Worker(new URL('worker.mjs', import.meta.url), {
  workerData: { module, memory, slots },
});
worker.on('error', (error) => {
  throw error;
});

/** Has the worker write, and does `meanwhile` until it has. */
async function write(indices, [first, last], meanwhile) {
  const done = new Int32Array(new SharedArrayBuffer(4));
  worker.postMessage({ indices, numbers: [first, last], done });
  while (!Atomics.load(done, 0)) {
    meanwhile?.();
    // The worker cannot start, and its errors cannot arrive, before this thread lets them.
    await new Promise(setImmediate);
  }
}

const all = [...slots.keys()];

async function everySlotComesAsOneRange() {
  await write(all, [1, 1]);
  assert.deepEqual(descend(), { visited: all.length, updated: all.length, torn: 0 });
  assert.deepEqual(ranges.map(({ length }) => length), [all.length * STRIDE]);
}

async function onlyNeighboursAreCoalesced() {
  // 63 and 64 are neighbours in different chunks.
  await write([255, 9, 63, 5, 64, 7, 8], [2, 2]);
  assert.equal(descend().updated, 7);
  const found = ranges.map(({ offset, length }) => [offset / STRIDE, length / STRIDE]);
  assert.deepEqual(found, [[5, 1], [7, 3], [63, 2], [255, 1]]);
}

async function whatDidNotChangeIsNotGiven() {
  assert.deepEqual(descend(), { visited: 0, updated: 0, torn: 0 });
}

async function nothingIsTornWhileTheWorkerWrites() {
  const last = 3_000;
  const total = { descends: 0, updated: 0, torn: 0 };
  await write(all, [3, last], () => {
    const { updated, torn } = descend();
    total.descends += 1;
    total.updated += updated;
    total.torn += torn;
  });
  descend();
  assert(numbers.every((number) => number === last), 'every last value arrives');
  console.log(
    `  ${(last - 2) * all.length} writes; ${total.descends} descends found ${total.updated},` +
      ` and ${total.torn} in mid-write`,
  );
}

let failed = 0;
const tests = [
  everySlotComesAsOneRange,
  onlyNeighboursAreCoalesced,
  whatDidNotChangeIsNotGiven,
  nothingIsTornWhileTheWorkerWrites,
];
for (const test of tests) {
  try {
    await test();
    console.log(`test ${test.name} ... ok`);
  } catch (error) {
    failed += 1;
    console.log(`test ${test.name} ... FAILED\n${error.stack}`);
  }
}
await worker.terminate();
console.log(`${tests.length - failed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
