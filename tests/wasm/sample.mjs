// What is written to a slot: words that follow from one another, so that a torn value gives itself
// away.

export const WORDS = 16;

/** Sample `number` of a slot, in `words`. */
export function fill(words, slot, number) {
  words[0] = number;
  for (let at = 1; at < WORDS; at++) {
    // Odd: words of different samples differ everywhere.
    words[at] = Math.imul(words[at - 1], 0x9e3779b1) ^ slot;
  }
}

/** The number of the sample that these words are; `undefined` if they are parts of several. */
export function numberOf(words, slot) {
  const expected = new Uint32Array(WORDS);
  fill(expected, slot, words[0]);
  return words.every((word, at) => word === expected[at]) ? words[0] : undefined;
}
